"""`make tunnel` for the tests: a person's way to the gateway's port."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator

from tests.e2e.conftest import eventually
from tools.local_stack import LocalStack


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def tunnel(stack: LocalStack, machine: str = "gce/ibkr-gateway", remote: int = 4002) -> Iterator[int]:
    """Hold a tunnel open; gives its local port."""
    port = free_port()
    argv = stack.cloud.argv("tunnel", machine, str(remote), "--listen", f"127.0.0.1:{port}")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(port), bool)
        yield port
    finally:
        process.terminate()
        process.wait()
