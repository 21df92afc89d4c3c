"""The OpenAPI document against the running service: schemathesis makes requests, right and wrong ones.

The service is a process with its fleet on, over PostgreSQL and the local cloud's DigitalOcean API. Requests
are the same in each run.
"""

from __future__ import annotations

import warnings
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import Failure, FailureGroup

from tests.service.conftest import Issuer
from tests.service.fleet_fixtures import (
    BASE,
    Clients,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    login,
    user_for,
)
from tests.service.test_bad_requests import assert_problem
from tests.service.test_process import Serve, Served, serve

__all__ = ["cloud", "fleet_app", "fleet_changes", "fleet_environment", "serve", "user_for"]

CONNECTION = "/api/v1/connections/{connection_id}"
TRADING = "/api/v1/connections/default"
PROBLEM = "application/problem+json"
load_all_checks()
#: what the document must agree with; `not_a_server_error` is stricter here, see `check`
CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
    )
]
#: the service can't do it now, and says so: DigitalOcean has no more room, a droplet isn't up, the broker
#: that is configured has no certificate
NOT_NOW = {"configuration", "quota-reached", "server-unreachable", "enrolment-later", "account-not-running"}
#: what needs more than a request: a droplet that is up, a channel, a scheduler, a broker with more to tell
NEVER_GOOD = {
    f"GET {CONNECTION}/events",
    f"GET {CONNECTION}/fees",
    f"GET {CONNECTION}/certificate",
    f"PUT {CONNECTION}/certificate",
    f"GET {BASE}/accounts/{{account_id}}/logs",
    f"PUT {BASE}/accounts/{{account_id}}/alerts",
    "POST /api/v1/enrolments",
    "POST /api/v1/fleet/reconcile",
}
#: streams that don't end
ENDLESS = {f"{CONNECTION}/events"}


class Asked:
    """A running service, its document, and what was wrong with its answers."""

    def __init__(self, served: Served, token: str) -> None:
        self.headers = {"authorization": f"Bearer {token}", "sec-fetch-site": "same-origin"}
        self.url = str(served.client.base_url)
        document = served.client.get("/openapi.json").json()
        self.schema = schemathesis.openapi.from_dict(without_tuples(document))
        self.client = httpx.Client(base_url=self.url, headers=self.headers, timeout=60)
        made = self.client.post(f"{BASE}/connect", json=login()).json()
        self.known = {
            "connection_id": "default",
            "account_id": made["account_id"],
            "symbol": "AAPL",
            "client_order_id": "one",
        }
        self.wrong: dict[str, str] = {}
        self.statuses: dict[str, set[int]] = {}

    def operations(self, *words: str) -> list[Any]:
        found: list[Any] = [result.ok() for result in self.schema.get_all_operations()]  # type: ignore[union-attr]
        return [op for op in found if any(word in op.path for word in words)]

    def hold(self, operation: Any, examples: int, *, good: bool = False) -> None:
        """Asks one operation so many times; `good`: of what is there, and as the document wants it."""
        name = name_of(operation)
        modes = [GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE][
            : 2 if good else 3
        ]
        strategy = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

        @settings(
            max_examples=examples, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=strategy, known=st.sampled_from([True, True, True, good]))
        def ask(case: Any, known: bool) -> None:
            if known and operation.path not in ENDLESS:
                there = {k: v for k, v in self.known.items() if k in case.path_parameters}
                case.path_parameters = {**case.path_parameters, **there}
                if isinstance(case.body, dict) and isinstance(case.body.get("symbol"), str):
                    case.body = {**case.body, "symbol": "AAPL"}
            self.check(name, case)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ask()

    def deliberately(self, method: str, path: str, status: int, body: dict[str, Any] | None = None) -> None:
        """Asks for something certain, and holds the answer against the document as well."""
        there = {k: v for k, v in self.known.items() if f"{{{k}}}" in path}
        operation = self.schema[path][method]
        more: dict[str, Any] = {} if body is None else {"body": body, "media_type": "application/json"}
        case = operation.Case(path_parameters=there, **more)
        assert self.check(f"{method} {path}", case) == status, (path, body)

    def check(self, name: str, case: Any) -> int:
        """The answer's status; what is wrong with it is kept."""
        answer = case.call(base_url=self.url, headers=self.headers, timeout=60)
        status = answer.status_code
        self.statuses.setdefault(name, set()).add(status)
        said = ""
        try:
            case.validate_response(answer, checks=CHECKED)
        except (Failure, FailureGroup) as failure:
            said = str(failure)
        if status >= 400:
            said += problem_with(answer)
        if said:
            self.wrong.setdefault(f"{name} {status}", said[:1500])
        return int(status)


def name_of(operation: Any) -> str:
    return f"{operation.method.upper()} {operation.path}"


