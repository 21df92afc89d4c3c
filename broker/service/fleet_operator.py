"""The fleet's other callers: droplets that enrol, the scheduler, and operators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import httpx
import structlog
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from broker.fleet.enrolment import EnrolmentLater, EnrolmentRefused
from broker.fleet.overview_rows import Sought
from broker.fleet.reconciler import Pass
from broker.service.auth import Authenticator, Forbidden, KeySet, Principal, bearer, require
from broker.service.fleet import Fleet
from broker.service.fleet_problems import Refusal, SecretRoute, fleet_of
from broker.service.fleet_routes import shown_all
from broker.service.fleet_schemas import ConnectedAccount, Environment, Status
from broker.service.fleet_settings import FleetEnvironment
from broker.service.routes import problem_answers

log = structlog.get_logger("broker.service.fleet")

OfFleet = Annotated[Fleet, Depends(fleet_of)]

droplets = APIRouter(prefix="/api/v1", tags=["droplets"], route_class=SecretRoute)


class EnrolmentBody(BaseModel):
    """What a droplet says of itself."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "account_id": "ib-demo-a1b2c3d4",
                    "token": "ENROLMENT_TOKEN",
                    "certificate": "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n",
                }
            ]
        },
    )

    account_id: Annotated[str, Field(max_length=48, pattern=r"^[ -~]*$")]
    token: Annotated[SecretStr, Field(max_length=256, description="What its user data holds; it works once")]
    certificate: Annotated[str, Field(max_length=16384, description="PEM")]


@droplets.post(
    "/enrolments",
    operation_id="enrol_droplet",
    status_code=204,
    responses=problem_answers(400, 403, 404, 413, 422, 503),
)
async def enrol(fleet: OfFleet, body: EnrolmentBody) -> None:
    """A droplet that the service has made registers its certificate, once. 503: ask again.

    Its token is what it shows for itself; whoever else has one learns nothing, and nothing is changed.
    """
    structlog.contextvars.bind_contextvars(account_id=body.account_id)
    try:
        await fleet.ask(
            fleet.enroller.enrol, body.account_id, body.token.get_secret_value(), body.certificate
        )
    except EnrolmentRefused:
        raise Refusal(403, "enrolment-refused", "Not accepted", "this droplet isn't known here") from None
    except EnrolmentLater:
        said = "it can't be told yet whether this droplet is known: ask again"
        raise Refusal(503, "enrolment-later", "Not yet", said, retry_after=3) from None
    log.info("a droplet has enrolled")


class Scheduler:
    """Who may have passes run on a schedule: the one service account that is set, by its OIDC token.

    Cloud Run's own check isn't relied on: it lets in whoever may call the service at all.
    """

    def __init__(self, keys: KeySet, issuer: str, audience: str, email: str) -> None:
        self._tokens = Authenticator(keys, issuer, audience)
        self._email = email

    @classmethod
    def of(cls, client: httpx.AsyncClient, settings: FleetEnvironment | None) -> Scheduler | None:
        """As the settings say; None where nothing is scheduled."""
        if settings is None or not settings.scheduler_audience:
            return None
        keys = KeySet(client, settings.scheduler_issuer, settings.scheduler_jwks_url)
        return cls(keys, settings.scheduler_issuer, settings.scheduler_audience, settings.scheduler_email)

    async def check(self, authorization: str | None) -> None:
        """Raises `Unauthorized`, `Forbidden`, `NotConnected` (keys can't be had)."""
        claims = await self._tokens.claims(authorization)
        if claims.get("email") != self._email or claims.get("email_verified") is not True:
            raise Forbidden("this is for the scheduler's service account")


async def scheduler(request: Request) -> None:
    """A dependency that lets in the scheduler only."""
    await fleet_of(request)
    found: Scheduler | None = request.app.state.scheduler
    if found is None:
        said = "no scheduler is set: SCHEDULER_AUDIENCE and SCHEDULER_EMAIL say who may call this"
        raise Refusal(404, "scheduler-off", "Nothing is scheduled here", said)
    await found.check(request.headers.get("authorization"))


class PassDone(BaseModel):
    """What a pass found and did."""

    #: false: another instance runs the passes
    ran: bool
    #: how long it took
    seconds: float = 0.0
    #: how many it looked at
    accounts: int = 0
    #: how many there are
    droplets: int = 0
    #: accounts that aren't where they shall be yet
    moving: int = 0
    #: droplets with our tags that the database can't explain
    quarantined: int = 0
    #: deletions beyond what one pass may do
    held_back: int = 0
    #: why DigitalOcean kept it from its work; empty if it didn't
    problem: str = ""


