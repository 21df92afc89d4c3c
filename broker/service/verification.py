"""The verification of a connection's gateway over HTTP: it unlocks live trading."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from broker.service.auth import Forbidden, Principal, bearer, require
from broker.service.connections import Connection
from broker.service.routes import Via, problem_answers

log = structlog.get_logger("broker.service.verification")

verification = APIRouter(
    prefix="/api/v1/connections/{connection_id}",
    tags=["verification"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 423, 503),
)


class VerificationBody(BaseModel):
    """What to try the gateway with."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"symbol": "SPY"}]})

    symbol: str = Field(default="SPY", min_length=1, max_length=32, description="Quoted, on paper ordered")


class CheckResult(BaseModel):
    """One check: what it found, or why it failed and what to do."""

    name: str
    passed: bool
    found: str
    #: what to do where it hasn't passed
    remedy: str


class VerificationResult(BaseModel):
    """A gateway's checks; `mode` is paper, live, or empty where that isn't clear."""

    #: whether all checks have
    passed: bool
    account: str
    mode: str
    #: the broker and the gateway's address
    gateway: str
    checks: list[CheckResult]


Verifier = Annotated[Principal, Depends(require("trader", "operator"))]


@verification.post("/verification", operation_id="verify_gateway", responses=problem_answers(400, 413))
async def post_verification(who: Verifier, via: Via, body: VerificationBody) -> VerificationResult:
    """Try the gateway: on paper an order far from the market is placed and cancelled, on live none is sent.

    Live orders leave only through a gateway whose latest verification has passed. The service's own gateway
    is for operators to verify. An account's is for its user; operators verify it if it is a live one, where
    nothing is sent.
    """
    _check(who, via)
    found = await via.verify(who.user, body.symbol)
    log.info("the gateway was verified", by=who.user, passed=found.passed, account=found.account)
    return VerificationResult(**asdict(found))


def _check(who: Principal, via: Connection) -> None:
    if via.owner == who.user:
        return
    if "operator" not in who.roles:
        raise Forbidden("this needs the role operator")
    if via.owner and via.mode != "live":
        raise Forbidden("it would place an order, and only its own user trades through an account's gateway")