def without_tuples(part: Any) -> Any:
    """The document with lists for its tuples, which schemathesis (4.32) can't check."""
    if isinstance(part, list):
        return [without_tuples(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {name: without_tuples(value) for name, value in part.items() if name != "prefixItems"}
    return found | ({"items": part["prefixItems"][0]} if "prefixItems" in part else {})


def problem_with(answer: Any) -> str:
    kind = answer.headers.get("content-type", [""])[0]
    if kind != PROBLEM:
        return f"an error as {kind!r}"
    document = answer.json()
    if document["status"] != answer.status_code or not document.keys() >= {"type", "title", "request_id"}:
        return f"no problem document: {document}"
    if answer.status_code >= 500 and document["type"].rpartition(":")[2] not in NOT_NOW:
        return f"a server error: {document}"
    return ""


@pytest.mark.timeout(600)
def test_every_operation_answers_as_its_document_says(
    serve: Serve, issuer: Issuer, fleet_environment: dict[str, str]
) -> None:
    token = issuer.token("user", "trader", "operator", "monitor", exp=4_000_000_000)
    asked = Asked(serve(**fleet_environment), token)
    orders, halting = f"{CONNECTION}/orders", asked.operations("/halt", "/resume")
    buy = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "two"}
    for operation in halting:
        asked.hold(operation, 10)
    asked.deliberately("POST", "/api/v1/halt", 200, {"reason": "a test"})
    asked.deliberately("POST", orders, 423, buy)
    asked.deliberately("POST", "/api/v1/resume", 200, {"reason": "a test"})
    resting = buy | {"order_type": "limit", "limit_price": 1.0, "client_order_id": "one"}
    asked.known["order_id"] = asked.client.post(f"{TRADING}/orders", json=resting).json()["id"]
    asked.deliberately("POST", orders, 201, buy)
    asked.deliberately("POST", orders, 409, buy | {"qty": 2})
    asked.deliberately("POST", orders, 422, buy | {"qty": 10_000, "client_order_id": "three"})
    asked.deliberately("PATCH", f"{orders}/{{order_id}}", 200, {"limit_price": 2.0})
    asked.deliberately("DELETE", f"{orders}/{{order_id}}", 200)
    asked.deliberately("POST", f"{BASE}/connect", 200, login())
    asked.deliberately("POST", f"{BASE}/connect", 202, login("another"))
    policy = f"{BASE}/accounts/{{account_id}}/policy"
    asked.deliberately("PUT", policy, 200, {"policy": "idle:30", "unattended_live": False})
    asked.deliberately("POST", "/session", 200, {"token": token})
    rest = [op for op in asked.operations("") if op not in halting]
    for operation in sorted(rest, key=lambda op: op.method == "delete"):
        asked.hold(operation, 15)
    for operation in rest:
        if min(asked.statuses[name_of(operation)]) >= 300 and name_of(operation) not in NEVER_GOOD:
            asked.hold(operation, 15, good=True)
    assert not asked.wrong, "\n\n".join(f"{name}: {said}" for name, said in sorted(asked.wrong.items()))
    unasked = {name for name, statuses in asked.statuses.items() if min(statuses) >= 300} - NEVER_GOOD
    assert unasked == set(), "an answer that was never good says little"


async def test_a_body_beyond_the_limit_is_refused_everywhere_and_the_document_says_so(
    fleet_app: FastAPI, user_for: Clients
) -> None:
    document = fleet_app.openapi()
    with_body = [
        (method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
    ]
    assert len(with_body) >= 10
    async with user_for("ada", "user", "trader", "operator") as client:
        for method, path, operation in with_body:
            assert {"400", "413"} <= operation["responses"].keys(), path
            url = "http://service" + path.replace("{connection_id}", "default")
            headers = {"content-type": "application/json", "sec-fetch-site": "same-origin"}
            answer = await client.request(method, url, content=b" " * 70_000, headers=headers)
            assert_problem(answer, 413)


async def test_the_frameworks_own_refusals_are_problem_documents(
    fleet_app: FastAPI, user_for: Clients
) -> None:
    async with user_for("ada", "user", "trader", "operator") as client:
        for path, operations in fleet_app.openapi()["paths"].items():
            url = "http://service" + path.replace("{connection_id}", "default")
            for method in {"PUT", "PATCH", "POST", "DELETE"} - {name.upper() for name in operations}:
                answer = await client.request(method, url)
                assert answer.status_code in (404, 405), (method, path)  # 404: another route takes it
                assert_problem(answer, answer.status_code)
                assert answer.status_code == 404 or answer.headers["allow"]
        assert_problem(await client.get("http://service/api/v1/none-such"), 404)
        for content_type in ("text/plain", "application/xml", "multipart/form-data; boundary=x", ""):
            headers = {"content-type": content_type}
            answer = await client.post("/connect", content=b"{}", headers=headers)
            assert answer.status_code in (400, 415, 422), content_type
            assert_problem(answer, answer.status_code)
