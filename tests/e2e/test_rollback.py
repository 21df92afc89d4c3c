"""The user's rollback plan: one change of configuration takes the gateway away, another brings it back."""

from tests.e2e.conftest import Service
from tools.local_stack import LocalStack

ROLLBACK = {
    "ibkr:brokerType": "alpaca",
    "ibkr:marketDataSource": "alpaca",
    "ibkr:alpaca": {"apiKey": "PK-NO-ACCOUNT", "secretKey": "no-account-either"},
    "ibkr:gateway.enabled": False,
}


def test_alpaca_with_the_gateway_switched_off_has_no_gateway_and_ibkr_comes_back(
    stack: LocalStack, service: Service
) -> None:
    try:
        for path, value in ROLLBACK.items():
            stack.config.set(path, value)
        stack.up()
        machines = [machine["name"] for machine in stack.cloud.machines()]
        assert not [name for name in machines if name.startswith("gce/")]
        assert stack.outputs().get("gateway_host") is None
        assert service.client.get("/healthz").status_code == 200
    finally:
        for path in ROLLBACK:
            stack.config.unset(path)
        stack.up()
    Service(stack).until_connected()
