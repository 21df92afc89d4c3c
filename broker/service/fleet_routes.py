"""Users' own accounts over HTTP: connected, looked at, started and stopped. docs/fleet.md tells users."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from broker.fleet.account import Account, State, message_of
from broker.service import fleet_actions
from broker.service.auth import Principal, bearer, require
from broker.service.fleet import Fleet
from broker.service.fleet_problems import SecretRoute, fleet_of
from broker.service.fleet_schemas import AccountPage, ConnectBody, ConnectedAccount, connected
from broker.service.routes import problem_answers

log = structlog.get_logger("broker.service.fleet")

#: how long a connect waits for the droplet's number, and how often it looks, in seconds
NUMBER_SECONDS = 8.0
LOOK_SECONDS = 0.2

User = Annotated[Principal, Depends(require("user", "trader", "operator"))]
OfFleet = Annotated[Fleet, Depends(fleet_of)]
AccountId = Annotated[str, Path(max_length=64, examples=["ib-demo-a1b2c3d4"])]
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=128, pattern=r"^[ -~]+$", description="Repeating the request with it is safe"),
]

accounts = APIRouter(
    prefix="/api/v1/brokers/interactivebrokers",
    tags=["accounts"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 503),
    route_class=SecretRoute,
)


def shown(fleet: Fleet, account: Account) -> ConnectedAccount:
    """The answer about an account."""
    return connected(account, fleet.size(account.environment), fleet.prices)


@accounts.post(
    "/connect",
    status_code=202,
    response_model=ConnectedAccount,
    responses={
        200: {"description": "It is connected already", "model": ConnectedAccount},
        **problem_answers(400, 409, 413, 429),
    },
)
async def connect(
    who: User,
    fleet: OfFleet,
    body: ConnectBody,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ConnectedAccount:
    """Connect an IBKR login: a server of its own is made for it, and its gateway logs in.

    202 for a new account; 200 for one that is there: the same user, user name and environment, or the same
    `Idempotency-Key`. `service_id` is null if DigitalOcean takes longer than a few seconds.
    """
    key = (idempotency_key or "").strip().strip('"')
    account, new = await fleet.ask(fleet_actions.connect, fleet, who.user, body, key)
    structlog.contextvars.bind_contextvars(account_id=account.id)
    if not new:
        response.status_code = 200
        return shown(fleet, account)
    log.info("connected", environment=account.environment)
    account = await _with_number(fleet, account)
    told = shown(fleet, account)
    if account.status == State.PROVISIONING and account.status_reason in ("", "creating"):
        told.message = message_of(State.PROVISIONING, "")
    return told


async def _with_number(fleet: Fleet, account: Account) -> Account:
    """The account once its droplet has a number or can't be made, or after some seconds."""
    until = time.monotonic() + NUMBER_SECONDS
    while account.do_droplet_id is None and account.status == State.PROVISIONING and time.monotonic() < until:
        await asyncio.sleep(LOOK_SECONDS)
        found = await fleet.call(fleet.repository.get, account.id)
        account = found or account
    return account


@accounts.get("/accounts")
async def list_accounts(
    who: User,
    fleet: OfFleet,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str, Query(max_length=64, pattern=r"^[ -~]*$")] = "",
) -> AccountPage:
    """Your accounts, by id; deleted ones are left out."""
    found = await fleet.call(fleet.repository.of_user, who.user, limit + 1, after)
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return AccountPage(accounts=[shown(fleet, account) for account in page], next=following)


@accounts.get("/accounts/{account_id}")
async def get_account(who: User, fleet: OfFleet, account_id: AccountId) -> ConnectedAccount:
    """One of your accounts."""
    return shown(fleet, await fleet.call(fleet_actions.own, fleet, account_id, who.user))


@accounts.get("/accounts/{account_id}/status", response_model=ConnectedAccount)
async def get_status(who: User, fleet: OfFleet, account_id: AccountId, request: Request) -> Response:
    """One of your accounts, from memory: cheap enough to be asked for every second."""
    found = fleet.statuses.find(account_id, who.user)
    if found is None:
        since = fleet.statuses.changes
        account = await fleet.call(fleet_actions.own, fleet, account_id, who.user)
        found = shown(fleet, account).model_dump_json().encode()
        fleet.statuses.keep(account_id, who.user, found, since)
    return Response(found, media_type="application/json")
