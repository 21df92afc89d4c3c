"""What the fleet's routes refuse with, and what stands for a fleet that is off or away."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker.fleet.vault import VaultError
from broker.service import problems
from broker.service.fleet import Fleet, FleetAway

log = structlog.get_logger("broker.service.fleet")

OFF = (
    "this service doesn't connect users' accounts: whoever runs it switches that on with FLEET_ENABLED=true "
    "(see docs/fleet.md), and decides with it that users' IBKR passwords are kept here, encrypted"
)


class Refusal(Exception):
    """A request that isn't carried out, as a problem document. Nothing was changed."""

    def __init__(
        self, status: int, kind: str, title: str, detail: str, *, retry_after: float = 0, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        self.headers = {"Retry-After": str(math.ceil(retry_after))} if retry_after else {}
        self.extra = extra


def unknown_account() -> Refusal:
    """The same for an id that isn't there and for somebody else's: nobody learns which it is."""
    return Refusal(404, "unknown-account", "No such account", "you have no account of this id")


def wrong_field(field: str, message: str) -> Refusal:
    """As for a field that the schema refuses."""
    problem = {"field": field, "message": message, "value": "not shown"}
    return Refusal(422, "invalid-request", "The request is wrong", f"{field}: {message}", errors=[problem])


async def fleet_of(request: Request) -> Fleet:
    """The fleet, as a dependency. Raises Refusal where it is switched off."""
    # Not a plain function: FastAPI would call it in a thread.
    fleet: Fleet | None = request.app.state.fleet
    if fleet is None:
        raise Refusal(404, "fleet-off", "Accounts can't be connected here", OFF)
    return fleet


class SecretRoute(APIRoute):
    """A route whose body holds secrets: what is wrong with it is told without repeating any of it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def without_echo(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as wrong:
                raise RequestValidationError([_censored(error) for error in wrong.errors()]) from None

        return without_echo


def _censored(error: dict[str, Any]) -> dict[str, Any]:
    if error["loc"][:1] != ("body",):
        return error
    kept = {name: value for name, value in error.items() if name not in ("input", "url")}
    if error["type"] == "extra_forbidden":
        # A field's name may be a password, too, where name and value were mixed up.
        return kept | {"loc": error["loc"][:-1], "msg": "has a field that doesn't belong there"}
    return kept | {"msg": error["msg"].removeprefix("Value error, ")}


def install(app: FastAPI) -> None:
    """Make the app answer the fleet's refusals, and a database that is away, with problem documents."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return problems.problem(
            refusal.status,
            refusal.kind,
            refusal.title,
            refusal.detail,
            headers=refusal.headers,
            **refusal.extra,
        )

    @app.exception_handler(FleetAway)
    async def fleet_away(request: Request, away: FleetAway) -> Response:
        return problems.problem(
            503, "fleet-away", "Accounts can't be reached", away.reason,
            headers={"Retry-After": "5"}, since=away.since.isoformat(), doing="trying again by itself",
        )  # fmt: skip

    @app.exception_handler(VaultError)
    async def vault(request: Request, error: VaultError) -> Response:
        # The text names keys and roles: for operators.
        log.error("credentials can't be kept or opened", reason=str(error))
        title = "Credentials can't be kept or opened"
        if error.temporary:
            said = "the key service doesn't answer: try again"
            return problems.problem(503, "vault-away", title, said, headers={"Retry-After": "5"})
        return problems.problem(503, "vault", title, "an operator has to look at the key")

    @app.exception_handler(InterfaceError)
    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    @app.exception_handler(ProgrammingError)
    async def database_away(request: Request, error: Exception) -> Response:
        if isinstance(error, ProgrammingError) and type(error.orig).__name__ != "UndefinedTable":
            raise error
        said = f"the database can't be used: {type(error).__name__}"
        return problems.problem(
            503, "database-away", "The database can't be used", said, headers={"Retry-After": "5"}
        )
