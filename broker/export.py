"""Trades, orders and fees as CSV (RFC 4180), with columns that stay as they are: new ones come at the end.

Every time stands in the file twice, in UTC and in the zone asked for, both as ISO 8601 with offset.
Prices and amounts are in the row's currency; a commission that the broker hasn't told is an empty
cell, never 0. Fees that a broker books for a day's trades together (Alpaca) are in no trade's row:
`fees_csv` writes them.

A text that a spreadsheet would take for a formula (it begins with = + - @, a tab or a line break)
gets an apostrophe in front, and so does one that begins with an apostrophe, which is how
`read_trades` knows which ones to take away. Numbers are left alone: -1.5 is one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from broker.errors import FieldProblem, InvalidRequest, shown
from broker.models import Fee, Fill, Order

TRADE_COLUMNS: Final = (
    "time_utc",
    "time_local",
    "account",
    "symbol",
    "side",
    "qty",
    "price",
    "value",
    "commission",
    "currency",
    "fill_id",
    "order_id",
    "client_order_id",
)
ORDER_COLUMNS: Final = (
    "created_utc",
    "created_local",
    "updated_utc",
    "updated_local",
    "account",
    "symbol",
    "side",
    "qty",
    "notional",
    "order_type",
    "limit_price",
    "stop_price",
    "trail_amount",
    "trail_percent",
    "time_in_force",
    "status",
    "filled_qty",
    "filled_price",
    "commission",
    "order_id",
    "client_order_id",
    "broker_order_id",
    "permanent_id",
    "parent_id",
    "replaces",
    "reason",
)
FEE_COLUMNS: Final = ("date", "account", "kind", "symbol", "amount", "currency", "description", "fee_id")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def trades_csv(fills: Iterable[Fill], zone: str = "UTC") -> str:
    """Fills with commissions, oldest first. `zone`: such as America/New_York. Raises `InvalidRequest`."""
    local = check_zone(zone)
    rows = [_trade(fill, local) for fill in sorted(fills, key=lambda f: (_moment(f.time), f.id))]
    return _written(TRADE_COLUMNS, rows)


def orders_csv(orders: Iterable[Order], zone: str = "UTC") -> str:
    """Orders as they are now, oldest first. `zone`: as for `trades_csv`. Raises `InvalidRequest`."""
    local = check_zone(zone)
    rows = [_order(order, local) for order in sorted(orders, key=lambda o: (o.created_at or "", o.id))]
    return _written(ORDER_COLUMNS, rows)


def fees_csv(fees: Iterable[Fee]) -> str:
    """Fees that were booked for an account beside its fills' commissions, oldest first; positive: paid."""
    rows = [
        [
            _safe(fee.date),
            _safe(fee.account_id),
            _safe(fee.kind),
            _safe(fee.symbol),
            _number(fee.amount),
            _safe(fee.currency),
            _safe(fee.description),
            _safe(fee.id),
        ]
        for fee in sorted(fees, key=lambda fee: (fee.date, fee.id))
    ]
    return _written(FEE_COLUMNS, rows)


def read_trades(text: str) -> list[Fill]:
    """The fills of what `trades_csv` wrote, their times in UTC. Raises `ValueError` for anything else."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if tuple(reader.fieldnames or ())[: len(TRADE_COLUMNS)] != TRADE_COLUMNS:
        raise ValueError(f"the columns aren't {', '.join(TRADE_COLUMNS)}")
    names = {"time": "time_utc", "id": "fill_id", "account_id": "account"}
    found = []
    for row in reader:
        cells = {f.name: row[names.get(f.name, f.name)] for f in fields_of(Fill)}
        values = {
            name: (float(cell) if cell else None) if name in ("qty", "price", "commission") else _text(cell)
            for name, cell in cells.items()
        }
        found.append(Fill(**values))  # type: ignore[arg-type]
    return found


def check_zone(zone: str) -> ZoneInfo:
    """The zone of that name. Raises `InvalidRequest`."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        said = "must be a time zone's name such as UTC or America/New_York"
        raise InvalidRequest([FieldProblem("zone", said, shown(zone))]) from None


def _trade(fill: Fill, zone: ZoneInfo) -> list[str]:
    return [
        *_times(fill.time, zone),
        _safe(fill.account_id),
        _safe(fill.symbol),
        _safe(fill.side),
        _number(fill.qty),
        _number(fill.price),
        _number(round(fill.qty * fill.price, 6)),
        _number(fill.commission),
        _safe(fill.currency),
        _safe(fill.id),
        _safe(fill.order_id),
        _safe(fill.client_order_id),
    ]


def _order(order: Order, zone: ZoneInfo) -> list[str]:
    return [
        *_times(order.created_at, zone),
        *_times(order.updated_at, zone),
        _safe(order.account_id),
        _safe(order.symbol),
        _safe(order.side),
        _number(order.qty),
        _number(order.notional),
        _safe(order.order_type),
        _number(order.limit_price),
        _number(order.stop_price),
        _number(order.trail_amount),
        _number(order.trail_percent),
        _safe(order.time_in_force),
        _safe(order.status),
        _number(order.filled_qty),
        _number(order.filled_price),
        _number(order.commission),
        _safe(order.id),
        _safe(order.client_order_id),
        _safe(order.broker_order_id),
        _safe(order.permanent_id),
        _safe(order.parent_id),
        _safe(order.replaces),
        _safe(order.reason),
    ]


def _written(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def _times(text: str | None, zone: ZoneInfo) -> tuple[str, str]:
    if not text:
        return "", ""
    moment = _moment(text)
    return moment.isoformat(), moment.astimezone(zone).isoformat()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _number(value: float | None) -> str:
    """The shortest text that reads as the same number, without an exponent for what people write without."""
    if value is None:
        return ""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _safe(value: str | None) -> str:
    text = value or ""
    return "'" + text if text.startswith(_FORMULA) else text


def _text(cell: str) -> str:
    return cell.removeprefix("'")
