"""The OpenAPI document, completed: what FastAPI can't know of the routes is added to what it does.

Names of operations are those of their functions, so that generated clients have methods with good names.
Fields are described by the comments beside them in the code, answers and refusals by examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from broker.service.examples import ANSWERS, CLASSES, OF_OPERATION
from broker.service.field_comments import field_comments
from broker.service.problem_examples import refusals
from broker.service.problems import MEDIA_TYPE, Problem

TITLE = "IBKR API"
VERSION = "1"
DESCRIPTION = """\
Trading through Interactive Brokers, Alpaca or a simulated broker, and users' own IBKR gateways.

- **Tokens**: every request but the probes has `Authorization: Bearer` and a JWT of the configured
  issuer. Its `roles` decide: `user` reads and has accounts, `trader` trades as well, `operator` halts and
  sees the fleet, `monitor` reads `/metrics`. A user sees and touches what is theirs; anything else is a 404.
- **Orders are placed once**: an order needs a `client_order_id` (or an `Idempotency-Key` header). The same id
  with the same body is the same order, whatever broke in between; with another body it is a 409.
- **Errors** are problem documents (RFC 9457). `type` tells programs what happened, `detail` people.
  After a 503 or 429 try again in `Retry-After` seconds with the same id. After a 504 don't send another
  order: it left, and nobody knows what became of it yet.
- **Times** are ISO 8601 with a UTC offset, quantities are shares, amounts are in the account's currency.
"""
TAGS = {
    "trading": "Account, positions, orders and prices of a connection: `default`, or an account by its id.",
    "verification": "Whether a gateway may send live orders, and which certificate it shows.",
    "kill switch": "Stops every order of every connection at once. For operators.",
    "accounts": "Users' own IBKR accounts, each with a gateway on a server that the service makes.",
    "fleet": "All users' gateways. For operators, and for the scheduler.",
    "droplets": "What the gateways' servers themselves call.",
    "session": "The dashboard's login in a browser. Programs send their token with each request.",
    "probes": "Whether the service lives, and whether it can work.",
    "metrics": "For Prometheus.",
}
#: what fields and parameters mean that are called the same everywhere, unless something stands beside them
COMMON = {
    "account": "One of the login's accounts",
    "account_id": "The account's id",
    "accounts": "The accounts of this page",
    "after": "Begin behind this one: `next` of the page before",
    "age": "Seconds since `time`",
    "ask": "Lowest price that somebody sells for, in dollars; null if there is none",
    "at": "When it happened",
    "avg_entry_price": "What a share cost on average",
    "before": "Begin with what is older than this id",
    "bid": "Highest price that somebody pays, in dollars; null if there is none",
    "billing": "What its server costs",
    "broker_status": "The broker's own word for the status",
    "buying_power": "What could be bought with",
    "buying_power_after": "Buying power with the order filled",
    "by": "Who did it",
    "cash": "Negative if it is borrowed",
    "changes": "The latest ones, newest first",
    "checks": "What was tried, in this order",
    "client_order_id": "The id that whoever placed the order chose: with it, repeating the request is safe",
    "close": "The former session's closing price, in dollars; null if there is none",
    "commission": "Of the fills so far; null until the broker tells it",
    "connection_id": "`default`, or an account's id",
    "created_at": "When it was made",
    "credentials": "The login at IBKR",
    "currency": "ISO 4217",
    "current_price": "The newest price of a share",
    "details": "What only this kind of broker has",
    "doing": "What is being done about it",
    "droplet_name": "The server's name at DigitalOcean",
    "environment": "`demo`, `paper` (paper logins; demo's server is smaller) or `live` (real money)",
    "equity": "What the account is worth",
    "equity_after": "Equity with the order filled",
    "estimated_cost": "What the order would cost",
    "events": "The events of this page",
    "exchange": "ISO 10383 code of the exchange",
    "extended_hours": "Whether it also trades before and after the regular session",
    "filled_price": "Average price of the fills so far",
    "filled_qty": "Shares filled so far",
    "first_seen": "When it was seen first",
    "found": "What was found, or why it failed",
    "halted": "Whether no order leaves",
    "id": "Its id",
    "idempotency-key": "In place of `client_order_id` in the body: with it, repeating the request is safe",
    "initial_margin_after": "Initial margin with the order filled",
    "instrument_id": "The broker's number of the instrument; conid at IBKR",
    "is_open": "Whether the market is open now",
    "last": "Price of the last trade, in dollars; null if there is none",
    "last-event-id": "The last event that was seen: what came after it comes first",
    "last_equity": "Equity at the former close",
    "last_pass_at": "When that was",
    "last_seen": "When it was seen last",
    "legs": "Our ids of a bracket's legs",
    "limit": "At most so many",
    "limit_price": "The worst price that the order takes; of limit and stop_limit orders",
    "lines": "At most so many lines",
    "maintenance_margin_after": "Maintenance margin with the order filled",
    "market_value": "Negative for a short position",
    "message": "A sentence for people",
    "mode": "`paper` or `live`",
    "name": "What it is called",
    "next_close": "When it closes next",
    "next_open": "When it opens next",
    "ok": "Whether orders and questions get through now",
    "order": "The order",
    "order_id": "Our id of the order, never the broker's",
    "order_type": "`market`, `limit`, `stop`, `stop_limit` or `trailing_stop`",
    "passed": "Whether it is as it must be",
    "permanent_id": "The broker's number that it keeps; permId at IBKR",
    "pinned": "The certificate that is the gateway's",
    "pinned_at": "When it was pinned",
    "policy": "When it has a server: `always`, `hours:XNYS` (a market's hours), `idle:30` (minutes unused)",
    "portfolio_value": "What the account is worth, positions included",
    "price": "For each share",
    "qty": "Shares; negative for a short position",
    "reason": "Why",
    "reason_code": "The broker's number of the reason",
    "region": "Where its server is",
    "replaces": "Our id of the order whose place it took",
    "roles": "`user`, `trader`, `operator`, `monitor`",
    "round_trip_ms": "How long the broker took to answer last, in milliseconds",
    "shown": "The certificate that the gateway shows now",
    "side": "`buy` or `sell`",
    "since": "Since when",
    "size": "The server's size, as DigitalOcean calls it",
    "source": "Where it comes from",
    "status": "What it is now",
    "stop_loss_price": "Of a bracket: where a loss is cut",
    "stop_price": "The price that wakes a stop or stop_limit order",
    "symbol": "A ticker: AAPL, BRK.B",
    "time": "When",
    "time_in_force": "`day`, `gtc`, `ioc`, `fok`, `opg` or `cls`",
    "trail_percent": "How far a trailing stop follows the price, in per cent",
    "ib_account": "Which of the login's IBKR accounts the connection trades; empty while it has but one",
    "unattended_live": "Of a live account: its user knows that each login must be approved on the phone",
    "unrealized_pl": "Profit or loss if it were closed at the current price",
    "updated_at": "When it changed last",
    "user": "The token's subject",
    "user_id": "The subject of its user's token",
    "warnings": "What the broker remarked without refusing",
    "zone": "A time zone such as America/New_York, for the second of the two times",
}


def operation_name(route: APIRoute) -> str:
    """An operation's id: its function's name, which the routes' modules keep unique."""
    return route.name


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an app's routes; made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=TITLE, version=VERSION, description=DESCRIPTION, routes=app.routes)
        made["tags"] = [{"name": name, "description": said} for name, said in TAGS.items()]
        schemas = made["components"]["schemas"]
        schemas |= _problem_schemas()
        for model in _with_parts([*CLASSES, Problem]):
            _describe(schemas.get(model.__name__, {}), field_comments(model))
        for name, schema in schemas.items():
            _describe(schema, {})
            if name in ANSWERS:
                schema["examples"] = [ANSWERS[name]]
        for operations in made["paths"].values():
            for operation in operations.values():
                _complete(operation, schemas)
        app.openapi_schema = made
    return app.openapi_schema


