"""The Client Portal API over HTTP: which path leads where, and the checks before every call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from localcloud.exchange.models import Refused
from localcloud.gateways.client_portal import accounts, contracts, marketdata, orderbook
from localcloud.gateways.client_portal.errors import Refusal, not_logged_in
from localcloud.gateways.client_portal.faults import ActedFaults
from localcloud.gateways.client_portal.gateway import Gateway, body, refused
from localcloud.gateways.client_portal.limits import Limits
from localcloud.gateways.client_portal.orders import OrderEntry
from localcloud.gateways.client_portal.streaming import Stream

BASE = "/v1/api"
Handler = Callable[[Gateway, Request], Awaitable[Any]]
_METHODS = ["GET", "POST", "PUT", "DELETE"]


async def tickle(gateway: Gateway, request: Request) -> Any:
    """GET or POST /tickle: keeps the login alive, and says how it is."""
    session = gateway.session
    return {
        "session": session.session_id,
        "ssoExpires": session.sso_expires(),
        "collission": session.competing,
        "userId": 100000000,
        "hmds": {"error": "no bridge"},
        "iserver": {"authStatus": session.status()},
    }


async def auth_status(gateway: Gateway, request: Request) -> Any:
    """GET or POST /iserver/auth/status."""
    return gateway.session.status()


async def begin_brokerage_session(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/auth/ssodh/init `{"publish": true, "compete": true}`."""
    given = await body(request) if await request.body() else {**request.query_params}
    return await gateway.session.initialise(str(given.get("compete", "true")).lower() == "true")


