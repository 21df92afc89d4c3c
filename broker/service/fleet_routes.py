"""Users' own accounts over HTTP: connected, looked at, started and stopped. docs/fleet.md tells users."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVarTuple, Unpack

import structlog
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from broker.fleet.account import Account, State, Wanted, message_of
from broker.service import fleet_actions
from broker.service.auth import Principal, bearer, require
from broker.service.fleet import ROOM_WAIT, Fleet
from broker.service.fleet_problems import SecretRoute, fleet_of
from broker.service.fleet_schemas import (
    AccountEvent,
    AccountPage,
    ConnectBody,
    ConnectedAccount,
    Credentials,
    History,
    IbAccountBody,
    LogLines,
    PolicyBody,
    connected,
)
from broker.service.routes import problem_answers

log = structlog.get_logger("broker.service.fleet")

#: how long a connect waits for the droplet's number, and how often it looks, in seconds
NUMBER_SECONDS = 8.0
LOOK_SECONDS = 0.2

_More = TypeVarTuple("_More")
OfFleet = Annotated[Fleet, Depends(fleet_of)]
AccountId = Annotated[str, Path(max_length=64, examples=["ib-demo-a1b2c3d4"])]
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=128, pattern=r"^[ -~]+$", description="Repeating the request with it is safe"),
]

user = require("user", "trader", "operator")


class StatusRoute(SecretRoute):
    """Answers from memory before anything else is looked at but the token."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def from_memory(request: Request) -> Response:
            fleet: Fleet | None = request.app.state.fleet
            if fleet is not None:
                who = await user(request)
                found = fleet.statuses.find(request.path_params["account_id"], who.user)
                if found is not None:
                    return Response(found, media_type="application/json")
            return await handle(request)

        return from_memory


accounts = APIRouter(
    prefix="/api/v1/brokers/interactivebrokers",
    tags=["accounts"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 503),
    route_class=SecretRoute,
)


User = Annotated[Principal, Depends(user)]
_ALREADY: dict[int | str, dict[str, Any]] = {
    200: {"description": "So it is already", "model": ConnectedAccount},
    **problem_answers(409, 429),
}


async def shown(fleet: Fleet, account: Account) -> ConnectedAccount:
    """The answer about an account. Raises SQLAlchemyError."""
    return (await shown_all(fleet, [account]))[0]


async def shown_all(fleet: Fleet, accounts: Sequence[Account]) -> list[ConnectedAccount]:
    """The answers about several. Raises SQLAlchemyError."""
    had = await fleet.call(fleet.repository.billed, [account.id for account in accounts])
    return [
        connected(account, fleet.size(account.environment), fleet.prices, had.get(account.id, ()))
        for account in accounts
    ]


