"""The local OpenID Connect issuer: stands in for the identity provider of the service's users.

Keys and tokens are real (ES256); only the login is missing: whoever may use the daemon's admin
socket gets tokens for any user. The key is kept in the encrypted store, so tokens outlive a restart.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

AUDIENCE = "ibkr-api"
ROLES = ("user", "trader", "operator")
ALGORITHM = "ES256"
_MAX_AGE = {"Cache-Control": "public, max-age=300"}


def issuer(cloud: Cloud) -> str:
    """The `iss` of every token, and where its discovery document is."""
    return f"{cloud.settings.api_url}/oidc"


def user_token(cloud: Cloud, user: str, roles: list[str], seconds: int) -> str:
    """A bearer token for the service. `roles` are of `ROLES`; it expires after `seconds`."""
    return signed(cloud, {"sub": user, "aud": AUDIENCE, "roles": roles}, seconds)


def signed(cloud: Cloud, claims: dict[str, Any], seconds: int) -> str:
    """A token with these claims, issued now by this issuer."""
    key, key_id = _key(cloud)
    now = int(time.time())
    times = {"iat": now, "nbf": now, "exp": now + seconds, "jti": secrets.token_hex(8)}
    return jwt.encode(
        {"iss": issuer(cloud), **claims, **times}, key, algorithm=ALGORITHM, headers={"kid": key_id}
    )


def client_settings(cloud: Cloud) -> dict[str, str]:
    """What a service needs to check these tokens, as environment variables."""
    return {
        "OIDC_ISSUER": issuer(cloud),
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_JWKS_URL": f"{issuer(cloud)}/jwks.json",
    }


def routes(cloud: Cloud) -> list[BaseRoute]:
    """Discovery document and public keys."""

    async def discovery(_: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": issuer(cloud),
                "jwks_uri": f"{issuer(cloud)}/jwks.json",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "claims_supported": ["iss", "sub", "aud", "exp", "iat", "roles"],
            },
            headers=_MAX_AGE,
        )

    async def keys(_: Request) -> JSONResponse:
        return JSONResponse({"keys": [_public(cloud)]}, headers=_MAX_AGE)

    return [Route("/.well-known/openid-configuration", discovery), Route("/jwks.json", keys)]


def _key(cloud: Cloud) -> tuple[ec.EllipticCurvePrivateKey, str]:
    pem: str | None = cloud.store.notes("oidc").get("key")
    if pem is None:
        pem = (
            ec.generate_private_key(ec.SECP256R1())
            .private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),  # the store encrypts it
            )
            .decode()
        )
        cloud.store.note("oidc", "key", pem)
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, _thumbprint(key)


def _public(cloud: Cloud) -> dict[str, str]:
    key, key_id = _key(cloud)
    return {**_coordinates(key), "use": "sig", "alg": ALGORITHM, "kid": key_id}


def _coordinates(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _thumbprint(key: ec.EllipticCurvePrivateKey) -> str:
    """RFC 7638: the hash of the required members in their alphabetical order."""
    text = json.dumps(_coordinates(key), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(text.encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
