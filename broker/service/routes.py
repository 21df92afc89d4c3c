"""Trading over HTTP, and the probes. Every handler is a few lines: the broker package does the work."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from broker.errors import BrokerError, FieldProblem, InvalidRequest
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Clock,
    Health,
    Order,
    Position,
)
from broker.service.auth import Forbidden, Principal, bearer, require
from broker.service.connections import Connection
from broker.service.database import why_not_ready
from broker.service.problems import MEDIA_TYPE, REFERENCE, problem
from broker.service.schemas import AgedQuote, OrderBody
from broker.service.user_connections import UnknownAccount, UserConnections
from broker.validation import check_symbol, shown

#: how long the database may take to answer a probe, in seconds
PROBE_SECONDS = 4.0


class UnknownConnection(BrokerError):
    """No connection has that id. Use `default`, or an account's id."""

    kind = "unknown-connection"


def problem_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route may answer with, for the OpenAPI document."""
    words = {
        400: "The request can't be read",
        401: "No token, or one that doesn't hold",
        403: "The token's roles don't allow it",
        404: "There is no such thing",
        409: "It contradicts what is there",
        413: "The body is too large",
        422: "The request is wrong, or the broker refused it",
        423: "Trading is halted, or live trading is locked",
        429: "Too many requests: Retry-After says when the next one may come",
        502: "The broker's answer makes no sense",
        503: "The broker can't be reached: since when, and what is being done",
        504: "The order was sent, and nobody knows what became of it",
    }
    content = {MEDIA_TYPE: {"schema": REFERENCE}}
    return {status: {"description": words[status], "content": deepcopy(content)} for status in statuses}


reader = require("user", "trader", "operator")
trader = require("trader")


async def connection_of(request: Request, connection_id: str, who: Principal) -> Connection:
    """The connection of an id, if `who` may see it: `default`, or the gateway of a user's account.

    Raises `UnknownConnection`, and what `UserConnections.find` raises.
    """
    found: dict[str, Connection] = request.app.state.connections
    if connection_id in found:
        return found[connection_id]
    users: UserConnections | None = request.app.state.user_connections
    if users is not None:
        try:
            return await users.find(connection_id, who)
        except UnknownAccount:
            pass
    raise UnknownConnection(f"no connection has the id {shown(connection_id)}")


async def connection(
    request: Request,
    who: Annotated[Principal, Depends(reader)],
    connection_id: Annotated[str, Path(max_length=64)],
) -> Connection:
    """The connection of the path. Raises as `connection_of`, and `Forbidden`.

    Only an account's own user does anything through its gateway; an operator may look, and verify it.
    """
    found = await connection_of(request, connection_id, who)
    looking = request.method in ("GET", "HEAD") or request.scope["route"].path.endswith("/verification")
    if not looking and found.owner not in ("", who.user):
        raise Forbidden("only its own user trades through an account's gateway")
    return found


Reader = Annotated[Principal, Depends(reader)]
Trader = Annotated[Principal, Depends(trader)]
Via = Annotated[Connection, Depends(connection)]
OfAccount = Annotated[str, Query(max_length=64, description="One of the login's; its own if empty")]

trading = APIRouter(
    prefix="/api/v1/connections/{connection_id}",
    tags=["trading"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 429, 502, 503),
)
probes = APIRouter(tags=["probes"])


@trading.get("/account")
async def get_account(who: Reader, via: Via, account: OfAccount = "") -> AccountInfo:
    """The account's balances."""
    return await via.broker.get_account_async(account=account)


@trading.get("/positions")
async def get_positions(who: Reader, via: Via, account: OfAccount = "") -> list[Position]:
    """All open positions; an empty list means that there are none."""
    return await via.broker.get_positions_async(account=account)


@trading.get("/positions/{symbol}")
async def get_position(who: Reader, via: Via, symbol: str, account: OfAccount = "") -> Position:
    """The position in one symbol; 404 if it isn't held."""
    symbol = check_symbol(symbol)
    position = await via.broker.get_position_async(symbol, account=account)
    if position is None:
        raise NoPosition(f"no {symbol} is held")
    return position


