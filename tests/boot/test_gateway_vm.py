"""The gateway VM's user data on a real systemd and cloud-init, up to a TWS handshake on the VPC port."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot import artefacts
from tests.boot.image import Image
from tests.boot.internet import NEIGHBOUR
from tests.boot.secrets import forms, holders
from tests.boot.vm import ADDRESS, PASSWORD, PINNED, USER, GatewayVm
from tests.fleet.values import LIVE, LIVE_GATEWAY, PAPER

pytestmark = pytest.mark.timeout(900)
UNITS = (
    "xvfb@paper",
    "ibkr-gateway-settings",
    "ibkr-gateway-install",
    "ibkr-gateway@paper",
    "ibkr-gateway-proxy@paper",
    "ibkr-gateway-health@paper",
)
HEALTH = "ibkr-gateway-health@paper.service"
VERSION = PAPER["credentials_version"]
LIVE_VERSION = LIVE["credentials_version"]


@pytest.fixture(scope="module")
def vm(boot_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayVm]:
    """A paper gateway's VM after its first boot, logged in. What the tests do to it, they undo."""
    with GatewayVm(boot_image, tmp_path_factory.mktemp("gateway")) as vm:
        vm.google.keep_login(VERSION, USER, PASSWORD)
        vm.ibkr.admin("add_user", name=USER, password=PASSWORD, mode="paper")
        vm.boot()
        vm.until_logged_in()
        yield vm


def test_cloud_init_and_every_unit_succeed(vm: GatewayVm) -> None:
    assert json.loads(vm.machine.file("run/cloud-init/result.json").read_text())["v1"]["errors"] == []
    vm.machine.until_active(*UNITS)
    assert vm.machine.failed() == []
    assert vm.ibkr.user(USER)["logged_in"]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_no_fault_in_a_unit_and_not_much_that_it_could_do(vm: GatewayVm, unit: str) -> None:
    assert vm.machine.unit_faults(f"{unit}.service") == ""
    assert vm.machine.exposure(f"{unit}.service") < 5


def test_the_health_that_monitoring_gets_has_crossed_to_ibkr(vm: GatewayVm) -> None:
    vm.machine.until(lambda: vm.latest("healthy") == ("healthy", 1), "the gateway is healthy")
    (series,) = {str(each["resource"]) for each in vm.google.points("healthy", "paper")}
    assert "us-west1-b" in series
    assert vm.latest("handshake") == ("healthy", 1)
    assert vm.latest("second_factor_waiting_seconds") == ("healthy", 0)


def test_its_own_reboots_are_off_and_security_updates_on(vm: GatewayVm) -> None:
    said = vm.machine.run("apt-config", "dump")
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in said
    assert 'APT::Periodic::Unattended-Upgrade "1";' in said
    assert 'APT::Periodic::Update-Package-Lists "1";' in said


def test_the_vpc_reaches_the_api_and_nothing_else(vm: GatewayVm) -> None:
    assert int(vm.handshake(4002)) >= 100
    for port in (14002, 7462, 6002):  # the gateway itself, IBC's commands, the display
        with pytest.raises(OSError, match="refused"):
            vm.internet.client(ADDRESS, port, NEIGHBOUR)


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        ("/etc/ibkr-gateway/paper.json", "root", 0o644),
        ("/etc/ibkr-gateway/machine.env", "root", 0o644),
        ("/opt/ibkr-gateway/render-config", "root", 0o755),
        ("/opt/ibc/scripts/ibcstart.sh", "root", 0o755),
        ("/run/ibkr-gateway/paper", "ibgateway", 0o700),
        ("/run/ibkr-gateway/paper/config.ini", "ibgateway", 0o600),
        ("/run/ibkr-gateway/paper/jts.ini", "ibgateway", 0o600),
        ("/srv/ibkr-gateway/paper", "ibgateway", 0o700),
        ("/srv/ibkr-gateway/paper/jts.ini", "ibgateway", 0o600),
        ("/var/lib/ibgateway/Jts/ibgateway/1045", "ibgateway", 0o755),
        ("/swapfile", "root", 0o600),
    ],
)
def test_files_have_their_owners_and_modes(vm: GatewayVm, path: str, owner: str, mode: int) -> None:
    found = vm.machine.file(path).stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert vm.machine.run("stat", "--format=%U", path).strip() == owner


def test_the_settings_disk_and_the_memory_are_what_they_should_be(vm: GatewayVm) -> None:
    mounts = {line.split()[1]: line.split() for line in vm.machine.run("cat", "/proc/mounts").splitlines()}
    assert mounts["/srv/ibkr-gateway"][2] == "ext4"
    assert {"nodev", "nosuid"} <= set(mounts["/srv/ibkr-gateway"][3].split(","))
    assert mounts["/run"][2] == "tmpfs"


