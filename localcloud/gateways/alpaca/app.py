"""The routes of the Trading API, the data API and the stream, and what all requests have in common."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from localcloud.gateways.alpaca import account, market, orders
from localcloud.gateways.alpaca.errors import ApiError, not_found
from localcloud.gateways.alpaca.faults import error as fault
from localcloud.gateways.alpaca.gateway import Gateway
from localcloud.gateways.alpaca.limits import exceeded
from localcloud.gateways.alpaca.session import AccountSession
from localcloud.gateways.alpaca.streaming import Stream

Json = dict[str, Any]
Handler = Callable[[AccountSession, Request], Awaitable[Any]]
_log = logging.getLogger(__name__)
MULTI_STATUS, NO_CONTENT = 207, 204


async def _body(request: Request) -> Json:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, 40010000, "request body format is invalid")
    return body


def _query(request: Request) -> dict[str, str]:
    return dict(request.query_params)


def _part(request: Request, name: str = "id") -> str:
    return str(request.path_params[name])


async def _delete_order(session: AccountSession, request: Request) -> Response:
    await orders.cancel(session, _part(request))
    return Response(status_code=NO_CONTENT)


async def _delete_orders(session: AccountSession, _: Request) -> Response:
    return JSONResponse(await orders.cancel_all(session), MULTI_STATUS)


async def _delete_positions(session: AccountSession, request: Request) -> Response:
    return JSONResponse(await account.close_all(session, _query(request)), MULTI_STATUS)


async def _post_order(session: AccountSession, request: Request) -> Any:
    return await orders.place(session, await _body(request))


async def _patch_order(session: AccountSession, request: Request) -> Any:
    return await orders.replace(session, _part(request), await _body(request))


TRADING: list[tuple[str, str, Handler]] = [
    ("GET", "/v2/account", lambda s, _: account.account(s)),
    ("GET", "/v2/account/configurations", lambda s, _: account.configurations(s)),
    ("GET", "/v2/account/activities", lambda s, r: account.activities(
        s, r.query_params.get("activity_types", ""), _query(r))),
    ("GET", "/v2/account/activities/{id}", lambda s, r: account.activities(s, _part(r), _query(r))),
    ("GET", "/v2/account/portfolio/history", lambda s, _: account.portfolio_history(s)),
    ("GET", "/v2/orders", lambda s, r: orders.listed(s, _query(r))),
    ("POST", "/v2/orders", _post_order),
    ("DELETE", "/v2/orders", _delete_orders),
    ("GET", "/v2/orders:by_client_order_id", lambda s, r: orders.by_client_order_id(s, _query(r))),
    ("GET", "/v2/orders/{id}", lambda s, r: orders.by_id(s, _part(r), _query(r))),
    ("PATCH", "/v2/orders/{id}", _patch_order),
    ("DELETE", "/v2/orders/{id}", _delete_order),
    ("GET", "/v2/positions", lambda s, _: account.positions(s)),
    ("DELETE", "/v2/positions", _delete_positions),
    ("GET", "/v2/positions/{id}", lambda s, r: account.position(s, _part(r))),
    ("DELETE", "/v2/positions/{id}", lambda s, r: account.close_position(s, _part(r), _query(r))),
    ("GET", "/v2/assets", lambda s, r: market.assets(s, _query(r))),
    ("GET", "/v2/assets/{id}", lambda s, r: market.asset(s, _part(r))),
    ("GET", "/v2/clock", lambda s, _: market.clock(s)),
    ("GET", "/v2/calendar", lambda s, r: market.calendar(s, _query(r))),
]  # fmt: skip

DATA: list[tuple[str, str, Handler]] = [
    ("GET", "/v2/stocks/snapshots", lambda s, r: market.snapshots(s, _query(r))),
    ("GET", "/v2/stocks/bars", lambda s, r: market.bars(s, _query(r))),
    ("GET", "/v2/stocks/{kind}/latest", lambda s, r: market.latest(s, _part(r, "kind"), _query(r))),
    ("GET", "/v2/stocks/{symbol}/{kind}/latest", lambda s, r: market.latest_of_one(
        s, _part(r, "symbol"), _part(r, "kind"))),
]  # fmt: skip


class Api:
    """Answers requests of one of the APIs (`session.APIS`)."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway, self.name = gateway, name
        self._late: set[asyncio.Task[Any]] = set()

    async def answer(self, request: Request, handler: Handler) -> Response:
        """Lets in, counts, acts out faults, and puts refusals into Alpaca's form."""
        headers = {"X-Request-ID": uuid.uuid4().hex}
        try:
            self.gateway.settings.admit(request)
            key, secret = (request.headers.get(f"apca-api-{name}", "") for name in ("key-id", "secret-key"))
            session = await self.gateway.enter(key, secret)
            limit = session.limits[self.name]
            within = limit.take()
            headers |= limit.headers()
            if not within:
                raise exceeded()
            await session.faults.before(request.method)
            response = await self._carry_out(session, request, handler)
        except ApiError as error:
            response = JSONResponse(error.body, error.status)
        response.headers.update(headers)
        return response

    async def _carry_out(self, session: AccountSession, request: Request, handler: Handler) -> Response:
        lost = session.faults.lost(request.method)
        if (seconds := session.faults.late(request.method)) is not None:
            await request.body()  # it can't be read once the answer is out
            work = asyncio.create_task(self._later(session, request, handler, seconds))
            self._late.add(work)
            work.add_done_callback(self._late.discard)
            raise fault(504)
        try:
            found = await handler(session, request)
        except ApiError as error:
            found = JSONResponse(error.body, error.status)
        if lost is not None:
            if lost == 0:
                _break_off(request)
            raise fault(lost or 504)
        return found if isinstance(found, Response) else JSONResponse(found)

    async def _later(
        self, session: AccountSession, request: Request, handler: Handler, seconds: float
    ) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(ApiError):  # nobody waits for the answer
            await handler(session, request)


def _break_off(request: Request) -> None:
    """Ends the request's connection with a reset, as when a machine on the way dies.

    ASGI has no word for it; uvicorn's cycle, whose method `receive` is, knows the transport.
    """
    cycle = getattr(request.receive, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is not None:
        transport.abort()


def _routes(api: Api, table: list[tuple[str, str, Handler]]) -> list[BaseRoute]:
    def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await api.answer(request, handler)

        return answer

    async def nowhere(_: AccountSession, __: Request) -> Any:
        raise not_found("endpoint not found")

    found: list[BaseRoute] = [Route(path, endpoint(handler), methods=[verb]) for verb, path, handler in table]
    verbs = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return [*found, Route("/{rest:path}", endpoint(nowhere), methods=verbs)]


def routes(gateway: Gateway) -> list[BaseRoute]:
    """`/trading` and `/data`, to which clients add `/v2/...`, and the websocket `/stream`."""

    async def stream(socket: WebSocket) -> None:
        await Stream(gateway, socket).serve()

    return [
        Mount("/trading", routes=_routes(Api(gateway, "trading"), TRADING)),
        Mount("/data", routes=_routes(Api(gateway, "data"), DATA)),
        WebSocketRoute("/stream", stream),
    ]


def build_app(gateway: Gateway) -> Starlette:
    """The whole front end as an application of its own."""
    return Starlette(routes=routes(gateway))