def _problem_schemas() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Any] = schema.pop("$defs", {})
    return {"Problem": schema, **parts}


def _complete(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    name, tag = operation["operationId"], operation["tags"][0]
    operation["summary"] = name.replace("_", " ").capitalize()
    for parameter in operation.get("parameters", ()):
        said = parameter.get("description") or COMMON.get(parameter["name"])
        if said:
            parameter["description"] = said
    for media in operation.get("requestBody", {}).get("content", {}).values():
        found = schemas[media["schema"]["$ref"].rpartition("/")[2]].get("examples", [])
        media["examples"] = {_title(value, number): {"value": value} for number, value in enumerate(found, 1)}
    for status, answer in operation["responses"].items():
        for kind, media in answer.get("content", {}).items():
            if kind == MEDIA_TYPE:
                shown = refusals(tag, name, int(status))
                media["examples"] = {what: {"value": value} for what, value in shown.items()}
            elif (name, status) in OF_OPERATION:
                media["example"] = OF_OPERATION[name, status]
            else:
                media |= _example(media.get("schema", {}))


def _title(value: Any, number: int) -> str:
    """What an example of a body is called: an order by its kind, others by their number."""
    kind = value.get("order_type", "") if isinstance(value, dict) else ""
    bracket = kind and "take_profit_price" in value
    return "bracket" if bracket else kind or f"example {number}"


def _example(schema: dict[str, Any]) -> dict[str, Any]:
    one = schema.get("items", schema).get("$ref", "").rpartition("/")[2]
    if one not in ANSWERS:
        return {}
    return {"example": [ANSWERS[one]] if "items" in schema else ANSWERS[one]}


def _describe(schema: dict[str, Any], comments: dict[str, str]) -> None:
    for name, field in schema.get("properties", {}).items():
        said = comments.get(name) or field.get("description") or COMMON.get(name)
        if said:
            field["description"] = said


def _with_parts(classes: list[type]) -> Iterator[type]:
    """The classes and those that their fields are of."""
    waiting, seen = list(classes), set[type]()
    while waiting:
        found = waiting.pop()
        if found in seen:
            continue
        seen.add(found)
        yield found
        for hint in get_type_hints(found).values():
            waiting += [
                part for part in _parts(hint) if issubclass(part, BaseModel) or dataclasses.is_dataclass(part)
            ]


def _parts(hint: Any) -> Iterator[type]:
    if isinstance(hint, type):
        yield hint
    for inner in get_args(hint):
        yield from _parts(inner)
