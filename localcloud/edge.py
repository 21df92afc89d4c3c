"""The network in action: listeners on the machines' addresses that let in whom `allowed` lets in.

A connection's source is the machine whose process opened the socket; a process of no machine is the
internet. What is let in is carried to the Unix socket of the program behind the port.

On a change of rules, connections that are no longer allowed are cut. Google's firewall is stateful
and tracks a connection while it is active; its documentation promises nothing about connections
that a new rule would refuse, so a client has to withstand both. Cutting is the stricter of the two,
and what makes "take the rule away" something that can be seen and tested.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from localcloud import sockets
from localcloud.cloud import API_PORT, CloudError
from localcloud.network import INTERNET, Verdict, allowed
from localcloud.topology import Topology, read

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

Target = Path | Callable[[str], Path]  # a socket, or who gets which (given the source's name)

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close() sends a reset
_BACKLOG = 128
_REPORT_EVERY = 100
_RECENT = 8


@dataclass(frozen=True)
class Listening:
    """A port of a machine and what is behind it."""

    machine: str
    address: str
    port: int
    target: Target
    socket: socket.socket


@dataclass(eq=False)
class Connection:
    """A connection that was let in."""

    source: str
    listening: Listening
    client: _Side
    server: _Side

    def cut(self) -> None:
        """End both ends at once, the client's with a reset."""
        for side in (self.client, self.server):
            if side.transport:
                side.reset()


