"""The Health page: what is well and what isn't, since when, and what to do; and how many problems there are.

A user sees the configured broker and what is theirs, an operator all of it. Nothing is asked for it that
isn't looked at anyway: the broker's health is the one that the other pages show, and gateways are as the
last pass found them (or as their page sees them, where somebody has it open).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from broker.alert_kinds import FLEET, Severity, about
from broker.models import Health
from broker.service.alarms import AlarmStore
from broker.service.auth import Principal
from broker.service.dashboard import health_items, remedies
from broker.service.dashboard.health_items import Item, Mark
from broker.service.dashboard.pages import Dashboard, dashboard_of, page
from broker.service.dashboard.pushed import Pushed
from broker.service.dashboard.watch import Watch
from broker.service.dashboard.wording import sentence
from broker.service.database import why_not_ready
from broker.service.fleet import Fleet, FleetAway

log = structlog.get_logger("broker.service.dashboard")

#: seconds between two looks; alarms are looked for at every third
SECONDS = 3.0
MOST_GATEWAYS, MOST_ALARMS = 50, 20

_SIGNS = {Severity.INFO: "i", Severity.WARNING: Mark.LOOK.value, Severity.ERROR: Mark.BAD.value}

health = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Past:
    """An alarm that was raised. `whose`: the account's id, or empty."""

    at: datetime
    title: str
    severity: str
    sign: str
    text: str
    remedy: str
    whose: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Some things of one kind; `empty` is said where there are none."""

    title: str
    items: tuple[Item, ...]
    empty: str = ""


Render = Callable[[list[Section], list[Past] | None], dict[str, str]]


@health.get("/health-page")
async def health_page(request: Request, via: Annotated[str, Query(max_length=64)] = "default") -> Response:
    """What is well and what isn't."""
    return await page(request, "health", via)


