"""Requests over TLS pinned to a certificate, and what becomes of connections between them."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time

import pytest

from broker.fleet.pinned import BadAnswer, CertificateChanged, PinnedConnections
from soak.certificate import loopback_certificate

SILENCE = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Peer:
    """Answers each request with the next of its `answers`, and counts handshakes. None closes instead."""

    def __init__(self, folder):
        certificate, key = loopback_certificate(folder)
        self.hash = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.num_tickets = 0
        self._context.load_cert_chain(certificate, key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.handshakes, self.requests = 0, 0
        self.answers = []
        self.closes_after = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(plain,), daemon=True).start()

    def _answer(self, plain):
        with plain, self._context.wrap_socket(plain, server_side=True) as connection:
            self.handshakes += 1
            while connection.recv(65536):
                self.requests += 1
                answer = self.answers.pop(0) if self.answers else _said(b"{}")
                if answer is None:
                    return
                connection.sendall(answer)
                if self.closes_after:
                    return

    def close(self):
        self._socket.close()


def _said(content, *headers):
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % len(content)]
    return b"\r\n".join([*lines, *headers, b"", b""]) + content


@pytest.fixture
def peer(tmp_path):
    made = Peer(tmp_path)
    yield made
    made.close()


@pytest.fixture
def connections(peer):
    made = PinnedConnections(peer.port)
    yield made
    made.close()


def ask(connections, peer, keep=True, seconds=20.0):
    return connections.request("127.0.0.1", peer.hash, ASKED, time.monotonic() + seconds, keep)


def test_a_kept_connection_carries_the_next_request(connections, peer):
    for content in (b'{"n": 1}', b"{}", b""):
        peer.answers.append(_said(content))
        assert ask(connections, peer).content == content
    assert (peer.handshakes, peer.requests) == (1, 3)


def test_without_keep_each_has_its_own(connections, peer):
    ask(connections, peer)
    ask(connections, peer, keep=False)
    ask(connections, peer, keep=False)
    assert peer.handshakes == 3


def test_another_certificate_is_noticed_before_anything_is_sent(connections, peer):
    ask(connections, peer)
    with pytest.raises(CertificateChanged):
        connections.request("127.0.0.1", "0" * 64, ASKED, time.monotonic() + 20, keep=True)
    assert peer.requests == 1


def test_what_was_closed_meanwhile_is_connected_anew(connections, peer):
    peer.closes_after = True
    assert [ask(connections, peer).status for _ in range(3)] == [200, 200, 200]
    assert peer.handshakes == 3


def test_one_that_closes_instead_of_answering_is_asked_again_on_a_new_connection(connections, peer):
    ask(connections, peer)
    peer.answers.append(None)
    assert ask(connections, peer).status == 200
    assert (peer.handshakes, peer.requests) == (2, 3)


def test_what_isnt_kept_is_never_sent_twice(connections, peer):
    ask(connections, peer)
    peer.answers.append(None)
    with pytest.raises(OSError):  # noqa: PT011 - whichever: it was sent once
        ask(connections, peer, keep=False)
    assert peer.requests == 2


@pytest.mark.parametrize(
    "answer",
    [
        _said(b"{}", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        _said(b"{}") + b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["it says so", "HTTP/1.0", "more than was asked"],
)
def test_a_connection_that_cant_be_trusted_further_isnt_kept(connections, peer, answer):
    peer.answers.append(answer)
    assert ask(connections, peer).content == b"{}"
    assert ask(connections, peer).content == b"{}"
    assert peer.handshakes == 2


def test_an_answer_may_end_with_its_connection(connections, peer):
    peer.closes_after = True
    peer.answers.append(b"HTTP/1.1 200 OK\r\n\r\n{}")
    assert ask(connections, peer, keep=False).content == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["chunks", "no number", "less than none", "endless", "no HTTP", "no head", "half", "half a head"],
)
def test_what_isnt_a_whole_answer_is_an_error(connections, peer, answer):
    peer.closes_after = True
    peer.answers.append(answer)
    with pytest.raises(BadAnswer):
        ask(connections, peer, keep=False)


def test_a_kept_connection_that_is_silent_is_given_up_for_a_new_one(connections, peer):
    ask(connections, peer)
    peer.answers.append(SILENCE)
    assert ask(connections, peer, seconds=4.0).status == 200
    assert (peer.handshakes, peer.requests) == (2, 3)


def test_who_is_silent_on_a_new_connection_is_waited_for_once(connections, peer):
    peer.answers.append(SILENCE)
    with pytest.raises(TimeoutError):
        ask(connections, peer, seconds=1.0)
    assert peer.requests == 1


def test_a_full_store_keeps_what_it_has(peer):
    connections = PinnedConnections(peer.port, most_kept=1)
    for _ in range(2):
        ask(connections, peer)
    assert peer.handshakes == 1
    connections.close()
    none = PinnedConnections(peer.port, most_kept=0)
    ask(none, peer)
    ask(none, peer)
    assert peer.handshakes == 3


def test_what_was_idle_too_long_isnt_used(connections, peer, monkeypatch):
    ask(connections, peer)
    monkeypatch.setattr("broker.fleet.pinned.KEPT_SECONDS", 0.0)
    ask(connections, peer)
    assert peer.handshakes == 2
    assert len(connections._kept) == 1, "what is too old makes room"
