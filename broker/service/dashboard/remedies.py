"""What to do about each state and reason that the Health page shows: one sentence for each, for people.

What an account's or an alert's own text says (`broker.fleet.account`, `broker.alert_kinds`) isn't said again.
"""

from __future__ import annotations

from broker.alert_kinds import Kind, about
from broker.service.dashboard.wording import sentence

_BY_ITSELF = "Nothing: it goes on by itself"
_START = "press Start on the Gateways page"
_OPERATOR = "Whoever runs this service has to look: see docs/runbooks.md"

#: by state of the link to a broker (`Health.state`)
LINK = {
    "connecting": f"{_BY_ITSELF}, within seconds as a rule.",
    "disconnected": (
        "Wait some minutes, as at the broker's restart in the night; if it stays, look whether the gateway's "
        "machine runs (make status)."
    ),
    "no_api": "Switch on the API in the gateway's settings, or correct the port that the service is given.",
    "link_lost": f"{_BY_ITSELF} once the broker's servers answer; its status page says what they know.",
    "client_id_in_use": "Close the other program that uses this client id, or wait until its session ends.",
    "not_logged_in": "Look at the gateway's log (make logs) for why its login was refused, and mend that.",
    "second_factor": "Approve the login on the phone of the gateway's IBKR user.",
    "competing": "Log out of the other session; use a second IBKR user name for the phone and TWS.",
    "wrong_account": "Set the account and the trading mode that belong to the gateway's login.",
    "stand_by": f"{_BY_ITSELF}: another instance holds the connection, and hands it over when it ends.",
    "not_configured": "Set BROKER_TYPE and what that broker needs, see README.md.",
    "certificate_changed": (
        "Look whether the gateway was made anew; only then accept its certificate, see docs/runbooks.md."
    ),
}

#: by reason of an account's status (`broker.fleet.account`); those that call for nothing are left out
ACCOUNT = {
    "digitalocean_busy": f"{_BY_ITSELF} when DigitalOcean takes requests again.",
    "digitalocean_away": f"{_BY_ITSELF} when DigitalOcean answers again.",
    "create_unknown": f"{_BY_ITSELF} once it is known whether DigitalOcean made the server.",
    "second_factor": "Approve the login on the phone, within ten minutes.",
    "gateway_lost": "A paper gateway comes back after two minutes; for a live one, have the phone at hand.",
    "unreachable": f"{_BY_ITSELF} if the server comes back; if not, hibernate the account and start it.",
    "second_factor_timeout": f"Have the phone at hand, and {_START}.",
    "login_timeout": f"Look at the gateway's log (History), then {_START}.",
    "login_failed": f"Check user name and password, change them (Credentials), then {_START}.",
    "login_locked": "Log in at IBKR's own site first, then change the credentials here.",
    "session_taken": f"Use a second IBKR user name for the phone and TWS, then {_START}.",
    "certificate_changed": "Tell whoever runs this service, then delete the account and connect it again.",
    "push_refused": "Delete the account, and connect it again.",
    "enrolment_timeout": f"Look at the server's console at DigitalOcean, then {_START}.",
    "action_failed": "Nothing: it is tried again each minute.",
    "quota_reached": "Ask DigitalOcean for a higher droplet limit, or hibernate accounts that nobody uses.",
    "droplet_archived": "Ask DigitalOcean's support for the server, or hibernate the account and start it.",
    "unknown_droplet": f"{_OPERATOR}, at quarantined droplets.",
    "digitalocean_refused": f"{_OPERATOR}: the message has DigitalOcean's words.",
    "digitalocean_token": f"{_OPERATOR}: DigitalOcean's token has to be made anew.",
    "region_unavailable": f"{_OPERATOR}: another region has to be chosen.",
    "size_unavailable": f"{_OPERATOR}: another size has to be chosen.",
    "image_unavailable": f"{_OPERATOR}: another image has to be chosen.",
    "spec": f"{_OPERATOR}: the settings of the droplets don't hold.",
    "vault": f"{_OPERATOR}: the key that credentials are kept under can't be used.",
}

#: by kind of alert, where `broker.alert_kinds` has none because the alert's own text says it
_ALERT = {
    Kind.SECOND_FACTOR: "Approve the login on the phone.",
    Kind.OUTCOME_UNKNOWN: "Look at the account at the broker before anything is sent again.",
    Kind.UNEXPLAINED_POSITION: "Find out who traded: by hand, by assignment, or after a split.",
    Kind.LIMIT: "Send a smaller order, or raise the limit if it is meant so.",
    Kind.KILL_SWITCH: "Ask who used it why, before trading goes on.",
    Kind.DROPLET_ARCHIVED: ACCOUNT["droplet_archived"],
    Kind.PUSH_REFUSED: ACCOUNT["push_refused"],
    Kind.QUOTA_REACHED: ACCOUNT["quota_reached"],
    Kind.DIGITALOCEAN_REFUSED: "Read DigitalOcean's words in the message, and mend what they name.",
    Kind.SECOND_FACTOR_TIMEOUT: ACCOUNT["second_factor_timeout"],
    Kind.LOGIN_FAILED: ACCOUNT["login_failed"],
    Kind.LOGIN_LOCKED: ACCOUNT["login_locked"],
    Kind.LOGIN_TIMEOUT: ACCOUNT["login_timeout"],
    Kind.SESSION_TAKEN: ACCOUNT["session_taken"],
    Kind.ALERTS_HERE: "Nothing: it says that alerts arrive.",
}


def of_alert(kind: str) -> str:
    """What to do about an alert of this kind."""
    known = about(kind).remedy
    return f"{sentence(known)}." if known else _ALERT.get(kind, f"{_OPERATOR}.")


def of_account(reason: str) -> str:
    """What to do about an account with this reason; empty if it calls for nothing."""
    return ACCOUNT.get(reason, "")


def of_link(state: str) -> str:
    """What to do about a link in this state."""
    return LINK.get(state, f"{_OPERATOR}.")
