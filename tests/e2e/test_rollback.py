"""The user's rollback plan: one change of configuration takes the gateway away, another brings it back."""

from tests.e2e.conftest import Service
from tools.local_stack import LocalStack


def test_alpaca_with_the_gateway_switched_off_has_no_gateway_and_ibkr_comes_back(
    stack: LocalStack, service: Service
) -> None:
    try:
        stack.config.set("ibkr:brokerType", "alpaca")
        stack.config.set("ibkr:gateway.enabled", False)
        stack.up()
        machines = [machine["name"] for machine in stack.cloud.machines()]
        assert not [name for name in machines if name.startswith("gce/")]
        assert stack.outputs().get("gateway_host") is None
        assert service.client.get("/healthz").status_code == 200
    finally:
        stack.config.unset("ibkr:brokerType")
        stack.config.unset("ibkr:gateway.enabled")
        stack.up()
    Service(stack).until_connected()
