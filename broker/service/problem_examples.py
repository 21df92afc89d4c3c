"""Refusals as the service really writes them, for the OpenAPI document, and whose examples they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Response

from broker import errors
from broker.service.examples import ORDER, WHEN
from broker.service.fleet_problems import OFF, Refusal, unknown_account
from broker.service.problems import broker_problem, problem


def _refusal(refusal: Refusal) -> Response:
    return problem(refusal.status, refusal.kind, refusal.title, refusal.detail, **refusal.extra)


_ORDER_FIELD = errors.FieldProblem("qty", "Input should be greater than 0", "-3")
_AWAY = errors.NotConnected("the gateway doesn't answer", since=WHEN, doing="connecting again, every 5 s")
_REFUSALS: tuple[Response, ...] = (
    problem(400, "malformed-json", "The body isn't JSON", "Expecting ',' delimiter"),
    problem(401, "unauthorized", "Not authenticated", "the token has expired"),
    problem(403, "forbidden", "Not allowed", "this needs the role trader"),
    problem(404, "unknown-connection", "Nothing is here", "no connection has the id 'x'"),
    problem(404, "no-position", "Nothing is here", "no AAPL is held"),
    broker_problem(errors.OrderNotFound("no order has the id 'ord_x'")),
    broker_problem(errors.UnknownSymbol("AAPLL"), "GET"),
    _refusal(unknown_account()),
    _refusal(Refusal(404, "fleet-off", "Accounts can't be connected here", OFF)),
    broker_problem(errors.DuplicateClientOrderId("signal-17", ORDER)),
    broker_problem(errors.OrderNotCancellable("the order is filled", ORDER)),
    broker_problem(errors.OrderNotReplaceable("the order is filled", ORDER)),
    problem(409, "account-deleted", "The account is deleted", "connect again for a new one"),
    problem(409, "too-many-accounts", "No more accounts", "you have 3 accounts, as many as you may"),
    problem(409, "no-gateway", "There is no gateway now", "The server is switched off."),
    problem(413, "too-large", "A body may have 65536 bytes at most"),
    broker_problem(errors.InvalidRequest([_ORDER_FIELD])),
    broker_problem(errors.LimitExceeded("max_order_value", 19_550, 10_000)),
    broker_problem(errors.InsufficientFunds("the account has too little buying power", code=201)),
    broker_problem(errors.Halted(WHEN, "ann", "odd fills")),
    broker_problem(errors.LiveLocked("no verification of this gateway has passed: run make verify")),
    broker_problem(errors.RateLimited("60 calls a minute are used up", 12)),
    problem(429, "too-often", "Too often", "an account's login may begin 10 times an hour"),
    broker_problem(errors.BrokerFailure("the broker answered with an account that isn't ours")),
    broker_problem(_AWAY),
    problem(503, "fleet-away", "Accounts can't be reached", "the database doesn't answer",
            since=WHEN.isoformat(), doing="trying again by itself"),
    problem(503, "database-away", "The database can't be used", "the database doesn't answer"),
    problem(503, "not-ready", "Not ready", "the database didn't answer within 4 s"),
    broker_problem(errors.OrderOutcomeUnknown("no answer came within 10 s", ORDER)),
    problem(403, "enrolment-refused", "Not accepted", "this droplet isn't known here"),
    problem(404, "scheduler-off", "Nothing is scheduled here", "no scheduler is set"),
    problem(503, "enrolment-later", "Not yet", "nobody knows yet whether it is known here: ask again"),
)  # fmt: skip

#: for which operations a refusal is an example, where it isn't one for all
_ONLY: Mapping[str, Callable[[str, str], bool]] = {
    "unknown-connection": lambda tag, _name: tag in ("trading", "verification"),
    "no-position": lambda _tag, name: name in ("get_position", "close_position"),
    "order-not-found": lambda tag, name: (
        tag == "trading" and name.endswith(("_order", "_order_by_client_id"))
    ),
    "unknown-symbol": lambda _tag, name: name == "get_quote",
    "unknown-account": lambda tag, _name: tag == "accounts",
    "fleet-off": lambda tag, _name: tag in ("accounts", "droplets", "fleet"),
    "duplicate-client-order-id": lambda _tag, name: name in ("place_order", "close_position"),
    "order-not-cancellable": lambda _tag, name: name == "cancel_order",
    "order-not-replaceable": lambda _tag, name: name == "replace_order",
    "account-deleted": lambda tag, _name: tag == "accounts",
    "too-many-accounts": lambda _tag, name: name == "connect_account",
    "no-gateway": lambda _tag, name: name == "get_account_logs",
    "limit-exceeded": lambda _tag, name: name in ("place_order", "replace_order", "close_position"),
    "insufficient-funds": lambda _tag, name: name in ("place_order", "replace_order"),
    "too-often": lambda tag, _name: tag == "accounts",
    "rate-limited": lambda tag, _name: tag == "trading",
    "not-connected": lambda tag, _name: tag in ("trading", "verification", "kill switch"),
    "fleet-away": lambda tag, _name: tag in ("accounts", "fleet", "droplets"),
    "database-away": lambda tag, _name: tag in ("session", "metrics", "kill switch"),
    "not-ready": lambda tag, _name: tag == "probes",
    "enrolment-refused": lambda tag, _name: tag == "droplets",
    "enrolment-later": lambda tag, _name: tag == "droplets",
    "scheduler-off": lambda _tag, name: name == "reconcile_fleet",
    "forbidden": lambda tag, _name: tag != "droplets",
}


def refusals(tag: str, operation: str, status: int) -> dict[str, Any]:
    """Problem documents that an operation may answer with, by their kind."""
    found = {}
    for answer in _REFUSALS:
        document = json.loads(bytes(answer.body)) | {"request_id": "5f0c2a91c3d84e6fa6c1"}
        kind = document["type"].rpartition(":")[2]
        if document["status"] == status and (kind not in _ONLY or _ONLY[kind](tag, operation)):
            found[kind] = document
    return found


def kinds() -> list[tuple[str, int, str]]:
    """Each kind of refusal that there is an example of: its word, its status and its title."""
    found = []
    for answer in _REFUSALS:
        document = json.loads(bytes(answer.body))
        found.append((document["type"].rpartition(":")[2], document["status"], document["title"]))
    return found
