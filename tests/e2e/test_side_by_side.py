"""Paper and live side by side on one gateway VM: two gateways, two connections of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Service, a_stack, eventually
from tests.e2e.tunnel import tunnel
from tools.local_stack import LocalStack
from tools.rollback import CANCEL, KEEP, Desk
from tools.verify import Wanted, verify

ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "time_in_force": "gtc"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The stack with both gateways, and without what this is not about."""
    with a_stack(tmp_path_factory.mktemp("both")) as stack:
        stack.config.set("ibkr:gateway.mode", "both")
        stack.config.set("ibkr:gateway.machineType", "e2-medium")
        stack.config.set("ibkr:fleet.enabled", False)
        stack.config.set("ibkr:ibeam.users", [])
        stack.up()
        yield stack


def test_both_gateways_trade_each_in_its_own_account_and_live_only_once_verified(both: LocalStack) -> None:
    service = Service(both)
    service.until_connected()

    def live(method: str, path: str, **more: Any) -> httpx.Response:
        return service.client.request(method, f"/api/v1/connections/live/{path}", **more)

    eventually(lambda: live("GET", "health").json(), lambda health: health["ok"])
    accounts = [service.get("account").json()["id"], live("GET", "account").json()["id"]]
    assert accounts[0].startswith("DU")
    assert accounts[1].startswith("U")
    price = {"limit_price": round(service.get("quotes/AAPL").json()["bid"] * 0.97, 2)}
    placed = {"paper": service.order(**ORDER, **price)}
    assert placed["paper"].status_code == 201
    locked = live("POST", "orders", json={**ORDER, **price, "client_order_id": "before"})
    assert locked.status_code == 423, "paper's verification would be none of live's, and there is none at all"
    assert verify(both, both.token("operator", "trader", "user"), Wanted("live"))
    placed["live"] = live("POST", "orders", json={**ORDER, **price, "client_order_id": "after"})
    assert placed["live"].status_code == 201, placed["live"].text
    ids = {name: answer.json()["id"] for name, answer in placed.items()}
    assert ids["live"] not in {order["id"] for order in service.get("orders").json()}

    desk = Desk(service.url, both.token(), ("default", "live"))
    holdings = {holding.key: holding for holding in desk.holdings()}
    assert holdings[ids["paper"]].what.startswith("default: GOOD TILL CANCELLED")
    for holding in holdings.values():
        if holding.choices == (CANCEL, KEEP):
            desk.cancel(holding.key)
    assert not [holding for holding in desk.holdings() if CANCEL in holding.choices]


def test_a_person_reaches_either_port_through_a_tunnel(both: LocalStack) -> None:
    outputs = both.outputs()
    assert (outputs["gateway_port"], outputs["second_gateway_port"]) == (4002, 4001)
    for port in (4001, 4002):
        with tunnel(both, remote=port):
            pass  # it holds only where the machine's port answers


def test_the_machine_that_runs_them_says_how_each_is(both: LocalStack) -> None:
    log = both.cloud.log("gce/ibkr-gateway")
    for mode in ("paper", "live"):
        assert f"Started ibkr-gateway@{mode}.service" in log
