"""What can be made to go wrong on purpose, over the admin socket."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from localcloud.exchange.models import Refused


@dataclass
class Faults:
    """Every fault is off by default; setting one to its default switches it off.

    link_down: gateways lose their link and can't log in again (1100 at the TWS front end).
    data_lost: the next restored link has lost its subscriptions (1101 instead of 1102).
    farms_down: market data farms are not there (2103); quotes stop.
    reject_orders: every order is refused with this reason ("" is off).
    lose_answers: the next N orders are accepted, and the link breaks before the answer leaves.
    hold_orders: orders are accepted and stay PreSubmitted.
    delay_answers: seconds by which every answer is late.
    largest_fill: shares that trade at once (0 is off), which makes partial fills.
    market_data: live, delayed (10167), none (354) or competing (10197).
    """

    link_down: bool = False
    data_lost: bool = False
    farms_down: bool = False
    reject_orders: str = ""
    lose_answers: int = 0
    hold_orders: bool = False
    delay_answers: float = 0.0
    largest_fill: float = 0.0
    market_data: str = "live"

    def set(self, name: str, value: Any) -> None:
        """Switches a fault. Raises Refused when it isn't known or the value has the wrong type."""
        known = {item.name: type(item.default) for item in fields(self)}
        if name not in known:
            raise Refused("invalid", f"fault {name!r} is not one of {', '.join(sorted(known))}")
        kind = known[name]
        if isinstance(value, int) and not isinstance(value, bool) and kind is float:
            value = float(value)
        if type(value) is not kind:
            raise Refused("invalid", f"fault {name} takes a {kind.__name__}, not {value!r}")
        setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """All faults and how they are set."""
        return asdict(self)