def test_nothing_secret_is_on_a_disk_in_a_log_or_in_an_argument(vm: GatewayVm) -> None:
    machine = vm.machine
    machine.run("journalctl", "--flush", "--sync")
    secret = forms(USER, PASSWORD, base64.b64encode(vm.google.secrets[VERSION]).decode())
    assert holders(machine.file("run/ibkr-gateway/paper/config.ini"), secret), "the search finds it"
    assert holders(machine.upper, secret) == []
    assert holders(machine.disk_image("ibkr-settings"), secret) == []
    said = machine.console + machine.journal() + machine.run("sh", "-c", "cat /var/log/cloud-init*.log")
    assert not any(form.decode("utf-8", "replace") in said for form in secret)
    for process in machine.file("proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            assert not any(form in _read(process / name) for form in secret)


def test_a_second_boot_logs_in_again_and_installs_nothing(vm: GatewayVm) -> None:
    vm.machine.file("srv/ibkr-gateway/paper/layout.xml").write_text("the user's settings")
    vm.machine.power_off()
    assert not vm.ibkr.user(USER)["logged_in"]
    vm.boot()
    vm.until_logged_in()
    vm.machine.until_active(*UNITS)
    assert vm.machine.failed() == []
    assert int(vm.handshake(4002)) >= 100
    assert "installing" not in vm.machine.journal("ibkr-gateway-install.service")
    assert "formatting" not in vm.machine.journal("ibkr-gateway-settings.service")
    assert vm.machine.file("srv/ibkr-gateway/paper/layout.xml").read_text() == "the user's settings"


def test_a_gateway_that_hangs_is_ended_by_a_user_who_can_read_no_login(vm: GatewayVm) -> None:
    machine = vm.machine
    # The watchdog's patience is what is changed here; that it has some is shown in tests/machines.
    hurried = "\nFAILURES = 1; HANGING_SECONDS = SETTLING_SECONDS = 0; is_quiet = lambda *_: False\n"
    machine.run("sh", "-c", "cat >>/opt/ibkr-gateway/watchdog.py", stdin=hurried)
    machine.run("sed", "-i", "s/^EVERY_SECONDS = .*/EVERY_SECONDS = 4.0/", "/opt/ibkr-gateway/health")
    machine.run("systemctl", "restart", HEALTH)
    process = machine.show(HEALTH, "MainPID")
    assert machine.run("stat", "--format=%U", f"/proc/{process}").strip() == "ibgateway-health"
    machine.run("pkill", "-STOP", "--exact", "java")
    machine.until(lambda: '"event": "restart"' in machine.journal(HEALTH), "the watchdog acted")
    machine.until(
        lambda: machine.show("ibkr-gateway@paper", "SubState") == "auto-restart", "systemd will start it"
    )
    assert vm.latest("handshake")[1] == 0


def test_a_live_gateway_waits_for_its_person_and_keeps_its_session_over_a_stop(
    boot_image: Image, tmp_path: Path
) -> None:
    with GatewayVm(boot_image, tmp_path) as vm:
        vm.google.keep_login(LIVE_VERSION, USER, PASSWORD)
        vm.ibkr.admin("add_user", name=USER, password=PASSWORD, mode="live", second_factor=True)
        vm.google.objects[LIVE_GATEWAY["gateway_source"]] = artefacts.installer()
        vm.boot(**{**LIVE_GATEWAY, **PINNED})
        vm.until_said("Second Factor Authentication initiated", "live")
        vm.machine.until(lambda: vm.latest("healthy", "live") == ("second_factor", 0), "monitoring knows")
        assert vm.latest("second_factor_waiting_seconds", "live")[1] > 0
        assert vm.machine.state("ibkr-gateway@live.service") == "active", "it waits"
        vm.ibkr.admin("approve_second_factor", name=USER)
        vm.until_logged_in("live")
        vm.machine.until(lambda: vm.latest("healthy", "live") == ("healthy", 1), "it is healthy")
        vm.machine.power_off()
        vm.boot(**{**LIVE_GATEWAY, **PINNED})
        vm.until_logged_in("live")
        assert "Re-starting session" in vm.machine.journal("ibkr-gateway@live.service")
        assert "Second Factor" not in vm.machine.journal("ibkr-gateway@live.service")


@pytest.mark.parametrize("pin", ["gateway_sha256", "ibc_sha256"])
def test_a_download_with_another_checksum_is_not_run_and_the_console_says_so(
    boot_image: Image, tmp_path: Path, pin: str
) -> None:
    with GatewayVm(boot_image, tmp_path) as vm:
        vm.google.keep_login(VERSION, USER, PASSWORD)
        vm.boot(**{pin: "0" * 64})
        vm.machine.until(
            lambda: "ibkr-gateway-install.service" in vm.machine.failed(), "the installation failed"
        )
        vm.machine.until(
            lambda: f"and {'0' * 64} is pinned: not used" in vm.machine.console, "the console says so"
        )
        assert vm.machine.state("ibkr-gateway@paper.service") == "inactive"
        assert not vm.machine.file("run/ibkr-gateway/paper/config.ini").exists(), "no login was fetched"
        assert list(vm.machine.file("var/cache/ibkr-gateway").iterdir()) == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the process has ended
