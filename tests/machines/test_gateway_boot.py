"""The gateway VM's shipped user data on a machine of the local cloud, from power to a login at the exchange.

Everything that the user data wrote really runs; stand-ins are IBKR's installer, IBC's zip, and what they
start.
"""

from __future__ import annotations

import asyncio
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.fleet.cloud_init import render
from localcloud.machines.guest import Guest
from tests.fleet.values import BOTH_GATEWAYS, GATEWAY, LIVE, LIVE_GATEWAY, NASTY_PASSWORDS, PAPER
from tests.machines.exchange import Exchange
from tests.machines.google import GoogleStandIn
from tests.machines.laptop import LaptopHost

VERSION = PAPER["credentials_version"]
PASSWORD = "".join(word for word in NASTY_PASSWORDS if "\n" not in word)
LOGGED_IN = "Login has completed"


class Vm:
    """A gateway VM that can be switched on and off, and replaced."""

    def __init__(self, host: LaptopHost, folder: Path) -> None:
        self.host = host
        self.disk = folder / "settings-disk"
        self.user_data = render("ib-gateway.yaml", GATEWAY)
        self.guest = self._guest()

    async def boot(self) -> None:
        self.host.console.clear()
        self.guest = self._guest()
        await self.guest.boot()

    async def power_off(self) -> None:
        await self.guest.shutdown()
        await self.host.power_off()
        for path in sorted(self.host.run.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def state(self, unit: str) -> str:
        units = self.guest.status()["units"]
        return str(units[unit]["state"]) if unit in units else "unknown"

    def _guest(self) -> Guest:
        return Guest(self.host, self.user_data, "gce", disks={"ibkr-settings": self.disk})


@pytest.fixture
async def vm(host: LaptopHost, google: GoogleStandIn, tmp_path: Path) -> AsyncIterator[Vm]:
    host.environment.update(google.environment)
    google.keep_login(VERSION, "ib user", PASSWORD)
    vm = Vm(host, tmp_path)
    yield vm
    await vm.guest.shutdown()


async def handshake(socket: Path) -> str:
    """The server version that the TWS API answers with on a port, which opens soon after the login."""
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(socket))
                break
            except OSError:
                await asyncio.sleep(0.02)
    versions = b"v100..176"
    writer.write(b"API\x00" + struct.pack("!I", len(versions)) + versions)
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    answer = await reader.readexactly(length)
    writer.close()
    return answer.split(b"\x00")[0].decode()


async def test_it_logs_in_with_the_secrets_password_whatever_it_holds(vm: Vm, exchange: Exchange) -> None:
    await exchange.add_user("ib user", PASSWORD)
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    assert (await exchange.user("ib user"))["logged_in"]
    assert list(vm.host.ports) == [4002], "only the proxy's port faces the VPC"
    assert int(await handshake(vm.host.ports[4002])) >= 100
    assert vm.guest.status()["failed"] == [], vm.host.text


async def test_a_live_gateway_faces_the_vpc_on_the_live_port(
    vm: Vm, exchange: Exchange, google: GoogleStandIn
) -> None:
    await exchange.add_user("ib user", PASSWORD, mode="live")
    google.keep_login(LIVE["credentials_version"], "ib user", PASSWORD)
    vm.user_data = render(
        "ib-gateway.yaml",
        {**LIVE_GATEWAY, "gateway_source": GATEWAY["gateway_source"]},
    )
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    assert list(vm.host.ports) == [4001]


async def test_paper_and_live_run_side_by_side_and_one_locked_out_leaves_the_other(
    vm: Vm, exchange: Exchange, google: GoogleStandIn
) -> None:
    await exchange.add_user("ib user", PASSWORD)
    await exchange.add_user("live user", "right", mode="live")
    google.keep_login(LIVE["credentials_version"], "live user", "wrong")
    vm.user_data = render("ib-gateway.yaml", {**BOTH_GATEWAYS, "ops_agent": []})
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    await vm.host.until_said("Login failed")
    assert sorted(vm.host.ports) == [4001, 4002]
    assert int(await handshake(vm.host.ports[4002])) >= 100
    google.keep_login(LIVE["credentials_version"], "live user", "right")
    await vm.power_off()
    await vm.boot()
    await vm.host.until(lambda: vm.host.text.count(LOGGED_IN) == 2)
    assert int(await handshake(vm.host.ports[4001])) >= 100
    assert vm.guest.status()["failed"] == [], vm.host.text
    live = [n for n, words in enumerate(vm.host.spawned) if words[-4:-2] == ["--mode", "live"]][-1]
    vm.host.processes[live].kill()
    await vm.host.until_said("ibkr-gateway@live.service: restart in 30 s")
    assert int(await handshake(vm.host.ports[4002])) >= 100
    assert vm.guest.status()["units"]["ibkr-gateway@paper.service"]["restarts"] == 0


async def test_a_wrong_password_leaves_it_at_the_login_and_tries_no_second_time(
    vm: Vm, exchange: Exchange
) -> None:
    await exchange.add_user("ib user", "another")
    await vm.boot()
    await vm.host.until_said("Login failed")
    assert vm.state("ibkr-gateway@paper.service") == "active", "another start would be another attempt"
    assert not (await exchange.user("ib user"))["logged_in"]


