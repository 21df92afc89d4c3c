"""One stack, brought up by the real engine in a local cloud of its own, for all end-to-end tests.

Each test leaves the stack as it found it. Lifecycle tests, which end with nothing, use stacks of their own.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.control import Daemon
from tools.local_cloud import NETWORKS, is_free
from tools.local_stack import LocalStack

# How long things may take before a test gives up; no test asserts how long they took.
PATIENCE_SECONDS = 60.0
PROBLEM = "application/problem+json"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stack takes its time on a busy machine: more than the other tests may take."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


def free_network() -> str:
    """A network that no local cloud has, from the far end of what `make up` chooses from."""
    return next(network for network in reversed(NETWORKS) if is_free(network))


def eventually(
    what: Callable[[], Any],
    becomes: Callable[[Any], bool],
    seconds: float = PATIENCE_SECONDS,
    pause: float = 0.1,
) -> Any:
    """Ask until the answer is as wanted, and give it. Fails with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if becomes(answer):
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s the answer still is {answer!r}")
        time.sleep(pause)


def ask(stack: LocalStack, method: str, **params: Any) -> Any:
    """Something of the local cloud that an operator would do in a cloud's console."""
    return Daemon(stack.cloud.home).call(method, **params)


class Service:
    """The deployed service as a client sees it."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self.url = str(stack.outputs()["service_url"])
        self.client = httpx.Client(base_url=self.url, timeout=30, headers=self.bearer())

    def bearer(self, roles: Sequence[str] = ("user", "trader"), seconds: int = 3600) -> dict[str, str]:
        """The header of a token that the local issuer makes for these roles and this time."""
        told = ask(self._stack, "token", user="ann", roles=list(roles), seconds=seconds)
        return {"Authorization": f"Bearer {told['token']}"}

    def get(self, path: str) -> httpx.Response:
        """GET something of the configured broker's connection."""
        return self.client.get(f"/api/v1/connections/default/{path}")

    def order(self, **fields: Any) -> httpx.Response:
        """Place an order; an id is made unless one is given."""
        body = {"client_order_id": str(uuid.uuid4())} | fields
        return self.client.post("/api/v1/connections/default/orders", json=body)

    def health(self) -> dict[str, Any]:
        """The link to the broker."""
        answer: dict[str, Any] = self.get("health").json()
        return answer

    def until_connected(self) -> dict[str, Any]:
        """Wait for the link to the broker to be proved."""
        # While no instance runs yet, the platform's front end answers 503 in the service's place.
        answer = eventually(lambda: self.get("health"), lambda a: a.status_code == 200 and a.json()["ok"])
        found: dict[str, Any] = answer.json()
        return found

    def until_disconnected(self) -> dict[str, Any]:
        """Wait for the service to see that the broker is away."""
        answer: dict[str, Any] = eventually(self.health, lambda health: not health["ok"])
        return answer


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The stack `local`, up."""
    with a_stack(tmp_path_factory.mktemp("stack")) as made:
        made.up()
        yield made


@pytest.fixture
def service(stack: LocalStack) -> Service:
    """The service, connected to its broker."""
    made = Service(stack)
    made.until_connected()
    return made


@contextlib.contextmanager
def a_stack(home: Path) -> Iterator[LocalStack]:
    """A stack of its own, not up yet and taken away at the end; its engine's output goes to a file beside it.

    A test that fails in the middle of an `up` may leave what `destroy` can't take away: its local cloud ends
    all the same, with all that runs in it.
    """
    made = LocalStack(home=home, network=free_network(), quiet=home.parent / f"{home.name}.log")
    try:
        yield made
    finally:
        try:
            made.destroy()
        finally:
            made.cloud.stop()