class Edge:
    """All listeners of the cloud's machines, and every connection through them."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._listening: dict[tuple[str, int], Listening] = {}
        self._connections: set[Connection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._topology: Topology | None = None
        self._revision = -1
        self._review_due = False
        self._last_owner: dict[str, int] = {}
        self.refused: Counter[tuple[str, str, int]] = Counter()
        self.accepted: Counter[tuple[str, str, int]] = Counter()

    def publish(self, machine: str, address: str, port: int, unix_socket: Target) -> None:
        """Listen on a machine's address:port; what may come in goes to the socket.

        Raises `CloudError` 409 when something else on this laptop has the port (a program that
        listens on every address has it on this one too).
        """
        if (address, port) in self._listening:
            raise CloudError(409, f"{address}:{port} is already published.", "alreadyExists")
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio does this itself only where the protocol is named; without it answers take 40 ms (Nagle).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        try:
            listener.bind((address, port))
        except OSError as error:
            listener.close()
            raise CloudError(
                409, f"{machine} can't listen on {address}:{port}: {error.strerror}.", "portInUse"
            ) from None
        listener.listen(_BACKLOG)
        listening = Listening(machine, address, port, unix_socket, listener)
        self._listening[address, port] = listening
        asyncio.get_running_loop().add_reader(listener, self._accept, listening)

    def unpublish(self, address: str, port: int) -> None:
        """Close a port and every connection that came through it."""
        listening = self._listening.pop((address, port), None)
        if listening is None:
            return
        asyncio.get_running_loop().remove_reader(listening.socket)
        listening.socket.close()
        for connection in [one for one in self._connections if one.listening is listening]:
            connection.cut()

    def listening(self, machine: str | None = None) -> list[Listening]:
        """The open ports, of one machine or of all."""
        return [one for one in self._listening.values() if machine in (None, one.machine)]

    def connections(self) -> list[Connection]:
        """The connections at this moment."""
        return list(self._connections)

    def topology(self) -> Topology:
        """What is declared at this moment."""
        if self._topology is None or self._revision != self._cloud.store.revision:
            self._topology = read(self._cloud)
            self._revision = self._cloud.store.revision
        return self._topology

    def verdict(self, source: str, destination: str, port: int) -> Verdict:
        """Whether `source` may open a TCP connection to that machine or address, and why."""
        return allowed(self.topology(), source, destination, port)

    def identify(self, peer: sockets.Endpoint | None, local: sockets.Endpoint | None = None) -> str | None:
        """The machine whose process opened a connection; None: nobody's, or already closed.

        `peer` is the client's address and port, `local` the server's (default: the API server's).
        """
        if peer is None:
            return None
        here = local or (self._cloud.settings.api_host, API_PORT)
        number = sockets.inode((peer[0], peer[1]), (here[0], here[1]))
        if number is None:
            return None
        processes = self._cloud.processes
        # Most connections come from the program that opened the one before.
        recent = [pid for pid in reversed(self._last_owner.values()) if processes.owner_of(pid)]
        pid = sockets.owner(number, recent[:_RECENT])
        if pid is None:
            pid = sockets.owner(number, processes.all_pids())
        if pid is None:
            return None
        machine = processes.owner_of(pid)
        if machine:
            self._last_owner.pop(machine, None)
            self._last_owner[machine] = pid
        return machine

    def changed(self) -> None:
        """Declared rules, tags or machines changed: look at the open connections again, soon.

        Not at once, so that a handler that makes several changes in one step is judged by the result.
        """
        if self._review_due or not self._connections:
            return
        self._review_due = True
        asyncio.get_running_loop().call_soon(self._review)

    def hand_over(self, client: socket.socket, source: str, machine: str, port: int) -> Verdict:
        """Carry an accepted socket to a machine's port as `source`, if that is allowed."""
        verdict = self.verdict(source, machine, port)
        listening = next((one for one in self.listening(machine) if one.port == port), None)
        if verdict.allowed and listening is None:
            return Verdict(False, f"nothing listens on port {port} of {machine}")
        if verdict.allowed and listening:
            self._carry(client, source, listening)
        return verdict

    def close(self) -> None:
        """Close every port."""
        for address, port in list(self._listening):
            self.unpublish(address, port)

    def _accept(self, listening: Listening) -> None:
        try:
            client, peer = listening.socket.accept()
        except OSError:  # it left before we looked, or we are out of descriptors: the next one may do
            return
        client.setblocking(False)
        source = self.identify(peer, (listening.address, listening.port)) or INTERNET
        verdict = self.verdict(source, listening.machine, listening.port)
        seen = (source, listening.machine, listening.port)
        if verdict.allowed:
            self.accepted[seen] += 1
            self._carry(client, source, listening)
            return
        if self.refused[seen] % _REPORT_EVERY == 0:
            self._cloud.log.info("refused %s -> %s:%d: %s", *seen, verdict.why)
        self.refused[seen] += 1
        _reset(client)

    def _carry(self, client: socket.socket, source: str, listening: Listening) -> None:
        task = asyncio.create_task(self._connect(client, source, listening))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _connect(self, client: socket.socket, source: str, listening: Listening) -> None:
        loop = asyncio.get_running_loop()
        target = listening.target if isinstance(listening.target, Path) else listening.target(source)
        client_side, server_side = _Side(), _Side()
        client_side.other, server_side.other = server_side, client_side
        try:
            await loop.create_unix_connection(lambda: server_side, str(target))
        except OSError:
            _reset(client)  # nothing listens behind the port: as on a closed one
            return
        try:
            await loop.connect_accepted_socket(lambda: client_side, client)
        except OSError:
            server_side.reset()
            return
        connection = Connection(source, listening, client_side, server_side)
        self._connections.add(connection)
        client_side.on_lost = server_side.on_lost = lambda: self._connections.discard(connection)
        if server_side.transport and not server_side.transport.is_closing():
            server_side.transport.resume_reading()

    def _review(self) -> None:
        self._review_due = False
        for connection in self.connections():
            listening = connection.listening
            verdict = self.verdict(connection.source, listening.machine, listening.port)
            if not verdict.allowed:
                self._cloud.log.info(
                    "cut %s -> %s:%d: %s", connection.source, listening.machine, listening.port, verdict.why
                )
                connection.cut()


class _Side(asyncio.Protocol):
    """One end of a carried connection: what it receives goes to the other end."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side
        self.on_lost: Callable[[], object] = lambda: None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other.transport is None:  # wait for the other end before taking anything in
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.other.transport:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        other = self.other.transport
        if other and not other.is_closing() and other.can_write_eof():
            other.write_eof()
        return not self.other._ended  # keep the way back open until that has ended too

    def pause_writing(self) -> None:
        if self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.on_lost()
        if self.other.transport and not self.other.transport.is_closing():
            if error:
                self.other.reset()
            else:
                self.other.transport.close()

    def reset(self) -> None:
        """Close at once, telling the other program so (TCP), without sending what is pending."""
        if self.transport:
            raw = self.transport.get_extra_info("socket")
            if raw is not None and raw.family == socket.AF_INET:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()


def _reset(client: socket.socket) -> None:
    if client.family == socket.AF_INET:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    client.close()
