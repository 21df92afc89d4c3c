"""What IBKR asks about an order, and which of it is confirmed without asking a person.

Confirmed by default is what only repeats, as a warning, what the caller asked for: the price, size,
value and type are the caller's own, were checked here, and are bounded by our limits. Everything
else refuses the order with IBKR's text. `IBEAM_CONFIRM` replaces the list: message ids with commas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: message id -> words that it is known by where IBKR sends no id
CONFIRMED: Final[dict[str, str]] = {
    "o163": "exceeds the Percentage constraint",  # a limit price far from the market
    "o354": "submitting an order without market data",
    "o383": "size exceeds the Size Limit",
    "o451": "exceeds the Total Value Limit",
    "o10138": "exceeds the size modification limit",
    "o10151": "A Market Order is an instruction to trade",
    "o10152": "A Stop Order - i.e. a Stop (Market) Order - is an instruction",
    "o10153": "not consistent with a fair and orderly market",  # IBKR may cap a market order's price
    "o10331": "You are about to submit a stop order",
}


@dataclass(frozen=True)
class Question:
    """A question; `id` is what the answer goes to."""

    id: str
    text: str
    message_ids: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """For `OrderRejected.code`."""
        return ",".join(self.message_ids) or "question"


class Policy:
    """Which questions are confirmed."""

    def __init__(self, confirm: frozenset[str] | None = None) -> None:
        """`confirm`: message ids; the default list without it."""
        self._ids = frozenset(CONFIRMED) if confirm is None else confirm

    def confirms(self, question: Question) -> bool:
        """True if all that is asked may be confirmed. A question that isn't known never is."""
        if question.message_ids:
            return all(message_id in self._ids for message_id in question.message_ids)
        known = [message_id for message_id, words in CONFIRMED.items() if words in question.text]
        return bool(known) and all(message_id in self._ids for message_id in known)
