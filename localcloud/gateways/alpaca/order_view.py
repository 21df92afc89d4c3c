"""An order as Alpaca shows it, from the exchange's row (docs.alpaca.markets, "Orders", the order object)."""

from __future__ import annotations

from typing import Any

from localcloud.gateways.alpaca import symbols
from localcloud.gateways.alpaca.order_form import TIMES, TYPES

Json = dict[str, Any]
_TYPE_NAMES = {code: name for name, code in TYPES.items()}
_TIME_NAMES = {code: name for name, code in TIMES.items()}
_ENDED_BECAUSE = {"expired": "expired", "replaced": "replaced"}
_STOPS = ("STP", "STP LMT")
#: `status=open` of the list: everything that can still trade.
OPEN = frozenset({"new", "accepted", "pending_new", "partially_filled", "held"})
#: "Order cannot be replaced when the status is accepted, pending_new ..." (Replace Order by ID).
REPLACEABLE = frozenset({"new", "partially_filled", "held"})


def order_id(account: str, perm_id: int) -> str:
    """The UUID of an order."""
    return symbols.made_id(account, "order", perm_id)


def status(row: Json) -> str:
    """Alpaca's status ("Order Lifecycle") of an order at the exchange.

    An order is `accepted` until it has been in an open market, then `new`. Of linked orders, a leg whose
    entry hasn't filled is `held`, and so is a stop beside its take-profit order.
    """
    match row["status"]:
        case "Filled":
            return "filled"
        case "Inactive":
            return "rejected"
        case "Cancelled":
            return _ENDED_BECAUSE.get(row["reason_code"], "canceled")
    if row["filled"]:
        return "partially_filled"
    waits_beside = row["group"] and row["order_type"] in _STOPS and not row["triggered"]
    if waits_beside or (row["parent"] is not None and not row["routed"]):
        return "held"
    return "new" if row["routed"] else "accepted"


def entity(row: Json, *, legs: list[Json] | None = None, shown: str = "") -> Json:
    """The order object; `shown` takes the place of its status."""
    account, now = row["account"], shown or status(row)
    ended = symbols.moment(row["updated"])
    symbol = symbols.to_alpaca(row["contract"]["symbol"])
    by_money = row["notional"] is not None
    others = {
        name: order_id(account, row[name]) if row[name] is not None else None
        for name in ("replaced_by", "replaces")
    }
    return {
        "id": order_id(account, row["perm_id"]),
        "client_order_id": row["order_ref"],
        "created_at": symbols.moment(row["created"]),
        "updated_at": symbols.moment(row["updated"]),
        "submitted_at": symbols.moment(row["created"]),
        "filled_at": symbols.moment(row["traded"]),
        "expired_at": ended if now == "expired" else None,
        "expires_at": symbols.moment(row["expires"]),
        "canceled_at": ended if now == "canceled" else None,
        "failed_at": ended if now == "rejected" else None,
        "replaced_at": ended if now == "replaced" else None,
        **others,
        "asset_id": symbols.asset_id(symbol),
        "symbol": symbol,
        "asset_class": "us_equity",
        "notional": symbols.text(row["notional"]) if by_money else None,
        "qty": None if by_money else symbols.text(row["quantity"]),
        "filled_qty": symbols.text(row["filled"]),
        "filled_avg_price": symbols.text(row["average_price"], 6) if row["filled"] else None,
        "order_class": row["client"].get("class", "simple"),
        "order_type": _TYPE_NAMES[row["order_type"]],
        "type": _TYPE_NAMES[row["order_type"]],
        "side": row["side"].lower(),
        "time_in_force": _TIME_NAMES[row["tif"]],
        "limit_price": symbols.text(row["limit_price"]),
        "stop_price": symbols.text(row["stop_price"]),
        "status": now,
        "extended_hours": row["outside_rth"],
        "legs": legs,
        "trail_percent": symbols.text(row["trail_percent"]),
        "trail_price": symbols.text(row["trail_amount"]),
        "hwm": symbols.text(row["high_water"]),
        "subtag": None,
        "source": None,
    }


def entry_of(row: Json) -> int | None:
    """The permanent id of the order under which a leg is shown, or None for one that is no leg."""
    if row["parent"] is not None:
        return int(row["parent"])
    first = int(row["group"]) if row["group"] else row["perm_id"]
    return None if first == row["perm_id"] else first


def nested(rows: list[Json]) -> list[Json]:
    """Orders with their legs inside them."""
    legs: dict[int, list[Json]] = {}
    present = {row["perm_id"] for row in rows}
    for row in rows:
        entry = entry_of(row)
        if entry is not None and entry in present:
            legs.setdefault(entry, []).append(entity(row))
    return [
        entity(row, legs=legs.get(row["perm_id"]))
        for row in rows
        if entry_of(row) is None or entry_of(row) not in present
    ]
