"""The metadata servers: who a machine is; of Compute Engine and Cloud Run, with tokens, and of droplets.

It knows who asks by the process that opened the connection, so a machine gets its own metadata and
nobody else's. cloud.google.com/compute/docs/metadata/querying-metadata,
docs.digitalocean.com/reference/api/metadata
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from localcloud.apis.google import TOKEN_SECONDS, access_token
from localcloud.apis.oidc import signed
from localcloud.iam import Identity, identity_of
from localcloud.secrets import PROJECT_NUMBER
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_HEADERS = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The server's routes, to be mounted at /computeMetadata."""

    async def read(request: Request) -> Response:
        response = _answer(cloud, request)
        response.headers.update(_HEADERS)
        return response

    return [Route("/v1/{path:path}", read)]


def droplet_routes(cloud: Cloud) -> list[BaseRoute]:
    """DigitalOcean's server, as far as our droplets ask it; to be mounted at /droplet."""

    async def address(request: Request) -> Response:
        machine = cloud.network.identify(request.client)
        if machine is None or not machine.startswith("droplet/"):
            return PlainTextResponse("There is no metadata server outside of a droplet.\n", 404)
        return PlainTextResponse(cloud.machines.specification(machine)["spec"]["address"])

    return [Route("/metadata/v1/interfaces/public/0/ipv4/address", address)]


def _answer(cloud: Cloud, request: Request) -> Response:
    if request.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in request.headers:
        return PlainTextResponse(
            "Your client does not have permission to get this URL from this server. "
            "Missing Metadata-Flavor:Google header.\n",
            403,
        )
    machine = cloud.network.identify(request.client)
    if machine is None or not machine.startswith(("gce/", "run/", "job/")):
        return PlainTextResponse("There is no metadata server outside of Google's network.\n", 404)
    identity = identity_of(cloud, machine)
    path = request.path_params["path"]
    parts = [part for part in path.split("/") if part]
    if identity and parts[:2] == ["instance", "service-accounts"] and parts[3:] in (["token"], ["identity"]):
        if parts[2] not in ("default", identity.email):
            return PlainTextResponse("Not Found\n", 404)
        return _credential(cloud, request, identity, parts[3])
    found: Any = _tree(cloud, machine, identity)
    for part in parts:
        if not isinstance(found, dict) or part not in found:
            return PlainTextResponse("Not Found\n", 404)
        found = found[part]
    if isinstance(found, dict):
        if request.query_params.get("recursive", "").lower() == "true":
            return JSONResponse(found)
        return PlainTextResponse("".join(_entry(name, value) for name, value in found.items()))
    return PlainTextResponse(found if isinstance(found, str) else json.dumps(found))


def _credential(cloud: Cloud, request: Request, identity: Identity, kind: str) -> Response:
    if kind == "token":
        token = access_token(cloud, identity)
        return JSONResponse({"access_token": token, "expires_in": TOKEN_SECONDS, "token_type": "Bearer"})
    audience = request.query_params.get("audience")
    if not audience:
        return PlainTextResponse("non-empty audience parameter required\n", 400)
    about = {"aud": audience, "sub": _number(identity.email), "email": identity.email, "email_verified": True}
    return PlainTextResponse(signed(cloud, about, TOKEN_SECONDS))


def _tree(cloud: Cloud, machine: str, identity: Identity | None) -> dict[str, Any]:
    """All of a machine's metadata but its credentials, folder by folder."""
    accounts: dict[str, Any] = {}
    if identity:
        about = {"aliases": "default", "email": identity.email, "scopes": "\n".join(identity.scopes)}
        accounts = {"default": about, identity.email: about}
    project = {"project-id": cloud.settings.project, "numeric-project-id": PROJECT_NUMBER}
    instance: dict[str, Any] = {"id": _number(machine), "service-accounts": accounts}
    if machine.startswith("gce/"):
        spec = cloud.machines.specification(machine)["spec"]
        attributes = dict(spec.get("metadata") or {})
        if spec.get("user_data"):
            attributes["user-data"] = spec["user_data"]
        name, zone = short(machine), short(spec.get("zone"))
        network = f"projects/{PROJECT_NUMBER}/networks/{short(spec.get('network'))}"
        instance |= {
            "attributes": attributes,
            "hostname": f"{name}.{zone}.c.{cloud.settings.project}.internal",
            "name": name,
            "network-interfaces": {"0": {"ip": spec.get("address", ""), "network": network}},
            "tags": list(spec.get("tags") or ()),
            "zone": f"projects/{PROJECT_NUMBER}/zones/{zone}",
        }
    return {"instance": instance, "project": project}


def _entry(name: str, value: Any) -> str:
    return f"{name}/\n" if isinstance(value, dict) else f"{name}\n"


def _number(text: str) -> str:
    """A stable id of digits, as Google's are."""
    return str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
