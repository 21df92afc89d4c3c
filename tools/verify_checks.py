"""The single checks of `make verify`: each gives a row that says what was found, and what to do."""

import ipaddress
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tools import service_check
from tools.deployed import Deployed

PASSED, FAILED, SKIPPED = "pass", "FAIL", "skipped"
#: seconds: an order is placed and cancelled, at a broker that may take its time
TRIAL_SECONDS = 120.0
#: seconds that the dashboard may take until it has read the account
PAGE_SECONDS = 20.0
#: by how much the account's value may differ between the page and the API: prices move between two looks
MOVES = 0.01
CONNECTOR, ENVIRONMENT, DASHBOARD = "connector", "environment", "dashboard"
NEED_SERVICE = ("gateway", DASHBOARD)
NEED_CLOUD_RUN = (CONNECTOR, ENVIRONMENT)
_VALUE = re.compile(r"<dt>Account value</dt><dd[^>]*>\s*([\d,.−-]+)")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    state: str
    found: str
    remedy: str = ""


def skipped(name: str, why: str) -> Row:
    """A check that wasn't made, which is no failure."""
    return Row(name, SKIPPED, why)


class Refused(Exception):
    """An answer that says no, in words for the table."""


class Service:
    """The deployed service, as an operator's client sees it."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 30.0, **headers: str) -> Any:
        """A JSON answer; None for an empty one. Raises Refused."""
        status, text, _ = self.fetch(
            method, path, body, timeout, Authorization=f"Bearer {self.token}", **headers
        )
        if status >= 400:
            raise Refused(_reason(status, text))
        return json.loads(text) if text else None

    def fetch(
        self, method: str, path: str, body: Any = None, timeout: float = 30.0, **headers: str
    ) -> tuple[int, str, Mapping[str, str]]:
        """Status, text and headers of an answer; redirects aren't followed. Raises Refused if there is
        none.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method, headers=headers)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace"), dict(error.headers)
        except OSError as error:
            raise Refused(f"no answer: {error}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A page that sends to the login is an answer."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _reason(status: int, text: str) -> str:
    try:
        document = json.loads(text)
        return f"{status}: {document.get('detail') or document.get('title')}"
    except ValueError:
        return f"{status}"


def reached(service: Service) -> Row:
    """The service answers from here, and its database it."""
    remedy = "make logs; docs/runbooks.md, Service away"
    try:
        service_check.get(f"{service.url}/health")
    except OSError as error:
        return Row("service", FAILED, f"{service.url}: {error}", remedy)
    return Row("service", PASSED, service.url)


def gateway(service: Service, connection: str) -> tuple[dict[str, Any] | None, list[Row]]:
    """Has the service try its gateway: the result, which unlocks live trading, and a row a check."""
    path = f"/api/v1/connections/{quote(connection, safe='')}/verification"
    try:
        found: dict[str, Any] = service.ask("POST", path, {}, TRIAL_SECONDS)
    except Refused as refused:
        remedy = "docs/runbooks.md: Second factor, Nightly restart"
        return None, [Row("gateway", FAILED, str(refused), remedy)]
    rows = [Row("account", PASSED, f"{found['account']}, {found['mode'] or 'paper or live: unclear'}")]
    rows += [
        Row(check["name"], PASSED if check["passed"] else FAILED, check["found"], check["remedy"])
        for check in found["checks"]
    ]
    return found, rows


def connector(found: Deployed, outputs: Mapping[str, Any], tried: Mapping[str, Any] | None) -> Row:
    """Cloud Run reaches the gateway, and by no other way than the VPC connector."""
    host = outputs.get("gateway_host")
    if not host:
        return skipped(CONNECTOR, "this stack has no gateway VM")
    remedy = "make up; then docs/architecture.md, Who may reach the gateway's port"
    if not found.connector:
        return Row(CONNECTOR, FAILED, "the service has no VPC connector", remedy)
    if found.egress != "ALL_TRAFFIC":
        return Row(CONNECTOR, FAILED, f"the service's egress is {found.egress or 'not set'}", remedy)
    if not ipaddress.ip_address(str(host)).is_private:
        return Row(CONNECTOR, FAILED, f"the gateway's address {host} is a public one", remedy)
    link = next((check for check in (tried or {}).get("checks", []) if check["name"] == "link"), None)
    if tried is None or link is None or not link["passed"]:
        return Row(CONNECTOR, FAILED, f"no link to {host}: see the gateway's own check", remedy)
    if f" {host}:" not in str(tried["gateway"]):
        return Row(CONNECTOR, FAILED, f"the service trades through {tried['gateway']}, not {host}", remedy)
    return Row(CONNECTOR, PASSED, f"{tried['gateway']}, a private address, through {found.connector}")


def environment(found: Deployed, outputs: Mapping[str, Any]) -> Row:
    """Cloud Run has the variables that the stack declares; secrets only by reference. Values aren't shown."""
    wanted = outputs.get("service_environment")
    if not isinstance(wanted, Mapping):
        return skipped(ENVIRONMENT, "the stack has no output service_environment: `make up` once")
    said = []
    is_secret = {name for name, value in wanted.items() if str(value).startswith("secret ")}
    plain = sorted(
        name for name in is_secret & found.environment.keys() if not _refers(found.environment[name])
    )
    for what, names in (
        ("in plain text", plain),
        ("missing", sorted(wanted.keys() - found.environment.keys())),
        ("not declared", sorted(found.environment.keys() - wanted.keys())),
        (
            "different",
            sorted(
                name
                for name in wanted.keys() & found.environment.keys() - set(plain)
                if _normal(str(wanted[name])) != _normal(found.environment[name])
            ),
        ),
    ):
        if names:
            said.append(f"{what}: {', '.join(names)}")
    if said:
        return Row(
            ENVIRONMENT, FAILED, "; ".join(said), "somebody changed it by hand: make drift, then make up"
        )
    return Row(
        ENVIRONMENT,
        PASSED,
        f"{len(wanted)} variables as declared, {len(is_secret)} of them secrets by reference",
    )


def _refers(value: str) -> bool:
    return value.startswith("secret ") and ", version " in value


def _normal(value: str) -> str:
    """A secret may be named by its path."""
    return re.sub(r"^secret \S*/", "secret ", value)


def dashboard(service: Service, connection: str) -> Row:
    """The overview, as a browser gets it, shows the account and the value that the API gives."""
    remedy = "make logs: what does the dashboard's reading say?"
    try:
        before = _account(service, connection)
        cookie = log_in(service)
        until, said = time.monotonic() + PAGE_SECONDS, ""
        while True:
            status, page, _ = service.fetch("GET", f"/?via={quote(connection, safe='')}", Cookie=cookie)
            if status != 200:
                return Row(DASHBOARD, FAILED, f"the page answers {status} to a session", remedy)
            after = _account(service, connection)
            said = _missing(page, before, after)
            if not said or time.monotonic() > until:
                break
            time.sleep(1.0)
        service.fetch("DELETE", "/session", Cookie=cookie, Origin=service.url)
    except Refused as refused:
        return Row(DASHBOARD, FAILED, str(refused), remedy)
    if said:
        return Row(DASHBOARD, FAILED, said, remedy)
    return Row(DASHBOARD, PASSED, f"shows {after['id']} and {after['portfolio_value']:,.2f}")


def _account(service: Service, connection: str) -> dict[str, Any]:
    path = f"/api/v1/connections/{quote(connection, safe='')}/account"
    found: dict[str, Any] = service.ask("GET", path)
    return found


def log_in(service: Service) -> str:
    """Begin a browser's session; its cookie. Raises Refused."""
    status, text, headers = service.fetch("POST", "/session", {"token": service.token}, Origin=service.url)
    if status != 200:
        raise Refused(f"no session: {_reason(status, text)}")
    cookie = next((value for name, value in headers.items() if name.lower() == "set-cookie"), "")
    if "HttpOnly" not in cookie:
        raise Refused("the session's cookie isn't HttpOnly")
    return cookie.partition(";")[0]


def _missing(page: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What the page doesn't show of the account; empty if it shows it all."""
    if str(after["id"]) not in page:
        return f"the page doesn't name the account {after['id']}"
    shown = _VALUE.search(page)
    if shown is None:
        return "the page shows no account value"
    value = float(shown[1].replace(",", "").replace("−", "-"))
    told = [float(one["portfolio_value"]) for one in (before, after)]
    room = MOVES * max(abs(one) for one in told)
    if not min(told) - room <= value <= max(told) + room:
        return f"the page shows {value:,.2f}, and the API gives {told[1]:,.2f}"
    return ""
