"""/v2/orders: placing, finding, replacing and cancelling."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from localcloud.exchange.models import Refused
from localcloud.gateways.alpaca import order_form, symbols
from localcloud.gateways.alpaca.errors import forbidden, malformed, not_found, unprocessable, worded
from localcloud.gateways.alpaca.order_view import OPEN, REPLACEABLE, entity, nested, order_id, status
from localcloud.gateways.alpaca.session import AccountSession

Json = dict[str, Any]
Query = dict[str, str]
LIMIT, LIMIT_MOST = 50, 500


async def place(session: AccountSession, body: Json) -> Json:
    """POST /v2/orders: the order, `pending_new`, or `accepted` while the market is closed."""
    wanted = order_form.new_order(body)
    quote = (await session.call("quote", conid=wanted["conid"]))["quote"]
    price = quote["ask"] if wanted["side"] == "BUY" else quote["bid"]
    basis = order_form.check_cost_basis(wanted, price)
    return await _send(session, wanted, basis)


async def _send(session: AccountSession, wanted: Json, basis: float) -> Json:
    try:
        answer = await session.raw("place_order", account=session.account, **wanted)
    except Refused as refusal:
        raise await _explained(session, refusal, wanted, basis) from None
    order = answer["order"]
    if order["status"] == "Inactive":
        # The broker takes the order and the market refuses it: the answer is a success, the stream and the
        # next look say `rejected`.
        session.tell({"event": "order_status", "account": session.account, "order": order})
        return entity(order, shown="pending_new")
    legs = [entity(leg) for leg in answer["legs"]]
    return entity(order, legs=legs or None, shown="accepted" if answer["waits_until"] else "pending_new")


async def _explained(session: AccountSession, refusal: Refused, wanted: Json, basis: float) -> Exception:
    """A refusal for want of money or shares, with the amounts that Alpaca adds to it."""
    if refusal.code == "buying_power":
        power = (await session.call("buying_power", account=session.account))["buying_power"]
        amounts = {"buying_power": symbols.money(power), "cost_basis": symbols.money(basis)}
        return forbidden("insufficient buying power", **amounts)
    if refusal.code == "quantity_held":
        rows = (await session.call("positions", account=session.account))["positions"]
        held = next((abs(row["position"]) for row in rows if row["conid"] == wanted["conid"]), 0.0)
        free = float(refusal.message.rpartition("available: ")[2].rstrip(")"))
        return forbidden(
            refusal.message,
            available=symbols.text(free),
            existing_qty=symbols.text(held),
            held_for_orders=symbols.text(held - free),
            symbol=next(name for name, item in symbols.assets().items() if item.conid == wanted["conid"]),
        )
    return worded(refusal)


async def by_id(session: AccountSession, identity: str, query: Query) -> Json:
    """GET /v2/orders/{id}."""
    row = await find(session, identity)
    if query.get("nested", "").lower() == "true":
        rows = (await session.call("orders", account=session.account))["orders"]
        return next((one for one in nested(rows) if one["id"] == _id(row)), entity(row))
    return entity(row)


async def by_client_order_id(session: AccountSession, query: Query) -> Json:
    """GET /v2/orders:by_client_order_id."""
    wanted = query.get("client_order_id", "")
    if not wanted:
        raise malformed("client_order_id is required")
    rows = (await session.call("orders", account=session.account, reference=wanted))["orders"]
    if not rows:
        raise not_found(f"order not found for {wanted}")
    return entity(rows[0])


async def listed(session: AccountSession, query: Query) -> list[Json]:
    """GET /v2/orders: by status, time, symbols and side; newest first, 50 at a time."""
    wanted = query.get("status", "open")
    if wanted not in ("open", "closed", "all"):
        raise malformed(f"invalid status: {wanted}")
    direction = query.get("direction", "desc")
    if direction not in ("asc", "desc"):
        raise malformed(f"invalid direction: {direction}")
    limit = _limit(query)
    after, until = _time(query, "after"), _time(query, "until")
    names = {name for name in query.get("symbols", "").upper().split(",") if name}
    rows: list[Json] = (await session.call("orders", account=session.account))["orders"]
    chosen = [
        row
        for row in rows
        if (wanted == "all" or (status(row) in OPEN) == (wanted == "open"))
        and (after is None or datetime.fromtimestamp(row["created"], UTC) > after)
        and (until is None or datetime.fromtimestamp(row["created"], UTC) <= until)
        and (not names or symbols.to_alpaca(row["contract"]["symbol"]) in names)
        and query.get("side", row["side"].lower()) == row["side"].lower()
    ]
    chosen.sort(key=lambda row: (row["created"], row["perm_id"]), reverse=direction == "desc")
    shown = nested(chosen) if query.get("nested", "").lower() == "true" else [entity(row) for row in chosen]
    return shown[:limit]


async def replace(session: AccountSession, identity: str, body: Json) -> Json:
    """PATCH /v2/orders/{id}: a new order takes the place of the old one, which becomes `replaced`."""
    row = await find(session, identity)
    now = status(row)
    if now == "replaced":
        raise unprocessable("order already replaced")
    if now not in REPLACEABLE:
        raise unprocessable(f"cannot replace order in {now} status")
    wanted = order_form.changes(body, row)
    changed = {**row, **wanted}
    basis = changed["quantity"] * (changed["limit_price"] or changed["stop_price"] or 0.0)
    try:
        answer = await session.raw("replace_order", perm_id=row["perm_id"], **wanted)
    except Refused as refusal:
        if refusal.code == "not_working":
            latest = status(await find(session, identity))
            raise unprocessable(f"cannot replace order in {latest} status") from None
        raise await _explained(session, refusal, changed, basis) from None
    return entity(answer["order"], shown="accepted" if answer["waits_until"] else "pending_new")


async def cancel(session: AccountSession, identity: str) -> None:
    """DELETE /v2/orders/{id}. Raises ApiError 422 for an order that has ended."""
    row = await find(session, identity)
    try:
        await session.raw("cancel_order", perm_id=row["perm_id"])
    except Refused as refusal:
        if refusal.code == "not_working":
            latest = status(await find(session, identity))
            raise unprocessable(f'order is already in "{latest}" state') from None
        raise worded(refusal) from None


async def cancel_all(session: AccountSession) -> list[Json]:
    """DELETE /v2/orders: a status for each open order (207)."""
    answers = []
    for row in (await session.call("open_orders", account=session.account))["orders"]:
        try:
            await session.raw("cancel_order", perm_id=row["perm_id"])
            code = 200
        except Refused as refusal:
            # A leg that went with its entry is canceled all the same; one that filled isn't (docs: 500).
            latest = await find(session, _id(row))
            code = 200 if refusal.code == "not_working" and status(latest) == "canceled" else 500
        answers.append({"id": _id(row), "status": code})
    return answers


async def market_order(session: AccountSession, conid: int, side: str, quantity: float) -> Json:
    """Places the order that closes a position."""
    wanted = {
        "conid": conid,
        "side": side,
        "quantity": quantity,
        "order_type": "MKT",
        "order_ref": str(uuid.uuid4()),
        "client": {"class": "simple"},
        "unique_reference": True,
        "keep_refused": False,
    }
    return await _send(session, wanted, 0.0)


async def find(session: AccountSession, identity: str) -> Json:
    """The exchange's row of an order. Raises ApiError 404, or 422 for what is no UUID."""
    try:
        wanted = str(uuid.UUID(identity))
    except ValueError:
        raise malformed("order_id is not a valid UUID") from None
    if wanted not in session.perm_ids:
        for row in (await session.call("orders", account=session.account))["orders"]:
            session.perm_ids[_id(row)] = row["perm_id"]
    if wanted not in session.perm_ids:
        raise not_found(f"order not found for {identity}")
    answer = await session.call("orders", account=session.account, perm_id=session.perm_ids[wanted])
    return dict(answer["orders"][0])


def _id(row: Json) -> str:
    return order_id(row["account"], row["perm_id"])


def _limit(query: Query) -> int:
    written = query.get("limit", str(LIMIT))
    if not written.isdigit() or not 1 <= int(written) <= LIMIT_MOST:
        raise malformed(f"limit must be between 1 and {LIMIT_MOST}")
    return int(written)


def _time(query: Query, name: str) -> datetime | None:
    written = query.get(name)
    if not written:
        return None
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        raise malformed(f"{name} is not a time: {written}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
