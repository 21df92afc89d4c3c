"""The fleet's other callers: droplets that enrol, the scheduler, and operators."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from broker.fleet.enrolment import EnrolmentLater, EnrolmentRefused
from broker.service.fleet import Fleet
from broker.service.fleet_problems import Refusal, SecretRoute, fleet_of
from broker.service.routes import problem_answers

log = structlog.get_logger("broker.service.fleet")

OfFleet = Annotated[Fleet, Depends(fleet_of)]

droplets = APIRouter(prefix="/api/v1", tags=["droplets"], route_class=SecretRoute)


class EnrolmentBody(BaseModel):
    """What a droplet says of itself."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    account_id: Annotated[str, Field(max_length=48, pattern=r"^[ -~]*$")]
    token: Annotated[SecretStr, Field(max_length=256)]
    certificate: Annotated[str, Field(max_length=16384, description="PEM")]


@droplets.post("/enrolments", status_code=204, responses=problem_answers(400, 403, 404, 413, 422, 503))
async def enrol(fleet: OfFleet, body: EnrolmentBody) -> None:
    """A droplet that the service has made registers its certificate, once. 503: ask again.

    Its token is what it shows for itself; whoever else has one learns nothing, and nothing is changed.
    """
    structlog.contextvars.bind_contextvars(account_id=body.account_id)
    try:
        await fleet.ask(
            fleet.enroller.enrol, body.account_id, body.token.get_secret_value(), body.certificate
        )
    except EnrolmentRefused:
        raise Refusal(403, "enrolment-refused", "Not accepted", "this droplet isn't known here") from None
    except EnrolmentLater:
        said = "it can't be told yet whether this droplet is known: ask again"
        raise Refusal(503, "enrolment-later", "Not yet", said, retry_after=3) from None
    log.info("a droplet has enrolled")
