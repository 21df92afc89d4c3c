"""Connections to ports of this machine's loopback."""

import os
import socket

# A machine without a network of its own (the local cloud's) has a socket in this folder for each port.
PORT_SOCKETS = os.environ.get("PORT_SOCKETS", "")


def connect(port, timeout):
    """A connection whose every wait ends after `timeout` seconds. Raises OSError."""
    if not PORT_SOCKETS:
        return socket.create_connection(("127.0.0.1", port), timeout)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(f"{PORT_SOCKETS}/port-{port}")
    except OSError:
        connection.close()
        raise
    return connection