async def test_the_login_is_in_memory_only_and_in_no_argument(vm: Vm, exchange: Exchange) -> None:
    await exchange.add_user("ib user", PASSWORD)
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    rendered = vm.host.run / "ibkr-gateway" / "paper" / "config.ini"
    assert stat.S_IMODE(rendered.stat().st_mode) == 0o600
    assert "ib user" in rendered.read_text()
    for path in (*vm.host.root.rglob("*"), *vm.disk.rglob("*")):
        assert path.is_dir() or b"ib user" not in path.read_bytes(), f"{path} is on a disk"
    assert not any("ib user" in word for words in vm.host.spawned for word in words)
    assert not any("ib user" in value for env in vm.host.environments for value in env.values())
    await vm.power_off()
    assert not rendered.exists()


async def test_without_the_grant_the_gateway_does_not_start_and_says_why(
    vm: Vm, google: GoogleStandIn
) -> None:
    google.secrets.clear()
    google.refusals = [(403, "Permission 'secretmanager.versions.access' denied")] * 100
    vm.host.environment["RENDER_CONFIG_PATIENCE"] = "0"
    await vm.boot()
    await vm.host.until_said("[FAILED] ibkr-gateway@paper.service")
    assert "login failed: projects/p/secrets" in vm.host.text
    assert "403 Permission 'secretmanager.versions.access' denied" in vm.host.text
    assert vm.guest.status()["failed"] == ["ibkr-gateway@paper.service"]


@pytest.mark.parametrize("pin", ["gateway_sha256", "ibc_sha256"])
async def test_a_download_with_another_checksum_is_not_run(vm: Vm, pin: str) -> None:
    vm.user_data = render("ib-gateway.yaml", {**GATEWAY, pin: "0" * 64})
    await vm.boot()
    await vm.host.until_said(
        "ibkr-gateway@paper.service: not started, since ibkr-gateway-install.service wasn't"
    )
    assert f"and {'0' * 64} is pinned: not used" in vm.host.text
    assert "ibkr-gateway-install.service" in vm.guest.status()["failed"]
    assert not list((vm.host.root / "var/cache/ibkr-gateway").iterdir())


async def test_a_missing_package_is_found_out(vm: Vm) -> None:
    vm.user_data = vm.user_data.replace("- unzip\n", "")
    await vm.boot()
    await vm.host.until_said("[FAILED] ibkr-gateway-install.service")
    assert "unzip: command not found" in vm.host.text


async def test_a_settings_disk_that_is_not_blank_is_left_alone(vm: Vm) -> None:
    vm.disk.mkdir()
    (vm.disk / "device").write_bytes(b"somebody's data")
    await vm.boot()
    await vm.host.until_said("[FAILED] ibkr-gateway-settings.service")
    assert "left alone" in vm.host.text
    assert (vm.disk / "device").read_bytes() == b"somebody's data"


async def test_a_reboot_installs_nothing_again_and_logs_in_anew(vm: Vm, exchange: Exchange) -> None:
    await exchange.add_user("ib user", PASSWORD)
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    (vm.disk / "content/paper/layout.xml").write_text("the user's settings")
    await vm.power_off()
    assert not (await exchange.user("ib user"))["logged_in"]
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    assert "installing IB Gateway" not in vm.host.text
    assert "formatting" not in vm.host.text
    assert (vm.host.root / "srv/ibkr-gateway/paper/layout.xml").read_text() == "the user's settings"


async def test_the_settings_outlive_the_vm(vm: Vm, exchange: Exchange, tmp_path: Path) -> None:
    await exchange.add_user("ib user", PASSWORD)
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    (vm.disk / "content/paper/layout.xml").write_text("the user's settings")
    await vm.power_off()
    vm.host.root = tmp_path / "another disk"
    vm.host.root.mkdir()
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    assert "formatting" not in vm.host.text
    assert (vm.host.root / "srv/ibkr-gateway/paper/layout.xml").read_text() == "the user's settings"


async def test_the_password_of_today_is_used_at_the_next_start(
    vm: Vm, exchange: Exchange, google: GoogleStandIn
) -> None:
    await exchange.add_user("ib user", "new password")
    await vm.boot()
    await vm.host.until_said("Login failed")
    google.keep_login(VERSION, "ib user", "new password")
    await vm.power_off()
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)


async def test_a_gateway_that_dies_is_waited_for_before_it_is_started_again(
    vm: Vm, exchange: Exchange
) -> None:
    await exchange.add_user("ib user", PASSWORD)
    await vm.boot()
    await vm.host.until_said(LOGGED_IN)
    gateway = next(n for n, words in enumerate(vm.host.spawned) if "localcloud.gateways.tws" in words)
    vm.host.processes[gateway].kill()
    await vm.host.until_said("ibkr-gateway@paper.service: restart in 30 s")
    assert vm.guest.status()["units"]["ibkr-gateway@paper.service"]["sub"] == "auto-restart"
    assert vm.state("ibkr-gateway-proxy@paper.service") == "active"