class HealthWatch(Pushed):
    """What one user, or one operator, sees of it."""

    def __init__(self, request: Request, who: Principal, render: Render) -> None:
        super().__init__()
        state = request.app.state
        self._engine: Engine = state.engine
        self._fleet: Fleet | None = state.fleet
        self._alarms: AlarmStore = state.alarms
        self._dashboard: Dashboard = state.dashboard
        #: the service's own connections: broker, mode, and what is seen of it
        self._links: list[tuple[str, str, Watch]] = [
            (via.broker_type, via.mode, self._dashboard.watch(name, via, request))
            for name, via in state.connections.items()
        ]
        self._user, self._operator = who.user, "operator" in who.roles
        self._render = render
        self._seen: object = None
        self._gateways: Section | None = None
        self._gateways_at: datetime | None = None
        self._past: list[Past] | None = None
        #: why the database can't be used, and since when that is so
        self._database: tuple[str, datetime | None] = ("", None)

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._keep_reading()]

    async def _keep_reading(self) -> None:
        with contextlib.ExitStack() as stack:
            for _, _, watch in self._links:
                stack.enter_context(watch.followed(asyncio.Event()))
            await self._links[0][2].look(SECONDS)
            number = 0
            while True:
                try:
                    await self._read(with_alarms=number % 3 == 0)
                except Exception:
                    log.exception("the health page can't be read")
                number += 1
                await self._pause(SECONDS)

    async def _read(self, with_alarms: bool) -> None:
        links = (
            health_items.of_link(
                broker, watch.shown.health, self._operator, mode if len(self._links) > 1 else ""
            )
            for broker, mode, watch in self._links
        )
        sections = [Section("Broker", tuple(links))]
        if self._fleet is not None:
            sections.append(await self._own_gateways(self._fleet))
        if self._operator:
            sections += await self._service(self._fleet)
        if with_alarms:
            self._past = await self._alarms_now()
        seen = (sections, self._past)
        # Most readings find what the last one has found: making HTML of it costs more than reading it.
        if seen != self._seen:
            self._seen = seen
            self._show(self._render(sections, self._past))

    async def _own_gateways(self, fleet: Fleet) -> Section:
        title = "Your gateways"
        try:
            found = await fleet.call(fleet.repository.of_user, self._user, MOST_GATEWAYS)
        except (SQLAlchemyError, FleetAway) as failure:
            since = self._gateways_at
            away = Item(title, Mark.UNKNOWN, "can't be read", since, _why(failure), health_items.BACK_SOON)
            known = self._gateways.items if self._gateways is not None else ()
            return Section(title, (away, *known))
        items = tuple(health_items.of_account(account, self._link(account.id)) for account in found)
        self._gateways = Section(title, items, "No account is connected.")
        self._gateways_at = datetime.now(UTC)
        return self._gateways

    def _link(self, account_id: str) -> Health | None:
        """A gateway's health where somebody here looks at its page now."""
        shown = self._dashboard.shown_now(account_id)
        return None if shown is None or shown.health.problem else shown.health.value

    async def _service(self, fleet: Fleet | None) -> list[Section]:
        """What operators see beside."""
        why, up_since = await asyncio.to_thread(_database, self._engine)
        if bool(why) != bool(self._database[0]):
            self._database = (why, datetime.now(UTC))
        database = health_items.of_database(why, self._database[1] or up_since)
        if fleet is None:
            return [Section("Service", (database, Item("Users' accounts", Mark.OFF, "switched off")))]
        title = "All users' gateways"
        try:
            lease = await fleet.call(fleet.lease.look)
            counts = await fleet.call(fleet.repository.counts)
            due = fleet.runner.resting_interval(int(lease.passed.get("droplets", 0)) if lease else 0)
        except (SQLAlchemyError, FleetAway) as failure:
            since = failure.since if isinstance(failure, FleetAway) else self._database[1]
            away = Item("Reconciler", Mark.UNKNOWN, "not known", since, _why(failure), health_items.SEE_LOG)
            return [Section("Service", (database, away))]
        service = (
            database,
            health_items.of_passes(lease, due),
            health_items.of_digitalocean(lease, fleet.calls_left, fleet.droplets_left),
            *health_items.of_leftovers(lease),
        )
        troubles = tuple(health_items.of_troubles(counts))
        return [Section("Service", service), Section(title, troubles, "None of them needs anybody.")]

    async def _alarms_now(self) -> list[Past] | None:
        """The last ones; None if they can't be read."""
        with contextlib.suppress(SQLAlchemyError, FleetAway):
            if self._operator:
                kept = await asyncio.to_thread(self._alarms.recent, MOST_ALARMS)
                return [_past(a.at, a.kind, a.text, remedies.of_alert(a.kind)) for a in kept]
            if self._fleet is None:
                return []
            told = await self._fleet.call(self._fleet.repository.troubles, self._user, FLEET, MOST_ALARMS)
            return [_past(t.at, t.reason, t.text, remedies.of_account(t.reason), t.account_id) for t in told]
        return None


def make_watch(request: Request, who: Principal) -> HealthWatch:
    """What a user sees."""
    templates = dashboard_of(request).templates
    whole, count = templates.get_template("parts/health.html"), templates.get_template("parts/problems.html")

    def render(sections: list[Section], past: list[Past] | None) -> dict[str, str]:
        problems = sum(item.problem for section in sections for item in section.items)
        values = {"sections": sections, "past": past, "problems": problems}
        return {"health": whole.render(values), "problems": count.render(values)}

    return HealthWatch(request, who, render)


def _past(at: datetime, kind: str, text: str, remedy: str, whose: str = "") -> Past:
    known = about(kind)
    return Past(at, known.title, known.severity.value, _SIGNS[known.severity], text, remedy, whose)


def _database(engine: Engine) -> tuple[str, datetime | None]:
    """Why it can't be used, if it can't; and since when it is up, if it is."""
    why = why_not_ready(engine)
    if why:
        return why, None
    with contextlib.suppress(SQLAlchemyError), engine.connect() as db:
        return "", db.execute(text("select pg_postmaster_start_time()")).scalar_one()
    return "", None


def _why(failure: Exception) -> str:
    if isinstance(failure, FleetAway):
        return f"{sentence(failure.reason)}."
    return f"The database can't be used ({type(failure).__name__}); what follows is the last that is known."
