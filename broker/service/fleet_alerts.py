"""Where a user is alerted of an account: set, looked at and taken away over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from broker.fleet.account import Wanted
from broker.fleet.user_alerts import LONGEST_URL, SERVICES, AlertUrlError
from broker.service.auth import bearer
from broker.service.fleet import Fleet
from broker.service.fleet_actions import own
from broker.service.fleet_problems import Refusal, SecretRoute, wrong_field
from broker.service.fleet_routes import AccountId, OfFleet, User
from broker.service.routes import problem_answers

alerts = APIRouter(
    prefix="/api/v1/brokers/interactivebrokers/accounts/{account_id}/alerts",
    tags=["accounts"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 503),
    route_class=SecretRoute,
)


class AlertsBody(BaseModel):
    """Where alerts go. Kept encrypted and never shown again: it holds a token."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"url": "tgram://BOT_TOKEN/CHAT_ID"}]},
    )

    url: Annotated[
        SecretStr,
        Field(max_length=LONGEST_URL, description=f"One of {', '.join(SERVICES.values())} (apprise's form)"),
    ]


class AlertsTo(BaseModel):
    """Which service alerts go to."""

    #: tgram, discord, slack, pover or pbul; null: alerts go to whoever runs this service
    service: str | None


@alerts.get("", operation_id="get_account_alerts")
async def get_alerts(who: User, fleet: OfFleet, account_id: AccountId) -> AlertsTo:
    """Whether you are alerted of this account, and over which service."""
    account = await fleet.call(own, fleet, account_id, who.user)
    return AlertsTo(service=await fleet.call(fleet.user_alerts.service, account))


@alerts.put("", operation_id="set_account_alerts", responses=problem_answers(400, 409, 413))
async def put_alerts(who: User, fleet: OfFleet, account_id: AccountId, body: AlertsBody) -> AlertsTo:
    """Be alerted of this account: a login that waits for you, or was refused, a session that was taken.

    A first alert arrives at once. Only services with addresses of their own are taken.
    """
    return AlertsTo(
        service=await fleet.ask(_set, fleet, account_id, who.user, body.url.get_secret_value().strip())
    )


@alerts.delete("", operation_id="delete_account_alerts", status_code=204)
async def delete_alerts(who: User, fleet: OfFleet, account_id: AccountId) -> None:
    """Not be alerted of this account any more."""
    account = await fleet.call(own, fleet, account_id, who.user)
    await fleet.call(fleet.user_alerts.remove, account)


def _set(fleet: Fleet, account_id: str, user_id: str, url: str) -> str:
    account = own(fleet, account_id, user_id)
    if account.wanted == Wanted.DELETED:
        said = "this account was deleted: connect again for a new one"
        raise Refusal(409, "account-deleted", "The account is deleted", said)
    try:
        service = fleet.user_alerts.set(account, url)
    except AlertUrlError as wrong:
        raise wrong_field("url", str(wrong)) from None
    fleet.repository.note(account, "alerts", f"alerts go to {service}", user_id)
    return service
