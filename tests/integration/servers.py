"""Real servers for applications under test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from tests.broker.paper_gateway import eventually


class _Threads(ThreadingMixIn, WSGIServer):
    """A thread per request, as gunicorn's threaded workers."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_said: object) -> None: ...


@contextlib.contextmanager
def wsgi(application: Callable[..., Any]) -> Iterator[str]:
    """The application on a WSGI server; its address."""
    server = make_server("127.0.0.1", 0, application, server_class=_Threads, handler_class=_Silent)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def asgi(application: Any, loop: str = "uvloop") -> Iterator[str]:
    """The application under uvicorn in a thread; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, loop=loop, log_level="warning", lifespan="off")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, "uvicorn has started")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