@accounts.post(
    "/connect",
    operation_id="connect_account",
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
    there = await fleet.call(fleet_actions.connected, fleet, who.user, body, key)
    if there is not None:
        account, new = there, False
    else:
        with contextlib.suppress(TimeoutError):  # a slow DigitalOcean keeps nobody from connecting
            await asyncio.wait_for(fleet.ask(fleet_actions.check_room, fleet, body.environment), ROOM_WAIT)
        account, new = await fleet.call(fleet_actions.connect, fleet, who.user, body, key)
    structlog.contextvars.bind_contextvars(account_id=account.id)
    if not new:
        response.status_code = 200
        return await shown(fleet, account)
    log.info("connected", environment=account.environment)
    account = await _with_number(fleet, account)
    told = await shown(fleet, account)
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
    return AccountPage(accounts=await shown_all(fleet, page), next=following)


@accounts.get("/accounts/{account_id}", operation_id="get_connected_account")
async def get_account(who: User, fleet: OfFleet, account_id: AccountId) -> ConnectedAccount:
    """One of your accounts."""
    return await shown(fleet, await fleet.call(fleet_actions.own, fleet, account_id, who.user))


async def get_status(who: User, fleet: OfFleet, account_id: AccountId) -> Response:
    """One of your accounts, from memory: cheap enough to be asked for every second."""
    since = fleet.statuses.changes
    account = await fleet.call(fleet_actions.own, fleet, account_id, who.user)
    told = (await shown(fleet, account)).model_dump_json().encode()
    fleet.statuses.keep(account_id, who.user, told, since)
    return Response(told, media_type="application/json")


accounts.add_api_route(
    "/accounts/{account_id}/status",
    get_status,
    operation_id="get_account_status",
    response_model=ConnectedAccount,
    responses=problem_answers(401, 403, 404, 422, 503),
    route_class_override=StatusRoute,
)


@accounts.post(
    "/accounts/{account_id}/start", operation_id="start_account", status_code=202, responses=_ALREADY
)
async def start(who: User, fleet: OfFleet, account_id: AccountId, response: Response) -> ConnectedAccount:
    """Start the server and log in, or log in once more after an error. 200 if that is under way already."""
    return await _changed(fleet, response, fleet_actions.want, account_id, who.user, Wanted.RUNNING)


@accounts.post(
    "/accounts/{account_id}/stop", operation_id="stop_account", status_code=202, responses=_ALREADY
)
async def stop(who: User, fleet: OfFleet, account_id: AccountId, response: Response) -> ConnectedAccount:
    """Switch the server off: quick to start again, and billed meanwhile. Orders at IBKR go on working."""
    return await _changed(fleet, response, fleet_actions.want, account_id, who.user, Wanted.STOPPED)


@accounts.post(
    "/accounts/{account_id}/hibernate", operation_id="hibernate_account", status_code=202, responses=_ALREADY
)
async def hibernate(who: User, fleet: OfFleet, account_id: AccountId, response: Response) -> ConnectedAccount:
    """Delete the server and keep the account: nothing is billed, and a start makes a new server."""
    return await _changed(fleet, response, fleet_actions.want, account_id, who.user, Wanted.HIBERNATED)


@accounts.post(
    "/accounts/{account_id}/restart", operation_id="restart_account", status_code=202, responses=_ALREADY
)
async def restart(who: User, fleet: OfFleet, account_id: AccountId, response: Response) -> ConnectedAccount:
    """Restart the gateway, which logs in anew: a live login has to be approved on the phone again."""
    return await _changed(fleet, response, fleet_actions.restart, account_id, who.user)


@accounts.delete("/accounts/{account_id}", operation_id="delete_account", status_code=202, responses=_ALREADY)
async def delete(who: User, fleet: OfFleet, account_id: AccountId, response: Response) -> ConnectedAccount:
    """Delete the server, the credentials and the account; its history stays. 200 if it was asked for already.

    Orders at IBKR go on working: cancel them first.
    """
    return await _changed(fleet, response, fleet_actions.want, account_id, who.user, Wanted.DELETED)


@accounts.put(
    "/accounts/{account_id}/credentials",
    operation_id="set_account_credentials",
    status_code=202,
    responses=problem_answers(400, 409, 413, 429),
)
async def put_credentials(
    who: User, fleet: OfFleet, account_id: AccountId, body: Credentials, response: Response
) -> ConnectedAccount:
    """Another password, or another IBKR user name. The server stays, and logs in with it at once."""
    return await _changed(fleet, response, fleet_actions.set_credentials, account_id, who.user, body)


@accounts.put(
    "/accounts/{account_id}/policy",
    operation_id="set_account_policy",
    responses={**_ALREADY, **problem_answers(400, 413)},
)
async def put_policy(
    who: User, fleet: OfFleet, account_id: AccountId, body: PolicyBody, response: Response
) -> ConnectedAccount:
    """When there is a server: always, in a market's hours, or until it was idle for some minutes."""
    told = await _changed(fleet, response, fleet_actions.set_policy, account_id, who.user, body)
    response.status_code = 200
    return told


@accounts.put(
    "/accounts/{account_id}/ib-account",
    operation_id="set_account_ib_account",
    responses={**_ALREADY, **problem_answers(400, 413)},
)
async def put_ib_account(
    who: User, fleet: OfFleet, account_id: AccountId, body: IbAccountBody, response: Response
) -> ConnectedAccount:
    """Which IBKR account is traded, of a login that manages several: until then its connection isn't used."""
    told = await _changed(fleet, response, fleet_actions.set_ib_account, account_id, who.user, body)
    response.status_code = 200
    return told


@accounts.get("/accounts/{account_id}/history", operation_id="get_account_history")
async def get_history(
    who: User,
    fleet: OfFleet,
    account_id: AccountId,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> History:
    """What happened to an account, the newest first: each change of its status, and who asked for what."""
    await fleet.call(fleet_actions.own, fleet, account_id, who.user)
    found = await fleet.call(fleet.repository.history, account_id, limit + 1, before)
    events = [
        AccountEvent.model_validate(
            {
                "id": number,
                "at": event.at,
                "kind": event.kind,
                "status": event.status,
                "reason": event.reason,
                "message": event.detail,
                "by": event.caused_by,
            }
        )
        for number, event in found[:limit]
    ]
    return History(events=events, next=events[-1].id if len(found) > limit else None)


@accounts.get("/accounts/{account_id}/logs", operation_id="get_account_logs", responses=problem_answers(409))
async def get_logs(
    who: User, fleet: OfFleet, account_id: AccountId, lines: Annotated[int, Query(ge=1, le=500)] = 50
) -> LogLines:
    """The last lines of the gateway's log; the server takes credentials out before it sends them."""
    return LogLines(lines=await fleet.ask(fleet_actions.last_lines, fleet, account_id, who.user, lines))


async def _changed(
    fleet: Fleet,
    response: Response,
    work: Callable[[Fleet, str, str, Unpack[_More]], tuple[Account, bool]],
    account_id: str,
    user_id: str,
    *more: *_More,
) -> ConnectedAccount:
    """The account after a change: 202 while that is carried out, 200 if there was nothing to do."""
    structlog.contextvars.bind_contextvars(account_id=account_id[:64])
    account, news = await fleet.call(work, fleet, account_id, user_id, *more)
    if not news:
        response.status_code = 200
    return await shown(fleet, account)
