"""Routes whose answers are swapped into a page: what goes wrong is said there, in words."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from broker.errors import BrokerError
from broker.service.auth import Forbidden, Unauthorized
from broker.service.dashboard.pages import dashboard_of


class DialogRoute(APIRoute):
    """A route that pages ask with htmx. Whoever asks it otherwise gets problem documents."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (BrokerError, Forbidden) as failure:
                if "hx-request" not in request.headers:
                    raise
                return _said(request, str(failure))
            except Unauthorized:
                if "hx-request" not in request.headers:
                    raise
                return Response(headers={"HX-Redirect": "/login"})

        return answered


def _said(request: Request, why: str) -> Response:
    """The failure, where the answer would have stood; nothing in place of what is shown already."""
    target = request.headers.get("hx-target", "").partition("#")[2]
    if target == "dialog":
        heading = "That can't be done now"
        return dashboard_of(request).html("dialogs/said.html", heading=heading, lines=[why], bad=True)
    if target == "said":
        return dashboard_of(request).html("dialogs/spoken.html", said=why)
    return Response(status_code=204)
