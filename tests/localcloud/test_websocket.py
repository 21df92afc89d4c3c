"""A server ends cleanly, whatever its websockets are in the middle of."""

import asyncio
import base64
import os
import socket
import ssl
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from localcloud.gateways.client_portal.serving import Endpoint, Server
from tests.broker.portal_gateway import write_certificate

CLOSE = b"\x88\x82" + bytes(4) + (1000).to_bytes(2, "big")  # RFC 6455, 5.5.1: a client's close frame, masked


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def say_goodbye_and_stay(port: int) -> ssl.SSLSocket:
    """A client whose close frame was answered, and whose TLS connection is still there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in client.recv(4096)
    client.sendall(CLOSE)
    assert client.recv(4) == b"\x88\x02\x03\xe8", "the close frame is answered"
    return client


async def test_a_server_ends_while_a_client_that_said_goodbye_keeps_its_connection(tmp_path: Path) -> None:
    listener = Endpoint(address=("127.0.0.1", 0)).open()
    port = listener[0].getsockname()[1]
    app = Starlette(routes=[WebSocketRoute("/", echo)])
    async with Server(app, listener, write_certificate(tmp_path)).serving():
        client = await asyncio.to_thread(say_goodbye_and_stay, port)
    client.close()
