"""HTTP over TLS that is pinned to one certificate, for thousands of requests to a host each.

The certificate is compared by its SHA-256 right after the handshake, before anything is sent: who listens at
that address with another key learns nothing. (Names and validity aren't looked at: the certificate is the
droplet's own, and known byte for byte.)

A handshake costs a millisecond of processor at either end, nearly all of what a probe costs. So a connection
may be kept for the next request to the same certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import resource
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass

MOST_KEPT = 6000
"""Connections kept at most: some 19 KiB each, so 110 MiB."""
KEPT_SECONDS = 300.0
"""The agent closes what has been idle for so long (its IDLE_SECONDS)."""
_LARGEST_HEAD, _LARGEST_ANSWER = 64 * 1024, 1024 * 1024
_STATUS = re.compile(r"HTTP/1\.([01]) (\d{3})\b")


class CertificateChanged(Exception):
    """Somebody answers there with another certificate; nothing was sent."""


class BadAnswer(OSError):
    """What came back isn't an answer, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    connection: ssl.SSLSocket
    since: float

    def is_open(self) -> bool:
        """Whether nothing has come: between two requests that can only be the end."""
        waiting = select.poll()
        waiting.register(self.connection, select.POLLIN)
        return not waiting.poll(0)


class PinnedConnections:
    """Requests to one port of many addresses. Blocking; usable from several threads."""

    def __init__(self, port: int, most_kept: int | None = None) -> None:
        """Keeps no more connections than leave half of the process's open files to others."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = min(MOST_KEPT, files // 2) if most_kept is None else most_kept
        self._port = port
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._sorted_out = time.monotonic()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # compared by its hash, see `request`
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3  # the other end is our own agent
        # Of TLS 1.2's ciphers one is left, which isn't offered: each takes time in every handshake.
        self._context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")

    def certificate(self, address: str, deadline: float) -> str:
        """SHA-256 (hex) of the certificate that is shown there. Raises OSError."""
        with self._connected(address, deadline) as connection:
            return _shown(connection)

    def request(
        self, address: str, certificate: str, request: bytes, deadline: float, keep: bool = False
    ) -> Answer:
        """Sends a request, and receives its answer.

        With `keep` a connection that was kept may carry it, and be kept again: for what may be sent twice,
        since one that the other end is just closing, or that something in between has forgotten (then
        half of the time has gone), makes it be sent anew. Without it the request has to say
        `Connection: close`. `deadline` is by time.monotonic() and one for all: a peer that sends a byte now
        and then would keep a timeout from running out.

        Raises CertificateChanged, OSError (BadAnswer among them).
        """
        key = (address, certificate)
        if keep and (kept := self._take(key)) is not None:
            with contextlib.suppress(OSError):
                return self._ask(kept, key, request, (time.monotonic() + deadline) / 2, keep)
        connection = self._connected(address, deadline)
        if not hmac.compare_digest(_shown(connection), certificate):
            connection.close()
            raise CertificateChanged(address)
        return self._ask(connection, key, request, deadline, keep)

    def close(self) -> None:
        """Closes what was kept."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
        for one in kept:
            one.connection.close()

    def _ask(
        self, connection: ssl.SSLSocket, key: tuple[str, str], request: bytes, deadline: float, keep: bool
    ) -> Answer:
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(request)
            answer, stays_open = _received(connection, deadline)
            keep = keep and stays_open and self._keep(key, connection)
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                connection.close()
        return answer

    def _take(self, key: tuple[str, str]) -> ssl.SSLSocket | None:
        with self._lock:
            kept = self._kept.pop(key, None)
        if kept is None:
            return None
        if time.monotonic() < kept.since + KEPT_SECONDS and kept.is_open():
            return kept.connection
        kept.connection.close()
        return None

    def _keep(self, key: tuple[str, str], connection: ssl.SSLSocket) -> bool:
        """Whether there is room for it.

        A full store takes nothing new: passes ask everybody in turn, and to give up the oldest for the
        newest would be to lose each just before it is needed.
        """
        now = time.monotonic()
        over: list[_Kept] = []
        with self._lock:
            if now >= self._sorted_out + KEPT_SECONDS:
                self._sorted_out = now
                gone = [at for at, one in self._kept.items() if now >= one.since + KEPT_SECONDS]
                over = [self._kept.pop(at) for at in gone]
            room = len(self._kept) < self._most and key not in self._kept
            if room:
                self._kept[key] = _Kept(connection, now)
        for one in over:
            one.connection.close()
        return room

    def _connected(self, address: str, deadline: float) -> ssl.SSLSocket:
        """A connection after its handshake, whoever is there. Raises OSError."""
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # The droplet says nothing after the handshake, so Nagle's algorithm would hold the request
            # back until it acknowledges that, which it puts off by 40 ms.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(_left(deadline))
            plain.connect((address, self._port))
            return self._context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise


def _received(connection: ssl.SSLSocket, deadline: float) -> tuple[Answer, bool]:
    """An answer, and whether another request may follow on its connection.

    Read by hand: http.client takes as long for the few headers as all else together. The agent sends no
    chunks.
    """
    raw, ended = bytearray(), False

    def receive() -> bool:
        connection.settimeout(_left(deadline))
        part = connection.recv(64 * 1024)
        raw.extend(part)
        return bool(part)

    while (begins := raw.find(b"\r\n\r\n") + 4) < 4:
        if len(raw) > _LARGEST_HEAD or not receive():
            raise BadAnswer("it has no head")
    status, headers = _head(bytes(raw[:begins]))
    length = headers.get("content-length")
    ends = begins + (0 if status == 204 else int(length) if length is not None else _LARGEST_ANSWER)
    while not ended and len(raw) < ends:
        ended = not receive()
    if length is not None and len(raw) < ends:
        raise BadAnswer("it broke off")
    stays_open = len(raw) == ends and not ended and headers.get("connection", "").lower() != "close"
    kind = headers.get("content-type", "").partition(";")[0]
    return Answer(status, kind, bytes(raw[begins:ends])), stays_open


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, their names in lower case. Raises BadAnswer."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    match = _STATUS.match(first)
    if match is None:
        raise BadAnswer("it isn't HTTP/1")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or int(length) > _LARGEST_ANSWER:
        raise BadAnswer("nobody knows how long it is")
    if match[1] == "0":
        headers["connection"] = "close"
    return int(match[2]), headers


def _left(deadline: float) -> float:
    """Seconds left. Raises TimeoutError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shown(connection: ssl.SSLSocket) -> str:
    return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