async def reauthenticate(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/reauthenticate: the old way to ssodh/init."""
    await gateway.session.initialise(compete=True)
    return {"message": "triggered"}


async def log_out(gateway: Gateway, request: Request) -> Any:
    """POST /logout: from now on 401, until there is a login again."""
    await gateway.session.log_out()
    return {"status": True}


async def validate(gateway: Gateway, request: Request) -> Any:
    """GET /sso/validate."""
    session = gateway.session
    return {
        "USER_ID": 100000000,
        "USER_NAME": session.username,
        "CREDENTIAL": session.username,
        "PAPER_USER_NAME": session.username if session.mode == "paper" else "",
        "RESULT": True,
        "AUTH_TIME": int(session.logged_in_at * 1000),
        "EXPIRES": session.sso_expires(),
        "SF_ENABLED": False,
        "IS_FREE_TRIAL": False,
        "LOGIN_TYPE": 2 if session.mode == "paper" else 1,
        "LANDING_APP": "UNIVERSAL",
        "IS_MASTER": False,
        "IP": "127.0.0.1",
        "features": {"env": "PROD", "realtime": True},
        "region": "NJ",
    }


async def suppress_questions(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/questions/suppress: these aren't asked any more in this session."""
    wanted = (await body(request)).get("messageIds")
    if not isinstance(wanted, list):
        raise Refusal(400, "Bad Request: messageIds is required")
    gateway.suppressed |= set(map(str, wanted))
    return {"status": "submitted"}


async def ask_again(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/questions/suppress/reset."""
    gateway.suppressed.clear()
    return {"status": "submitted"}


def order_handlers(entry: OrderEntry) -> dict[str, Handler]:
    """The handlers that need the one order conversation of a gateway."""

    async def place(gateway: Gateway, request: Request) -> Any:
        account = gateway.brokerage_account(request.path_params["account"])
        return await entry.place(account, (await body(request)).get("orders"))

    async def preview(gateway: Gateway, request: Request) -> Any:
        account = gateway.brokerage_account(request.path_params["account"])
        return await entry.preview(account, (await body(request)).get("orders"))

    async def modify(gateway: Gateway, request: Request) -> Any:
        account = gateway.brokerage_account(request.path_params["account"])
        return await entry.modify(account, request.path_params["order_id"], await body(request))

    async def cancel(gateway: Gateway, request: Request) -> Any:
        account = gateway.brokerage_account(request.path_params["account"])
        return await entry.cancel(account, request.path_params["order_id"])

    async def reply(gateway: Gateway, request: Request) -> Any:
        gateway.session.require()
        return await entry.reply(
            request.path_params["reply_id"], (await body(request)).get("confirmed") is True
        )

    async def live(gateway: Gateway, request: Request) -> Any:
        return await orderbook.live_orders(gateway, entry, request)

    async def status(gateway: Gateway, request: Request) -> Any:
        return await orderbook.order_status(gateway, entry, request)

    return {
        "POST /iserver/account/{account}/orders": place,
        "POST /iserver/account/{account}/orders/whatif": preview,
        "POST /iserver/account/{account}/order/{order_id}": modify,
        "DELETE /iserver/account/{account}/order/{order_id}": cancel,
        "POST /iserver/reply/{reply_id}": reply,
        "GET /iserver/account/orders": live,
        "GET /iserver/account/order/status/{order_id}": status,
    }


_HANDLERS: dict[str, Handler] = {
    "GET /tickle": tickle,
    "POST /tickle": tickle,
    "GET /iserver/auth/status": auth_status,
    "POST /iserver/auth/status": auth_status,
    "POST /iserver/auth/ssodh/init": begin_brokerage_session,
    "POST /iserver/reauthenticate": reauthenticate,
    "POST /logout": log_out,
    "GET /sso/validate": validate,
    "POST /iserver/questions/suppress": suppress_questions,
    "POST /iserver/questions/suppress/reset": ask_again,
    "GET /iserver/accounts": accounts.brokerage_accounts,
    "POST /iserver/account": accounts.switch_account,
    "GET /iserver/account/pnl/partitioned": accounts.profit_and_loss,
    "GET /iserver/account/trades": orderbook.trades,
    "GET /portfolio/accounts": accounts.portfolio_accounts,
    "GET /portfolio/subaccounts": accounts.portfolio_accounts,
    "GET /portfolio/subaccounts2": accounts.paged_subaccounts,
    "GET /portfolio2/subaccounts": accounts.portfolio_accounts,
    "GET /portfolio/{account}/summary": accounts.summary,
    "GET /portfolio/{account}/ledger": accounts.ledger,
    "GET /portfolio/{account}/positions": accounts.positions,
    "GET /portfolio/{account}/positions/{page}": accounts.positions,
    "POST /portfolio/{account}/positions/invalidate": accounts.forget_positions,
    "GET /portfolio/{account}/position/{conid}": accounts.position,
    "GET /portfolio2/{account}/positions": accounts.positions_now,
    "GET /trsrv/stocks": contracts.stocks,
    "GET /iserver/secdef/search": contracts.search,
    "POST /iserver/secdef/search": contracts.search,
    "GET /iserver/contract/{conid}/info": contracts.info,
    "GET /iserver/contract/{conid}/info-and-rules": contracts.rules,
    "POST /iserver/contract/rules": contracts.rules,
    "GET /iserver/marketdata/snapshot": marketdata.snapshot,
    "GET /iserver/marketdata/history": marketdata.history,
    "POST /iserver/marketdata/unsubscribe": marketdata.unsubscribe,
    "GET /iserver/marketdata/unsubscribeall": marketdata.unsubscribe_all,
}


class Front:
    """What every request goes through: address rules, pacing, login; and how refusals are worded."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.limits = Limits(gateway.settings.penalty)
        self.faults = ActedFaults(gateway.session)

    async def answer(self, request: Request, handler: Handler | None) -> Response:
        """The answer to a request; `handler` None is a path that isn't there."""
        rules, peer = self.gateway.settings.addresses, request.client
        if rules is not None and peer is not None and not rules.admits(peer.host):
            return PlainTextResponse("Access Denied", status_code=404)
        try:
            await self.faults.before_answer()
            if self.gateway.settings.limits:
                self.limits.check(request.method, request.url.path)
            if not self.gateway.session.logged_in:
                raise not_logged_in()
            if handler is None:
                raise Refusal(404, "Not Found")
            return JSONResponse(await handler(self.gateway, request))
        except Refused as refusal:
            return _refusal(refused(refusal))
        except Refusal as refusal:
            return _refusal(refusal)

    def route(self, name: str, handler: Handler) -> Route:
        """The route of `"GET /tickle"`."""
        method, path = name.split(" ", 1)

        async def endpoint(request: Request) -> Response:
            return await self.answer(request, handler)

        return Route(BASE + path, endpoint, methods=[method])

    async def unknown(self, request: Request) -> Response:
        """Any other path: 404 with a login, 401 without."""
        return await self.answer(request, None)


def _refusal(refusal: Refusal) -> Response:
    said = {"error": refusal.message, "statusCode": refusal.status}
    return JSONResponse(said, status_code=refusal.status)


class WithoutTrailingSlash:
    """Lets `/trades/` be `/trades`, as clients write it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on, its path without the slash."""
        if scope["type"] in ("http", "websocket") and scope["path"].endswith("/") and scope["path"] != "/":
            scope = {**scope, "path": scope["path"].rstrip("/")}
        await self.app(scope, receive, send)


def build_app(gateway: Gateway) -> ASGIApp:
    """The gateway's API as an ASGI application."""
    front = Front(gateway)
    handlers = {**_HANDLERS, **order_handlers(OrderEntry(gateway))}
    routes: list[BaseRoute] = [front.route(name, handler) for name, handler in handlers.items()]
    routes.append(WebSocketRoute(f"{BASE}/ws", Stream(gateway).serve))
    routes.append(Route("/{rest:path}", front.unknown, methods=_METHODS))
    return WithoutTrailingSlash(Starlette(routes=routes))
