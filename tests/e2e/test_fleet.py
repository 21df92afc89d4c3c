"""Users' own accounts: connected over HTTP, traded through, stopped, started, hibernated and deleted."""

from collections.abc import Iterator

import pytest

from localcloud.state import Store
from tests.e2e.conftest import PROBLEM, Service, eventually
from tests.e2e.test_network import is_refused
from tests.e2e.users import ACCOUNTS, User, droplet
from tools.local_stack import LocalStack

IBKR_PAUSE = 1.0  # seconds: IBKR takes ten requests a second of a session, the service's own among them


def user_data(stack: LocalStack, number: int) -> str:
    """What a droplet was made with, which no API tells."""
    store = Store.open(stack.cloud.home)
    try:
        return str(store.notes("machines")[f"droplet/{number}"]["spec"]["user_data"])
    finally:
        store.close()


@pytest.fixture
def ann(stack: LocalStack) -> Iterator[User]:
    made = User(stack, "ann")
    yield made
    made.client.close()


@pytest.fixture
def bob(stack: LocalStack) -> Iterator[User]:
    made = User(stack, "bob")
    yield made
    made.client.close()


def test_an_account_lives_from_its_connection_to_its_end(stack: LocalStack, ann: User, bob: User) -> None:
    first = ann.connect()
    assert first.status_code == 202, first.text
    told = first.json()
    account, number = told["account_id"], told["service_id"]
    assert account.startswith("ib-demo-")
    assert (told["status"], told["environment"]) == ("provisioning", "demo")
    assert told["message"] == "Server provisioning initiated. This process may take a few minutes."

    seen = ann.until(account, "running")
    flow = ["provisioning", "initializing", "running"]
    assert seen == flow[flow.index(seen[0]) :], "it may be faster than one looks, but never goes back"

    again = ann.connect()
    assert (again.status_code, again.json()["account_id"]) == (200, account)
    _guarded(stack, ann, number)
    _trades(ann, account)
    _hidden_from(bob, account)

    assert ann.do("POST", account, "/stop").status_code == 202
    ann.until(account, "stopped")
    eventually(lambda: (droplet(stack, number) or {}).get("status"), lambda power: power == "off")
    stopped = ann.client.get(f"/api/v1/connections/{account}/account")
    assert stopped.status_code == 503, "a connection that is away is never an empty one"
    assert stopped.headers["content-type"].startswith(PROBLEM)
    assert ann.do("POST", account, "/start").status_code == 202
    ann.until(account, "running")
    assert ann.do("GET", account).json()["service_id"] == number, "its droplet was kept"

    assert ann.do("POST", account, "/hibernate").status_code == 202
    eventually(lambda: droplet(stack, number), lambda gone: gone is None)
    ann.until(account, "stopped")
    assert ann.do("POST", account, "/start").status_code == 202
    ann.until(account, "running")
    newer = ann.do("GET", account).json()["service_id"]
    assert newer != number

    assert ann.do("DELETE", account).status_code == 202
    eventually(lambda: droplet(stack, newer), lambda gone: gone is None)
    eventually(lambda: ann.status(account), lambda status: status == "deleted")
    left = ann.client.get(f"{ACCOUNTS}/accounts").json()["accounts"]
    assert account not in [one["account_id"] for one in left]


def _guarded(stack: LocalStack, user: User, number: int) -> None:
    """Nobody but the service reaches the droplet, and what it was made with opens nothing."""
    found = droplet(stack, number)
    assert found is not None
    address = found["networks"]["v4"][0]["ip_address"]
    assert {"stack:local", "manager:service"} <= set(found["tags"])
    for port in (5000, 5001):
        assert is_refused(address, port), f"{address}:{port} is open to the internet"
    given = user_data(stack, number)
    assert given.startswith("#cloud-config")
    assert "enrolment_token" in given
    assert user.username not in given
    assert user.password not in given
    log = stack.cloud.log(f"droplet/{number}") + stack.cloud.log("run/ibkr-api")
    assert user.password not in log


def _trades(user: User, account: str) -> None:
    """The account is a connection: what its login holds, and an order's life, over its own gateway."""
    connection = f"/api/v1/connections/{account}"
    found = eventually(
        lambda: user.client.get(f"{connection}/account"),
        lambda answer: answer.status_code == 200,
        pause=IBKR_PAUSE,
    )
    assert found.json()["id"].startswith("DU")
    assert user.client.get(f"{connection}/positions").json() == []
    # Without a fresh quote the limits refuse an order, and the first one may take its time.
    eventually(
        lambda: user.client.get(f"{connection}/quotes/AAPL").json(),
        lambda quote: quote.get("ask") is not None,
        pause=IBKR_PAUSE,
    )
    order = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "limit_price": 1.25}
    placed = user.client.post(f"{connection}/orders", json={**order, "client_order_id": "first"})
    assert placed.status_code == 201, placed.text
    number = placed.json()["id"]
    assert number in [one["id"] for one in user.client.get(f"{connection}/orders").json()]
    assert user.client.delete(f"{connection}/orders/{number}").status_code in (200, 202)
    eventually(
        lambda: user.client.get(f"{connection}/orders/{number}").json()["status"],
        lambda status: status == "cancelled",
        pause=IBKR_PAUSE,
    )


def _hidden_from(other: User, account: str) -> None:
    """Another user can't tell this account from one that never was."""
    tried = (("GET", ""), ("GET", "/status"), ("POST", "/stop"), ("DELETE", ""), ("GET", "/logs"))
    for method, path in tried:
        real, made_up = other.do(method, account, path), other.do(method, "ib-demo-00000000", path)
        assert real.status_code == made_up.status_code == 404
        assert real.headers["content-type"].startswith(PROBLEM)
        assert real.json()["type"] == made_up.json()["type"]
    assert other.client.get(f"{ACCOUNTS}/accounts").json()["accounts"] == []
    for path in ("account", "positions", "orders", "health"):
        assert other.client.get(f"/api/v1/connections/{account}/{path}").status_code == 404


def test_the_scheduler_has_passes_run(stack: LocalStack, service: Service) -> None:
    """Every minute, with a token that the service checks; who has another one is refused."""
    eventually(
        lambda: stack.cloud.log("daemon"),
        lambda log: "scheduler: ibkr-reconcile: 2" in log,
        seconds=130.0,
    )
    answer = service.client.post("/api/v1/fleet/reconcile")
    assert answer.status_code in (401, 403), "a user's token of the same issuer"
