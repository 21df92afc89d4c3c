"""Around every request: an id, one log line, a limit on the body's size, and no bare failure."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable

import structlog
from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.service.problems import MEDIA_TYPE, problem

log = structlog.get_logger("broker.service.access")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
#: asked for by machines every few seconds: worth a line only when they fail
_PROBES = ("/healthz", "/readyz", "/health")


class TooLarge(HTTPException):
    """The body is larger than the limit. FastAPI lets an HTTPException through while it reads a body."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"A body may have {limit} bytes at most", {"Connection": "close"})


class RequestMiddleware:
    """Outermost layer: what the inner ones let through becomes a problem document too."""

    def __init__(self, app: ASGIApp, body_limit: int, answered: Callable[[int, float], None]) -> None:
        """`body_limit` in bytes; `answered` is told each answer's status, and the seconds until it began.

        A stream may last for an hour, and its beginning is all that says how quick the service is.
        """
        self._app = app
        self._limit = body_limit
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.monotonic()
        answered = _Answered(send, request_id)
        try:
            await self._app(scope, _limited(scope, receive, self._limit), answered)
        except Exception:
            log.exception("unexpected failure", method=scope["method"], path=scope["path"])
            answer = problem(500, "unexpected", "Something unexpected failed", request_id=request_id)
            await answered.instead(answer, scope, receive)
        finally:
            ended = time.monotonic()
            self._answered(answered.status, (answered.began or ended) - started)
            if answered.status >= 400 or scope["path"] not in _PROBES:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=answered.status,
                    ms=round((ended - started) * 1000, 1),
                    user=scope["state"].get("user"),
                )
            structlog.contextvars.unbind_contextvars("request_id", "account_id")


class _Answered:
    """Notes the status that went out, adds the request id, to problem documents in their body too."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = request_id
        self._held: Message | None = None
        self.status = 0
        self.began: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.began = message["status"], time.monotonic()
            headers = [*message["headers"], (b"x-request-id", self._id.encode())]
            message = {**message, "headers": headers}
            if (b"content-type", MEDIA_TYPE.encode()) in headers:
                self._held = message
                return
        elif self._held is not None and not message.get("more_body"):
            await self._send_with_id(self._held, message)
            self._held = None
            return
        await self._send(message)

    async def instead(self, answer: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Answer in place of the app, unless it had begun to."""
        if self.status == 0 or self._held is not None:
            self._held = None
            await answer(scope, receive, self)

    async def _send_with_id(self, start: Message, body: Message) -> None:
        document = json.loads(body["body"]) | {"request_id": self._id}
        content = json.dumps(document).encode()
        headers = [(n, v) for n, v in start["headers"] if n != b"content-length"]
        headers.append((b"content-length", str(len(content)).encode()))
        await self._send({**start, "headers": headers})
        await self._send({**body, "body": content})


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    too_large = declared.isdigit() and int(declared) > limit
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        if too_large:
            raise TooLarge(limit)
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(limit)
        return message

    return counted


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
