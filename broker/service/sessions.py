"""Login sessions of browsers: a caller's own bearer token goes into a cookie (see `broker.service.auth`)."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from broker.service.auth import COOKIE, Authenticator, check_same_origin
from broker.service.fleet_problems import SecretRoute
from broker.service.routes import problem_answers

sessions = APIRouter(prefix="/session", tags=["session"], route_class=SecretRoute)


class Login(BaseModel):
    """A token of the configured OIDC issuer."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, json_schema_extra={"examples": [{"token": "BEARER_TOKEN"}]}
    )

    # A cookie holds 4,096 bytes.
    token: Annotated[SecretStr, Field(min_length=1, max_length=3800, description="A bearer token")]


class Session(BaseModel):
    """Whose session it is, and when it ends (seconds since the epoch)."""

    user: str
    roles: list[str]
    #: seconds since the epoch
    until: float


@sessions.post("", responses=problem_answers(400, 401, 403, 413, 422, 503))
async def log_in(body: Login, request: Request, response: Response) -> Session:
    """Begin a browser's session: the token goes into a cookie that scripts can't read."""
    check_same_origin(request)
    token = body.token.get_secret_value().strip()
    authenticator: Authenticator = request.app.state.authenticator
    who = await authenticator.principal(f"Bearer {token}")
    response.set_cookie(
        COOKIE,
        token,
        max_age=max(0, int(who.until - time.time())),
        path="/",
        httponly=True,
        samesite="strict",
        # Cloud Run ends TLS before the service; only this flag depends on what the header says.
        secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "")),
    )
    response.headers["Cache-Control"] = "no-store"
    return Session(user=who.user, roles=sorted(who.roles), until=who.until)


@sessions.delete("", status_code=204, responses=problem_answers(403))
async def log_out(request: Request, response: Response) -> None:
    """End the browser's session. The token itself holds until it expires."""
    check_same_origin(request)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
