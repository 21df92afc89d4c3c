"""What is known of a user's gateway account, without its secrets, and what its statuses say to people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Wanted(StrEnum):
    """What the user asked for."""

    RUNNING = "running"
    STOPPED = "stopped"
    HIBERNATED = "hibernated"
    DELETED = "deleted"


class State(StrEnum):
    """An account's status, as the integration document has it, and `deleted` for one that is gone."""

    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    RUNNING = "running"
    STOPPED = "stopped"
    ERROR = "error"
    DELETED = "deleted"


#: failed logins after which only other credentials are tried: IBKR locks an account soon after
MOST_FAILED_LOGINS = 3


@dataclass(frozen=True, slots=True)
class Account:
    """A row of `broker_accounts` without secrets. Times in UTC, from the database's clock."""

    id: str
    user_id: str
    username: str
    username_index: int
    environment: str
    wanted: str
    policy: str
    unattended_live: bool
    ib_account: str
    status: str
    status_reason: str
    status_detail: str
    status_since: datetime
    custom_data: str | None
    do_droplet_id: int | None
    do_droplet_name: str | None
    do_server_status: str | None
    do_ip_address: str | None
    do_region: str | None
    do_last_status_check: datetime | None
    credentials_version: int
    pushed_version: int
    credentials_droplet_id: int | None
    boot_id: str
    certificate_sha256: str | None
    certificate_droplet_id: int | None
    generation: int
    create_started_at: datetime | None
    create_attempts: int
    action_kind: str | None
    action_id: int | None
    action_since: datetime | None
    login_since: datetime | None
    failed_logins: int
    retry_at: datetime | None
    restart_wanted_at: datetime | None
    last_used_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def message(self) -> str:
        """One sentence for the user."""
        return self.status_detail or message_of(self.status, self.status_reason)


_SECOND_LOGIN = "use a second IBKR user name for the phone and Trader Workstation"

_MESSAGES = {
    "provisioning": "Server provisioning initiated. This process may take a few minutes.",
    "initializing": "The server is there, and its gateway is starting.",
    "running": "The gateway is logged in and ready.",
    "stopped": "The server is stopped.",
    "error": "The gateway doesn't work.",
    "deleted": "The account is deleted.",
    "digitalocean_busy": "DigitalOcean's request limit is reached: it goes on by itself.",
    "digitalocean_away": "DigitalOcean doesn't answer: it goes on by itself.",
    "create_unknown": "DigitalOcean gave no clear answer: whether it made the server is looked up.",
    "creating": "DigitalOcean is making the server.",
    "enrolling": "The server starts and makes itself known: some minutes at its first start.",
    "gateway_starting": "The gateway is starting.",
    "logging_in": "The gateway is logging in at IBKR.",
    "gateway_lost": (
        "The gateway has ended. One for paper trading is started again after two minutes, once in an hour; "
        "a live one isn't, since its login has to be approved: have the phone at hand and start again."
    ),
    "second_factor": "IBKR waits for the second factor: approve the login on your phone.",
    "unreachable": "The server doesn't answer.",
    "powering_on": "DigitalOcean is switching the server on.",
    "stopping": "The server is being stopped.",
    "powered_off": "The server is switched off. DigitalOcean goes on billing it: hibernate to end that.",
    "hibernated": "Hibernated: there is no server and nothing is billed. A start makes a new one.",
    "resting": "Outside of its hours: there is no server and nothing is billed. It comes back by itself.",
    "idle": "Hibernated after being idle: nothing is billed. A start makes a new server.",
    "no_droplet": "Stopped: there is no server and nothing is billed. A start makes one.",
    "deleting": "The server is being deleted.",
    "quota_reached": "The DigitalOcean team has as many droplets as it may have: ask its owner for more.",
    "enrolment_timeout": "New servers didn't make themselves known in time: see the console, start again.",
    "second_factor_timeout": (
        "Nobody approved the login in time. It isn't repeated by itself, lest IBKR locks the user: "
        "have the phone at hand and start again."
    ),
    "login_timeout": "The gateway didn't get logged in and says no reason: see its log, then start again.",
    "login_failed": (
        "IBKR refused the login. It isn't repeated by itself, lest IBKR locks the user: check user "
        "name and password (and paper or live), change the credentials, or start again later."
    ),
    "login_locked": (
        "IBKR refused the login several times. Nothing is tried any more with these credentials: log in at "
        "IBKR's site, then change the credentials here."
    ),
    "session_taken": (
        f"The session was taken by another login of this user: {_SECOND_LOGIN}, then start again."
    ),
    "certificate_changed": (
        "The server shows another certificate than it enrolled with, and gets nothing any more: delete the "
        "account and connect again."
    ),
    "push_refused": "The server refuses what is sent to it: delete the account and connect again.",
    "unknown_droplet": (
        "There is a server of this account that the database doesn't know. It isn't touched, and no other "
        "is made: an operator has to decide."
    ),
    "droplet_archived": "DigitalOcean has archived the server: ask DigitalOcean's support.",
    "action_failed": "DigitalOcean couldn't carry out an action on the server: it is tried again.",
    "digitalocean_refused": "DigitalOcean refuses to make the server.",
    "digitalocean_token": "DigitalOcean refuses the service's token: an operator has to look at it.",
    "region_unavailable": "The server's region isn't available: an operator has to choose another.",
    "size_unavailable": "The server's size isn't available: an operator has to choose another.",
    "image_unavailable": "The server's image isn't available: an operator has to choose another.",
    "spec": "The server can't be described: an operator has to look at the settings.",
    "vault": "The stored credentials can't be opened: an operator has to look at the key.",
}


def droplet_user(user_id: str) -> str:
    """The user's part of a droplet's name, from any token's subject. Several users may get the same one."""
    written = re.sub(r"[^a-z0-9]+", "-", user_id.lower()).strip("-")
    return written[:40].strip("-") or "user"


def message_of(status: str, reason: str) -> str:
    """What a status and its reason say to a person."""
    return _MESSAGES.get(reason) or _MESSAGES[status]
