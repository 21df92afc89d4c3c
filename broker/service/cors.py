"""Pages of other origins that may call the API with a bearer token (WHATWG Fetch, "CORS protocol").

Only `/api/` answers to them. Credentials are never allowed: a page elsewhere sends its token in the
Authorization header, and the dashboard's session cookie is refused for every other site, an allowed one
included (see `broker.service.auth`). Order events are read with `fetch` too, since a browser's EventSource
can't send the header; the service has no websockets, which no such rule would protect.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.service.problems import problem

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: what a page may send, beside what any page may
REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID")
#: what a page may read
ANSWER_HEADERS = ("Content-Disposition", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID")
#: seconds that a browser keeps a preflight's answer: as long as any does (Chromium's limit)
KEPT = 7200


class Cors(CORSMiddleware):
    """Outermost: a preflight costs no more than this, and failures can be read by the page as well."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_credentials=False,
            expose_headers=ANSWER_HEADERS,
            max_age=KEPT,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As any ASGI app."""
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer, or what of the request isn't allowed as a problem document."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        allowed = {n: v for n, v in answer.headers.items() if n == "vary" or n.startswith("access-control-")}
        said = f"{bytes(answer.body).decode()}: CORS_ORIGINS names the origins that may call this API"
        return problem(403, "cors", "Not allowed for this page", said, headers=allowed)
