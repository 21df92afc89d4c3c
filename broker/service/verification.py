"""The verification of a connection's gateway over HTTP, for operators: it unlocks live trading."""

from __future__ import annotations

from dataclasses import asdict

import structlog
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from broker.service.auth import bearer
from broker.service.halt import Operator
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

    model_config = ConfigDict(extra="forbid")

    symbol: str = Field(default="SPY", min_length=1, max_length=32, description="Quoted, on paper ordered")


class CheckResult(BaseModel):
    """One check: what it found, or why it failed and what to do."""

    name: str
    passed: bool
    found: str
    remedy: str


class VerificationResult(BaseModel):
    """A gateway's checks; `mode` is paper, live, or empty where that isn't clear."""

    passed: bool
    account: str
    mode: str
    gateway: str
    checks: list[CheckResult]


@verification.post("/verification", responses=problem_answers(400, 413))
async def post_verification(who: Operator, via: Via, body: VerificationBody) -> VerificationResult:
    """Try the gateway: on paper an order far from the market is placed and cancelled, on live none is sent.

    Live orders leave only through a gateway whose latest verification has passed.
    """
    found = await via.verify(who.user, body.symbol)
    log.info("the gateway was verified", by=who.user, passed=found.passed, account=found.account)
    return VerificationResult(**asdict(found))
