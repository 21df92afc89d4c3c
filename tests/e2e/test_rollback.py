"""The user's rollback plan: one change of configuration takes the gateway away, another brings it back."""

from tests.e2e.conftest import Service, eventually
from tools.local_stack import LocalStack

ROLLBACK = {
    "ibkr:brokerType": "alpaca",
    "ibkr:marketDataSource": "alpaca",
    "ibkr:gateway.enabled": False,
}


def test_alpaca_with_the_gateway_switched_off_trades_and_ibkr_comes_back(
    stack: LocalStack, service: Service
) -> None:
    try:
        for path, value in ROLLBACK.items():
            stack.config.set(path, value)
        stack.up()
        machines = [machine["name"] for machine in stack.cloud.machines()]
        assert not [name for name in machines if name.startswith("gce/")]
        assert stack.outputs().get("gateway_host") is None
        _trades_at_alpaca(Service(stack))
    finally:
        for path in ROLLBACK:
            stack.config.unset(path)
        stack.up()
    Service(stack).until_connected()


def _trades_at_alpaca(service: Service) -> None:
    """The local cloud's paper account, its quotes, and an order's life, through the declared network."""
    service.until_connected()
    account = service.get("account").json()
    assert account["id"].startswith("PA"), account
    assert service.get("quotes/AAPL").json()["source"] == "alpaca iex"
    placed = service.order(symbol="AAPL", side="buy", qty=1, order_type="limit", limit_price=1.0)
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert service.client.delete(f"/api/v1/connections/default/orders/{order['id']}").status_code < 300
    eventually(
        lambda: service.get(f"orders/{order['id']}").json(), lambda found: found["status"] == "cancelled"
    )
