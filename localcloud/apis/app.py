"""The local cloud's REST APIs: one application on one address, one HTTP server in the daemon's loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from localcloud.apis import alpaca, digitalocean, metadata, monitoring, oidc, run, secretmanager
from localcloud.cloud import API_PORT, CloudError
from localcloud.websocket import WebSocketProtocol

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


def application(cloud: Cloud) -> Starlette:
    """All APIs, each at its place."""

    async def index(_: Request) -> Response:
        return JSONResponse(
            {"local cloud": cloud.settings.project, "network": f"{cloud.settings.network}.0.0/16"}
        )

    return Starlette(
        routes=[
            Route("/", index),
            Mount("/computeMetadata", routes=metadata.routes(cloud)),
            Mount("/droplet", routes=metadata.droplet_routes(cloud)),
            Mount("/secretmanager", routes=secretmanager.routes(cloud)),
            Mount("/monitoring", routes=monitoring.routes(cloud)),
            Mount("/run", routes=run.routes(cloud)),
            Mount("/oidc", routes=oidc.routes(cloud)),
            Mount("/digitalocean", routes=digitalocean.routes(cloud)),
            Mount("/alpaca", routes=alpaca.routes(cloud)),
        ]
    )


class ApiServer(uvicorn.Server):
    """Uvicorn without its signal handlers: the daemon decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def api_server(cloud: Cloud) -> ApiServer:
    """The HTTP server, to be run with `serve(sockets=[listening_socket(cloud)])`."""
    config = uvicorn.Config(
        application(cloud),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws=WebSocketProtocol,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return ApiServer(config)


def listening_socket(cloud: Cloud) -> socket.socket:
    """The APIs' port. Raises `CloudError` 409, with the remedy, when it is taken."""
    address = (cloud.settings.api_host, API_PORT)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # asyncio does this itself only where the protocol is named; without it answers take 40 ms (Nagle).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CloudError(
            409,
            f"The local cloud can't listen on {address[0]}:{address[1]} ({error.strerror}). Another program "
            "listens there, perhaps a local cloud of another checkout: stop that one, or choose another "
            "network, for example: localcloud start --network 127.30",
        ) from None
    return listener
