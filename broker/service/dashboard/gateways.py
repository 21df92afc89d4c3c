"""The page of a user's own gateways: their statuses as they change, and what can be done with each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.account import Wanted
from broker.fleet.vault import VaultError
from broker.service import fleet_actions
from broker.service.auth import Principal
from broker.service.dashboard.forms import sent
from broker.service.dashboard.pages import dashboard_of, page
from broker.service.dashboard.pushed import Pushed
from broker.service.fleet import Fleet, FleetAway
from broker.service.fleet_problems import Refusal
from broker.service.fleet_routes import OfFleet, User, shown, shown_all
from broker.service.fleet_schemas import ConnectBody, ConnectedAccount, Credentials

log = structlog.get_logger("broker.service.dashboard")

#: seconds between two looks at the database
SECONDS = 1.5
MOST_SHOWN = 100

gateways = APIRouter(include_in_schema=False)

AccountId = Annotated[str, Path(max_length=64)]
_WANTED = {
    "start": Wanted.RUNNING,
    "stop": Wanted.STOPPED,
    "hibernate": Wanted.HIBERNATED,
    "delete": Wanted.DELETED,
}


#: makes HTML of the accounts, why they can't be read now, and when they were read last
Render = Callable[[list[ConnectedAccount], str, datetime | None], str]


class AccountsWatch(Pushed):
    """One user's accounts."""

    def __init__(self, fleet: Fleet, user: str, render: Render) -> None:
        super().__init__()
        self._fleet = fleet
        self._user = user
        self._render = render
        self._last: list[ConnectedAccount] = []
        self._at: datetime | None = None

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._keep_reading()]

    async def _keep_reading(self) -> None:
        while True:
            problem = ""
            try:
                found = await self._fleet.call(self._fleet.repository.of_user, self._user, MOST_SHOWN)
                self._last, self._at = await shown_all(self._fleet, found), datetime.now(UTC)
            except (SQLAlchemyError, FleetAway) as failure:
                why = failure.reason if isinstance(failure, FleetAway) else type(failure).__name__
                problem = f"The accounts can't be read now ({why})."
            except Exception:
                log.exception("the gateways' page can't be read")
                problem = "The accounts can't be read now."
            self._show({"gateways": self._render(self._last, problem, self._at)})
            await self._pause(SECONDS)


@gateways.get("/gateways")
async def gateways_page(request: Request, via: Annotated[str, Query(max_length=64)] = "default") -> Response:
    """The user's gateways."""
    fleet: Fleet | None = request.app.state.fleet
    return await page(request, "gateways", via, fleet=fleet is not None)


@gateways.get("/gateways/connect")
async def connect_form(who: User, fleet: OfFleet, request: Request) -> Response:
    """A form for a login at IBKR."""
    return dashboard_of(request).html(
        "dialogs/connect.html", account="", problem="", username="", environment="demo"
    )


@gateways.post("/gateways/connect")
async def connect(who: User, fleet: OfFleet, request: Request) -> Response:
    """Connect an account. The password isn't sent back, whatever was wrong with it."""
    form = await sent(request, strip=False)
    username, environment = form.get("username", "").strip(), form.get("environment", "demo")
    try:
        login = Credentials(username=username, password=SecretStr(form.get("password", "")))
        body = ConnectBody.model_validate({"credentials": login, "environment": environment})
        account, new = await fleet.ask(fleet_actions.connect, fleet, who.user, body, "")
    except (ValidationError, Refusal, VaultError) as wrong:
        return dashboard_of(request).html(
            "dialogs/connect.html",
            account="",
            problem=_said(wrong),
            username=username,
            environment=environment,
        )
    log.info("connected", account_id=account.id)
    said = "Its server is being made." if new else "It was connected already."
    return _done(request, who, f"{account.id}", [said])


@gateways.get("/gateways/{account_id}/credentials")
async def credentials_form(who: User, fleet: OfFleet, account_id: AccountId, request: Request) -> Response:
    """A form for another password."""
    await fleet.call(fleet_actions.own, fleet, account_id, who.user)
    return dashboard_of(request).html(
        "dialogs/connect.html", account=account_id, problem="", username="", environment=""
    )


