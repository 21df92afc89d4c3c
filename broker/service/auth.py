"""Bearer tokens: JWTs of one OIDC issuer, checked with its published keys.

A browser's session is the same token in a cookie that no script can read. A page of another site can make a
browser send requests here, so a cookie counts only where the browser says that the request is this site's
own (`Sec-Fetch-Site`; W3C, Fetch Metadata Request Headers), or, from browsers that don't say, where `Origin`
names this host. It is `SameSite=Strict` beside, so that most such requests come without it.

Keys are cached and fetched again when a token names one that isn't known (rotation), at most once
in `REFRESH_PAUSE` seconds, so that tokens with invented key ids can't make the issuer busy.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from fastapi import Request
from fastapi.security import HTTPBearer

from broker.errors import NotConnected

ALGORITHMS = ("ES256", "RS256")  # asymmetric only: an HMAC "signed" with a public key must not pass
ROLES = frozenset({"user", "trader", "operator", "monitor"})
#: seconds that keys are trusted without asking again
KEYS_LIVE = 600.0
REFRESH_PAUSE = 5.0
#: seconds that clocks may differ
LEEWAY = 30.0

#: seconds, and how many tokens: see `Authenticator.principal`
BELIEVED = 60.0
MOST_BELIEVED = 10_000

#: the cookie of a browser's session
COOKIE = "session"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

#: describes the scheme in the OpenAPI document; the check itself is `Authenticator.principal`
bearer = HTTPBearer(bearerFormat="JWT", auto_error=False, description="A JWT of the configured OIDC issuer")


class Unauthorized(Exception):
    """No token, or one that doesn't hold. `error` is RFC 6750's code."""

    def __init__(self, message: str, error: str = "invalid_token") -> None:
        super().__init__(message)
        self.error = error


class Forbidden(Exception):
    """A good token without the role that this needs."""


@dataclass(frozen=True)
class Principal:
    """Who is asking."""

    user: str
    roles: frozenset[str]
    #: seconds since the epoch: when the token isn't accepted any more
    until: float


class KeySet:
    """The issuer's public keys."""

    def __init__(self, client: httpx.AsyncClient, issuer: str, url: str | None) -> None:
        self._client = client
        self._issuer = issuer
        self._url = url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = -float("inf")
        self._lock = asyncio.Lock()

    async def find(self, key_id: str) -> jwt.PyJWK:
        """One key. Raises `Unauthorized` (there is none of that id), `NotConnected` (nobody to ask)."""
        if key_id not in self._keys or time.monotonic() - self._fetched > KEYS_LIVE:
            async with self._lock:
                now = time.monotonic()
                stale = key_id not in self._keys or now - self._fetched > KEYS_LIVE
                if stale and now - self._tried > REFRESH_PAUSE:
                    await self._refresh()
        key = self._keys.get(key_id)
        if key is None:
            raise Unauthorized("the token is signed with a key that its issuer doesn't publish")
        return key

    async def _refresh(self) -> None:
        self._tried = time.monotonic()
        try:
            if self._url is None:
                found = await self._json(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
                self._url = str(found["jwks_uri"])
            published = (await self._json(self._url))["keys"]
            keys = [jwt.PyJWK(k) for k in published if k.get("kty") in ("EC", "RSA")]
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as failure:
            if self._keys:
                return  # known keys stay good while the issuer is away
            self._tried = -float("inf")
            raise NotConnected(
                f"tokens can't be checked: the issuer's keys can't be read ({type(failure).__name__})",
                doing="asking again at the next request",
            ) from failure
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._fetched = self._tried

    async def _json(self, url: str) -> Any:
        answer = await self._client.get(url, timeout=5.0)
        answer.raise_for_status()
        return answer.json()


class Authenticator:
    """Turns a request's bearer token into a `Principal`."""

    def __init__(self, keys: KeySet, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._believed: dict[bytes, tuple[float, Principal]] = {}

    async def principal(self, authorization: str | None) -> Principal:
        """Check an Authorization header. Raises `Unauthorized`, `NotConnected` (keys can't be had).

        A signature that held is believed for `BELIEVED` seconds: checking it costs more than most answers.
        """
        digest = hashlib.sha256((authorization or "").encode("utf-8", "surrogatepass")).digest()
        now = time.time()
        until, known = self._believed.get(digest, (0.0, None))
        if known is not None and now < until:
            return known
        claims = await self.claims(authorization)
        found = Principal(_subject(claims), _roles(claims), float(claims["exp"]) + LEEWAY)
        if len(self._believed) >= MOST_BELIEVED:
            self._believed.clear()
        self._believed[digest] = (min(found.until, now + BELIEVED), found)
        return found

    async def claims(self, authorization: str | None) -> dict[str, Any]:
        """What the token of an Authorization header says, once it holds. Raises as `principal` does."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("a bearer token is required", error="")
        try:
            head = jwt.get_unverified_header(token)
            algorithm, key_id = head.get("alg"), head.get("kid")
            if algorithm not in ALGORITHMS or not isinstance(key_id, str):
                raise Unauthorized(f"a token is signed with {' or '.join(ALGORITHMS)} and names its key")
            key = await self._keys.find(key_id)
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError) as wrong:
            raise Unauthorized(f"the token doesn't hold: {wrong}") from None
        return claims


def require(*roles: str) -> Callable[[Request], Coroutine[Any, Any, Principal]]:
    """A dependency that lets in whoever has one of the roles."""

    async def check(request: Request) -> Principal:
        authenticator: Authenticator = request.app.state.authenticator
        principal = await authenticator.principal(authorization(request))
        request.state.user = principal.user
        if not principal.roles & set(roles):
            raise Forbidden(f"this needs the role {' or '.join(roles)}")
        return principal

    return check


def authorization(request: Request) -> str | None:
    """The Authorization header, or the session's token in its form. Raises `Forbidden` (another site's)."""
    header = request.headers.get("authorization")
    token = request.cookies.get(COOKIE)
    if header is not None or token is None:
        return header
    check_same_origin(request)
    return f"Bearer {token}"


def check_same_origin(request: Request) -> None:
    """Raises `Forbidden` for a request that a browser made on behalf of another site."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        # "none": a person typed the address, or opened a bookmark.
        own = site == "same-origin" or (site == "none" and request.method in _SAFE_METHODS)
    elif origin is not None:
        own = urlsplit(origin).netloc == request.headers.get("host")
    else:
        own = request.method in _SAFE_METHODS
    if not own:
        raise Forbidden("a browser's session may be used from the dashboard's own pages only")


def _subject(claims: dict[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 256 or not subject.isprintable():
        raise Unauthorized("the token's subject isn't a name")
    return subject


def _roles(claims: dict[str, Any]) -> frozenset[str]:
    roles = claims.get("roles", [])
    if not isinstance(roles, list):
        raise Unauthorized("the token's roles aren't a list")
    return frozenset(r for r in roles if isinstance(r, str)) & ROLES
