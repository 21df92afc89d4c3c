"""Executions as TWS tells them, and their ids.

An id has four parts, of which the last counts corrections: `0001f4e8.675aa1b2.01.01` is corrected by
`0001f4e8.675aa1b2.01.02` (TWS API, "Executions"). Commissions come in a message of their own, which
names the corrected id, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from broker.models import Fill


@dataclass
class Execution:
    """One execution. Written on the loop's thread."""

    id: str
    shares: float
    price: float
    time: str = ""
    symbol: str = ""
    side: str = ""
    account: str = ""
    currency: str = "USD"
    commission: float | None = None
    key: str = field(init=False)
    revision: int = field(init=False)

    def __post_init__(self) -> None:
        self.key, self.revision = split_id(self.id)

    def fill(self, order_id: str, client_order_id: str) -> Fill:
        """The fill of an order of ours, or of none that the journal knows (both ids empty)."""
        return Fill(
            id=self.id,
            order_id=order_id,
            client_order_id=client_order_id,
            symbol=self.symbol,
            side=self.side,
            qty=self.shares,
            price=self.price,
            time=self.time or datetime.now(UTC).isoformat(),
            commission=self.commission,
            currency=self.currency,
            account_id=self.account,
        )


def split_id(execution_id: str) -> tuple[str, int]:
    """The part of an id that corrections share, and which correction it is; 0 for an id of another form."""
    shared, _, count = execution_id.rpartition(".")
    return (shared, int(count)) if shared and count.isascii() and count.isdigit() else (execution_id, 0)


def from_tws(contract: Any, execution: Any) -> Execution:
    """execDetails."""
    return Execution(
        execution.execId,
        float(execution.shares),
        float(execution.price),
        time=execution.time.astimezone(UTC).isoformat(),
        symbol=contract.symbol.replace(" ", "."),
        side="buy" if execution.side == "BOT" else "sell",
        account=execution.acctNumber,
        currency=contract.currency or "USD",
    )
