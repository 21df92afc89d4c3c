"""The droplets' user data on real systemd, cloud-init and Docker, up to a tickle through the pinned proxy."""

from __future__ import annotations

import base64
import json
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.droplet import ACCOUNT, ADDRESS, ENROLMENT_TOKEN, PASSWORD, TOKEN, USER, Droplet
from tests.boot.image import Image
from tests.boot.internet import NEIGHBOUR, SERVICE
from tests.boot.registry import Registry
from tests.boot.secrets import forms, holders

pytestmark = pytest.mark.timeout(900)
UNITS = ("docker", "ibeam-firewall", "ibeam-agent", "ibeam")
SECRETS = forms(PASSWORD, TOKEN, USER, base64.b64encode(PASSWORD.encode()).decode())


@pytest.fixture(scope="module")
def registry(boot_image: Image) -> Registry:
    """Docker Hub, with its one image made."""
    return Registry(boot_image)


@pytest.fixture(scope="module")
def declared(
    boot_image: Image, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Droplet]:
    """A declared droplet after its first boot, logged in."""
    with Droplet(boot_image, tmp_path_factory.mktemp("droplet"), registry) as droplet:
        droplet.boot_declared()
        until_authenticated(droplet)
        yield droplet


def until_authenticated(droplet: Droplet) -> None:
    """Waits until a tickle says that IBeam is logged in."""

    def is_authenticated() -> bool:
        try:
            return droplet.is_authenticated()
        except OSError:
            return False

    droplet.machine.until(is_authenticated, "the gateway is authenticated")


def until_forgotten(droplet: Droplet) -> None:
    """Waits until cloud-init's copies of user_data are removed, which happens after all else."""
    said = "copies of user_data are removed"
    droplet.machine.until(
        lambda: said in droplet.machine.journal("forget-user-data.service"), "user_data is forgotten"
    )


def test_cloud_init_and_every_unit_succeed(declared: Droplet) -> None:
    result = declared.machine.file("run/cloud-init/result.json").read_text()
    assert json.loads(result)["v1"]["errors"] == []
    declared.machine.until_active(*UNITS)
    assert declared.machine.failed() == []
    assert declared.ibkr.user(USER)["logged_in"]


@pytest.mark.parametrize("unit", ["ibeam-agent", "ibeam-firewall", "ibeam", "forget-user-data"])
def test_systemd_finds_no_fault_in_a_unit_and_not_much_that_it_could_do(declared: Droplet, unit: str) -> None:
    assert declared.machine.unit_faults(f"/etc/systemd/system/{unit}.service") == ""
    assert declared.machine.exposure(f"{unit}.service") < 5


def test_who_has_the_token_and_the_certificate_is_served(declared: Droplet) -> None:
    until_authenticated(declared)
    assert declared.ask("POST", "/v1/api/tickle", X_Gateway_Token="another")[0] == 401
    with declared.internet.client(ADDRESS, 5000) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname=ADDRESS)


@pytest.mark.parametrize(
    ("port", "source"),
    [(5001, SERVICE), (5010, SERVICE), (22, NEIGHBOUR), (5000, NEIGHBOUR), (5001, NEIGHBOUR)],
)
def test_nothing_else_is_open(declared: Droplet, port: int, source: str) -> None:
    with pytest.raises(OSError, match=r"timed out|refused"):
        declared.internet.client(ADDRESS, port, source, timeout=1)


def test_the_container_reaches_ibkr_and_not_the_clouds_metadata(declared: Droplet) -> None:
    script = "import socket, sys; socket.create_connection((sys.argv[1], 80), 2).close()"
    reach = ["docker", "exec", "ibeam", "python3", "-c", script]
    declared.machine.run(*reach, "198.51.100.10")
    with pytest.raises(AssertionError, match="timed out"):
        declared.machine.run(*reach, "169.254.169.254")


def test_a_declared_login_is_in_one_file_of_roots_and_in_memory(declared: Droplet) -> None:
    machine = declared.machine
    until_forgotten(declared)
    machine.run("journalctl", "--flush", "--sync")
    kept = machine.upper / "etc/ibeam/agent.json"
    assert holders(machine.upper, SECRETS) == [kept]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
    assert holders(machine.docker, SECRETS) == []
    said = machine.console + machine.journal() + machine.run("sh", "-c", "cat /var/log/cloud-init*.log")
    assert not any(form.decode() in said for form in SECRETS)


def test_a_second_boot_logs_in_again_with_the_same_certificate(declared: Droplet) -> None:
    before = declared.certificate
    declared.machine.power_off()
    declared.boot_declared()
    until_authenticated(declared)
    assert declared.certificate == before
    assert declared.machine.failed() == []


def test_a_run_time_droplet_enrols_and_is_pushed_its_login(
    boot_image: Image, registry: Registry, tmp_path: Path
) -> None:
    with Droplet(boot_image, tmp_path, registry) as droplet:
        droplet.boot_enrolling()
        droplet.machine.until(lambda: droplet.enrolments, "it enrolled")
        shown = {"account_id": ACCOUNT, "token": ENROLMENT_TOKEN, "certificate": droplet.certificate}
        assert droplet.enrolments == [shown]
        assert droplet.push_login() == 204
        until_authenticated(droplet)
        secret = droplet.machine.file("run/ibeam/secrets/password").stat()
        assert (stat.S_IMODE(secret.st_mode), secret.st_uid) == (0o400, 1000)
        until_forgotten(droplet)
        assert holders(droplet.machine.upper, SECRETS) == []
        assert holders(droplet.machine.docker, SECRETS) == []
        droplet.machine.power_off()
        droplet.boot_enrolling()
        droplet.machine.until_active("ibeam-agent.service")
        droplet.machine.until(
            lambda: "at an earlier start" in droplet.machine.journal("ibeam-agent"), "it is up"
        )
        assert droplet.ask("GET", "/agent/health")[1]["has_credentials"] is False, "memory is gone"
        assert len(droplet.enrolments) == 1, "the token works once"


def test_a_snapshot_starts_its_own_ibeam_for_the_service_alone(
    boot_image: Image, registry: Registry, tmp_path: Path
) -> None:
    with Droplet(boot_image, tmp_path, registry) as droplet:
        droplet.boot_snapshot()
        droplet.machine.until_active("ibeam-firewall", "ibeam-starter")
        droplet.machine.until(lambda: droplet.ibkr.user(USER)["logged_in"], "it has logged in")
        assert droplet.machine.exposure("ibeam-starter.service") < 5
        droplet.internet.client(ADDRESS, 5000, SERVICE).close()
        for port, source in ((5000, NEIGHBOUR), (5001, SERVICE), (5001, NEIGHBOUR)):
            with pytest.raises(OSError, match=r"timed out|refused"):
                droplet.internet.client(ADDRESS, port, source, timeout=1)
        until_forgotten(droplet)
        env_list = droplet.machine.upper / "root/ibeam_files/env.list"
        # The snapshot's script gives the login to its container as environment, which Docker writes down.
        of_docker = droplet.machine.upper / "var/lib/containerd"
        found = holders(droplet.machine.upper, SECRETS)
        assert [path for path in found if not path.is_relative_to(of_docker)] == [env_list]
        assert stat.S_IMODE(env_list.stat().st_mode) == 0o600
        assert droplet.machine.failed() == []
