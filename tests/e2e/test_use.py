"""What a person does after `make up`: read the account, trade, make mistakes."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PROBLEM, Service, eventually
from tools.local_stack import LocalStack
from tools.verify import Wanted, verify


def test_the_stack_tells_where_everything_is(stack: LocalStack) -> None:
    outputs = stack.outputs()
    assert {"service_url", "gateway_host", "gateway_port", "nat_ip", "droplets", "database"} <= set(outputs)
    network = stack.cloud.remembered_network()
    assert str(outputs["gateway_host"]).startswith(f"{network}.")
    assert outputs["gateway_port"] == 4002
    assert list(outputs["droplets"]) == ["demo-ib-paper-1"]


def test_the_account_is_the_one_that_the_gateway_logged_in_with(service: Service) -> None:
    account = service.get("account").json()
    assert account["id"].startswith("DU"), "a paper account"
    assert account["portfolio_value"] > 0
    assert account["buying_power"] >= account["cash"] > 0


def test_the_gateway_passes_its_verification(stack: LocalStack, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(stack, stack.token("operator", "trader", "user"))
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert "placed and cancelled" in said
    rows = {line[2:].partition("  ")[0]: line for line in said.splitlines() if line.startswith("  ")}
    for name in ("connector", "environment", "dashboard"):
        assert "pass" in rows[name], rows[name]
    assert "skipped" in rows["droplet round trip"]


def test_a_droplets_whole_life_is_tried_for_who_asks(
    stack: LocalStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    username, password = f"verifier{uuid.uuid4().hex[:6]}", uuid.uuid4().hex
    stack.cloud.add_user(username, password, "paper")
    login = tmp_path / "login.json"
    credentials = {"username": username, "password": password}
    login.write_text(json.dumps({"credentials": credentials, "environment": "demo"}))
    assert verify(stack, stack.token("operator", "trader", "user"), Wanted(login=str(login)))
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if "droplet round trip" in line]
    assert "pass" in line
    assert password not in said


def test_a_market_order_fills_and_becomes_a_position(service: Service) -> None:
    before = {position["symbol"]: position["qty"] for position in service.get("positions").json()}
    placed = service.order(symbol="MSFT", side="buy", qty=3, order_type="market")
    assert placed.status_code == 201, placed.text
    order = eventually(
        lambda: service.get(f"orders/{placed.json()['id']}").json(), lambda o: o["status"] == "filled"
    )
    assert order["filled_qty"] == 3
    assert order["filled_price"] > 0
    held = eventually(
        lambda: {position["symbol"]: position["qty"] for position in service.get("positions").json()},
        lambda now: now.get("MSFT", 0) == before.get("MSFT", 0) + 3,
    )
    assert service.get("positions/MSFT").json()["qty"] == held["MSFT"]


def test_a_limit_order_away_from_the_market_rests_until_it_is_cancelled(service: Service) -> None:
    placed = service.order(symbol="AAPL", side="buy", qty=1, order_type="limit", limit_price=1.25)
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert order["limit_price"] == 1.25
    assert order["id"] in [row["id"] for row in service.get("orders").json()]
    cancelled = service.client.delete(f"/api/v1/connections/default/orders/{order['id']}")
    assert cancelled.status_code in (200, 202), cancelled.text
    eventually(
        lambda: service.get(f"orders/{order['id']}").json()["status"], lambda status: status == "cancelled"
    )


def test_an_order_posted_twice_is_one_order(service: Service) -> None:
    fields = {
        "symbol": "SPY",
        "side": "buy",
        "qty": 1,
        "order_type": "market",
        "client_order_id": str(uuid.uuid4()),
    }
    first, second = service.order(**fields), service.order(**fields)
    assert first.json()["id"] == second.json()["id"], "an order that is repeated must not be doubled"
    other = service.order(**fields | {"qty": 2})
    assert other.status_code == 409, "the same id with another body contradicts what was placed"


def test_the_clock_knows_when_the_market_changes(service: Service) -> None:
    clock = service.get("clock").json()
    assert isinstance(clock["is_open"], bool)
    assert clock["next_close"] is not None


ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "limit_price": 100.0}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"symbol": "NOSUCHX"}, "symbol"),
        ({"symbol": "AA PL"}, "symbol"),
        ({"symbol": ""}, "symbol"),
        ({"qty": 0}, "qty"),
        ({"qty": -1}, "qty"),
        ({"qty": "NaN"}, "qty"),
        ({"qty": "many"}, "qty"),
        ({"side": "bye"}, "side"),
        ({"order_type": "markett"}, "order_type"),
        ({"limit_price": None}, "limit_price"),
        ({"limit_price": -3}, "limit_price"),
        ({"time_in_force": "forever"}, "time_in_force"),
        ({"client_order_id": ""}, "client_order_id"),
        ({"limit": 3}, "limit"),
    ],
)
def test_a_wrong_order_is_refused_with_the_field_that_is_wrong(
    service: Service, wrong: dict[str, Any], field: str
) -> None:
    answer = service.order(**ORDER | wrong)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith(PROBLEM)
    assert field in [error["field"] for error in answer.json().get("errors", [])], answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"qty": NaN}', b"\xff\xfe"])
def test_a_body_that_is_no_order_is_a_problem_of_the_client(service: Service, body: bytes) -> None:
    answer = service.client.post(
        "/api/v1/connections/default/orders", content=body, headers={"Content-Type": "application/json"}
    )
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"].startswith(PROBLEM)


@pytest.mark.parametrize("path", ["positions/NOSUCHX", "orders/nothing", "quotes/NOSUCHX", "nothing"])
def test_what_isnt_there_is_not_found(service: Service, path: str) -> None:
    answer = service.get(path)
    assert answer.status_code in (404, 422), answer.text
    assert answer.headers["content-type"].startswith(PROBLEM)


def test_another_method_is_refused(service: Service) -> None:
    answer = service.client.patch("/api/v1/connections/default/account")
    assert answer.status_code == 405
    assert answer.headers["content-type"].startswith(PROBLEM)


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic dTpw"}]
)
def test_nobody_reads_anything_without_a_token(service: Service, header: dict[str, str]) -> None:
    service.client.headers.pop("Authorization")
    answer = service.client.get("/api/v1/connections/default/account", headers=header)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith(PROBLEM)


def test_an_expired_token_is_worth_nothing(service: Service) -> None:
    answer = service.client.get("/api/v1/connections/default/account", headers=service.bearer(seconds=-60))
    assert answer.status_code == 401
    assert "expired" in answer.text


def test_a_user_who_is_no_trader_may_look_but_not_trade(service: Service) -> None:
    service.client.headers.update(service.bearer(roles=["user"]))
    assert service.get("account").status_code == 200
    assert service.order(**ORDER).status_code == 403
