"""From nothing and back to nothing, also when somebody pulls the plug in between."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from localcloud.control import Daemon
from localcloud.providers.gcp.billing import ACCOUNT
from tests.e2e.conftest import Service, a_stack, eventually
from tests.e2e.users import User
from tools.environments import CHECKOUT
from tools.local_stack import LocalStack

# What real stacks are watched by, which `local` leaves out.
WATCHED: dict[str, Any] = {
    "ibkr:monitoring.dashboard": True,
    "ibkr:monitoring.uptimeCheck": True,
    "ibkr:alerts.emails": ["ann@trader.test"],
    "ibkr:budget.billingAccount": ACCOUNT,
    "ibkr:budget.amount": 250,
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalStack]:
    """A stack of the test's own, not up yet."""
    with a_stack(tmp_path / "stack") as made:
        yield made


def processes_of(stack: LocalStack) -> list[str]:
    """The command lines of all processes that work in or for the stack's folder."""
    marker = str(stack.home)
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "environ", "pid"]):
        if process.pid == os.getpid():
            continue
        told = process.info
        text = (
            " ".join(told["cmdline"] or []) + f" {told['cwd']} " + " ".join((told["environ"] or {}).values())
        )
        if marker in text:
            found.append(" ".join(told["cmdline"] or [str(process.pid)]))
    return found


def listening(network: str) -> list[str]:
    """Addresses of this network that somebody listens on."""
    return [
        f"{connection.laddr.ip}:{connection.laddr.port}"
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip.startswith(f"{network}.")
    ]


def make_droplet(stack: LocalStack, name: str, tags: list[str]) -> int:
    """A droplet through DigitalOcean's API, as somebody else's program makes it."""
    env = stack.cloud.service_environment()
    answer = httpx.post(
        f"{env['DIGITALOCEAN_API_URL']}/v2/droplets",
        headers={"Authorization": f"Bearer {env['DIGITALOCEAN_TOKEN']}"},
        json={
            "name": name,
            "region": "nyc1",
            "size": "s-1vcpu-1gb",
            "image": "ubuntu-24-04-x64",
            "tags": tags,
        },
    )
    assert answer.status_code == 202, answer.text
    return int(answer.json()["droplet"]["id"])


def droplets(stack: LocalStack) -> set[int]:
    """The ids of all droplets of the local DigitalOcean."""
    env = stack.cloud.service_environment()
    answer = httpx.get(
        f"{env['DIGITALOCEAN_API_URL']}/v2/droplets?per_page=200",
        headers={"Authorization": f"Bearer {env['DIGITALOCEAN_TOKEN']}"},
    )
    return {int(droplet["id"]) for droplet in answer.json()["droplets"]}


def test_destroy_leaves_nothing_and_up_after_it_works(own: LocalStack) -> None:
    for path, value in WATCHED.items():
        own.config.set(path, value)
    own.up()
    own.drift()
    network = own.cloud.remembered_network()
    assert network
    Service(own).until_connected()
    assert listening(network), "the test must be able to see what listens"
    assert processes_of(own), "the test must be able to see what runs"

    own.destroy()
    assert own.is_empty()
    eventually(lambda: processes_of(own), lambda found: not found, 20)
    assert listening(network) == []

    own.up()
    Service(own).until_connected()


def test_destroy_removes_the_droplets_that_the_service_made_and_no_other(own: LocalStack) -> None:
    own.up()
    connected = User(own, "ann").connect()
    assert connected.status_code == 202, connected.text
    ours = connected.json()["service_id"]
    stranger = make_droplet(own, "web", ["production"])
    other_stack = make_droplet(own, "bob-ib-paper-1", ["stack:staging", "manager:service", "ibeam"])
    eventually(lambda: droplets(own), lambda seen: {ours, stranger, other_stack} <= seen)
    with own._ready() as lock:
        own._pulumi("destroy", "--yes", "--skip-preview", lock=lock)
    left = droplets(own)
    assert ours not in left, "a droplet that the service made is billed until somebody deletes it"
    assert {stranger, other_stack} <= left, "what isn't this stack's must never be touched"


UP = (
    "import sys; from pathlib import Path; from tools.local_stack import LocalStack; "
    "LocalStack(home=Path(sys.argv[1]), network=sys.argv[2], quiet=Path(sys.argv[3])).up()"
)


@pytest.mark.parametrize("moment", ["ibkr-network", "ibkr-gateway-instance", "ibkr-api-service"])
def test_an_up_that_was_killed_in_the_middle_can_be_repeated(own: LocalStack, moment: str) -> None:
    network = str(own.cloud._wanted)
    log = own.home.parent / "killed.log"
    log.touch()
    arguments = [sys.executable, "-c", UP, str(own.home), network, str(log)]
    with subprocess.Popen(arguments, cwd=CHECKOUT, start_new_session=True) as process:
        eventually(
            lambda: log.read_text() + str(process.poll() or ""), lambda said: f"{moment} creating" in said
        )
        for child in psutil.Process(process.pid).children():
            if "localcloud" not in " ".join(child.cmdline()):  # the cloud itself goes on, as clouds do
                for descendant in [child, *child.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        descendant.kill()
        process.kill()
    assert "Duration" not in log.read_text(), "it was to be killed in the middle"
    own.up()
    Service(own).until_connected()
    own.refresh("--expect-no-changes")


def test_the_cloud_that_lost_its_power_comes_back_as_it_was(own: LocalStack) -> None:
    own.up()
    service = Service(own)
    service.until_connected()
    before = service.get("account").json()["id"]
    network = own.cloud.network()
    os.kill(int(Daemon(own.cloud.home).about()["pid"]), signal.SIGKILL)
    eventually(lambda: listening(network), lambda found: not found)
    own.up()
    again = Service(own)
    assert again.url == service.url
    again.until_connected()
    assert again.get("account").json()["id"] == before
    own.refresh("--expect-no-changes")
