"""An operator's token for a real stack's service: a person's own, or one by client credentials."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from tools.local_cloud import CommandFailed

#: seconds: an identity provider that takes longer has a problem
TIMEOUT = 30.0


def operator_token(stack: str, environment: Mapping[str, str]) -> str:
    """TOKEN, or one that OIDC_TOKEN_URL gives for OIDC_CLIENT ("id:secret"). Raises CommandFailed."""
    given = environment.get("TOKEN", "")
    if given:
        return given
    url, client = environment.get("OIDC_TOKEN_URL", ""), environment.get("OIDC_CLIENT", "")
    if not (url and client):
        raise CommandFailed(
            f"TOKEN must hold an operator's token of {stack}'s own issuer; or OIDC_TOKEN_URL and OIDC_CLIENT "
            '(as "id:secret") say where to get one.'
        )
    if not url.startswith("https://"):
        raise CommandFailed("OIDC_TOKEN_URL must begin with https://: the client's secret is sent there.")
    return from_issuer(url, client)


def from_issuer(url: str, client: str) -> str:
    """By the client credentials grant (RFC 6749, 4.4), with HTTP Basic (2.3.1). Raises CommandFailed."""
    # The two halves are encoded for a form before they are joined.
    parts = [urllib.parse.quote_plus(part) for part in client.split(":", 1)]
    request = urllib.request.Request(
        url,
        data=b"grant_type=client_credentials",
        headers={
            "Authorization": "Basic " + base64.b64encode(":".join(parts).encode()).decode(),
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return str(json.load(answer)["access_token"])
    except urllib.error.HTTPError as error:
        raise CommandFailed(f"{url} answers {error.code}: is OIDC_CLIENT right, and an operator?") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"{url} gives no token: {type(error).__name__}") from None
