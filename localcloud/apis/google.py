"""What Google's APIs have in common: access tokens, and the JSON form of their errors."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from localcloud.cloud import CloudError
from localcloud.iam import CLOUD_PLATFORM, Identity
from localcloud.state import StoreDamagedError

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

TOKEN_SECONDS = 3599
_PREFIX = "ya29.local."
_PURPOSE = "access-token"
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    503: "UNAVAILABLE",
}
_EXPECTED = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential. "
    "See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


def access_token(cloud: Cloud, identity: Identity) -> str:
    """A token for a service account. It is sealed by the store's key, so a restart keeps it valid."""
    content = {"email": identity.email, "scopes": identity.scopes, "until": time.time() + TOKEN_SECONDS}
    return _PREFIX + base64.urlsafe_b64encode(cloud.store.seal(content, _PURPOSE)).decode()


def authenticate(cloud: Cloud, authorization: str) -> Identity:
    """Who an Authorization header speaks for. Raises `CloudError` 401, or 403 without the scope."""
    if not authorization:
        raise CloudError(
            401, f"Request is missing required authentication credential. {_EXPECTED}", "CREDENTIALS_MISSING"
        )
    scheme, _, token = authorization.partition(" ")
    try:
        sealed = base64.urlsafe_b64decode(token.removeprefix(_PREFIX))
        content: dict[str, Any] = cloud.store.unseal(sealed, _PURPOSE)
    except (StoreDamagedError, ValueError):
        content = {"until": 0}
    if scheme.lower() != "bearer" or content["until"] < time.time():
        raise CloudError(
            401, f"Request had invalid authentication credentials. {_EXPECTED}", "ACCESS_TOKEN_INVALID"
        )
    if CLOUD_PLATFORM not in content["scopes"]:
        raise CloudError(
            403, "Request had insufficient authentication scopes.", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
        )
    return Identity(content["email"], tuple(content["scopes"]))


def refusal(error: CloudError) -> JSONResponse:
    """An error as Google's APIs answer it (google.aip.dev/193)."""
    name = _STATUS_NAMES.get(error.status, "UNKNOWN")
    if error.reason in ("FAILED_PRECONDITION", *_STATUS_NAMES.values()):
        name = error.reason
    body: dict[str, Any] = {"code": error.status, "message": error.message, "status": name}
    if error.reason and error.reason != name:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        body["details"] = [{"@type": kind, "reason": error.reason, "domain": "googleapis.com"}]
    headers = (
        {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'} if error.status == 401 else {}
    )
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)
