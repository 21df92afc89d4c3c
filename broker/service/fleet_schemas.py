"""Requests and answers of the fleet's routes: the integration document's, and what was added to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, field_validator
from pydantic.config import JsonDict

from broker.fleet import spec
from broker.fleet.account import Account, State, Wanted, message_of
from broker.fleet.bills import BilledDroplet, cost

Environment = Literal["demo", "live", "paper"]
Status = Literal["provisioning", "initializing", "running", "stopped", "error", "deleted"]

_LOGIN: JsonDict = {"username": "IBKR_USERNAME", "password": "IBKR_PASSWORD"}


class Credentials(BaseModel):
    """A login at IBKR. Kept encrypted, sent to the account's own server only, never shown again."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, json_schema_extra={"examples": [_LOGIN]}
    )

    username: Annotated[str, Field(max_length=128, repr=False, description="IBKR user name")]
    password: Annotated[SecretStr, Field(max_length=256, description="Any characters that IBKR takes")]

    @field_validator("username")
    @classmethod
    def _check_username(cls, value: str) -> str:
        spec.check_credentials(spec.Credentials(value, "x"), for_snapshot=False)
        if value != value.strip():
            raise ValueError("the IBKR username begins or ends with white space: remove it")
        return value

    @field_validator("password")
    @classmethod
    def _check_password(cls, value: SecretStr) -> SecretStr:
        spec.check_credentials(spec.Credentials("x", value.get_secret_value()), for_snapshot=False)
        return value


class ConnectBody(BaseModel):
    """An account to be connected. `demo` is a paper login on a smaller server."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"credentials": _LOGIN, "environment": "demo"}]},
    )

    credentials: Credentials
    environment: Environment


class PolicyBody(BaseModel):
    """When the account has a server: `always`, `hours:XNYS` (a market's hours) or `idle:30` (minutes)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"policy": "idle:30"}]})

    policy: Annotated[str, Field(max_length=64)]
    unattended_live: StrictBool = Field(
        default=False,
        description="Of a live account: you know that somebody has to approve each login on the phone",
    )


class IbAccountBody(BaseModel):
    """Which of the login's IBKR accounts the connection trades; empty while the login has but one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ib_account": "DU1234567"}]})

    ib_account: Annotated[str, Field(pattern=r"^([A-Z]{1,3}[0-9]{4,12})?$", max_length=16)]


class Billing(BaseModel):
    """What the account's server costs."""

    #: whether there is a server, which DigitalOcean bills, switched off or not
    billed: bool
    #: dollars a month while there is one; null if DigitalOcean's price isn't known
    monthly_usd: float | None
    #: dollars so far in this calendar month (UTC), for all servers it has had; null if a price isn't known
    month_usd: float | None
    #: dollars since the account was connected, for all servers it has had; null if a price isn't known
    total_usd: float | None
    size: str
    message: str


class ConnectedAccount(BaseModel):
    """An account as its user sees it."""

    account_id: str
    #: the droplet's number at DigitalOcean; null while there is none
    service_id: int | None
    status: Status
    #: one sentence for people: what goes on, and what they can do
    message: str
    environment: Environment
    #: a word for programs, see docs/fleet.md; empty if the status says it all
    reason: str
    #: when status or reason changed last
    since: datetime
    #: what was asked for
    wanted: Literal["running", "stopped", "hibernated", "deleted"]
    policy: str
    unattended_live: bool
    ib_account: str
    region: str | None
    created_at: datetime
    #: when the server was looked at last
    checked_at: datetime | None
    billing: Billing


class AccountPage(BaseModel):
    """Some accounts, by id."""

    accounts: list[ConnectedAccount]
    #: to be given as `after` for those that follow; null at the end
    next: str | None


class AccountEvent(BaseModel):
    """One line of an account's history."""

    id: int
    at: datetime
    #: what happened: connect, running, stopped, restart, credentials, status, enrolled ...
    kind: str
    status: Status
    reason: str
    message: str
    #: who asked for it; empty for what happened by itself
    by: str


class History(BaseModel):
    """Some events, the newest first."""

    events: list[AccountEvent]
    #: to be given as `before` for older ones; null at the end
    next: int | None


class LogLines(BaseModel):
    """The end of a gateway's log, without credentials."""

    lines: list[str]


def connected(
    account: Account, size: str, prices: dict[str, float], had: Sequence[BilledDroplet]
) -> ConnectedAccount:
    """The answer about an account; `size` is a new droplet's, `prices` dollars a month by size.

    `had`: the droplets that it has had.
    """
    return ConnectedAccount.model_validate(
        {
            "account_id": account.id,
            "service_id": account.do_droplet_id,
            "status": account.status,
            "message": _message(account),
            "environment": account.environment,
            "reason": account.status_reason,
            "since": account.status_since,
            "wanted": account.wanted,
            "policy": account.policy,
            "unattended_live": account.unattended_live,
            "ib_account": account.ib_account,
            "region": account.do_region,
            "created_at": account.created_at,
            "checked_at": account.do_last_status_check,
            "billing": billing(account, size, prices, had),
        }
    )


def _message(account: Account) -> str:
    """What the status says; of what was asked for just now, that it is on the way."""
    if account.wanted == Wanted.RUNNING or account.status in (State.STOPPED, State.DELETED, State.ERROR):
        return account.message
    return message_of(State.STOPPED, "deleting" if account.wanted == Wanted.DELETED else "stopping")


def billing(account: Account, size: str, prices: dict[str, float], had: Sequence[BilledDroplet]) -> Billing:
    """What an account costs, as far as is known: DigitalOcean's price when its droplet was made, or now."""
    spent = cost(had, prices, datetime.now(UTC))
    so_far = {"month_usd": spent.month, "total_usd": spent.total}
    made = json.loads(account.custom_data) if account.custom_data else {}
    size = made.get("size") or size
    price = made.get("price_monthly") or prices.get(size)
    costs = f"{price:.2f} USD a month" if price is not None else "its price"
    if account.do_droplet_id is not None:
        off = account.do_server_status == "off"
        said = f"DigitalOcean bills {costs} while the server exists{', switched off too' if off else ''}."
        said += " Hibernate ends that."
        return Billing(billed=True, monthly_usd=price, size=size, message=said, **so_far)
    said = "There is no server and nothing is billed."
    if account.status in (State.PROVISIONING, State.INITIALIZING):
        said = f"There is no server yet. DigitalOcean bills {costs} from when there is one."
    return Billing(billed=False, monthly_usd=price, size=size, message=said, **so_far)
