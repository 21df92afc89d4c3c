"""Paper or live: what says so, and whether all that says so agrees.

Three things tell which kind of trading a connection leads to: the declared mode, the port (of
Alpaca: the endpoint), and the account's name. A slip in one of them is how a test order reaches a
real account, so a disagreement of any two stops all orders. What says nothing (a forwarded port,
a proxy's endpoint) can't disagree; the account always has to say something.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from broker.errors import PaperLiveMismatch
from broker.validation import shown

Mode = Literal["paper", "live"]

#: the API ports of IB Gateway and of TWS, as they are installed
_PORTS: Final[dict[int, Mode]] = {4001: "live", 7496: "live", 4002: "paper", 7497: "paper"}
#: Alpaca's trading endpoints
_ENDPOINTS: Final[dict[str, Mode]] = {"api.alpaca.markets": "live", "paper-api.alpaca.markets": "paper"}
#: IBKR: DU and DF are paper users' and advisors' accounts, U and F the real ones (I: an advisor's client)
_IBKR_PAPER, _IBKR_LIVE = re.compile(r"D[UFI]\d+[A-Z]?"), re.compile(r"[UFI]\d+[A-Z]?")
#: Alpaca's account numbers: PA... is paper, the real ones have digits
_ALPACA_PAPER, _ALPACA_LIVE = re.compile(r"PA[0-9A-Z]+"), re.compile(r"\d+")


@dataclass(frozen=True)
class Declared:
    """What a connection's settings say, before anybody has logged in."""

    #: ibkr, ibeam, client_portal, alpaca or simulated
    broker: str
    #: paper, live, or empty: not declared
    mode: str = ""
    port: int = 0
    endpoint: str = ""

    @property
    def settings_mode(self) -> Mode:
        """Which limits hold before the account is known: live's, unless the settings say paper."""
        if self.broker == "simulated":
            return "paper"
        said = {m for _, _, m in self.evidence() if m}
        return "paper" if said == {"paper"} else "live"

    def evidence(self) -> list[tuple[str, str, Mode | None]]:
        """What says something: its name, its value, and the mode it stands for (None: it doesn't tell)."""
        found: list[tuple[str, str, Mode | None]] = [("declared mode", self.mode or "none", _mode(self.mode))]
        if self.broker == "alpaca":
            host = (urlsplit(self.endpoint).hostname or "") if self.endpoint else ""
            # Without an endpoint of its own the client takes Alpaca's for the declared mode.
            found.append(("endpoint", host or "Alpaca's own", _ENDPOINTS.get(host)))
        elif self.port:
            found.append(("port", str(self.port), _PORTS.get(self.port)))
        return found


def account_mode(broker: str, account: str) -> Mode | None:
    """The mode that an account's name stands for, or None: it says nothing."""
    paper, live = (_ALPACA_PAPER, _ALPACA_LIVE) if broker == "alpaca" else (_IBKR_PAPER, _IBKR_LIVE)
    if paper.fullmatch(account):
        return "paper"
    return "live" if live.fullmatch(account) else None


def agreed_mode(declared: Declared, account: str) -> Mode:
    """The one mode that everything stands for. `account`: as the broker names it, such as DU1234567.

    Raises `PaperLiveMismatch` naming what disagrees, or that the account says nothing.
    """
    if declared.broker == "simulated":
        return "paper"
    evidence = [*declared.evidence(), ("account", shown(account), account_mode(declared.broker, account))]
    told = [(name, value, mode) for name, value, mode in evidence if mode is not None]
    words = ", ".join(f"{name} {value} is {mode}" for name, value, mode in told)
    if len({mode for _, _, mode in told}) > 1:
        raise PaperLiveMismatch(
            f"{_disagreeing(told)}: {words}; correct the settings or log in to the other account"
        )
    if evidence[-1][2] is None:
        begin = "PA or digits" if declared.broker == "alpaca" else "DU, DF, U or F"
        raise PaperLiveMismatch(
            f"the account {shown(account)} doesn't tell whether it is paper or live: {begin} was expected"
        )
    return told[0][2]


def _disagreeing(told: list[tuple[str, str, Mode]]) -> str:
    """The names that stand alone against the others; with one against one, both."""
    by_mode: dict[Mode, list[str]] = {}
    for name, _, mode in told:
        by_mode.setdefault(mode, []).append(name)
    few, many = sorted(by_mode.values(), key=len)
    return f"{' and '.join(few)} disagree{'s' if len(few) == 1 else ''} with {' and '.join(many)}"


def _mode(text: str) -> Mode | None:
    return "paper" if text == "paper" else "live" if text == "live" else None
