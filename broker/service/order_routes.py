"""More of trading over HTTP: fills, replace, cancel all, close a position, preview, look-up by client id."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import AwareDatetime

from broker.models import FINAL_STATUSES, Fee, Fill, Order, OrderPreview, Timeline
from broker.service.auth import bearer
from broker.service.routes import Reader, Trader, Via, client_order_id_of, problem_answers
from broker.service.schemas import OrderBody, ReplaceBody
from broker.validation import check_symbol

OrderId = Annotated[str, Path(max_length=64)]
Key = Annotated[str | None, Header(max_length=130)]

orders = APIRouter(
    prefix="/api/v1/connections/{connection_id}",
    tags=["trading"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 429, 502, 503),
)


@orders.get("/accounts")
async def get_accounts(who: Reader, via: Via) -> list[str]:
    """The accounts of the broker's login, the one that is traded by default first."""
    return await via.broker.get_accounts_async()


@orders.get("/fills")
async def get_fills(
    who: Reader,
    via: Via,
    since: Annotated[AwareDatetime | None, Query(description="ISO 8601 with a UTC offset")] = None,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
) -> list[Fill]:
    """Executions with their commissions, newest first."""
    moment: datetime | None = since
    return await via.broker.get_fills_async(moment, limit)


@orders.get("/fees")
async def get_fees(
    who: Reader,
    via: Via,
    since: Annotated[AwareDatetime | None, Query(description="ISO 8601 with a UTC offset")] = None,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
) -> list[Fee]:
    """Fees that are booked for the account and not by fill, newest first, where the broker has any."""
    moment: datetime | None = since
    return await via.broker.get_fees_async(moment, limit)


@orders.get("/orders/by-client-order-id/{client_order_id}")
async def get_order_by_client_id(
    who: Reader, via: Via, client_order_id: Annotated[str, Path(max_length=64)]
) -> Order:
    """One order by the id that its caller chose."""
    return await via.broker.get_order_by_client_id_async(client_order_id)


@orders.get("/orders/{order_id}/timeline")
async def get_order_timeline(who: Reader, via: Via, order_id: OrderId) -> Timeline:
    """An order's whole life: statuses, changes, executions and the broker's messages, oldest first.

    An entry of the kind `gap` says what isn't known: what happened to an order that wasn't placed from
    here before it was first seen, say.
    """
    return await via.broker.get_order_timeline_async(order_id)


@orders.post("/preview", operation_id="preview_order", responses=problem_answers(400, 413))
async def preview(who: Trader, via: Via, body: OrderBody) -> OrderPreview:
    """What an order would cost and how margin would change; nothing is placed."""
    return await via.broker.preview_order_async(body.request(body.client_order_id or "", who.user))


@orders.patch("/orders/{order_id}", responses=problem_answers(400, 409, 413, 423, 504))
async def replace_order(who: Trader, via: Via, order_id: OrderId, body: ReplaceBody) -> Order:
    """Change a working order. Where the broker makes a new order of it, its `replaces` names the old one."""
    async with via.trading() as broker:
        changing = broker.replace_order_async(
            order_id,
            qty=body.qty,
            limit_price=body.limit_price,
            stop_price=body.stop_price,
            time_in_force=body.time_in_force,
        )
        # A client that goes away must not stop a change half way.
        return await asyncio.shield(changing)


@orders.delete(
    "/orders", responses={202: {"description": "The broker still works on some", "model": list[Order]}}
)
async def cancel_all_orders(who: Trader, via: Via, response: Response) -> list[Order]:
    """Cancel all working orders of ours: 200 when all are final, 202 while the broker works on some."""
    async with via.trading() as broker:
        cancelled = await asyncio.shield(broker.cancel_all_orders_async())
    final = all(order.status in FINAL_STATUSES for order in cancelled)
    response.status_code = 200 if final else 202
    return cancelled


@orders.delete("/positions/{symbol}", status_code=201, responses=problem_answers(400, 409, 423, 504))
async def close_position(
    who: Trader,
    via: Via,
    symbol: str,
    request: Request,
    response: Response,
    qty: Annotated[float | None, Query(gt=0, allow_inf_nan=False, description="Shares; all of them")] = None,
    client_order_id: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
    idempotency_key: Key = None,
) -> Order:
    """Close a position at the market: all of it, or `qty` shares. The answer is the order that does it."""
    name = client_order_id_of(client_order_id, idempotency_key)
    symbol = check_symbol(symbol)
    async with via.trading() as broker:
        closing = broker.close_position_async(symbol, qty=qty, client_order_id=name)
        order = await asyncio.shield(closing)
    base = request.url.path.rpartition("/positions/")[0]
    response.headers["Location"] = f"{base}/orders/{order.id}"
    return order
