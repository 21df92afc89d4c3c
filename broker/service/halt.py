"""The kill switch over HTTP, for operators; and trades as CSV."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from broker.alerts import Alerts, Kind
from broker.errors import BrokerError
from broker.export import check_zone, trades_csv
from broker.risk.switch import KillSwitch, SwitchState
from broker.service.auth import Principal, bearer, require
from broker.service.connections import Connection
from broker.service.fleet import FleetAway
from broker.service.routes import Reader, Via, problem_answers
from broker.service.user_connections import UserConnections

log = structlog.get_logger("broker.service.halt")

Operator = Annotated[Principal, Depends(require("operator"))]
Action = Literal["halt", "resume"]

switch = APIRouter(
    prefix="/api/v1",
    tags=["kill switch"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 422, 503),
)
exports = APIRouter(
    prefix="/api/v1/connections/{connection_id}",
    tags=["trading"],
    dependencies=[Depends(bearer)],
    responses=problem_answers(401, 403, 404, 422, 503),
)

Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S", description="Why; it is kept")]


class HaltBody(BaseModel):
    """Why trading is halted, and whether the orders that work are to be cancelled."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "odd fills", "cancel_orders": True}]}
    )

    reason: Reason
    cancel_orders: bool = Field(default=False, description="Cancel all working orders as well")


class ResumeBody(BaseModel):
    """Why trading may go on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "it was the feed"}]})

    reason: Reason


class Switch(BaseModel):
    """The kill switch: whether orders are halted, and who changed that last, when and why."""

    halted: bool
    since: datetime | None = None
    by: str = ""
    reason: str = ""
    #: where it must be lifted: database (here), environment or file
    source: str = "database"


class SwitchWithChanges(Switch):
    """The kill switch with its latest changes, newest first."""

    changes: list[dict[str, Any]] = []


class Halting(Switch):
    """What a halt did."""

    #: orders that had left and have no answer yet
    under_way: list[str] = []
    #: by connection: the orders that were working, as they are after the request to cancel them
    cancelled: dict[str, list[dict[str, Any]]] = {}
    #: by connection: why its orders couldn't be cancelled; accounts whose gateways don't run are among them
    not_cancelled: dict[str, str] = {}


@switch.get("/halt")
async def get_halt(who: Operator, request: Request) -> SwitchWithChanges:
    """Whether orders are halted."""
    kill = _kill_switch(request)
    state, changes = await asyncio.to_thread(lambda: (kill.state(), kill.changes()))
    return SwitchWithChanges(**asdict(state), changes=changes)


@switch.post("/halt", operation_id="halt_trading", responses=problem_answers(400, 413))
async def halt(who: Operator, body: HaltBody, request: Request) -> Halting:
    """Stop all orders of all connections and instances at once. Cancels still work."""
    done = await asyncio.to_thread(_kill_switch(request).halt, who.user, body.reason)
    log.warning("trading is halted", by=who.user, reason=body.reason)
    _alerts(request).notify(Kind.KILL_SWITCH, f"halted by {who.user}: {body.reason}")
    answer = Halting(**asdict(done.state), under_way=done.under_way)
    if body.cancel_orders:
        found: dict[str, Connection] = request.app.state.connections
        for name, via in found.items():
            try:
                async with via.trading() as broker:
                    orders = await asyncio.shield(broker.cancel_all_orders_async())
                answer.cancelled[name] = [asdict(order) for order in orders]
            except BrokerError as failure:
                # One connection that is away mustn't keep the others' orders working.
                answer.not_cancelled[name] = failure.message
        await _cancel_of_users(request, answer)
    return answer


async def _cancel_of_users(request: Request, answer: Halting) -> None:
    users: UserConnections | None = request.app.state.user_connections
    if users is None:
        return
    try:
        async for name, done in users.cancel_all():
            if isinstance(done, str):
                answer.not_cancelled[name] = done
            else:
                answer.cancelled[name] = [asdict(order) for order in done]
    except (FleetAway, SQLAlchemyError) as away:
        answer.not_cancelled["users' accounts"] = f"nobody can say which there are: {type(away).__name__}"


@switch.post("/resume", operation_id="resume_trading", responses=problem_answers(400, 413))
async def resume(who: Operator, body: ResumeBody, request: Request) -> Switch:
    """Let orders leave again. Still `halted` where the environment or a file halts as well."""
    state: SwitchState = await asyncio.to_thread(_kill_switch(request).resume, who.user, body.reason)
    log.warning("trading is resumed", by=who.user, reason=body.reason)
    _alerts(request).notify(Kind.KILL_SWITCH, f"resumed by {who.user}: {body.reason}")
    return Switch(**asdict(state))


@exports.get("/trades.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
async def get_trades(
    who: Reader,
    via: Via,
    since: datetime | None = None,
    zone: Annotated[str, Query(max_length=64)] = "UTC",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> Response:
    """Fills with their commissions as CSV, oldest first, the newest `limit`; times in UTC and `zone`."""
    check_zone(zone)
    fills = await via.broker.get_fills_async(since, limit)
    headers = {"Content-Disposition": 'attachment; filename="trades.csv"'}
    return Response(trades_csv(fills, zone), media_type="text/csv; charset=utf-8", headers=headers)


def _kill_switch(request: Request) -> KillSwitch:
    return KillSwitch(request.app.state.engine)


def _alerts(request: Request) -> Alerts:
    found: Alerts = request.app.state.alerts
    return found