class UnknownDroplet(BaseModel):
    """A droplet with our tags that the database can't explain: never touched before a person decides."""

    #: its number at DigitalOcean
    droplet_id: int
    name: str
    #: as its tag says
    account_id: str
    first_seen: datetime
    last_seen: datetime


class AccountCount(BaseModel):
    """How many accounts have a status and reason."""

    status: Status
    reason: str
    #: how many
    accounts: int
    #: when the first of them got there
    since: datetime


class FleetOverview(BaseModel):
    """How the fleet is. Calls left are this instance's; the rest is the same in all of them."""

    #: whether this instance runs the passes
    runs_passes: bool
    #: whether any instance does: its lease hasn't run out
    passes_run: bool
    #: the last pass over the whole fleet, by whichever instance
    last_pass: PassDone | None
    last_pass_at: datetime | None
    #: how many there are, by status and reason
    accounts: list[AccountCount]
    #: droplets with our tags that the database can't explain
    quarantine: list[UnknownDroplet]
    #: calls of DigitalOcean's API left to this instance in this hour
    digitalocean_calls_left: int


class UsersAccount(ConnectedAccount):
    """An account with whose it is and what its server is called."""

    user_id: str
    droplet_name: str | None
    #: in a row, and refused by IBKR
    failed_logins: int


class UsersAccountPage(BaseModel):
    """Some accounts, by id."""

    accounts: list[UsersAccount]
    #: to be given as `after` for those that follow; null at the end
    next: str | None


scheduled = APIRouter(prefix="/api/v1", tags=["fleet"], dependencies=[Depends(bearer), Depends(scheduler)])
operators = APIRouter(
    prefix="/api/v1/fleet",
    tags=["fleet"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 503),
)
Operator = Annotated[Principal, Depends(require("operator"))]


@scheduled.post(
    "/fleet/reconcile", operation_id="reconcile_fleet", responses=problem_answers(401, 403, 404, 503)
)
async def reconcile(fleet: OfFleet) -> PassDone:
    """Run a pass now: wanted and actual are compared, and each account moves one step. For Cloud Scheduler.

    Its OIDC token is checked here: issuer, audience, and the service account's verified address.
    """
    return _done(await fleet.ask(fleet.pass_now))


@operators.get("")
async def get_fleet(who: Operator, fleet: OfFleet) -> FleetOverview:
    """Counts, unknown droplets, the last pass, and whether this instance runs them."""
    counts = await fleet.call(fleet.repository.counts)
    unknown = await fleet.call(fleet.repository.quarantined)
    lease = await fleet.call(fleet.lease.look)
    return FleetOverview(
        runs_passes=fleet.lease.held(),
        passes_run=lease is not None and lease.held,
        last_pass=PassDone(ran=True, **lease.passed) if lease and lease.passed else None,
        last_pass_at=lease.passed_at if lease else None,
        accounts=[AccountCount.model_validate(asdict(count)) for count in counts],
        quarantine=[UnknownDroplet(**asdict(droplet)) for droplet in unknown],
        digitalocean_calls_left=fleet.calls_left,
    )


Words = Annotated[str, Query(max_length=64, pattern=r"^[ -~]*$")]


@operators.get("/accounts", operation_id="get_fleet_accounts")
async def get_accounts(
    who: Operator,
    fleet: OfFleet,
    status: Status | None = None,
    reason: Annotated[Words, Query(description="Of the status, see docs/fleet.md")] = "",
    environment: Environment | None = None,
    region: Annotated[Words, Query(description="Where the server is")] = "",
    search: Annotated[
        str, Query(max_length=256, description="Part of the id, the user, or the droplet's name")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Words = "",
) -> UsersAccountPage:
    """Everybody's accounts without credentials, by id: those that fit all that is given.

    Deleted ones are told only if that is the status.
    """
    sought = Sought(status or "", reason, environment or "", region, sendable(search))
    found = await fleet.call(fleet.repository.all_accounts, sought, limit + 1, after)
    page = found[:limit]
    accounts = [
        UsersAccount(
            **told.model_dump(),
            user_id=account.user_id,
            droplet_name=account.do_droplet_name,
            failed_logins=account.failed_logins,
        )
        for account, told in zip(page, await shown_all(fleet, page), strict=True)
    ]
    return UsersAccountPage(accounts=accounts, next=page[-1].id if len(found) > limit else None)


def sendable(search: str) -> str:
    """What PostgreSQL can be asked for: without NUL and halves of surrogate pairs, which no name holds."""
    return "".join(letter for letter in search if letter.isprintable())


def _done(told: Pass | None) -> PassDone:
    if told is None:
        return PassDone(ran=False)
    names: Iterable[str] = PassDone.model_fields.keys() - {"ran"}
    return PassDone(ran=True, **{name: getattr(told, name) for name in names})
