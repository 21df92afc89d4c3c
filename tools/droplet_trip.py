"""A droplet's whole life, as `make verify LOGIN=...` tries it: connect, wait until it runs, delete, wait.

It costs some minutes of a droplet, and logs in at IBKR: so only who asks for it gets it. The login is read
from a file or from standard input, never from an argument, which every process on the machine can read.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tools.local_cloud import CommandFailed
from tools.verify_checks import FAILED, PASSED, Refused, Row, Service, skipped

NAME = "droplet round trip"
BASE = "/api/v1/brokers/interactivebrokers"
#: seconds: a stock image installs Docker and pulls a container before it logs in
TO_RUN, TO_GO = 900.0, 300.0
PAUSE = 2.0


def read_login(source: str) -> dict[str, Any]:
    """The login that `connect` takes, as `make -s login` prints one. Raises CommandFailed, without its
    text.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        found = json.loads(text)
        credentials = found["credentials"]
        if not (credentials["username"] and credentials["password"] and found["environment"]):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise CommandFailed(
            f"LOGIN={source} doesn't hold a login. It is JSON, as `make -s login` prints it: "
            '{"credentials": {"username": "...", "password": "..."}, "environment": "demo"}'
        ) from None
    return dict(found)


def round_trip(service: Service, login: dict[str, Any], to_run: float = TO_RUN, to_go: float = TO_GO) -> Row:
    """Connect the login, wait for `running`, and delete it in any case."""
    remedy = "docs/runbooks.md, Droplet stuck"
    began = time.monotonic()
    try:
        status, text, _ = service.fetch(
            "POST", f"{BASE}/connect", login, 60.0, Authorization=f"Bearer {service.token}"
        )
    except Refused as refused:
        return Row(NAME, FAILED, str(refused), remedy)
    if status in (404, 405):
        return skipped(NAME, "this stack's service makes no droplets (ibkr:fleet.enabled)")
    if status == 200:
        return skipped(
            NAME, "this login is connected already, and its account isn't ours to delete: use another"
        )
    if status != 202:
        return Row(
            NAME,
            FAILED,
            f"connect answers {status}: {_detail(text)}",
            "a user's token, and a login that IBKR knows",
        )
    account = str(json.loads(text)["account_id"])
    try:
        said = _until_running(service, account, to_run)
    except Refused as refused:
        said = str(refused)
    ran = time.monotonic() - began
    left = _delete(service, account, to_go)
    if said or left:
        return Row(NAME, FAILED, "; ".join(part for part in (said, left) if part), remedy)
    return Row(
        NAME, PASSED, f"running after {ran:.0f} s, deleted {time.monotonic() - began - ran:.0f} s later"
    )


def _until_running(service: Service, account: str, seconds: float) -> str:
    """Why it doesn't run; empty once it does. Raises Refused."""
    until = time.monotonic() + seconds
    while True:
        found = service.ask("GET", f"{BASE}/accounts/{account}/status")
        if found["status"] == "running":
            return ""
        if found["status"] == "error" or time.monotonic() > until:
            why = found.get("message") or found.get("reason") or "no reason is told"
            return f"it is {found['status']}: {why}"
        time.sleep(PAUSE)


def _delete(service: Service, account: str, seconds: float) -> str:
    """Why it isn't gone; empty once it is."""
    stays = f"account {account} isn't deleted: DELETE {BASE}/accounts/{account}"
    try:
        service.ask("DELETE", f"{BASE}/accounts/{account}")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status, text, _ = service.fetch(
                "GET", f"{BASE}/accounts/{account}/status", Authorization=f"Bearer {service.token}"
            )
            if status == 404 or (status == 200 and json.loads(text)["status"] == "deleted"):
                return ""
            time.sleep(PAUSE)
    except Refused as refused:
        return f"{stays} ({refused})"
    return stays


def _detail(text: str) -> str:
    try:
        return str(json.loads(text).get("detail") or "")
    except (ValueError, AttributeError):
        return ""
