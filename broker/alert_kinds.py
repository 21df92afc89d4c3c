"""What alerts are about: a title, how bad it is, and what a person does about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Kind:
    """What alerts are about. Those of the fleet are the reasons of an account's status."""

    SECOND_FACTOR: Final = "second_factor"
    OUTCOME_UNKNOWN: Final = "outcome_unknown"
    UNEXPLAINED_POSITION: Final = "unexplained_position"
    LIMIT: Final = "limit"
    KILL_SWITCH: Final = "kill_switch"
    SECOND_FACTOR_TIMEOUT: Final = "second_factor_timeout"
    LOGIN_FAILED: Final = "login_failed"
    LOGIN_LOCKED: Final = "login_locked"
    LOGIN_TIMEOUT: Final = "login_timeout"
    SESSION_TAKEN: Final = "session_taken"
    CERTIFICATE_CHANGED: Final = "certificate_changed"
    UNKNOWN_DROPLET: Final = "unknown_droplet"
    DROPLET_ARCHIVED: Final = "droplet_archived"
    ENROLMENT_REFUSED: Final = "enrolment_refused"
    ENROLMENT_TIMEOUT: Final = "enrolment_timeout"
    PUSH_REFUSED: Final = "push_refused"
    QUOTA_REACHED: Final = "quota_reached"
    DIGITALOCEAN_TOKEN: Final = "digitalocean_token"  # noqa: S105 - a reason's name
    DIGITALOCEAN_REFUSED: Final = "digitalocean_refused"
    REGION_UNAVAILABLE: Final = "region_unavailable"
    SIZE_UNAVAILABLE: Final = "size_unavailable"
    IMAGE_UNAVAILABLE: Final = "image_unavailable"
    SPEC: Final = "spec"
    VAULT: Final = "vault"
    ALERTS_HERE: Final = "alerts_here"


@dataclass(frozen=True, slots=True)
class About:
    """`remedy`: what to do, where the alert's own text doesn't say it already."""

    title: str
    severity: Severity
    remedy: str = ""


_CHOOSE_ANOTHER = "look at the ibkr:ibeam section of the stack's configuration, and `make up`"

_ABOUT: Final = {
    Kind.SECOND_FACTOR: About("The broker's login waits for the second factor", Severity.WARNING),
    Kind.OUTCOME_UNKNOWN: About("An order's outcome is unknown", Severity.ERROR),
    Kind.UNEXPLAINED_POSITION: About("A position changed without an explanation", Severity.ERROR),
    Kind.LIMIT: About("A limit refused an order", Severity.WARNING),
    Kind.KILL_SWITCH: About("The kill switch was used", Severity.ERROR),
    Kind.SECOND_FACTOR_TIMEOUT: About("Nobody approved a login", Severity.ERROR),
    Kind.LOGIN_FAILED: About("IBKR refused a login", Severity.ERROR),
    Kind.LOGIN_LOCKED: About("IBKR refused a login too often", Severity.ERROR),
    Kind.LOGIN_TIMEOUT: About("A gateway didn't get logged in", Severity.ERROR),
    Kind.SESSION_TAKEN: About("A session was taken by another login", Severity.ERROR),
    Kind.CERTIFICATE_CHANGED: About(
        "A gateway shows another certificate",
        Severity.ERROR,
        "somebody may stand between the service and that server; it gets nothing any more. Look at the "
        "server's console before you make another",
    ),
    Kind.UNKNOWN_DROPLET: About(
        "An unknown droplet has our tags",
        Severity.ERROR,
        "it isn't touched. `python -m broker.fleet quarantine` lists such ones, and `condemn` lets one be "
        "deleted; after a restore of the database they may well be your users'",
    ),
    Kind.DROPLET_ARCHIVED: About("DigitalOcean has archived a droplet", Severity.ERROR),
    Kind.ENROLMENT_REFUSED: About(
        "An enrolment was refused",
        Severity.ERROR,
        "nothing was sent there. A token that was used before, or a certificate that the droplet doesn't "
        "show, may mean a stolen token: delete that account's droplet (hibernate, then start)",
    ),
    Kind.ENROLMENT_TIMEOUT: About(
        "Droplets don't make themselves known",
        Severity.ERROR,
        "they can't reach the service, or cloud-init failed: see a droplet's console, then start the "
        "account again",
    ),
    Kind.PUSH_REFUSED: About("A droplet refuses what it is sent", Severity.ERROR),
    Kind.QUOTA_REACHED: About("DigitalOcean's droplet limit is reached", Severity.ERROR),
    Kind.DIGITALOCEAN_TOKEN: About(
        "DigitalOcean refuses the service's token",
        Severity.ERROR,
        "make another at DigitalOcean, set ibkr:digitaloceanToken, and `make up`",
    ),
    Kind.DIGITALOCEAN_REFUSED: About("DigitalOcean refuses to make a droplet", Severity.ERROR),
    Kind.REGION_UNAVAILABLE: About("The droplets' region isn't available", Severity.ERROR, _CHOOSE_ANOTHER),
    Kind.SIZE_UNAVAILABLE: About("The droplets' size isn't available", Severity.ERROR, _CHOOSE_ANOTHER),
    Kind.IMAGE_UNAVAILABLE: About("The droplets' image isn't available", Severity.ERROR, _CHOOSE_ANOTHER),
    Kind.SPEC: About("A droplet can't be described", Severity.ERROR, _CHOOSE_ANOTHER),
    Kind.VAULT: About(
        "Stored credentials can't be opened",
        Severity.ERROR,
        "the wrapping key is away or another one: look at FLEET_KMS_KEY (or FLEET_KEY_FILE) and its grants",
    ),
    Kind.ALERTS_HERE: About("Alerts of your account arrive here", Severity.INFO),
}


def about(kind: str) -> About:
    """What is known of a kind; of an unknown one its name."""
    return _ABOUT.get(kind) or About(kind, Severity.WARNING)


#: reasons of an account's status of which people are told when they begin
FLEET: Final = frozenset(_ABOUT) - {
    Kind.OUTCOME_UNKNOWN,
    Kind.UNEXPLAINED_POSITION,
    Kind.LIMIT,
    Kind.KILL_SWITCH,
    Kind.ENROLMENT_REFUSED,
    Kind.ALERTS_HERE,
}

#: of these those that only the account's user can do something about
USERS: Final = frozenset(
    {
        Kind.SECOND_FACTOR,
        Kind.SECOND_FACTOR_TIMEOUT,
        Kind.LOGIN_FAILED,
        Kind.LOGIN_LOCKED,
        Kind.LOGIN_TIMEOUT,
        Kind.SESSION_TAKEN,
    }
)
