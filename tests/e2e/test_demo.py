"""The guided tour, as a person runs it: whole, and cut off."""

import contextlib
import io
import signal
import subprocess
import sys

import httpx

from tests.e2e.conftest import Service, eventually
from tests.e2e.test_lifecycle import droplets
from tests.e2e.users import ACCOUNTS
from tools.demo import demo
from tools.environments import CHECKOUT
from tools.local_stack import LocalStack

TOUR = """
import signal
import sys
from pathlib import Path
from tools.demo import demo
from tools.local_stack import LocalStack
# Whoever runs the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
demo(LocalStack(home=Path(sys.argv[1])))
"""
SHOWN = (
    "provisioning", "running", "connected", "market order", "1 filled at", "limit order", "cancelled",
    "SIGKILL", "link_lost", "/restart", "running", "still held: 1 AAPL", "deleted", "That was all",
)  # fmt: skip


def accounts(stack: LocalStack) -> list[str]:
    """The ids of the accounts of the tour's user."""
    answer = httpx.get(
        f"{stack.outputs()['service_url']}{ACCOUNTS}/accounts",
        headers={"Authorization": f"Bearer {stack.token()}"},
    )
    return [account["account_id"] for account in answer.json()["accounts"]]


def test_the_tour_shows_what_it_promises_and_leaves_what_was_there(
    stack: LocalStack, service: Service
) -> None:
    own = httpx.post(
        f"{service.url}{ACCOUNTS}/connect",
        json=stack.login(),
        headers={"Authorization": f"Bearer {stack.token()}"},
    ).json()["account_id"]
    before = droplets(stack)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        demo(stack)
    told = said.getvalue()
    position = 0
    for part in SHOWN:
        position = told.find(part, position)
        assert position >= 0, f"{part} is missing, or not in its turn:\n{told}"
    assert stack.token() not in told
    assert "eyJ" not in told, "a token must not stand on a screen that is shown around"
    assert accounts(stack) == [own]
    assert before <= droplets(stack), "what isn't the tour's must stay"
    httpx.delete(
        f"{service.url}{ACCOUNTS}/accounts/{own}", headers={"Authorization": f"Bearer {stack.token()}"}
    )
    eventually(lambda: accounts(stack), lambda left: left == [])


def test_a_tour_that_is_interrupted_takes_its_account_away(stack: LocalStack, service: Service) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TOUR, str(stack.home)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as tour:
        assert tour.stdout is not None
        for line in tour.stdout:
            if "initializing" in line:
                break
        assert len(accounts(stack)) == 1
        tour.send_signal(signal.SIGINT)
        rest = tour.stdout.read()
    assert "its droplet is gone" in rest
    assert accounts(stack) == []
