"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from broker.models import (
    AccountInfo,
    Clock,
    EntryKind,
    Fill,
    Health,
    Order,
    OrderPreview,
    Position,
    Quote,
    Status,
    Timeline,
)
from broker.risk.verification import Verification
from broker.timeline_words import executed_at, more, what

if TYPE_CHECKING:
    from broker.brokers.client_portal.acceptance import GatewayCertificate

_BAD = frozenset({Status.REJECTED, Status.UNKNOWN, Status.INACTIVE})


def money(value: float | None) -> str:
    """An amount with two decimals, or a dash: nothing was told."""
    return "-" if value is None else f"{value:,.2f}"


def price(value: float | None) -> str:
    """A price with as many decimals as it needs, at least two."""
    if value is None:
        return "-"
    text = f"{value:,.4f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def quantity(value: float | None) -> str:
    """Shares, without decimals that say nothing."""
    return "-" if value is None else f"{value:,.6f}".rstrip("0").rstrip(".")


def _table(title: str, left: Sequence[str], right: Sequence[str] = (), trailing: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in trailing:
        table.add_column(name, overflow="fold")
    return table


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=SIMPLE_HEAD)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def account_table(found: AccountInfo, mode: str) -> Table:
    """Balances."""
    last = f"{money(found.last_equity)}  ({found.last_equity_source})"
    rows = [
        ("cash", money(found.cash)),
        ("buying power", money(found.buying_power)),
        ("portfolio value", money(found.portfolio_value)),
        ("equity", money(found.equity)),
        ("last equity", last if found.last_equity_source else money(found.last_equity)),
        ("currency", found.currency),
    ]
    return _pairs(f"Account {found.id} ({mode})", rows)


def positions_table(found: Sequence[Position]) -> Table:
    """Positions with their gain; a short one has a negative quantity."""
    table = _table("Positions", ["symbol"], ["qty", "entry", "price", "value", "gain", "%"])
    for p in found:
        gain = Text(money(p.unrealized_pl), style="red" if p.unrealized_pl < 0 else "green")
        row = (quantity(p.qty), price(p.avg_entry_price), price(p.current_price), money(p.market_value))
        table.add_row(p.symbol, *row, gain, f"{p.unrealized_plpc * 100:.2f}")
    return table


def orders_table(found: Sequence[Order], title: str = "Orders") -> Table:
    """Orders with our ids, which other commands take; of a single one its client order id, too."""
    table = _table(title, ["created"], ["filled", "at"], ["status"])
    table.columns[0].min_width, table.columns[3].min_width = len("11-23 15:30"), len("submitted")
    table.add_column("order", overflow="fold", min_width=32)  # an id is taken over as one word
    for order in found:
        status = Text(order.status, style="red" if order.status in _BAD else "")
        if order.reason:
            status.append(f": {order.reason}")
        what = Text(words(order)).append(f"\n{order.id}", style="dim")
        if len(found) == 1:
            what.append(f"\n{order.client_order_id}", style="dim")
        filled = f"{quantity(order.filled_qty)}/{quantity(order.qty)}"
        when = (order.created_at or "")[5:19].replace("T", " ")
        table.add_row(when, filled, price(order.filled_price), status, what)
    return table


def timeline_table(life: Timeline) -> Table:
    """What happened to an order, oldest first."""
    table = _table("What happened", ["time (UTC)", "what"], [], [""])
    for entry in life.entries:
        said = more(entry)
        if when := executed_at(entry):
            said = f"{said}, told late: executed {_when(when)}".removeprefix(", ")
        style = "yellow" if entry.kind == EntryKind.GAP else "red" if entry.status in _BAD else ""
        table.add_row(_when(entry.at), Text(what(entry), style=style), Text(said))
    return table


def _when(moment: str) -> str:
    return moment[:19].replace("T", " ")


def words(order: Any) -> str:
    """An order or a request in words: `buy 10 AAPL limit 150.00 day`."""
    size = quantity(order.qty) if order.notional is None else f"for {money(order.notional)}"
    parts = [order.side, size, order.symbol, order.order_type.replace("_", " ")]
    if order.stop_price is not None:
        parts.append(f"at {price(order.stop_price)}")
    if order.limit_price is not None:
        parts.append(f"limit {price(order.limit_price)}" if order.stop_price else price(order.limit_price))
    if order.trail_amount is not None:
        parts.append(f"by {price(order.trail_amount)}")
    if order.trail_percent is not None:
        parts.append(f"by {order.trail_percent:g} %")
    if order.take_profit_price is not None:
        parts.append(f"take profit {price(order.take_profit_price)}")
    if order.stop_loss_price is not None:
        parts.append(f"stop loss {price(order.stop_loss_price)}")
    return " ".join([*parts, order.time_in_force])


