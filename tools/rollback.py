"""`make rollback`: from IBKR back to Alpaca, once a person has said what becomes of each order and position.

IBKR knows nothing of a rollback: what rests there goes on resting, good-till-cancelled orders for months,
with nobody watching. So before anything is changed they are listed, good-till-cancelled orders first, and
each is cancelled or knowingly kept. Positions stay at IBKR in any case.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tools import service_check, summary
from tools.local_cloud import CommandFailed

FINAL = frozenset({"filled", "cancelled", "rejected", "expired"})
# An order in one of these may rest for longer than a day: `gtc` until it is cancelled.
LASTING = ("gtc", "gtd")
SECONDS_TO_CANCEL = 60.0
# Stands for all that can't be listed, when IBKR doesn't answer.
UNSEEN = "unseen"
KEEP, CANCEL, ACCEPT = "keep", "cancel", "accept"


class Target(Protocol):
    """The stack that goes back: a local or a real one."""

    name: str

    def outputs(self) -> dict[str, Any]: ...
    def configuration(self) -> Mapping[str, Any]: ...
    def configure(self, path: str, value: str | bool) -> None: ...
    def up(self) -> None: ...


@dataclass(frozen=True)
class Holding:
    """Something at IBKR: an order (by our id) or a position (by its symbol), and what may become of it."""

    key: str
    what: str
    choices: tuple[str, ...]


class Desk:
    """What the service trades through at IBKR: its default connection, and the second where there is one.

    Methods raise CommandFailed; `Unreachable` if a broker is away.
    """

    def __init__(self, url: str, token: str, connections: Sequence[str] = ("default",)) -> None:
        self._url, self._token, self._connections = url, token, connections
        self._of: dict[str, str] = {}

    def holdings(self) -> list[Holding]:
        """Open orders, those that last first, then positions."""
        orders, positions = [], []
        for connection in self._connections:
            where = f"{connection}: " if len(self._connections) > 1 else ""
            health = service_check.health(self._url, self._token, connection)
            if not health.ok:
                raise Unreachable(where + health.says)
            told = self._ask("GET", f"{connection}/orders?limit=500")
            for order in (order for order in told if order["status"] not in FINAL):
                self._of[order["id"]] = connection
                lasts = order["time_in_force"] in LASTING
                orders.append((not lasts, Holding(order["id"], where + describe(order), (CANCEL, KEEP))))
            for held in self._ask("GET", f"{connection}/positions"):
                what = f"{where}position of {held['qty']:g} {held['symbol']}"
                positions.append(Holding(str(held["symbol"]), what, (KEEP,)))
        orders.sort(key=lambda each: each[0])
        return [*(holding for _, holding in orders), *positions]

    def cancel(self, order_id: str) -> None:
        """Cancel an order, and wait until it is final."""
        path = f"{self._of[order_id]}/orders/{order_id}"
        self._ask("DELETE", path, or_status=409)  # it may have ended meanwhile
        until = time.monotonic() + SECONDS_TO_CANCEL
        while (order := self._ask("GET", path))["status"] not in FINAL:
            if time.monotonic() > until:
                raise CommandFailed(
                    f"The order {order_id} is {order['status']}, not cancelled, after "
                    f"{SECONDS_TO_CANCEL:.0f} s. The stack is unchanged; type the same command again."
                )
            time.sleep(0.5)
        print(f"  {order_id}: {order['status']}, filled {order['filled_qty']:g}")

    def _ask(self, method: str, path: str, or_status: int = 0) -> Any:
        """A JSON answer; None for an error of the status that is as good."""
        request = urllib.request.Request(
            f"{self._url}/api/v1/connections/{path}",
            method=method,
            headers={"Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == or_status:
                return None
            said = service_check.reason_in(error)
            raise CommandFailed(f"{method} {path}: the service answers {error.code}: {said}") from None
        except OSError as error:
            raise CommandFailed(f"{self._url} doesn't answer: {error}") from None


class Unreachable(Exception):
    """The broker is away, so what rests there can't be listed. The message says why."""


def describe(order: Mapping[str, Any]) -> str:
    """One order in a line, its time in force first where it lasts."""
    lasting = "GOOD TILL CANCELLED " if order["time_in_force"] == "gtc" else ""
    price = f" at {order['limit_price']:g}" if order.get("limit_price") else ""
    price += f" stop {order['stop_price']:g}" if order.get("stop_price") else ""
    how_much = f"{order['qty']:g}" if order.get("qty") else f"for {order.get('notional')}"
    return (
        f"{lasting}{order['side']} {how_much} {order['symbol']} {order['order_type']}{price}, "
        f"{order['time_in_force']}, {order['status']}, filled {order['filled_qty']:g}"
    )


def given(text: str) -> dict[str, str]:
    """DECISIONS: `ID=cancel ID=keep AAPL=keep`, with spaces or commas between. Raises CommandFailed."""
    decisions: dict[str, str] = {}
    for part in text.replace(",", " ").split():
        key, separator, what = part.partition("=")
        if not (key and separator and what in (KEEP, CANCEL, ACCEPT)):
            raise CommandFailed(
                f"DECISIONS has {part!r}; write an order's id or a symbol, = and keep or cancel."
            )
        decisions[key] = what
    return decisions


