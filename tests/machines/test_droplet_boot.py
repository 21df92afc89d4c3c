"""A droplet's shipped user data on a machine of the local cloud, from power to a login at the exchange.

Both kinds of image. Everything that the user data wrote really runs; the container is the paper gateway.
"""

from __future__ import annotations

import base64
import json
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fleet.values import NASTY_PASSWORDS
from tests.machines.droplet import CLIENT, SNAPSHOT, STOCK, USER, Droplet, Surroundings
from tests.machines.exchange import Exchange
from tests.machines.laptop import LaptopHost

PASSWORDS = {
    STOCK: "".join(NASTY_PASSWORDS),
    SNAPSHOT: "".join(w for w in NASTY_PASSWORDS if w.isprintable()),
}
UNITS = {STOCK: "ibeam.service", SNAPSHOT: "ibeam-starter.service"}
FORGOTTEN = "Finished forget-user-data.service"


@pytest.fixture(params=[STOCK, SNAPSHOT])
async def droplet(
    host: LaptopHost, surroundings: Surroundings, request: pytest.FixtureRequest
) -> AsyncIterator[Droplet]:
    droplet = Droplet(host, surroundings, request.param).declare(PASSWORDS[request.param])
    yield droplet
    await droplet.power_off()


def decoded(blob: bytes) -> bytes:
    """What may be base64, read as it."""
    try:
        return base64.b64decode(blob)
    except ValueError:
        return b""


def holding(root: Path, password: str) -> list[str]:
    """Files of the machine that hold the password, plainly, in JSON, or somewhere in base64."""
    forms = (password.encode(), json.dumps(password)[1:-1].encode())

    def shows(content: bytes) -> bool:
        blobs = re.findall(rb"(?:[A-Za-z0-9+/]{4}){6,}[A-Za-z0-9+/]{0,3}={0,2}", content)
        texts = [content, *map(decoded, blobs)]
        return any(form in text for form in forms for text in texts)

    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(str(path.relative_to(root)) for path in files if shows(path.read_bytes()))


def test_a_copy_in_user_data_would_be_found(droplet: Droplet, tmp_path: Path) -> None:
    (tmp_path / "user-data.txt").write_text(droplet.user_data)
    assert holding(tmp_path, PASSWORDS[droplet.image]) == ["user-data.txt"]


async def test_it_logs_in_with_the_injected_password_whatever_it_holds(
    droplet: Droplet, exchange: Exchange
) -> None:
    await exchange.add_user(USER, PASSWORDS[droplet.image])
    await droplet.boot()
    await droplet.host.until_said("authenticated")
    assert (await exchange.user(USER))["logged_in"]
    assert droplet.guest.status()["failed"] == []


async def test_the_gateway_of_a_stock_image_is_reached_through_the_proxy_with_the_token(
    host: LaptopHost, surroundings: Surroundings, exchange: Exchange
) -> None:
    droplet = Droplet(host, surroundings).declare(PASSWORDS[STOCK])
    await exchange.add_user(USER, PASSWORDS[STOCK])
    await droplet.boot()
    await droplet.authenticated()
    status = (await droplet.tickle())["iserver"]["authStatus"]
    assert status["authenticated"]
    assert status["connected"]
    assert (await droplet.ask("POST", "/v1/api/tickle", token="")).status_code == 401
    assert (await droplet.health())["has_credentials"]
    for path in ("/agent/credentials", "/agent/restart"):
        answer = await droplet.ask("PUT" if "credentials" in path else "POST", path, json={})
        assert answer.status_code == 404, "nobody may change the login of a declared droplet"
    await droplet.power_off()


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
    if droplet.image == SNAPSHOT:
        assert f"! -s {CLIENT} -p tcp --dport 5000 -j DROP" in rules["iptables:IBEAM-INPUT"]
        assert "-p tcp --dport 5001 -j DROP" in rules["iptables:IBEAM-INPUT"]
        return
    assert "-o docker0 -m conntrack --ctstate NEW -j DROP" in rules["iptables:IBEAM-FORWARD"]
    assert rules["iptables:IBEAM-INPUT"] == [
        "-i lo -j RETURN",
        "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
        f"-s {CLIENT} -p tcp --dport 5000 -j RETURN",
        "-p tcp -j DROP",
    ]


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
    place = {STOCK: "etc/ibeam/agent.json", SNAPSHOT: "root/ibeam_files/env.list"}[droplet.image]
    assert holding(droplet.host.root, PASSWORDS[droplet.image]) == [place], "cloud-init's copies are removed"
    mode = stat.S_IMODE((droplet.host.root / place).stat().st_mode)
    assert mode == {STOCK: 0o400, SNAPSHOT: 0o600}[droplet.image]
    assert droplet.guest.owners.get(f"/{place}", "root:root") == "root:root"


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
    host: LaptopHost, surroundings: Surroundings, exchange: Exchange
) -> None:
    droplet = Droplet(host, surroundings).declare(PASSWORDS[STOCK])
    await exchange.add_user(USER, PASSWORDS[STOCK])
    await droplet.boot()
    await host.until_said("authenticated")
    assert not any(PASSWORDS[STOCK] in value for env in host.environments for value in env.values())
    await droplet.power_off()


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
    started = [words for words in droplet.host.spawned if "localcloud.gateways.client_portal" in words]
    container = next(
        process
        for process, words in zip(droplet.host.processes, droplet.host.spawned, strict=True)
        if words == started[0]
    )
    container.kill()
    unit = UNITS[droplet.image]
    await droplet.host.until_said(f"{unit}: main process ended")
    assert droplet.guest.status()["units"][unit]["state"] == "failed", "a restart would be another login"
    assert droplet.guest.status()["containers"] == []


async def test_a_crash_of_the_agent_leaves_the_container_alone(
    host: LaptopHost, surroundings: Surroundings, exchange: Exchange
) -> None:
    droplet = Droplet(host, surroundings).declare("password")
    await exchange.add_user(USER, "password")
    await droplet.boot()
    await droplet.authenticated()
    boot = await droplet.health()
    agent = next(
        process
        for process, words in zip(host.processes, host.spawned, strict=True)
        if any(word.endswith("/opt/ibeam/agent") for word in words)
    )
    agent.kill()
    await host.until(lambda: host.text.count("listening with the certificate") == 2)
    assert await droplet.health() == boot
    assert host.text.count("Starting ibeam.service") == 1, "another start would be another login"
    assert (await droplet.tickle())["iserver"]["authStatus"]["authenticated"]
    await droplet.power_off()


async def test_a_stock_image_taken_for_the_snapshot_starts_nothing(
    host: LaptopHost, surroundings: Surroundings
) -> None:
    droplet = Droplet(host, surroundings, SNAPSHOT).declare("password")
    droplet.image = STOCK
    await droplet.boot()
    await host.until(lambda: "ibeam-starter.service" in droplet.guest.status()["failed"])
    assert "Unit docker.service not found" in host.text
    assert host.ports == {}
    await droplet.power_off()


async def test_a_snapshot_without_its_env_list_starts_no_container(
    host: LaptopHost, surroundings: Surroundings
) -> None:
    (host.root / "root/ibeam_files/env.list").mkdir(parents=True)
    droplet = Droplet(host, surroundings, SNAPSHOT).declare("password")
    await droplet.boot()
    await host.until_said("[FAILED] ibeam-starter.service")
    assert droplet.guest.status()["containers"] == []
    assert "password" not in host.text
    await droplet.power_off()
