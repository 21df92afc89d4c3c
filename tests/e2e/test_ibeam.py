"""BROKER_TYPE=ibeam: one change of configuration, and the service trades through a declared droplet."""

from tests.e2e.conftest import Service, eventually
from tools.local_stack import LocalStack


def test_the_service_trades_through_the_declared_droplet(stack: LocalStack, service: Service) -> None:
    gateways_account = service.get("account").json()["id"]
    try:
        stack.config.set("ibkr:brokerType", "ibeam")
        stack.up()
        ibeam = Service(stack)
        ibeam.until_connected()
        account = ibeam.get("account").json()
        assert account["id"].startswith("DU")
        assert account["id"] != gateways_account, "the droplet's login is another one"
        placed = ibeam.order(symbol="AAPL", side="buy", qty=1, order_type="limit", limit_price=1.25)
        assert placed.status_code == 201, placed.text
        order = placed.json()["id"]
        assert ibeam.client.delete(f"/api/v1/connections/default/orders/{order}").status_code < 300
        eventually(lambda: ibeam.get(f"orders/{order}").json(), lambda found: found["status"] == "cancelled")
        assert ibeam.get("quotes/AAPL").json()["ask"] > 0
    finally:
        stack.config.unset("ibkr:brokerType")
        stack.up()
    Service(stack).until_connected()
