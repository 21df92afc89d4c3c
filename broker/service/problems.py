"""Errors as RFC 9457 problem documents: one shape for everything that isn't a success."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from broker import errors
from broker.validation import shown

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:ibkr-api:problem:"
#: where the OpenAPI document has the schema of a problem document
REFERENCE = {"$ref": "#/components/schemas/Problem"}


class WrongField(BaseModel):
    """A field of a request that is wrong."""

    #: as the request names it
    field: str
    #: what is wrong with it
    message: str
    #: what was given, shortened; `nothing` if it is missing, `not shown` where it may be a secret
    value: str


class Problem(BaseModel):
    """What went wrong (RFC 9457). Which members there are depends on `type`."""

    model_config = ConfigDict(extra="allow")

    #: what happened, for programs: `urn:ibkr-api:problem:` and a word
    type: str
    #: the same for people
    title: str
    #: the answer's status
    status: int
    #: what happened this time, in a sentence
    detail: str | None = None
    #: the request's number, which is in the service's log and in `X-Request-ID`
    request_id: str | None = None
    #: of a wrong request: each field that is wrong
    errors: list[WrongField] | None = None
    #: since when it is so
    since: str | None = None
    #: what is being done about it, or what to do
    doing: str | None = None
    #: of an account whose gateway doesn't run: its status, and the reason of that
    account_status: str | None = None
    #: a word for programs, see docs/fleet.md
    account_reason: str | None = None
    #: of a limit that refuses an order: its name
    limit: str | None = None
    #: what the order would make of it
    value: str | None = None
    #: what the limit allows
    allowed: str | None = None
    #: of the kill switch: who threw it
    by: str | None = None
    #: the broker's own number of what it said
    code: str | None = None
    #: the order that it is about, as it is now
    order: dict[str, Any] | None = None


#: HTTP status and title per kind of broker error; a subclass that isn't named here takes its base's
_STATUS: dict[type[errors.BrokerError], tuple[int, str]] = {
    errors.InvalidRequest: (422, "The request is wrong"),
    errors.UnknownSymbol: (422, "Unknown symbol"),
    errors.AmbiguousContract: (422, "Several instruments carry this symbol"),
    errors.UnsupportedOperation: (422, "This broker can't do that"),
    errors.OrderNotFound: (404, "No such order"),
    errors.OrderNotCancellable: (409, "The order is final already"),
    errors.OrderNotReplaceable: (409, "The order can't be changed"),
    errors.DuplicateClientOrderId: (409, "The client order id names another order"),
    errors.OrderRejected: (422, "The broker refused the order"),
    errors.InsufficientFunds: (422, "Insufficient funds"),
    errors.MarketClosed: (422, "The market is closed"),
    errors.OrderOutcomeUnknown: (504, "The order was sent, and nobody knows what became of it"),
    errors.RateLimited: (429, "Too many requests"),
    errors.NotConnected: (503, "The broker can't be reached"),
    errors.AccountNotRunning: (503, "The account's gateway isn't running"),
    errors.StandBy: (503, "Another instance holds the trading connection"),
    errors.NotAuthenticated: (503, "The broker's gateway isn't logged in"),
    errors.SecondFactorWaiting: (503, "The broker's gateway waits for the second factor"),
    errors.CertificateMismatch: (503, "The broker's gateway shows another certificate"),
    errors.JournalUnavailable: (503, "The order journal can't be used"),
    errors.MarketDataUnavailable: (503, "No market data"),
    errors.LimitExceeded: (422, "A limit refuses the order"),
    errors.Halted: (423, "Trading is halted"),
    errors.LiveLocked: (423, "Live trading is locked"),
    errors.PaperLiveMismatch: (503, "Paper and live are mixed up"),
    errors.ConfigurationError: (503, "No broker is configured"),
    errors.BrokerError: (502, "The broker's answer makes no sense"),
}


def problem(
    status: int,
    kind: str,
    title: str,
    detail: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """A problem document. `extra` members that are None are left out."""
    body: dict[str, Any] = {"type": _TYPE + kind, "title": title, "status": status}
    if detail:
        body["detail"] = detail
    body |= {name: value for name, value in extra.items() if value is not None}
    # ASCII only: a lone surrogate in an echoed value could not be encoded as UTF-8.
    content = json.dumps(body, ensure_ascii=True, allow_nan=False)
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def broker_problem(error: errors.BrokerError, method: str = "POST") -> Response:
    """The document for an error of the broker package."""
    status, title = next(_STATUS[c] for c in type(error).__mro__ if c in _STATUS)
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    if isinstance(error, errors.InvalidRequest):
        extra["errors"] = [asdict(p) for p in error.problems]
    if isinstance(error, errors.UnknownSymbol) and method == "GET":
        status = 404
    if isinstance(error, errors.NotConnected):
        extra |= {"since": error.since.isoformat(), "doing": error.doing or None}
    if isinstance(error, errors.AccountNotRunning):
        extra |= {"account_status": error.account_status, "account_reason": error.account_reason or None}
    if isinstance(error, errors.LimitExceeded):
        extra |= {"limit": error.limit, "value": str(error.value), "allowed": str(error.allowed)}
    if isinstance(error, errors.Halted):
        extra |= {"since": error.since.isoformat() if error.since else None, "by": error.by or None}
    if isinstance(error, (errors.NotConnected, errors.RateLimited)):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, (errors.OrderRejected, errors.MarketDataUnavailable)):
        extra["code"] = None if error.code is None else str(error.code)
    order = getattr(error, "order", None) or getattr(error, "existing", None)
    if order is not None:
        extra["order"] = asdict(order)
    return problem(status, error.kind, title, error.message, headers=headers, **extra)


def install(app: FastAPI) -> None:
    """Make the app answer every error with a problem document."""

    @app.exception_handler(errors.BrokerError)
    async def broker_error(request: Request, error: errors.BrokerError) -> Response:
        return broker_problem(error, request.method)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(item["type"] == "json_invalid" for item in found):
            said = str(found[0].get("ctx", {}).get("error", ""))
            return problem(400, "malformed-json", "The body isn't JSON", said)
        return problem(
            422,
            errors.InvalidRequest.kind,
            "The request is wrong",
            "; ".join(f"{field_name(i['loc'])}: {i['msg']}" for i in found)[:1000],
            errors=[_field(item) for item in found],
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        kinds = {404: "not-found", 405: "method-not-allowed", 400: "malformed-request", 413: "too-large"}
        titles = {404: "Nothing is here", 405: f"{request.method} is not allowed here"}
        title = titles.get(error.status_code, str(error.detail))
        kind = kinds.get(error.status_code, "http-error")
        return problem(error.status_code, kind, title, headers=error.headers)


def field_name(location: Sequence[int | str]) -> str:
    """The field as the client wrote it: `qty`, not `body.qty`."""
    inner = [str(part) for part in location if part not in ("body", "path", "query", "header")]
    return ".".join(inner) or str(location[0] if location else "body")


def _field(item: Mapping[str, Any]) -> dict[str, str]:
    if item["type"] == "missing":
        value = "nothing"
    else:  # a body with secrets comes without its values
        value = shown(item["input"]) if "input" in item else "not shown"
    return {"field": field_name(item["loc"]), "message": str(item["msg"]), "value": value}
