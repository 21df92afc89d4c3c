"""The operators' page of all users' gateways: counts, filters (in its address), and what is unknown."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.account import Account, State
from broker.fleet.overview_rows import Counted, Sought
from broker.service.auth import Principal
from broker.service.dashboard import health_items
from broker.service.dashboard.pages import dashboard_of, page
from broker.service.dashboard.pushed import Pushed
from broker.service.fleet import Fleet, FleetAway
from broker.service.fleet_operator import sendable
from broker.service.fleet_routes import shown_all
from broker.service.fleet_schemas import ConnectedAccount

log = structlog.get_logger("broker.service.dashboard")

#: seconds between two looks at the database
SECONDS = 3.0
PER_PAGE = 50
FILTERS = ("status", "reason", "environment", "region", "search")
ENVIRONMENTS = ("demo", "paper", "live")
LONGEST = 256

fleet_pages = APIRouter(include_in_schema=False)

Words = Annotated[str, Query(max_length=LONGEST)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page's address asks for."""

    sought: Sought
    after: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Asked:
        """From an address' parameters; without what no account's columns can hold."""
        given = {name: sendable(values.get(name, ""))[:LONGEST] for name in (*FILTERS, "after")}
        after = given.pop("after")
        return cls(Sought(**given), after)

    def address(self, **changes: str) -> str:
        """The page's address with some of it otherwise, from its first account on."""
        return f"/fleet?{self.parameters(**changes)}".rstrip("?")

    def parameters(self, **changes: str) -> str:
        """The same, as parameters only."""
        return urlencode({name: value for name, value in (asdict(self.sought) | changes).items() if value})


@dataclass(frozen=True, slots=True)
class Row:
    """An account in the list."""

    told: ConnectedAccount
    user: str
    droplet: str


Render = Callable[[str, dict[str, Any]], str]


@fleet_pages.get("/fleet")
async def fleet_page(
    request: Request,
    via: Annotated[str, Query(max_length=64)] = "default",
    status: Words = "",
    reason: Words = "",
    environment: Words = "",
    region: Words = "",
    search: Words = "",
    after: Words = "",
) -> Response:
    """All users' gateways, for operators."""
    fleet: Fleet | None = request.app.state.fleet
    asked = Asked.of(request.query_params)
    return await page(
        request,
        "fleet",
        via,
        asked.parameters(after=asked.after),
        asked=asked,
        fleet=fleet is not None,
        statuses=[state.value for state in State],
        environments=ENVIRONMENTS,
        regions=await _regions(request, fleet),
    )


async def _regions(request: Request, fleet: Fleet | None) -> list[str]:
    """The regions to choose from; none if they can't be read, and the list says why."""
    try:
        return [] if fleet is None else await fleet.call(lambda: fleet.repository.regions())
    except (SQLAlchemyError, FleetAway):
        return []


class FleetWatch(Pushed):
    """The accounts that one address asks for."""

    def __init__(self, fleet: Fleet, asked: Asked, render: Render) -> None:
        super().__init__()
        self._fleet = fleet
        self._asked = asked
        self._render = render
        self._seen: dict[str, dict[str, Any]] = {}
        self._at: datetime | None = None

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._keep_reading()]

    async def _keep_reading(self) -> None:
        while True:
            try:
                read = await self._read()
                self._at = datetime.now(UTC)
                found = {name: values | {"problem": ""} for name, values in read.items()}
            except (SQLAlchemyError, FleetAway) as failure:
                why = failure.reason if isinstance(failure, FleetAway) else type(failure).__name__
                said = f"The accounts can't be read now ({why})."
                known = self._seen or {part: {} for part in PARTS}
                found = {part: values | {"problem": said} for part, values in known.items()}
            except Exception:
                log.exception("the fleet's page can't be read")
                found = self._seen
            changed = {part: values for part, values in found.items() if self._seen.get(part) != values}
            self._seen = found
            self._show(
                {part: self._render(part, values | {"at": self._at}) for part, values in changed.items()}
            )
            await self._pause(SECONDS)

    async def _read(self) -> dict[str, dict[str, Any]]:
        fleet, sought = self._fleet, self._asked.sought
        repository = fleet.repository
        others = Sought(environment=sought.environment, region=sought.region, search=sought.search)
        counts = await fleet.call(repository.counts, others)
        found = await fleet.call(repository.all_accounts, sought, PER_PAGE + 1, self._asked.after)
        unknown = await fleet.call(repository.quarantined)
        lease = await fleet.call(fleet.lease.look)
        due = fleet.runner.resting_interval(int(lease.passed.get("droplets", 0)) if lease else 0)
        shown = found[:PER_PAGE]
        return {
            "fleet-counts": {"statuses": _by_status(counts), "fitting": _fitting(counts, sought)},
            "fleet-accounts": {
                "rows": _rows(shown, await shown_all(fleet, shown)),
                "next": shown[-1].id if len(found) > PER_PAGE else "",
            },
            "fleet-passes": {
                "items": [
                    health_items.of_passes(lease, due),
                    health_items.of_digitalocean(lease, fleet.calls_left // 50 * 50, fleet.droplets_left),
                    *health_items.of_leftovers(lease),
                ],
                "quarantine": unknown,
                "passed_at": lease.passed_at if lease else None,
            },
        }


PARTS = ("fleet-counts", "fleet-accounts", "fleet-passes")


def make_watch(request: Request, who: Principal) -> FleetWatch | None:
    """What an operator sees; None for others, and where the fleet is switched off."""
    fleet: Fleet | None = request.app.state.fleet
    if fleet is None or "operator" not in who.roles:
        return None
    templates = {part: dashboard_of(request).templates.get_template(f"parts/{part}.html") for part in PARTS}
    asked = Asked.of(request.query_params)
    return FleetWatch(fleet, asked, lambda part, values: templates[part].render(values, asked=asked))


def _rows(accounts: Sequence[Account], told: Sequence[ConnectedAccount]) -> list[Row]:
    pairs = zip(accounts, told, strict=True)
    return [Row(one, account.user_id, account.do_droplet_name or "") for account, one in pairs]


def _by_status(counts: Sequence[Counted]) -> dict[str, list[Counted]]:
    """The counts of each status, in the order of an account's life."""
    found = {state.value: [c for c in counts if c.status == state] for state in State}
    return {status: some for status, some in found.items() if some}


def _fitting(counts: Sequence[Counted], sought: Sought) -> int:
    """How many accounts the list has on all its pages."""
    return sum(
        c.accounts for c in counts if sought.status in ("", c.status) and sought.reason in ("", c.reason)
    )