def fills_table(found: Sequence[Fill]) -> Table:
    """Executions, one a row."""
    table = _table("Fills", ["time", "side", "symbol"], ["qty", "price", "commission"], ["order"])
    for f in found:
        row = (quantity(f.qty), price(f.price), price(f.commission))
        table.add_row(f.time[:19].replace("T", " "), f.side, f.symbol, *row, f.order_id or "not ours")
    return table


def quotes_table(found: Sequence[Quote]) -> Table:
    """Prices with their age."""
    table = _table("Quotes", ["symbol"], ["bid", "ask", "last", "close", "age"], ["kind", "source"])
    for q in found:
        row = (price(q.bid), price(q.ask), price(q.last), price(q.close), age(q.age_seconds))
        table.add_row(q.symbol, *row, q.kind, q.source)
    return table


def age(seconds: float) -> str:
    """An age in the unit that fits: 0.4 s, 12 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def health_table(found: Health) -> Table:
    """The link to the broker."""
    rows = [("state", found.state), ("since", found.since)]
    rows += [("reason", found.reason)] if found.reason else []
    rows += [("doing", found.doing)] if found.doing else []
    rows += [("proved at", found.proved_at or "not proved")]
    if found.round_trip_ms is not None:
        rows.append(("round trip", f"{found.round_trip_ms:.1f} ms"))
    if found.second_factor:
        rows.append(("second factor", "a person has to confirm the login"))
    if found.next_reset:
        rows.append(("next reset", found.next_reset))
    rows += [(name.replace("_", " "), str(value)) for name, value in found.details.items() if value]
    return _pairs("Connected" if found.ok else "Not connected", rows)


def verification_table(found: Verification) -> Table:
    """A gateway's checks, with the remedy beside those that failed."""
    verdict = "passed" if found.passed else "failed"
    table = _table(f"Verification of {found.gateway}: {verdict}", ["check", "result"], [], ["found"])
    for check in found.checks:
        said = check.found if check.passed else f"{check.found} ({check.remedy})"
        table.add_row(check.name, "pass" if check.passed else "FAIL", said)
    return table


def certificate_table(found: GatewayCertificate) -> Table:
    """The certificate that a gateway shows, and the pinned one."""
    rows = [("shows", found.shown), ("pinned", found.pinned or "none: there was no connection yet")]
    if found.pinned_at is not None:
        rows.append(("pinned by", f"{found.pinned_by}, {found.pinned_at.isoformat()}"))
    same = not found.pinned or found.pinned == found.shown
    return _pairs(f"{found.gateway}: " + ("as pinned" if same else "ANOTHER CERTIFICATE"), rows)


def clock_table(found: Clock) -> Table:
    """Open or closed, and until when."""
    rows = [("time", found.time), ("next open", found.next_open or "-")]
    rows += [("next close", found.next_close or "-"), ("says", found.source)]
    return _pairs("The market is open" if found.is_open else "The market is closed", rows)


def preview_table(found: OrderPreview) -> Table:
    """What an order would cost."""
    rows = [("estimated cost", money(found.estimated_cost)), ("commission", price(found.commission))]
    if found.commission_range is not None:
        rows.append(("commission from, to", " to ".join(price(end) for end in found.commission_range)))
    rows += [
        ("initial margin after", money(found.initial_margin_after)),
        ("maintenance margin after", money(found.maintenance_margin_after)),
        ("equity after", money(found.equity_after)),
        ("buying power after", money(found.buying_power_after)),
    ]
    rows += [("warning", text) for text in found.warnings]
    kind = found.order_type.replace("_", " ")
    return _pairs(f"Preview: {found.side} {quantity(found.qty)} {found.symbol} {kind}", rows)


def switch_table(found: Any) -> Table:
    """The kill switch."""
    rows = [("since", found.since.isoformat())] if found.since is not None else []
    rows += [(name, text) for name, text in (("by", found.by), ("reason", found.reason)) if text]
    rows += [("lifted at", found.source)] if found.halted else []
    return _pairs("Trading is HALTED" if found.halted else "Trading is on", rows)


def limits_table(found: Any) -> Table:
    """The limits; "none" where there is none."""
    names = [(field.name, getattr(found, field.name)) for field in fields(found)]
    rows = [(name.replace("_", " "), _limit(value)) for name, value in names]
    return _pairs("Limits", rows)


def _limit(value: Any) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return quantity(value)