@trading.post("/orders", status_code=201, responses=problem_answers(400, 409, 413, 423, 504))
async def place_order(
    who: Trader,
    via: Via,
    body: OrderBody,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=130)] = None,
) -> Order:
    """Place an order. The same client order id with the same body is the same order, placed once."""
    asked = body.request(client_order_id_of(body.client_order_id, idempotency_key), who.user)
    async with via.trading() as broker:
        # A client that goes away must not stop an order half way.
        order = await asyncio.shield(broker.place_order_async(asked))
    response.headers["Location"] = f"{request.url.path}/{order.id}"
    return order


@trading.get("/orders")
async def get_orders(who: Reader, via: Via, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[Order]:
    """Recent orders, newest first."""
    return await via.broker.get_orders_history_async(limit)


@trading.get("/orders/{order_id}")
async def get_order(who: Reader, via: Via, order_id: Annotated[str, Path(max_length=64)]) -> Order:
    """One order by our id."""
    return await via.broker.get_order_async(order_id)


@trading.delete(
    "/orders/{order_id}",
    responses={202: {"description": "The broker still works on it", "model": Order}, **problem_answers(409)},
)
async def cancel_order(
    who: Trader, via: Via, order_id: Annotated[str, Path(max_length=64)], response: Response
) -> Order:
    """Cancel an order: 200 when it is final, 202 while the broker still works on it."""
    async with via.trading() as broker:
        await asyncio.shield(broker.cancel_order_async(order_id))
        order = await broker.get_order_async(order_id)
    response.status_code = 200 if order.status in FINAL_STATUSES else 202
    return order


@trading.get("/quotes/{symbol}")
async def get_quote(who: Reader, via: Via, symbol: str) -> AgedQuote:
    """Prices of the configured source (MARKET_DATA_SOURCE), with their time, age, kind and source."""
    quote = await via.quotes.quote_async(check_symbol(symbol))
    return AgedQuote(**asdict(quote), age=round(quote.age_seconds, 3))


@trading.get("/clock")
async def get_clock(who: Reader, via: Via) -> Clock:
    """Whether the market is open, and when that changes."""
    return await via.broker.clock_async()


@trading.get("/health")
async def get_health(who: Reader, via: Via) -> Health:
    """The link to the broker as last proved. Always 200: `ok` is the answer."""
    return await via.health()


@probes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@probes.get("/readyz", response_model=dict[str, str], responses=problem_answers(503))
@probes.get("/health", operation_id="health", response_model=dict[str, str], responses=problem_answers(503))
async def readyz(request: Request) -> Any:
    """The database answers and has the schema. A gateway's nightly restart is no reason to leave.

    `/readyz` is for the platform's probes, `/health` for who looks from outside: Google answers paths that
    end in z itself (cloud.google.com/run/docs/known-issues, "Reserved URL paths").
    """
    try:
        check = asyncio.to_thread(why_not_ready, request.app.state.engine)
        reason = await asyncio.wait_for(check, PROBE_SECONDS)
    except TimeoutError:
        reason = f"the database didn't answer within {PROBE_SECONDS:g} s"
    if reason:
        return problem(503, "not-ready", "Not ready", reason, headers={"Retry-After": "2"})
    return {"status": "ok"}


class NoPosition(BrokerError):
    """Nothing of that symbol is held: no failure, only no such thing."""

    kind = "no-position"


def client_order_id_of(in_body: str | None, in_header: str | None) -> str:
    """The id that makes repeating a request safe. Raises `InvalidRequest` without one, or with two."""
    key = in_header.strip() if in_header else ""
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]  # the draft standard writes the key as a quoted string
    if in_body and key and in_body != key:
        said = "differs from the Idempotency-Key header"
        raise InvalidRequest([FieldProblem("client_order_id", said, shown(in_body))])
    if not (in_body or key):
        said = "is required: here or as an Idempotency-Key header, so that repeating the request is safe"
        raise InvalidRequest([FieldProblem("client_order_id", said, "nothing")])
    return in_body or key
