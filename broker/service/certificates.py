"""The certificate of an IBeam gateway over HTTP, for operators: the pinned one, the shown one, a new one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from broker.alert_kinds import Kind
from broker.service.auth import Principal, bearer, require
from broker.service.routes import Via, problem_answers

certificates = APIRouter(
    prefix="/api/v1/connections/{connection_id}",
    tags=["verification"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 503),
)

Operator = Annotated[Principal, Depends(require("operator"))]


class Accepted(BaseModel):
    """The certificate that is the gateway's from now on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"sha256": "3f9a" * 16}]})

    sha256: str = Field(
        min_length=64,
        max_length=95,
        description="Hex digits, as the machine says them; it must show this one",
    )


class GatewayCertificate(BaseModel):
    """SHA-256 in hex of the certificate that a gateway shows now, and of the pinned one (empty: none yet)."""

    #: its address
    gateway: str
    shown: str
    pinned: str
    pinned_at: datetime | None
    #: an operator, or `first seen`
    pinned_by: str


@certificates.get("/certificate")
async def get_certificate(who: Operator, via: Via) -> GatewayCertificate:
    """Ask the gateway for its certificate, and compare. Nothing is sent to it."""
    return GatewayCertificate(**asdict(await via.certificate()))


@certificates.put("/certificate", operation_id="accept_certificate", responses=problem_answers(400, 413))
async def put_certificate(who: Operator, via: Via, body: Accepted, request: Request) -> GatewayCertificate:
    """Accept the certificate that the gateway shows now, if it is this one. All instances take it.

    Compare it with what the machine itself says first: whoever took its address could show one, too.
    """
    found = await via.accept_certificate(body.sha256, who.user)
    said = f"{who.user} accepted {found.shown} for {found.gateway}"
    request.app.state.alerts.notify(Kind.CERTIFICATE_CHANGED, said)
    return GatewayCertificate(**asdict(found))
