"""Executes a Cloud Run job and waits for its end: `python3 run_job.py`.

Environment: JOB_PROJECT, JOB_LOCATION, JOB_NAME; CLOUD_RUN_ENDPOINT where it isn't Google's. The access
token is GOOGLE_OAUTH_ACCESS_TOKEN, else what gcloud's login gives. Exits with 0 when the execution
succeeded, else with 1 and the reason. It speaks the Cloud Run Admin API v2 (`jobs:run` and its long-running
operation), so the same code runs against Google and against the local cloud.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

GOOGLE = "https://run.googleapis.com"
LONGEST_S = 15 * 60
# Between two looks: soon at first, since a migration without work ends at once, then ever more seldom.
FIRST_POLL_S, LONGEST_POLL_S = 0.2, 3.0
ATTEMPTS = 5
PASSING = (429, 500, 502, 503, 504)


class JobFailed(Exception):
    """The job did not succeed: the message says what Cloud Run says. Look at its logs, repeat `up`."""


class CloudRun:
    """The Admin API at one endpoint."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, path: str) -> dict[str, Any]:
        """One call, repeated while the API is busy. Raises JobFailed with the API's words."""
        url = f"{self._endpoint}/v2/{path}"
        body = b"{}" if method == "POST" else None
        for attempt in range(1, ATTEMPTS + 1):
            request = urllib.request.Request(url, data=body, headers=self._headers, method=method)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    found: dict[str, Any] = json.loads(answer.read())
                    return found
            except urllib.error.HTTPError as error:
                if error.code not in PASSING or attempt == ATTEMPTS:
                    raise JobFailed(f"{method} {path}: {error.code} {_message(error)}") from None
            except OSError as error:
                if attempt == ATTEMPTS:
                    raise JobFailed(f"{method} {url}: {error}") from None
            time.sleep(2 ** (attempt - 1) * 0.5)
        raise JobFailed(f"{method} {path}: no answer")


def run(api: CloudRun, job: str, longest_s: float = LONGEST_S, poll_s: float = FIRST_POLL_S) -> str:
    """Executes a job ("projects/P/locations/L/jobs/N"), waits, and returns the execution's name.

    Raises JobFailed if it fails, or takes longer than `longest_s` seconds.
    """
    operation = api.request("POST", f"{job}:run")
    end = time.monotonic() + longest_s
    while not operation.get("done"):
        if time.monotonic() > end:
            raise JobFailed(f"{job} still runs after {longest_s:.0f} s; its logs say what it waits for")
        time.sleep(poll_s)
        poll_s = min(poll_s * 1.5, LONGEST_POLL_S)
        operation = api.request("GET", str(operation["name"]))
    if "error" in operation:
        raise JobFailed(f"{job}: {operation['error'].get('message', operation['error'])}")
    execution = operation.get("response") or operation.get("metadata") or {}
    if int(execution.get("failedCount") or 0) or not int(execution.get("succeededCount") or 0):
        raise JobFailed(f"{job}: {_condition(execution)}")
    return str(execution.get("name", job))


def access_token(environment: Mapping[str, str], endpoint: str) -> str | None:
    """A token for Google, or None for another endpoint. Raises JobFailed if there is none to be had."""
    if "GOOGLE_OAUTH_ACCESS_TOKEN" in environment:
        return environment["GOOGLE_OAUTH_ACCESS_TOKEN"]
    if endpoint != GOOGLE:
        return None
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise JobFailed("no access token: set GOOGLE_OAUTH_ACCESS_TOKEN, or install gcloud and log in")
    for command in (["auth", "print-access-token"], ["auth", "application-default", "print-access-token"]):
        found = subprocess.run([gcloud, *command], capture_output=True, text=True, timeout=60, check=False)
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip()
    raise JobFailed("no access token: run `gcloud auth login`, or set GOOGLE_OAUTH_ACCESS_TOKEN")


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return error.reason


def _condition(execution: Mapping[str, Any]) -> str:
    """Why it failed, from [{"type": "Completed", "state": "CONDITION_FAILED", "message": "..."}]."""
    for condition in execution.get("conditions") or []:
        if condition.get("state") == "CONDITION_FAILED" and condition.get("message"):
            return str(condition["message"])
    return f"the execution failed; see `gcloud run jobs executions describe {execution.get('name', '')}`"


def main(environment: Mapping[str, str]) -> int:
    """The command. Prints the execution, or the reason of its failure."""
    endpoint = environment.get("CLOUD_RUN_ENDPOINT") or GOOGLE
    job = "projects/{JOB_PROJECT}/locations/{JOB_LOCATION}/jobs/{JOB_NAME}".format_map(environment)
    try:
        execution = run(CloudRun(endpoint, access_token(environment, endpoint)), job)
    except JobFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{execution} succeeded")
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