def decide(
    holdings: Sequence[Holding], decisions: Mapping[str, str], ask: Callable[[str], str] | None
) -> dict[str, str]:
    """What becomes of each. `ask` asks a person; without one, all must be in `decisions`.

    Raises CommandFailed that says all that is missing or doesn't fit, before anything is changed.
    """
    made, problems = {}, []
    for holding in holdings:
        choice = decisions.get(holding.key, "")
        while choice not in holding.choices and ask is not None:
            choice = ask(f"{holding.what}\n  {' or '.join(holding.choices)}? ").strip().lower()
        if choice in holding.choices:
            made[holding.key] = choice
        else:
            problems.append(f"{holding.key}={'|'.join(holding.choices)}   # {holding.what}")
    if problems:
        listed = "\n  ".join(problems)
        raise CommandFailed(
            f"The stack is unchanged. Say what becomes of each, in DECISIONS='...':\n  {listed}\n"
            "A position stays at IBKR: sell it first if it shouldn't."
        )
    return made


def changes(config: Mapping[str, Any]) -> dict[str, str | bool]:
    """The settings of the rollback. A protected gateway stays: that takes a decision of its own."""
    settings: dict[str, str | bool] = {"ibkr:brokerType": "alpaca"}
    if config.get("ibkr:marketDataSource") == "ibkr":
        settings["ibkr:marketDataSource"] = "alpaca"
    if not protected(config):
        settings["ibkr:gateway.enabled"] = False
    return settings


def protected(config: Mapping[str, Any]) -> list[str]:
    """What keeps the gateway from being deleted."""
    gateway = config.get("ibkr:gateway") or {}
    return [f"ibkr:gateway.{key}" for key in ("protectSettings", "deletionProtection") if gateway.get(key)]


def check(target: Target, config: Mapping[str, Any]) -> None:
    """Raise CommandFailed if this stack can't go to Alpaca."""
    keys = config.get("ibkr:alpaca") or {}
    missing = [name for name in ("apiKey", "secretKey") if not keys.get(name)]
    if missing and target.name != "local":  # there the local cloud's own are set by `up`
        commands = "\n".join(
            f"  pulumi config set --stack {target.name} --secret --path 'ibkr:alpaca.{name}'"
            for name in missing
        )
        raise CommandFailed(f"Nothing was changed. Alpaca's keys are missing:\n{commands}")


def where_to(config: Mapping[str, Any]) -> str:
    """Which Alpaca it is."""
    if config.get("ibkr:tradingMode") == "live":
        return "Alpaca LIVE: orders there trade with real money."
    return "Alpaca paper: no real money."


def connections(config: Mapping[str, Any]) -> list[str]:
    """The service's own connections: with paper and live side by side, the other one's id is its mode."""
    if (config.get("ibkr:gateway") or {}).get("mode") != "both":
        return ["default"]
    return ["default", "paper" if config.get("ibkr:tradingMode") == "live" else "live"]


def roll_back(
    target: Target, token: str, decisions: Mapping[str, str], ask: Callable[[str], str] | None
) -> None:
    """List, have decided, cancel, configure, `up`, and look. Typed again, it goes on.

    Raises CommandFailed.
    """
    config = target.configuration()
    check(target, config)
    url = str(target.outputs().get("service_url") or "")
    if not url:
        raise CommandFailed(f"The stack {target.name} has no service: there is nothing to roll back.")
    print(summary.painted(f"{target.name} goes from IBKR to {where_to(config)}", summary.BOLD))
    if config.get("ibkr:brokerType") != "alpaca":  # else an interrupted rollback goes on
        settle(Desk(url, token, connections(config)), decisions, ask)
    for path, value in changes(config).items():
        target.configure(path, value)
    target.up()
    health = service_check.wait(str(target.outputs()["service_url"]), token)
    print(f"Broker: {summary.broker(health)}. {where_to(config)}")
    if target.name != "local":
        print(f"Commit Pulumi.{target.name}.yaml: the next deployment of what is committed would undo this.")
    if protected(config):
        print(
            f"The gateway still runs, and is billed: {' and '.join(protected(config))} protect it. To remove "
            "it, set them to false, `make up`, then ibkr:gateway.enabled to false, `make up`."
        )
    if not health.ok:
        raise CommandFailed("Alpaca can't be reached with these keys: the service says why above.")


def settle(desk: Desk, decisions: Mapping[str, str], ask: Callable[[str], str] | None) -> None:
    """Have decided what becomes of all that is at IBKR, and cancel what shall be. Raises CommandFailed."""
    try:
        holdings = desk.holdings()
    except Unreachable as away:
        what = (
            f"IBKR can't be reached through the service ({away}), so open orders and positions can't be "
            "listed. Look at them in IBKR's portal or app, and cancel there what shall not go on"
        )
        decide([Holding(UNSEEN, what, (ACCEPT,))], decisions, ask)
        return
    rows: list[tuple[str, ...]] = [(holding.key, holding.what) for holding in holdings]
    print(summary.table(rows) or "  Nothing is open, and nothing is held.")
    print("  Orders entered elsewhere, in TWS or on a phone, aren't listed.")
    for key in sorted(decisions.keys() - {holding.key for holding in holdings}):
        print(f"  {key}: nothing of that name is open any more")
    made = decide(holdings, decisions, ask)
    for key, choice in made.items():
        if choice == CANCEL:
            desk.cancel(key)
    # Cancelling takes a while: a fill meanwhile is a position, and a program may have placed an order.
    decide(desk.holdings(), made | dict(decisions), ask)
