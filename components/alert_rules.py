"""What an operator is alerted of, as rules over the service's log lines and the gateway VM's metrics.

A rule's filter is written in the Logging query language, over the fields that the service writes
(tests/service/test_alert_rules.py drives the service and holds its real lines against every filter).
`MatchRule` fires at every line that matches; `SilenceRule` when no line did for a while, which is also so
when the service never wrote one; `CountRule` when one did, unless IBKR is away by plan; `RateRule` when too
many requests were answered with a status; `MetricRule` by a metric that the gateway VM publishes
(cloud-init/files/gateway/health); `UptimeRule` when Google's checkers don't reach the service. Rules that
are `quiet_by_plan` say nothing while IBKR resets (components/planned.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["CRITICAL", "ERROR", "WARNING"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`title` and `remedy` are what the person who is notified reads."""

    name: str
    title: str
    severity: Severity
    remedy: str


@dataclass(frozen=True, slots=True)
class MatchRule(Rule):
    """`labels` are fields of the line that stand in the notification."""

    filter: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SilenceRule(Rule):
    """Fires after so many `minutes` without a line that matches."""

    filter: str
    minutes: int
    quiet_by_plan: bool = False


@dataclass(frozen=True, slots=True)
class CountRule(Rule):
    """Fires when a line matched in the last `minutes`; unlike `MatchRule` it can keep quiet by plan."""

    filter: str
    minutes: int
    quiet_by_plan: bool = False


@dataclass(frozen=True, slots=True)
class RateRule(Rule):
    """Fires when in five minutes more than `most` requests were answered with `status`."""

    status: int
    most: int


@dataclass(frozen=True, slots=True)
class MetricRule(Rule):
    """Fires once `query` (PromQL) has given anything for so many `minutes`."""

    query: str
    minutes: int
    quiet_by_plan: bool = False


@dataclass(frozen=True, slots=True)
class UptimeRule(Rule):
    """Fires when for so many `minutes` more than `most` of the checkers' places failed."""

    most: int
    minutes: int


_MOVED = 'jsonPayload.event="account moved"'
# What IBKR's reset does to every user's gateway at once.
_LATE = 'jsonPayload.reason="login_timeout" OR jsonPayload.reason="second_factor_timeout"'

SERVICE: tuple[Rule, ...] = (
    MatchRule(
        "second-factor",
        "A login waits for the second factor",
        "WARNING",
        "Approve it on the phone. It isn't asked again after its time has run out: start again then.",
        'jsonPayload.alert="second_factor"',
    ),
    MatchRule(
        "order",
        "An order's outcome is unknown, or a position changed without an explanation",
        "CRITICAL",
        "Look at the account at the broker before another order is sent.",
        'jsonPayload.alert="outcome_unknown" OR jsonPayload.alert="unexplained_position"',
    ),
    MatchRule(
        "kill-switch",
        "Trading was halted or resumed",
        "CRITICAL",
        "`GET /api/v1/halt` says by whom and why.",
        'jsonPayload.event="trading is halted" OR jsonPayload.event="trading is resumed"',
        ("by",),
    ),
    RateRule(
        "refused-tokens",
        "Many requests come with bearer tokens that don't hold",
        "WARNING",
        "Somebody tries tokens, or the issuer's keys, audience or clock are wrong: see the request log.",
        401,
        300,
    ),
)

_GATEWAY = "custom_googleapis_com:ibkr_gateway_"

GATEWAY: tuple[Rule, ...] = (
    MetricRule(
        "gateway-handshake",
        "IB Gateway answers no API handshake, or its machine is silent",
        "CRITICAL",
        "The machine's serial console and the journal of ibkr-gateway-health say why.",
        # Of paper and live side by side, the one that is worse off.
        f"(min(max by (mode) (max_over_time({_GATEWAY}handshake[10m]))) or vector(0)) < 1",
        10,
        quiet_by_plan=True,
    ),
    MetricRule(
        "gateway-second-factor",
        "The gateway's login waits for the second factor",
        "WARNING",
        "Approve it on the phone. Don't restart the gateway for it: each start is another push.",
        f"max(max_over_time({_GATEWAY}second_factor_waiting_seconds[2m])) > 0",
        1,
    ),
    MetricRule(
        "gateway-session-taken",
        "Another login of the gateway's user took its session",
        "ERROR",
        "Use a second IBKR user name for the phone and Trader Workstation.",
        f"max(max_over_time({_GATEWAY}session_taken[2m])) > 0",
        1,
    ),
    MetricRule(
        "gateway-ops-agent",
        "The gateway VM's Ops Agent isn't installed or doesn't run",
        "WARNING",
        "The gateway runs without it, and its logs stay on the machine, whose serial console says why.",
        f"max(max_over_time({_GATEWAY}ops_agent[30m])) < 1",
        60,
    ),
    SilenceRule(
        "gateway-silent",
        "The service has no working connection to IB Gateway",
        "CRITICAL",
        "`GET /api/v1/connections/default/health` says since when and why. A login that waits for the second "
        "factor looks the same.",
        'jsonPayload.event="broker health" AND jsonPayload.connection="default" AND '
        'jsonPayload.broker="ibkr" AND jsonPayload.connected=true',
        20,
        quiet_by_plan=True,
    ),
)

