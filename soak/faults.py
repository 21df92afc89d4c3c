"""What can be made to go wrong, by name: how it begins and how it ends, for every front end that has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soak.world import World

Act = Callable[["World"], object]


def _nothing(_world: World) -> None:
    """Some faults are over as soon as they happen."""


@dataclass(frozen=True)
class Fault:
    """`begin` and `end` act on the venue or on the line, never on the broker."""

    begin: Act
    end: Act = _nothing
    only: frozenset[str] = frozenset({"ibkr", "alpaca", "client_portal"})


def _exchange(name: str, on: object, off: object) -> Fault:
    return Fault(lambda world: world.venue.fault(name, on), lambda world: world.venue.fault(name, off))


def _gateway(kind: str, action: str, **content: object) -> Fault:
    return Fault(lambda world: world.venue.gateway(action, **content), only=frozenset({kind}))


def _without_data(world: World) -> None:
    world.venue.fault("data_lost", True)
    world.venue.fault("link_down", True)


def _with_data(world: World) -> None:
    world.venue.fault("link_down", False)
    world.venue.fault("data_lost", False)


def _line_down(world: World) -> None:
    line = world.process.line
    world.venue.on_line(lambda: line.set_down(True))


def _line_up(world: World) -> None:
    line = world.process.line
    if not world.process.dead.is_set():
        world.venue.on_line(lambda: line.set_down(False))


def _line_cut(world: World) -> None:
    world.venue.on_line(world.process.line.cut)


def _resume(world: World) -> None:
    world.until(lambda: world.venue.gateway("resume"), "the gateway hears that it may go on")


def _remark(code: int, words: str) -> Fault:
    """A message code about the newest working order, which lives on."""

    def say(world: World) -> None:
        working = [row for row in world.venue.orders() if row["status"] in ("Submitted", "PreSubmitted")]
        number = working[-1]["client"].get("order_id") if working else None
        if number:
            world.venue.gateway("error", id=number, code=code, message=words)

    return Fault(say, only=frozenset({"ibkr"}))


FAULTS: dict[str, Fault] = {
    # the exchange, behind every front end
    "answer lost": _exchange("lose_answers", 1, 0),
    "link down": _exchange("link_down", True, False),
    "link and data lost": Fault(_without_data, _with_data),
    "links cut": Fault(lambda world: world.venue.admin("cut_links")),
    "rejects": _exchange("reject_orders", "Order rejected - reason: the soak says no", ""),
    "partial fills": _exchange("largest_fill", 1.0, 0.0),
    "held orders": _exchange("hold_orders", True, False),
    "slow exchange": _exchange("delay_answers", 0.2, 0.0),
    # the line between broker and front end
    "line cut": Fault(_line_cut),
    "line down": Fault(_line_down, _line_up),
    # TWS
    "clients dropped": _gateway("ibkr", "drop_clients"),
    "nightly restart": _gateway("ibkr", "restart", seconds=0.3),
    "gateway hangs": Fault(lambda world: world.venue.gateway("hang"), _resume, frozenset({"ibkr"})),
    "10349 on a live order": _remark(10349, "Order TIF was set to DAY based on order preset."),
    "399 on a live order": _remark(399, "Warning: your order will not be placed until 09:30"),
    # Alpaca
    "503": _gateway("alpaca", "api_errors", status=503, times=2),
    "429": _gateway("alpaca", "api_errors", status=429, times=1),
    "504 and not done": _gateway("alpaca", "api_errors", status=504, times=1, methods=["POST"]),
    "504 and done": _gateway("alpaca", "lose_answers", status=504, times=1, methods=["POST"]),
    "answer cut off": _gateway("alpaca", "lose_answers", status=0, times=1, methods=["POST"]),
    "slow Alpaca": _gateway("alpaca", "slow_answers", seconds=0.5, times=2),
    "streams dropped": _gateway("alpaca", "drop_streams"),
    # Client Portal
    "daily reset": _gateway("client_portal", "daily_reset"),
    "not established": _gateway("client_portal", "lose_established"),
    "portal 503": _gateway("client_portal", "api_errors", status=503, times=2),
    "portal 500": _gateway("client_portal", "api_errors", status=500, times=1),
    "slow portal": _gateway("client_portal", "slow_answers", seconds=0.5, times=2),
}


def faults_of(kind: str) -> list[str]:
    """The faults that a broker's venue can act out, in a fixed order."""
    return [name for name, fault in FAULTS.items() if kind in fault.only]
