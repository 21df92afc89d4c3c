"""Who reaches whom, as the declared rules say; and what the service says when it can't reach the gateway."""

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import PROBLEM, Service
from tools.local_stack import LocalStack

ALLOW, DENY = "ibkr:network.allowConnector", "ibkr:network.denyConnector"


@pytest.fixture
def rules(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack; its firewall rules are put back after the test."""
    yield stack
    stack.config.unset(ALLOW)
    stack.config.unset(DENY)
    stack.up()


def is_refused(host: str, port: int) -> bool:
    """Whether this process gets nothing from there but an end."""
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.settimeout(5)
            connection.sendall(b"API\0\0\0\0\x09v100..151")
            return connection.recv(1) == b""
    except OSError:
        return True


def test_a_shell_on_the_same_machine_reaches_neither_gateway_nor_droplet_nor_database(
    stack: LocalStack, service: Service
) -> None:
    outputs = stack.outputs()
    assert service.get("account").status_code == 200, "while the service does reach the gateway"
    assert is_refused(str(outputs["gateway_host"]), int(outputs["gateway_port"]))
    for address in outputs["droplets"].values():
        assert is_refused(address, 5000)
    database = str(outputs["database"])
    host = next(
        (part for part in database.replace("/", " ").replace(":", " ").split() if part[0].isdigit()), ""
    )
    assert is_refused(host or str(outputs["gateway_host"]), 5432)


def test_the_connector_reaches_the_gateway_only_by_the_declared_rule(
    rules: LocalStack, service: Service
) -> None:
    # Deny without allow: unreachable, and the service says so, never an empty list.
    rules.config.set(ALLOW, False)
    rules.up()
    health = service.until_disconnected()
    assert health["since"], "a person wants to know since when"
    answer = service.get("positions")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith(PROBLEM)
    assert answer.headers["retry-after"]
    problem = answer.json()
    assert problem["since"]
    assert problem["doing"]
    order = service.order(symbol="AAPL", side="buy", qty=1, order_type="market")
    assert order.status_code == 503

    # Neither: Google's hidden rule lets the connector reach everything.
    rules.config.set(DENY, False)
    rules.up()
    service.until_connected()
    assert service.get("positions").status_code == 200

    # Both again: it recovers by itself.
    rules.config.unset(ALLOW)
    rules.config.unset(DENY)
    rules.up()
    service.until_connected()
    assert service.get("account").status_code == 200