OUTSIDE: tuple[Rule, ...] = (
    UptimeRule(
        "service-away",
        "The service can't be reached from the internet",
        "CRITICAL",
        "Orders at the broker go on resting. The service's logs say whether it starts, or can't use its "
        "database.",
        most=1,
        minutes=5,
    ),
)


def fleet(reconcile_minutes: int) -> tuple[Rule, ...]:
    """For a service that makes droplets, where a scheduler has a pass run every so many minutes."""
    stalled = SilenceRule(
        "reconcile-stalled",
        "No pass over the fleet has succeeded for a while",
        "CRITICAL",
        "The service is away, can't use its database, or DigitalOcean refuses it: the lines `fleet pass` say "
        "which problem.",
        'jsonPayload.event="fleet pass" AND jsonPayload.problem=""',
        max(20, 3 * reconcile_minutes),
    )
    return (*_DROPLETS, stalled)


_DROPLETS: tuple[Rule, ...] = (
    MatchRule(
        "droplet-error",
        "A user's gateway is in error",
        "ERROR",
        "The account's status and history say why, and what to do.",
        f'{_MOVED} AND jsonPayload.status="error" AND NOT ({_LATE})',
        ("account_id", "reason"),
    ),
    CountRule(
        "login-timeout",
        "Users' gateways didn't log in in time",
        "ERROR",
        "Each says since when at `GET /api/v1/fleet/accounts?status=error`. Many at once: IBKR is away.",
        f"{_MOVED} AND ({_LATE})",
        30,
        quiet_by_plan=True,
    ),
    MatchRule(
        "failed-logins",
        "IBKR refused a login",
        "ERROR",
        "It isn't repeated, lest IBKR locks the user, who checks name and password, and changes them here.",
        f'{_MOVED} AND (jsonPayload.reason="login_failed" OR jsonPayload.reason="login_locked")',
        ("account_id", "reason"),
    ),
    MatchRule(
        "enrolment-token",
        "An enrolment token was used twice, or by something that isn't the droplet",
        "CRITICAL",
        "Nothing was sent there. Hibernate the account and start it again: its token may be stolen.",
        'jsonPayload.event="enrolment refused" AND NOT jsonPayload.reason="unknown_token"',
        ("account_id", "reason"),
    ),
    MatchRule(
        "certificate-changed",
        "A droplet shows another certificate than it enrolled with",
        "CRITICAL",
        "Somebody may stand between the service and the droplet; it gets nothing any more. Look at its "
        "console, then delete the account and connect again.",
        f'{_MOVED} AND jsonPayload.reason="certificate_changed"',
        ("account_id",),
    ),
    MatchRule(
        "unknown-droplet",
        "A droplet with our tags is unknown to the database",
        "ERROR",
        "It isn't touched. `python -m broker.fleet quarantine` lists such ones.",
        'jsonPayload.alert="unknown_droplet"',
    ),
)

#: where docs/runbooks.md goes on, by the rule's name; the others' remedies say it all
RUNBOOKS = {
    "second-factor": "Second factor",
    "gateway-second-factor": "Second factor",
    "gateway-handshake": "Nightly restart",
    "gateway-silent": "Nightly restart",
    "failed-logins": "Locked account",
    "droplet-error": "Droplet stuck",
    "login-timeout": "Droplet stuck",
    "enrolment-token": "Droplet stuck",
    "certificate-changed": "Droplet stuck",
    "reconcile-stalled": "Droplet stuck",
    "unknown-droplet": "Restore of the database",
    "refused-tokens": "Key rotation",
    "service-away": "Service away",
}
