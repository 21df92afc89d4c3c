"""The Cloud Run service as it was deployed, asked of Cloud Run itself (Admin API v2)."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack
from tools.real_stack import RealStack

GOOGLE = "https://run.googleapis.com"
TIMEOUT = 30.0


class CannotAsk(Exception):
    """Cloud Run isn't asked from here; the message says what is missing."""


@dataclass(frozen=True)
class Deployed:
    """What of the newest revision's template matters here.

    `environment` has the plain values; a secret is "secret <name>, version <number>", as in the stack's
    output `service_environment`.
    """

    environment: Mapping[str, str]
    connector: str
    egress: str


def deployed(stack: LocalStack | RealStack) -> Deployed:
    """The stack's service. Raises CannotAsk, and CommandFailed for an answer that says no."""
    prefix = str(stack.configuration().get("ibkr:namePrefix", "ibkr"))
    if isinstance(stack, LocalStack):
        told = stack.cloud.service_environment()
        endpoint, token = told["CLOUD_RUN_ENDPOINT"], told["GOOGLE_OAUTH_ACCESS_TOKEN"]
        project, region = (str(stack.configuration()[f"gcp:{part}"]) for part in ("project", "region"))
    else:
        endpoint, token, project, region = GOOGLE, _own_token(), stack.project(), stack.region()
    url = f"{endpoint}/v2/projects/{project}/locations/{region}/services/{prefix}-api"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return read(json.load(answer))
    except urllib.error.HTTPError as error:
        raise CommandFailed(f"Cloud Run answers {error.code} about {prefix}-api: {error.reason}") from None
    except OSError as error:
        raise CannotAsk(f"Cloud Run doesn't answer: {error}") from None


def read(service: Mapping[str, Any]) -> Deployed:
    """What matters of a service as the API describes it."""
    template = service.get("template") or {}
    [container, *_] = template.get("containers") or [{}]
    access = template.get("vpcAccess") or {}
    found = {entry["name"]: _value(entry) for entry in container.get("env") or []}
    return Deployed(found, _name(access.get("connector", "")), str(access.get("egress", "")))


def _value(entry: Mapping[str, Any]) -> str:
    reference = (entry.get("valueSource") or {}).get("secretKeyRef")
    if reference:
        return f"secret {_name(reference['secret'])}, version {reference.get('version', 'latest')}"
    return str(entry.get("value", ""))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _own_token() -> str:
    """An access token of whoever is logged in here."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise CannotAsk("gcloud isn't on PATH: https://cloud.google.com/sdk/docs/install")
    made = subprocess.run([gcloud, "auth", "print-access-token"], capture_output=True, text=True)
    if made.returncode != 0:
        raise CannotAsk("gcloud isn't logged in: `gcloud auth login`")
    return made.stdout.strip()
