"""Who gets in: tokens of one issuer, for this audience, not expired, signed with a key it publishes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from broker.service import auth
from tests.service.conftest import Issuer

BASE = "/api/v1/connections/default"
Clients = Callable[..., httpx.AsyncClient]


async def status(client_for: Clients, token: str) -> int:
    async with client_for(token=token) as client:
        answer = await client.get(f"{BASE}/account")
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
        return answer.status_code


@pytest.mark.parametrize("role", ["user", "trader", "operator"])
async def test_every_role_may_read(client_for: Clients, issuer: Issuer, role: str) -> None:
    assert await status(client_for, issuer.token(role)) == 200


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"exp": None}, "never expires"),
        ({"aud": "another-api"}, "meant for another service"),
        ({"aud": None}, "meant for nobody"),
        ({"iss": "https://evil.example"}, "of another issuer"),
        ({"sub": None}, "of nobody"),
        ({"sub": "a\nb"}, "of a name that would break a log line"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"roles": "trader"}, "roles that aren't a list"),
    ],
)
async def test_a_token_that_does_not_hold_is_refused(
    client_for: Clients, issuer: Issuer, changes: dict[str, Any], why: str
) -> None:
    assert await status(client_for, issuer.token("trader", **changes)) == 401, why


async def test_no_token_is_told_apart_from_a_wrong_one(app: Any) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.get(f"{BASE}/account")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for header in (b"Basic YTpi", b"Bearer", b"Bearer ", b"Bearer a.b", b"Bearer ....", b"Bearer \xff"):
            answer = await client.get(f"{BASE}/account", headers={b"authorization": header})
            assert answer.status_code == 401


async def test_a_forged_signature_and_an_unsigned_token_are_refused(
    client_for: Clients, issuer: Issuer
) -> None:
    head, body, signature = issuer.token("user").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = (
        base64.urlsafe_b64encode(json.dumps(claims | {"roles": ["trader"]}).encode()).rstrip(b"=").decode()
    )
    assert await status(client_for, f"{head}.{forged}.{signature}") == 401
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": "one"})
    assert await status(client_for, unsigned) == 401


async def test_a_public_key_is_no_shared_secret(client_for: Clients, issuer: Issuer) -> None:
    """The classic confusion: an HMAC made with the public key, which everyone has."""
    public = issuer.keys["one"].public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(serialization.Encoding.PEM, form)
    now = int(time.time())
    claims = {"iss": issuer.url, "aud": "ibkr-api", "sub": "eve", "roles": ["trader"], "exp": now + 60}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "HS256", "typ": "JWT", "kid": "one"}, claims)
    ]
    import hashlib
    import hmac

    mac = hmac.new(pem, ".".join(parts).encode(), hashlib.sha256).digest()
    token = ".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=").decode()])
    assert await status(client_for, token) == 401


async def test_only_a_trader_may_place_and_cancel(client_for: Clients) -> None:
    order = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "one"}
    for roles in (("user",), ("operator",), ()):
        async with client_for(*roles) as client:
            assert (await client.post(f"{BASE}/orders", json=order)).status_code == 403
            assert (await client.delete(f"{BASE}/orders/x")).status_code == 403
    async with client_for() as client:
        assert (await client.get(f"{BASE}/account")).status_code == 403, (
            "a token without a role reads nothing"
        )


async def test_a_rotated_key_is_fetched_once(
    client_for: Clients, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await status(client_for, issuer.token("user")) == 200
    issuer.add_key("two")
    monkeypatch.setattr(auth, "REFRESH_PAUSE", 0.0)
    assert await status(client_for, issuer.token("user", key_id="two")) == 200
    monkeypatch.undo()
    asked = len(issuer.requests)
    for _ in range(20):
        assert await status(client_for, issuer.token("user", key_id="two")) == 200
    assert len(issuer.requests) == asked, "known keys aren't fetched again"


async def test_invented_key_ids_do_not_make_the_issuer_busy(client_for: Clients, issuer: Issuer) -> None:
    assert await status(client_for, issuer.token("user")) == 200
    asked = len(issuer.requests)
    issuer.keys["unpublished"] = issuer.keys["one"]
    token = issuer.token("user", key_id="unpublished")
    del issuer.keys["unpublished"]
    for _ in range(20):
        assert await status(client_for, token) == 401
    assert len(issuer.requests) <= asked + 1


async def test_an_issuer_that_is_away_is_a_503_until_keys_are_known_and_none_after(
    client_for: Clients, issuer: Issuer
) -> None:
    issuer.broken = True
    assert await status(client_for, issuer.token("user")) == 503
    issuer.broken = False
    assert await status(client_for, issuer.token("user")) == 200
    issuer.broken = True
    assert await status(client_for, issuer.token("user")) == 200


async def test_a_token_that_held_is_believed_for_a_while_but_not_beyond_its_end(
    client_for: Clients, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    token = issuer.token("user", exp=int(now) + 20)
    assert await status(client_for, token) == 200
    checks: list[str] = []

    async def find(_keys: auth.KeySet, key_id: str) -> Any:
        checks.append(key_id)
        raise auth.Unauthorized("the signature is looked at again")

    monkeypatch.setattr(auth.KeySet, "find", find)
    assert (await status(client_for, token), checks) == (200, [])
    assert await status(client_for, token[:-1] + ("A" if token[-1] != "A" else "B")) == 401
    for later in (auth.LEEWAY + 21, auth.BELIEVED + 1):
        monkeypatch.setattr(time, "time", lambda seconds=later: now + seconds)
        checks.clear()
        assert (await status(client_for, token), checks) == (401, ["one"])
