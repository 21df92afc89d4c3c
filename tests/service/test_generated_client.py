"""A client made from the OpenAPI document, as a front end makes one, used against the running service."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.service.conftest import Issuer
from tests.service.fleet_fixtures import cloud, fleet_changes, fleet_environment
from tests.service.test_process import Serve, Served, serve

__all__ = ["cloud", "fleet_changes", "fleet_environment", "serve"]


@pytest.fixture
def served(serve: Serve, fleet_environment: dict[str, str]) -> Served:
    """The service with its fleet, as a process."""
    return serve(**fleet_environment)


@pytest.fixture
def package(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package that openapi-python-client makes of what the service tells of itself."""
    document = tmp_path / "openapi.json"
    document.write_bytes(served.client.get("/openapi.json").content)
    config = tmp_path / "config.yaml"
    config.write_text("post_hooks: []\n")  # they only format
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--fail-on-warning",
        "--meta",
        "none",
    ]
    command += [
        "--path",
        str(document),
        "--output-path",
        str(tmp_path / "made_client"),
        "--config",
        str(config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("made_client")
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_client"]:
        del sys.modules[name]


@pytest.mark.timeout(300)
def test_a_generated_client_trades_and_reads_accounts_and_problems(
    package: ModuleType, served: Served, issuer: Issuer
) -> None:
    def part(name: str) -> Any:
        return importlib.import_module(f"made_client.{name}")

    models, url = part("models"), str(served.client.base_url)
    trader = package.AuthenticatedClient(base_url=url, token=issuer.token("trader"))
    body = models.OrderBody(
        symbol="AAPL",
        side=models.OrderBodySide.BUY,
        qty=1.0,
        order_type=models.OrderBodyOrderType.LIMIT,
        limit_price=1.0,
        client_order_id="generated-1",
    )
    placed = part("api.trading.place_order").sync("default", client=trader, body=body)
    assert isinstance(placed, models.Order)
    assert (placed.client_order_id, placed.qty, placed.limit_price) == ("generated-1", 1.0, 1.0)
    cancelled = part("api.trading.cancel_order").sync("default", placed.id, client=trader)
    assert (cancelled.id, cancelled.status) == (placed.id, "cancelled")
    again = part("api.trading.get_orders").sync("default", client=trader, limit=5)
    assert [order.id for order in again] == [placed.id]

    page = part("api.accounts.list_accounts").sync(client=trader)
    assert (page.accounts, page.next_) == ([], None)

    body.qty = -3.0
    answer = part("api.trading.place_order").sync_detailed("default", client=trader, body=body)
    assert answer.status_code == 422
    assert isinstance(answer.parsed, models.Problem)
    assert answer.parsed.type_ == "urn:ibkr-api:problem:invalid-request"
    [wrong] = answer.parsed.errors
    assert (wrong.field, wrong.value) == ("qty", "-3.0")
    assert answer.parsed.request_id == answer.headers["x-request-id"]

    reader = package.AuthenticatedClient(base_url=url, token=issuer.token("user"))
    refused = part("api.trading.cancel_order").sync_detailed("default", placed.id, client=reader)
    assert (refused.status_code, refused.parsed.title) == (403, "Not allowed")