@gateways.post("/gateways/{account_id}/credentials")
async def set_credentials(who: User, fleet: OfFleet, account_id: AccountId, request: Request) -> Response:
    """Another login for the same server."""
    form = await sent(request, strip=False)
    username = form.get("username", "").strip()
    try:
        login = Credentials(username=username, password=SecretStr(form.get("password", "")))
        await fleet.ask(fleet_actions.set_credentials, fleet, account_id, who.user, login)
    except (ValidationError, Refusal, VaultError) as wrong:
        return dashboard_of(request).html(
            "dialogs/connect.html",
            account=account_id,
            problem=_said(wrong),
            username=username,
            environment="",
        )
    return _done(request, who, account_id, ["The gateway logs in with the new credentials."])


@gateways.get("/gateways/{account_id}")
async def details(who: User, fleet: OfFleet, account_id: AccountId, request: Request) -> Response:
    """An account's history, and the end of its gateway's log."""
    account = await fleet.call(fleet_actions.own, fleet, account_id, who.user)
    history = await fleet.call(fleet.repository.history, account_id, 100)
    try:
        lines = await fleet.ask(fleet_actions.last_lines, fleet, account_id, who.user, 50)
        no_log = ""
    except Refusal as refusal:
        lines, no_log = [], refusal.detail
    return dashboard_of(request).html(
        "dialogs/gateway.html",
        account=await shown(fleet, account),
        history=[event for _, event in history],
        lines=lines,
        no_log=no_log,
    )


@gateways.get("/gateways/{account_id}/{action}")
async def confirm(
    who: User, fleet: OfFleet, account_id: AccountId, action: str, request: Request
) -> Response:
    """The question before what can't be taken back, or costs a login."""
    account = await fleet.call(fleet_actions.own, fleet, account_id, who.user)
    return dashboard_of(request).html("dialogs/sure.html", account=await shown(fleet, account), action=action)


@gateways.post("/gateways/{account_id}/{action}")
async def act(who: User, fleet: OfFleet, account_id: AccountId, action: str, request: Request) -> Response:
    """Start, stop, hibernate, restart or delete."""
    try:
        if action == "restart":
            await fleet.call(fleet_actions.restart, fleet, account_id, who.user)
        elif action in _WANTED:
            await fleet.call(fleet_actions.want, fleet, account_id, who.user, _WANTED[action])
        else:
            raise Refusal(
                404, "not-found", "Nothing is here", f"{action[:20]!r} can't be done with a gateway"
            )
    except Refusal as refusal:
        return dashboard_of(request).html(
            "dialogs/said.html", heading="Not done", lines=[refusal.detail], bad=True
        )
    _refresh(request, who)
    return dashboard_of(request).html("dialogs/empty.html")


def make_watch(request: Request, who: Principal) -> AccountsWatch | None:
    """A user's accounts; None where the fleet is switched off."""
    fleet: Fleet | None = request.app.state.fleet
    template = dashboard_of(request).templates.get_template("parts/gateways.html")

    def render(accounts: list[ConnectedAccount], problem: str, at: datetime | None) -> str:
        return template.render(accounts=accounts, problem=problem, at=at)

    return None if fleet is None else AccountsWatch(fleet, who.user, render)


def _refresh(request: Request, who: Principal) -> None:
    watch = dashboard_of(request).of_user("gateways", request, who)
    if watch is not None:
        watch.refresh()


def _done(request: Request, who: Principal, heading: str, lines: list[str]) -> Response:
    _refresh(request, who)
    return dashboard_of(request).html("dialogs/said.html", heading=heading, lines=lines, bad=False)


def _said(wrong: Exception) -> str:
    """What is wrong with a form that holds a password, without its values."""
    if isinstance(wrong, ValidationError):
        return "; ".join(error["msg"].removeprefix("Value error, ") for error in wrong.errors())
    return wrong.detail if isinstance(wrong, Refusal) else str(wrong)
