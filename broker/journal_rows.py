"""What stands in a row of the journal's orders, and what a broker's report makes of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from broker.models import FINAL_STATUSES, Order, OrderReport, OrderRequest, Status
from broker.tables import orders

#: an order's body: what must agree for the same client order id to be the same order
BODY = (
    "symbol",
    "side",
    "qty",
    "order_type",
    "limit_price",
    "time_in_force",
    "stop_price",
    "notional",
    "trail_amount",
    "trail_percent",
    "take_profit_price",
    "stop_loss_price",
    "extended_hours",
)
#: who placed an order that the broker showed and nobody sent from here
FOREIGN = "not through this journal"
#: what a replacement can change
REPLACEABLE = ("qty", "limit_price", "stop_price", "time_in_force")
#: what a report may leave out; what was told before stays then
_TOLD = ("broker_status", "broker_order_id", "permanent_id", "reason", "reason_code")
#: a row in which nothing stands
EMPTY: dict[str, Any] = dict.fromkeys(orders.c.keys())
#: what only the journal keeps of an order
_KEPT = frozenset({"asked", "change"})


def row_of(account: str, request: OrderRequest, now: datetime, **values: Any) -> dict[str, Any]:
    """The row of a new order, as `recorded` unless `values` say otherwise."""
    return {name: getattr(request, name) for name in BODY} | {
        "id": uuid.uuid4().hex,
        "account": account,
        "client_order_id": request.client_order_id,
        "placed_by": request.placed_by,
        "status": Status.RECORDED,
        "filled_qty": 0.0,
        "warnings": [],
        "parent_id": None,
        "replaces": None,
        "legs": [],
        "created_at": now,
        "updated_at": now,
        "sent_at": None,
        **values,
    }


def changes_of(row: Any, report: OrderReport) -> dict[str, Any]:
    """What a report changes in a row (or in an `Order`), by column; empty when it says nothing new.

    Only a fill changes a final order, and filled quantities never fall.
    """
    values: dict[str, Any] = {}
    final = row.status in FINAL_STATUSES
    # A late or repeated status must not reopen a final order; a fill is a fact whatever came before.
    stale = report.filled_qty < row.filled_qty and report.status not in FINAL_STATUSES
    if (not final and not stale) or report.status == Status.FILLED:
        values["status"] = report.status
    for name in _TOLD:
        if getattr(report, name) is not None:
            values[name] = getattr(report, name)
    if report.filled_qty >= row.filled_qty and report.filled_price is not None:
        values |= {"filled_qty": report.filled_qty, "filled_price": report.filled_price}
    if report.warnings:
        values["warnings"] = list(dict.fromkeys([*row.warnings, *report.warnings]))
    if not final:
        values |= _replaced(row, report)
    return {name: value for name, value in values.items() if name in _KEPT or value != getattr(row, name)}


def _replaced(row: Any, report: OrderReport) -> dict[str, Any]:
    """What the broker shows otherwise than the journal; the body that was asked for is kept beside it."""
    told = {name: getattr(report, name) for name in REPLACEABLE}
    news = {n: value for n, value in told.items() if value is not None and value != getattr(row, n)}
    if not news:
        return {}
    # A broker that decides the quantity of a notional order replaces nothing.
    asked = getattr(row, "asked", None) or {name: getattr(row, name) for name in BODY}
    return {**news, "asked": asked, "change": None}


def reported(order: Order, report: OrderReport) -> Order:
    """The order as the journal will show it once it has taken the report down."""
    values = {name: value for name, value in changes_of(order, report).items() if name not in _KEPT}
    return replace(order, **values, updated_at=datetime.now(UTC).isoformat()) if values else order


def order_of(row: Row[Any]) -> Order:
    """The order that stands in a row."""
    return new_order(row._asdict())


def new_order(row: Mapping[str, Any]) -> Order:
    """The order that these values of a row make, without asking the database for it."""
    return Order(
        id=row["id"],
        symbol=row["symbol"],
        side=row["side"],
        qty=row["qty"],
        order_type=row["order_type"],
        status=row["status"],
        limit_price=row["limit_price"],
        filled_qty=row["filled_qty"],
        filled_price=row["filled_price"],
        created_at=_text(row["created_at"]),
        client_order_id=row["client_order_id"],
        time_in_force=row["time_in_force"],
        account_id=row["account"],
        updated_at=_text(row["updated_at"]),
        reason=row["reason"],
        reason_code=row["reason_code"],
        broker_order_id=row["broker_order_id"],
        permanent_id=row["permanent_id"],
        broker_status=row["broker_status"],
        warnings=list(row["warnings"]),
        stop_price=row["stop_price"],
        notional=row["notional"],
        trail_amount=row["trail_amount"],
        trail_percent=row["trail_percent"],
        take_profit_price=row["take_profit_price"],
        stop_loss_price=row["stop_loss_price"],
        extended_hours=bool(row["extended_hours"]),
        commission=row["commission"],
        parent_id=row["parent_id"],
        replaces=row["replaces"],
        legs=list(row["legs"] or []),
    )


def in_utc(moment: datetime) -> datetime:
    """A time of a row. SQLite gives them back without their zone; they were stored in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else in_utc(moment).isoformat()
