"""Order events over HTTP, as server-sent events (WHATWG HTML, "Server-sent events").

    id: 5f0c2a91-17
    event: status
    data: {"kind": "status", "time": "2026-11-20T15:00:00+00:00", "order": {...}}

A client that reconnects sends the last id it saw (`Last-Event-ID`) and gets what it missed. If that
isn't kept any more, or was another process's, it gets a `gap` first: it reads orders and fills again.

A stream ends with the token that opened it, and when this instance ends or hands its connection over. It also
ends before Cloud Run would cut it off, and the client comes again. How many there may be:
`broker.service.streams`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from broker.models import OrderEvent
from broker.service.auth import Principal, bearer
from broker.service.eventlog import EventLog
from broker.service.routes import Reader, Via, problem_answers
from broker.service.streams import Streams

#: seconds of silence after which a comment is sent: proxies end connections that are idle for longer
HEARTBEAT = 15.0

events = APIRouter(
    prefix="/api/v1/connections/{connection_id}",
    tags=["trading"],
    dependencies=[Depends(bearer)],
)

_STREAM = {
    "description": "Server-sent events: status, fill, gap, unexplained_position",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@events.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: _STREAM, **problem_answers(401, 403, 404, 422, 429, 502, 503)},
)
async def get_events(
    who: Reader,
    via: Via,
    request: Request,
    last_event_id: Annotated[str, Header(max_length=64)] = "",
    after: Annotated[str, Query(max_length=64, description="As Last-Event-ID, for a first connection")] = "",
) -> StreamingResponse:
    """Order events as they happen, until the token expires.

    Reconnect with `Last-Event-ID`: what was missed comes first.
    """
    log = via.events()
    streams: Streams = request.app.state.streams
    streams.check(who.user)
    stream = _written(log, last_event_id or after, streams, who)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _written(log: EventLog, last_id: str, streams: Streams, who: Principal) -> AsyncIterator[str]:
    # Held from here on: a client that is gone before it begins would never let go of it.
    with streams.held(who.user):
        # At once, so that a client knows that it is connected; `retry` is in milliseconds.
        yield "retry: 2000\n\n"
        async for item in log.follow(last_id, HEARTBEAT, streams.until(who.until)):
            yield ": nothing new\n\n" if item is None else _text(*item)


def _text(number: str, event: OrderEvent) -> str:
    body: dict[str, Any] = {name: value for name, value in asdict(event).items() if value not in (None, "")}
    return f"id: {number}\nevent: {event.kind}\ndata: {json.dumps(body)}\n\n"
