"""A droplet's shipped user data on a machine of the local cloud, from power to a login at the exchange.

Both kinds of image. Everything that the user data wrote really runs; the container is the paper gateway.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.fleet.spec import Credentials, DropletSettings, droplet_spec
from localcloud.machines.guest import Guest
from tests.fleet.values import NASTY_PASSWORDS
from tests.machines.exchange import Exchange
from tests.machines.laptop import LaptopHost

STOCK, SNAPSHOT = "ubuntu-24-04-x64", "182556282"
ADDRESS = "127.20.128.7"
USER = "ib user"
PASSWORDS = {
    STOCK: "".join(NASTY_PASSWORDS),
    SNAPSHOT: "".join(w for w in NASTY_PASSWORDS if w.isprintable()),
}
UNITS = {STOCK: "ibeam.service", SNAPSHOT: "ibeam-starter.service"}
FORGOTTEN = "Finished forget-user-data.service"


class Droplet:
    """A droplet with its credentials injected."""

    def __init__(self, host: LaptopHost, image: str, password: str) -> None:
        settings = DropletSettings(client_address=ADDRESS, image=image)
        self.host, self.image = host, image
        self.user_data = droplet_spec(
            "local", "alice", "paper", 1, settings, Credentials(USER, password), "pulumi"
        ).user_data
        self.guest = Guest(host, self.user_data, "droplet", image=image)

    async def boot(self) -> None:
        self.host.console.clear()
        self.guest = Guest(self.host, self.user_data, "droplet", image=self.image)
        await self.guest.boot()

    async def power_off(self) -> None:
        await self.guest.shutdown()
        await self.host.power_off()
        for path in sorted(self.host.run.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    async def tickle(self) -> dict[str, Any]:
        """What the gateway says of its session, over TLS on the port that it published."""
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_unix_connection(
            str(self.host.ports[5000]), ssl=trusting, server_hostname="localhost"
        )
        writer.write(b"POST /v1/api/tickle HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                     b"User-Agent: t\r\nConnection: close\r\n\r\n")  # fmt: skip
        answer = await reader.read()
        writer.close()
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert isinstance(found, dict)
        return found


@pytest.fixture(params=[STOCK, SNAPSHOT])
async def droplet(host: LaptopHost, request: pytest.FixtureRequest) -> AsyncIterator[Droplet]:
    droplet = Droplet(host, request.param, PASSWORDS[request.param])
    yield droplet
    await droplet.guest.shutdown()


def holding(root: Path, password: str) -> list[str]:
    """Files of the machine that hold the password, plainly, in JSON or in base64."""
    forms = (
        password.encode(),
        json.dumps(password)[1:-1].encode(),
        base64.b64encode(password.encode()),
    )
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(
        str(path.relative_to(root)) for path in files if any(form in path.read_bytes() for form in forms)
    )


async def test_it_logs_in_with_the_injected_password_whatever_it_holds(
    droplet: Droplet, exchange: Exchange
) -> None:
    await exchange.add_user(USER, PASSWORDS[droplet.image])
    await droplet.boot()
    await droplet.host.until_said("authenticated")
    assert (await exchange.user(USER))["logged_in"]
    status = (await droplet.tickle())["iserver"]["authStatus"]
    assert status["authenticated"]
    assert status["connected"]
    assert droplet.guest.status()["failed"] == []


async def test_a_wrong_password_is_tried_a_few_times_only(droplet: Droplet, exchange: Exchange) -> None:
    await exchange.add_user(USER, "another")
    await droplet.boot()
    await droplet.host.until_said("ogging in failed")
    assert not (await exchange.user(USER))["logged_in"]
    environment = next(env for env in droplet.host.environments if "IBEAM_MAX_FAILED_AUTH" in env)
    assert environment["IBEAM_MAX_FAILED_AUTH"] == "3"


async def test_only_the_api_port_is_open(droplet: Droplet) -> None:
    await droplet.boot()
    await droplet.host.until(lambda: bool(droplet.host.ports))
    assert list(droplet.host.ports) == [5000], "5001 can switch the gateway off without a password"


async def test_the_host_firewall_admits_the_client_and_keeps_the_metadata_from_the_container(
    droplet: Droplet,
) -> None:
    await droplet.boot()
    await droplet.host.until_said("Finished ibeam-firewall.service")
    rules = droplet.guest.status()["firewall"]
    assert rules["iptables:DOCKER-USER"] == ["-j IBEAM-FORWARD"]
    assert rules["iptables:INPUT"] == ["-j IBEAM-INPUT"]
    assert "-d 169.254.169.254 -j DROP" in rules["iptables:IBEAM-FORWARD"]
    assert f"! -s {ADDRESS} -p tcp --dport 5000 -j DROP" in rules["iptables:IBEAM-INPUT"]
    assert "-p tcp --dport 5001 -j DROP" in rules["iptables:IBEAM-INPUT"]


async def test_the_firewall_is_up_before_the_container(droplet: Droplet) -> None:
    await droplet.boot()
    await droplet.host.until(lambda: bool(droplet.guest.status()["containers"]))
    said = droplet.host.text
    firewall = said.index("Finished ibeam-firewall.service")
    assert firewall < said.index(f"Starting {UNITS[droplet.image]}")


async def test_the_login_stays_in_one_place_that_only_its_reader_reads(droplet: Droplet) -> None:
    await droplet.boot()
    await droplet.host.until_said(FORGOTTEN)
    await droplet.host.until_said(f"Started {UNITS[droplet.image]}")
    place = {STOCK: "var/lib/ibeam/secrets/password", SNAPSHOT: "root/ibeam_files/env.list"}[droplet.image]
    assert holding(droplet.host.root, PASSWORDS[droplet.image]) == [place], "cloud-init's copies are removed"
    mode = stat.S_IMODE((droplet.host.root / place).stat().st_mode)
    assert mode == {STOCK: 0o400, SNAPSHOT: 0o600}[droplet.image]
    owner = droplet.guest.owners.get(f"/{place}", "root:root")
    assert owner == {STOCK: "1000:1000", SNAPSHOT: "root:root"}[droplet.image]


async def test_the_copies_are_removed_at_every_boot(droplet: Droplet) -> None:
    for _ in range(2):
        await droplet.boot()
        await droplet.host.until_said(FORGOTTEN)
        await droplet.host.until_said(f"Started {UNITS[droplet.image]}")
        assert len(holding(droplet.host.root, PASSWORDS[droplet.image])) == 1
        await droplet.power_off()


async def test_the_console_and_the_command_lines_never_show_the_login(
    droplet: Droplet, exchange: Exchange
) -> None:
    await exchange.add_user(USER, PASSWORDS[droplet.image])
    await droplet.boot()
    await droplet.host.until_said("authenticated")
    for line in PASSWORDS[droplet.image].splitlines():
        assert line not in droplet.host.text
        assert not any(line in word for words in droplet.host.spawned for word in words)


async def test_a_container_of_the_stock_image_has_no_login_in_its_environment(
    host: LaptopHost, exchange: Exchange
) -> None:
    droplet = Droplet(host, STOCK, PASSWORDS[STOCK])
    await exchange.add_user(USER, PASSWORDS[STOCK])
    await droplet.boot()
    await host.until_said("authenticated")
    assert not any(PASSWORDS[STOCK] in value for env in host.environments for value in env.values())
    await droplet.guest.shutdown()


async def test_a_reboot_logs_in_again(droplet: Droplet, exchange: Exchange) -> None:
    await exchange.add_user(USER, PASSWORDS[droplet.image])
    for _ in range(2):
        await droplet.boot()
        await droplet.host.until_said("authenticated")
        assert (await exchange.user(USER))["logged_in"]
        await droplet.power_off()
        assert not (await exchange.user(USER))["logged_in"]


async def test_a_container_that_ends_is_not_started_again(droplet: Droplet) -> None:
    await droplet.boot()
    await droplet.host.until(lambda: bool(droplet.guest.status()["containers"]))
    droplet.host.processes[-1].kill()
    await droplet.host.until(lambda: droplet.guest.status()["containers"] == [])
    unit = UNITS[droplet.image]
    await droplet.host.until_said(f"{unit}: main process ended")
    assert droplet.guest.status()["units"][unit]["state"] == "failed", "a restart would be another login"
    assert droplet.host.ports == {}


async def test_a_stock_image_taken_for_the_snapshot_starts_nothing(host: LaptopHost) -> None:
    droplet = Droplet(host, SNAPSHOT, "password")
    droplet.image = STOCK
    await droplet.boot()
    await host.until(lambda: "ibeam-starter.service" in droplet.guest.status()["failed"])
    assert "Unit docker.service not found" in host.text
    assert host.ports == {}
    await droplet.guest.shutdown()


async def test_a_snapshot_without_its_env_list_starts_no_container(host: LaptopHost) -> None:
    (host.root / "root/ibeam_files/env.list").mkdir(parents=True)
    droplet = Droplet(host, SNAPSHOT, "password")
    await droplet.boot()
    await host.until_said("[FAILED] ibeam-starter.service")
    assert droplet.guest.status()["containers"] == []
    assert "password" not in host.text
    await droplet.guest.shutdown()
