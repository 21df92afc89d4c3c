"""uvicorn's websocket protocol, mended where it breaks the shutdown of a whole server."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """For uvicorn's `ws` setting."""

    def shutdown(self) -> None:
        """Close the connection, as the server ends."""
        # When the client's close was already answered, uvicorn 0.54 sends another one, which raises
        # InvalidState and leaves the server's other connections open.
        if self.handshake_complete and self.conn.state is not State.OPEN:
            self.stop_keepalive()
            self.transport.close()
        else:
            super().shutdown()
