"""Problems as people read them: what is a problem document to a program is a page, or a dialog, to a browser.

Only for the dashboard's own addresses; the API's answers are documents whoever asks.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.service.dashboard.wording import sentence
from broker.service.problems import MEDIA_TYPE

_NOT_OURS = ("/api/", "/docs", "/openapi.json", "/metrics", "/session")
#: what to do about it, by status; the document's own words say what happened
REMEDIES = {
    400: "Go back, and try it from the page again.",
    401: "Log in again.",
    403: "Your login has no role for this: ask whoever runs this service.",
    404: "It may have been deleted, or the address is mistyped: the overview has all that is yours.",
    405: "Go back, and try it from the page again.",
    409: "Close this, and look how it is now.",
    413: "Send less at once.",
    422: "Correct what is named, and try again.",
    423: "See the notice at the top of the page: trading goes on when somebody has resumed it.",
    429: "Wait a moment, and try again.",
    500: "Try again; if it stays, tell whoever runs this service the number of the request.",
    502: "Look at the broker's own page before you try again.",
    503: "Nothing needs doing: try again in a moment. The Health page says what is away.",
    504: "Don't send it again: it is looked up, and the list of orders tells what became of it.",
}


class ReadableProblems:
    """Turns problem documents into pages for whoever navigates, and into dialogs for pages' own requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_NOT_OURS):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        dialog = asked.get("hx-request") == "true"
        # Browsers tell what a request is for only to sites that they trust, such as https.
        page = asked.get("sec-fetch-mode", "navigate") == "navigate" and "text/html" in asked.get(
            "accept", ""
        )
        if dialog or (scope["method"] == "GET" and page):
            await self._app(scope, receive, _Readable(scope, asked if dialog else None, send))
        else:
            await self._app(scope, receive, send)


class _Readable:
    """Holds a problem document back until it is whole, and sends it in a form for people."""

    def __init__(self, scope: Scope, asked: Headers | None, send: Send) -> None:
        """`asked`: the headers of a request for a dialog; None for one of a page."""
        self._scope, self._asked, self._send = scope, asked, send
        self._status = 0
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            if not headers.get("content-type", "").startswith(MEDIA_TYPE):
                await self._send(message)
                return
            self._status, self._kept = message["status"], headers
            return
        if not self._status:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._say(json.loads(self._body))

    async def _say(self, document: dict[str, Any]) -> None:
        # Imported here: the pages' module needs what needs this one.
        from broker.service.dashboard.pages import HEADERS

        dashboard = self._scope["app"].state.dashboard
        more = {name: self._kept[name] for name in ("retry-after", "x-request-id") if name in self._kept}
        said = {
            "heading": document["title"],
            "detail": sentence(document.get("detail", "")),
            "remedy": REMEDIES.get(self._status, REMEDIES[500]),
            "request_id": document.get("request_id", "") if self._status >= 500 else "",
        }
        if self._asked is None:
            if self._status == 503:  # it comes back by itself
                more["refresh"] = self._kept.get("retry-after", "5")
            page = dashboard.html("error.html", self._status, title=document["title"], **said)
        else:
            if self._status == 401:
                more["hx-redirect"] = f"/login?next={quote(_came_from(self._asked))}"
            more |= {"hx-retarget": "#dialog", "hx-reswap": "innerHTML"}
            page = dashboard.html("dialogs/failed.html", self._status, **said)
        page.headers.update(HEADERS | more)
        await page(self._scope, _nothing, self._send)


def _came_from(asked: Headers) -> str:
    """The page that a request came from, of this site only."""
    url = urlsplit(asked.get("hx-current-url", "/"))
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
