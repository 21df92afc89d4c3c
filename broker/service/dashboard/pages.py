"""The pages behind the login, their live stream, and the files that they load.

Everything that a page may load or call is this site's own (see `_POLICY`): a script that somebody smuggled
into a broker's message would not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.staticfiles import StaticFiles

from broker.fleet.account import Account
from broker.models import FINAL_STATUSES
from broker.service.auth import Principal, Unauthorized, require
from broker.service.connections import Connection
from broker.service.dashboard.pushed import Pushed, follow
from broker.service.dashboard.watch import Shown, Watch
from broker.service.dashboard.wording import FILTERS
from broker.service.fleet import Fleet, FleetAway
from broker.service.routes import Reader, Via, connection_of
from broker.service.streams import Streams, TooManyStreams
from broker.service.values import Span, Values, ValueStore

_HERE = Path(__file__).resolve().parent
STATIC, PACKAGES = _HERE / "static", _HERE / "packages"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: how long the first paint waits for the first reading, in seconds
FIRST_LOOK = 0.3
#: how often a page that got no stream asks for what is new, in seconds; the script's LOST_AFTER is longer
ASKS_EVERY = 5

PARTS = ("status", "switch", "pulse", "notices", "tiles", "clock", "positions", "orders")
_ALWAYS = ("status", "switch", "pulse", "notices", "problems")
#: by page: its address, its name, and the parts that it keeps up to date
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "overview": ("/", "Overview", (*_ALWAYS, "tiles", "clock", "positions")),
    "orders": ("/orders", "Orders", (*_ALWAYS, "positions", "orders")),
    "gateways": ("/gateways", "Gateways", (*_ALWAYS, "gateways")),
    "health": ("/health-page", "Health", (*_ALWAYS, "health")),
    "fleet": ("/fleet", "Fleet", (*_ALWAYS, "fleet-counts", "fleet-accounts", "fleet-passes")),
}
#: pages that aren't there for others
OPERATORS = ("fleet",)

pages = APIRouter(include_in_schema=False)
viewer = require("user", "trader", "operator")


@dataclass(frozen=True)
class Maker:
    """Makes the source of some parts for a user; None where there is nothing to see.

    `varies`: parameters of the page's address with which it is another source.
    """

    make: Callable[[Request, Principal], Pushed | None]
    varies: tuple[str, ...] = ()


class Dashboard:
    """The templates, and a watch for each connection that somebody looks at."""

    def __init__(self, stack: str) -> None:
        self.stack = stack
        self._watches: dict[str, tuple[Connection, Watch]] = {}
        self._others: dict[tuple[object, ...], Pushed] = {}
        #: by part: what makes its source; several parts may have one
        self.makers: dict[str, Maker] = {}
        self.templates = _templates()
        self.templates.globals |= {
            "stack": stack,
            "now": _now,
            "final_statuses": FINAL_STATUSES,
            "steps": ["provisioning", "initializing", "running"],
        }

    def watch(self, name: str, via: Connection, request: Request) -> Watch:
        """The watch of a connection; a new one when the connection was made anew."""
        known = self._watches.get(name)
        if known is None or known[0] is not via:
            # Who looks no more leaves nothing behind: not a user's closed connection either.
            self._watches = {n: (v, w) for n, (v, w) in self._watches.items() if not w.idle}
            render = _Parts(self.templates, via.broker_type)
            known = (via, Watch(name, via, request.app.state.engine, PARTS, render))
            self._watches[name] = known
        return known[1]

    def shown_now(self, name: str) -> Shown | None:
        """What the watch of a connection shows, if somebody looks at it now."""
        known = self._watches.get(name)
        return None if known is None or known[1].idle else known[1].shown

    def of_user(self, part: str, request: Request, who: Principal) -> Pushed | None:
        """What makes a part that belongs to a user and to no connection; None if it isn't such a part."""
        maker = self.makers.get(part)
        if maker is None:
            return None
        # A user may have two tokens, and what an operator sees isn't for the other one.
        name = (
            maker,
            who.user,
            "operator" in who.roles,
            *(request.query_params.get(v) for v in maker.varies),
        )
        if name not in self._others:
            made = maker.make(request, who)
            if made is None:
                return None
            self._others = {n: one for n, one in self._others.items() if not one.idle}
            self._others[name] = made
        return self._others[name]

    def refresh(self) -> None:
        """Have everything read again soon."""
        for _, watch in self._watches.values():
            watch.refresh()

    def close(self) -> None:
        """End all streams: their pages find another instance."""
        for pushed in (*(watch for _, watch in self._watches.values()), *self._others.values()):
            pushed.close()

    def html(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page or a dialog."""
        text = self.templates.get_template(template).render(values)
        return HTMLResponse(text, status, headers=HEADERS)


class _Parts:
    """Renders the parts of one connection's pages."""

    def __init__(self, templates: Environment, broker: str) -> None:
        self._templates = {part: templates.get_template(f"parts/{part}.html") for part in PARTS}
        self._broker = broker

    def __call__(self, part: str, shown: Shown) -> str:
        return self._templates[part].render(shown=shown, broker=self._broker)


@pages.get("/")
async def overview(request: Request, via: Annotated[str, Query(max_length=64)] = "default") -> Response:
    """The account, what it holds, and the link to the broker."""
    return await page(request, "overview", via)


@pages.get("/orders")
async def orders(request: Request, via: Annotated[str, Query(max_length=64)] = "default") -> Response:
    """Orders and positions."""
    return await page(request, "orders", via)


@pages.get("/login")
async def login(request: Request) -> Response:
    """Where a session begins; with the token behind a `#`, which is never sent, by itself."""
    dashboard = dashboard_of(request)
    local = dashboard.stack == "local"
    hint = "make -s token prints one." if local else "A token of your organisation's login."
    return dashboard.html("login.html", title="Log in", hint=hint)


@pages.get("/values/{connection_id}")
async def values(who: Reader, via: Via, connection_id: str, request: Request, span: Span = "day") -> Values:
    """What the connection's account was worth, for the plot."""
    account = dashboard_of(request).watch(connection_id, via, request).shown.account.value
    if account is None:
        account = await via.broker.get_account_async()
    store = ValueStore(request.app.state.engine)
    return await asyncio.to_thread(store.read, connection_id, account.id, span)


@pages.get("/live/{connection_id}")
async def live(
    who: Reader, via: Via, connection_id: str, request: Request, parts: Annotated[str, Query(max_length=200)]
) -> StreamingResponse:
    """The named parts of a page whenever they change, until the session ends.

    Where no stream may be opened (`broker.service.streams`), once: the page comes again in ASKS_EVERY
    seconds.
    """
    dashboard = dashboard_of(request)
    wanted = parts.split(",")
    # One stream for everything: over HTTP/1.1 a browser opens six connections to a site and no more.
    own = (dashboard.of_user(part, request, who) for part in wanted)
    sources: list[Pushed] = [dashboard.watch(connection_id, via, request)]
    sources += dict.fromkeys(one for one in own if one)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    streams: Streams = request.app.state.streams
    try:
        streams.check(who.user)
    except TooManyStreams as full:
        request.app.state.metrics.refused_streams.labels(full.status).inc()
        await sources[0].look(FIRST_LOOK)
        told: Iterable[str] | AsyncIterator[str] = [_once(sources, wanted, full.message)]
    else:
        told = _events(sources, wanted, streams, who)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


async def page(request: Request, name: str, via: str, sought: str = "", **more: Any) -> Response:
    """One of PAGES for a connection; to the login without a session.

    `sought`: parameters of the page's address that its stream needs too, encoded.
    """
    try:
        who = await viewer(request)
    except Unauthorized:
        back = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
        return RedirectResponse(f"/login?next={back}", 303, headers=HEADERS)
    if name in OPERATORS and "operator" not in who.roles:
        raise HTTPException(404)  # as for an address that there isn't
    found = await connection_of(request, via, who)
    watch = dashboard_of(request).watch(via, found, request)
    await watch.look(FIRST_LOOK)
    return dashboard_of(request).html(
        f"{name}.html",
        page=name,
        title=PAGES[name][1],
        pages=[
            (one, address, label)
            for one, (address, label, _) in PAGES.items()
            if one not in OPERATORS or (request.app.state.fleet is not None and "operator" in who.roles)
        ],
        parts=PAGES[name][2],
        sought=sought,
        via=via,
        connections=await _connections(request, who),
        mode=found.mode,
        broker=found.broker_type,
        user=who.user,
        roles=sorted(who.roles),
        until=who.until,
        shown=watch.shown,
        **more,
    )


async def _events(
    sources: Sequence[Pushed], parts: Sequence[str], streams: Streams, who: Principal
) -> AsyncIterator[str]:
    # Held from here on: a page that is gone before it begins would never let go of it.
    with streams.held(who.user):
        # At once, so that the page knows that it is connected; `retry` is in milliseconds.
        yield "retry: 1000\n\n"
        yield _event(_crowded(""))
        async for news in follow(sources, parts, streams.until(who.until)):
            yield ": nothing new\n\n" if news is None else _event(news)


def _once(sources: Sequence[Pushed], parts: Sequence[str], why: str) -> str:
    """All parts as they are now, why there is no more, and when to come again."""
    found = _crowded(why)
    for source in sources:
        found |= source.news(parts, 0)[0]
    return f"retry: {ASKS_EVERY * 1000}\n{_event(found)}"


def _crowded(why: str) -> dict[str, str]:
    """The notice of a page that got no stream; hidden where there is one."""
    said = f"This page is brought up to date every {ASKS_EVERY} seconds only: {why}." if why else ""
    return {"crowded": f'<p id="crowded" class="notice" role="status"{"" if why else " hidden"}>{said}</p>'}


def _event(news: Mapping[str, str]) -> str:
    """Parts as one message, each swapped for the element with its name."""
    lines = []
    for part, html in news.items():
        lines.append(f'<hx-partial hx-target="#{part}" hx-swap="outerMorph">')
        lines += html.splitlines()
        lines.append("</hx-partial>")
    return "".join(f"data: {line}\n" for line in lines) + "\n"


async def _connections(request: Request, who: Principal) -> list[tuple[str, str]]:
    """What this user may look at: the service's own connections, and their own accounts."""
    fleet: Fleet | None = request.app.state.fleet
    own: list[Account] = []
    if fleet is not None:
        with contextlib.suppress(SQLAlchemyError, FleetAway):
            own = await fleet.call(fleet.repository.of_user, who.user, 100)
    others = [name for name in request.app.state.connections if name != "default"]
    return [
        ("default", "the service's"),
        *((name, f"the service's {name} gateway") for name in others),
        *((one.id, one.id) for one in own),
    ]


def dashboard_of(request: Request) -> Dashboard:
    """The app's dashboard."""
    found: Dashboard = request.app.state.dashboard
    return found


class Files(StaticFiles):
    """Files whose addresses change with their content, so that a browser may keep them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See StaticFiles."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= FILTERS
    made.globals |= {"static": _static, "package": _package}
    return made


_digests: dict[str, str] = {}


def _static(name: str) -> str:
    """The address of one of our files, another one whenever its content is another."""
    if name not in _digests:
        _digests[name] = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?{_digests[name]}"


def _package(name: str, file: str) -> str:
    """The address of a third-party file."""
    if name not in _digests:
        found = sorted(folder.name for folder in PACKAGES.glob(f"{name}-*"))
        _digests[name] = found[-1] if found else name
    return f"/packages/{_digests[name]}/{file}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
