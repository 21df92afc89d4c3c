"""Where a real stack's operator token comes from. The issuer is a stand-in on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tools.local_cloud import CommandFailed
from tools.operator_token import from_issuer, operator_token


class Issuer(BaseHTTPRequestHandler):
    """Knows one client, whose secret has characters that a form encodes."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = base64.b64encode(b"ci:s%2B%3Acret").decode()
        good = self.headers["Authorization"] == f"Basic {known}" and body == b"grant_type=client_credentials"
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(
            json.dumps({"access_token": "eyJ"} if good else {"error": "invalid_client"}).encode()
        )

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def issuer() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Issuer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_token_that_is_given_is_taken() -> None:
    assert operator_token("staging", {"TOKEN": "mine", "OIDC_TOKEN_URL": "https://x"}) == "mine"


def test_a_client_gets_one_from_the_issuer(issuer: str) -> None:
    assert from_issuer(issuer, "ci:s+:cret") == "eyJ"


def test_a_refusal_says_what_to_look_at_and_not_the_secret(issuer: str) -> None:
    with pytest.raises(CommandFailed, match="answers 401: is OIDC_CLIENT right") as failure:
        from_issuer(issuer, "ci:wrong-secret")
    assert "wrong-secret" not in str(failure.value)


def test_an_issuer_that_is_away_is_said() -> None:
    with pytest.raises(CommandFailed, match="gives no token: URLError"):
        from_issuer("http://127.0.0.1:9/token", "ci:secret")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "TOKEN must hold an operator's token of staging's own issuer"),
        ({"OIDC_TOKEN_URL": "http://x", "OIDC_CLIENT": "a:b"}, "must begin with https://"),
    ],
)
def test_what_is_missing_is_said(environment: dict[str, str], says: str) -> None:
    with pytest.raises(CommandFailed, match=says):
        operator_token("staging", environment)
