"""Paper and live on one VM, with Google's Ops Agent: what befalls the one doesn't touch the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.boot.apt_repository import PACKAGE
from tests.boot.image import Image
from tests.boot.vm import PASSWORD, PINNED, USER, GatewayVm
from tests.fleet.values import BOTH_GATEWAYS, LIVE, PAPER

pytestmark = pytest.mark.timeout(900)
MODES = ("paper", "live")
PARTS = (f"{PACKAGE}-fluent-bit.service", f"{PACKAGE}-opentelemetry-collector.service")
AGENT = "ibkr-ops-agent.service"
SLIP = "IbPassword=hunter2 of a slip"


@pytest.fixture(scope="module")
def vm(boot_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayVm]:
    """Both gateways after the first boot, of which live waits for its second factor, and no Ops Agent: what
    Google's repository is signed with isn't what is pinned.
    """
    with GatewayVm(boot_image, tmp_path_factory.mktemp("both")) as vm:
        vm.google.keep_login(PAPER["credentials_version"], USER, PASSWORD)
        vm.google.keep_login(LIVE["credentials_version"], "live user", PASSWORD)
        vm.ibkr.admin("add_user", name=USER, password=PASSWORD, mode="paper")
        vm.ibkr.admin("add_user", name="live user", password=PASSWORD, mode="live", second_factor=True)
        vm.boot(**{**BOTH_GATEWAYS, **PINNED})
        vm.until_logged_in("paper")
        yield vm


def test_each_has_a_health_of_its_own(vm: GatewayVm) -> None:
    vm.until_said("Second Factor Authentication initiated", "live")
    vm.machine.until(lambda: vm.latest("healthy", "live") == ("second_factor", 0), "live waits")
    vm.machine.until(lambda: vm.latest("healthy", "paper") == ("healthy", 1), "paper is healthy meanwhile")
    assert vm.latest("second_factor_waiting_seconds", "paper") == ("healthy", 0)
    vm.ibkr.admin("approve_second_factor", name="live user")
    vm.until_logged_in("live")
    vm.machine.until(lambda: vm.latest("healthy", "live") == ("healthy", 1), "live is healthy")


def test_one_that_is_killed_leaves_the_other(vm: GatewayVm) -> None:
    for port in (4001, 4002):
        assert int(vm.handshake(port)) >= 100
    vm.machine.run("systemctl", "kill", "--signal=KILL", "ibkr-gateway@live.service")
    vm.machine.until(lambda: vm.machine.show("ibkr-gateway@live", "SubState") == "auto-restart", "it waits")
    assert int(vm.handshake(4002)) >= 100
    with pytest.raises(OSError, match="handshake"):
        vm.handshake(4001)
    assert vm.machine.show("ibkr-gateway@paper", "NRestarts") == "0"
    assert {user: vm.ibkr.user(user)["logged_in"] for user in (USER, "live user")} == {
        USER: True,
        "live user": False,
    }


def test_each_keeps_to_files_of_its_own(vm: GatewayVm) -> None:
    for mode in MODES:
        assert vm.machine.run("stat", "--format=%U %a", f"/srv/ibkr-gateway/{mode}") == "ibgateway 700\n"
    written = vm.machine.show("ibkr-gateway@paper", "ReadWritePaths")
    assert written.split() == ["/srv/ibkr-gateway/paper", "/var/lib/ibgateway"]


def test_without_the_pinned_key_there_is_no_agent_and_the_console_says_so(vm: GatewayVm) -> None:
    vm.machine.until(lambda: "Ops Agent: not installed" in vm.machine.console, "the console says so")
    vm.machine.until(lambda: vm.latest("ops_agent") == ("healthy", 0), "monitoring knows")
    assert not vm.machine.file("/etc/apt/sources.list.d/google-cloud-ops-agent.list").exists()


def test_with_the_pinned_key_the_agent_is_installed_and_keeps_secrets_here(vm: GatewayVm) -> None:
    machine = vm.machine
    machine.run("systemd-cat", "--identifier=slip", stdin=f"{SLIP}\n")
    machine.run("sed", "-i", f"s/=.*/='{vm.repository.fingerprint}'/", "/etc/ibkr-gateway/ops-agent.env")
    machine.run("systemctl", "restart", AGENT)
    machine.until_active(AGENT, *PARTS)
    assert "type: exclude_logs" in machine.file(f"/etc/{PACKAGE}/config.yaml").read_text(), "it is still ours"
    for part in PARTS:
        assert machine.show(part, "MemoryMax") == str(300 * 1024**2)
    assert machine.unit_faults(AGENT) == ""
    assert machine.exposure(AGENT) < 5
    machine.run("systemd-cat", "--identifier=end", stdin="the end of what was logged\n")
    machine.until(lambda: "the end of what was logged" in vm.google.logged(), "the journal arrived")
    there = vm.google.logged()
    here = [line for line in machine.run("journalctl", "--output=cat").splitlines() if line in (SLIP, *there)]
    assert SLIP in here
    assert SLIP not in there
    assert any("Login has completed" in line for line in there)
    machine.until(lambda: vm.latest("ops_agent")[1] == 1, "monitoring knows")


def test_what_restarts_services_after_security_updates_spares_those_of_the_gateway(vm: GatewayVm) -> None:
    # needrestart can't look into the units' own mount namespaces here, so it is shown on names.
    machine = vm.machine
    ours, others = "ibkr-gateway-sleeps.service", "sleeps.service"
    for unit in (ours, others):
        sleeps = "[Service]\nExecStart=/bin/sleep infinity\n"
        machine.run("sh", "-c", f"cat >/run/systemd/system/{unit}", stdin=sleeps)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", ours, others)
    before = {unit: machine.show(unit, "MainPID") for unit in (ours, others)}
    # As an update does it: the library is another file now, and what runs has the old one open.
    library = machine.run("sh", "-c", "readlink -f /lib/*/libc.so.6").strip()
    machine.run("cp", "--preserve=all", library, f"{library}.new")
    machine.run("mv", f"{library}.new", library)
    machine.run("needrestart", "-r", "a", "-q", check=False)
    machine.until(lambda: machine.show(others, "MainPID") not in ("0", before[others]), "the other restarts")
    assert machine.show(ours, "MainPID") == before[ours]
