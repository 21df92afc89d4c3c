"""What a machine's scripts find on their PATH: tools of this laptop, stand-ins, and nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator

import pytest

from localcloud.machines.guest import Guest
from tests.machines.laptop import LaptopHost

HARMFUL = ["reboot", "shutdown -h now", "mkfs.xfs /dev/sda", "dd if=/dev/zero of=/x", "ssh x"]


class Machine:
    """A machine whose first boot runs the lines that a test gives."""

    def __init__(self, host: LaptopHost) -> None:
        self.host = host
        self.guest: Guest | None = None

    async def run(self, *lines: str, packages: str = "docker.io, socat, unzip") -> str:
        """Runs lines of shell; what they and the machine said."""
        commands = "".join(f"- {json.dumps(line)}\n" for line in lines)
        user_data = f"#cloud-config\npackages: [{packages}]\nruncmd:\n{commands}"
        self.guest = Guest(self.host, user_data, "gce", disks={"data": self.host.root.parent / "data"})
        await self.guest.boot()
        return self.host.text

    @property
    def progress(self) -> object:
        assert self.guest
        return self.guest.status()["cloud_init"]


@pytest.fixture
async def machine(host: LaptopHost) -> AsyncIterator[Machine]:
    machine = Machine(host)
    yield machine
    if machine.guest:
        await machine.guest.shutdown()


@pytest.mark.parametrize("command", HARMFUL)
async def test_what_could_harm_this_laptop_is_not_found(machine: Machine, command: str) -> None:
    said = await machine.run(command)
    assert "not found" in said
    assert machine.progress == "error"


@pytest.mark.parametrize("package", ["docker", "socat", "unzip"])
async def test_a_program_whose_package_is_not_installed_is_not_found(machine: Machine, package: str) -> None:
    said = await machine.run(f"{package} --version", packages="curl")
    assert f"{package}: command not found" in said


async def test_apt_get_makes_a_package_be_there(machine: Machine) -> None:
    await machine.run("apt-get install -y docker.io", "docker pull voyz/ibeam:0.5.12", packages="curl")
    assert machine.progress == "done"


async def test_scripts_write_to_the_machines_disk(machine: Machine) -> None:
    await machine.run(
        "mkdir -p /etc/x", "echo hello > /etc/x/y", "chmod 0600 /etc/x/y", "cp /etc/x/y /root/z"
    )
    assert (machine.host.root / "etc/x/y").read_text() == "hello\n"
    assert (machine.host.root / "root/z").read_text() == "hello\n"
    assert not os.path.exists("/etc/x/y")  # noqa: ASYNC240, PTH110 - a look at this laptop


async def test_python_is_the_one_that_runs_this(machine: Machine) -> None:
    await machine.run('python3 -c \'import sys; open("/etc/v", "w").write(sys.version)\'')
    assert (machine.host.root / "etc/v").read_text() == sys.version


async def test_owners_are_noted_since_this_laptop_has_no_such_users(machine: Machine) -> None:
    await machine.run(
        "mkdir -p /srv/a/b",
        "chown -R 1000:1000 /srv/a",
        "install -d -o ibgateway -g ibgateway -m 0700 /srv/c",
    )
    assert machine.guest
    assert machine.guest.owners["/srv/a/b"] == "1000:1000"
    assert machine.guest.owners["/srv/c"] == "ibgateway"
    assert (machine.host.root / "srv/c").stat().st_mode & 0o777 == 0o700


async def test_a_disk_is_mounted_until_the_power_is_off(machine: Machine) -> None:
    await machine.run(
        "mkdir -p /mnt/data",
        "mountpoint -q /mnt/data || mkfs.ext4 -q /dev/disk/by-id/google-data",
        "mount -o nodev /dev/disk/by-id/google-data /mnt/data",
        "mountpoint -q /mnt/data && echo kept > /mnt/data/file",
    )
    assert (machine.host.root / "mnt/data/file").read_text() == "kept\n"
    assert machine.guest
    await machine.guest.shutdown()
    assert list((machine.host.root / "mnt/data").iterdir()) == []
    assert (machine.host.root.parent / "data/content/file").read_text() == "kept\n"


async def test_a_disk_that_is_not_attached_cannot_be_mounted(machine: Machine) -> None:
    said = await machine.run("mkdir -p /mnt/x", "mount /dev/disk/by-id/google-other /mnt/x")
    assert "can't read superblock" in said


async def test_iptables_remembers_chains_and_rules(machine: Machine) -> None:
    await machine.run(
        "iptables -C INPUT -j MINE || iptables -N MINE",
        "iptables -A MINE -s 10.0.0.1 -j ACCEPT",
        "iptables -I INPUT -j MINE",
        "iptables -C INPUT -j MINE && touch /etc/checked",
        "iptables -N MINE || iptables -F MINE",
        "iptables -A MINE -j DROP",
        "ip6tables -A INPUT -j DROP",
        "iptables -A NONE -j DROP || touch /etc/refused",
    )
    assert machine.guest
    assert machine.guest.status()["firewall"] == {
        "iptables:INPUT": ["-j MINE"],
        "iptables:MINE": ["-j DROP"],
        "ip6tables:INPUT": ["-j DROP"],
    }
    assert (machine.host.root / "etc/checked").exists()
    assert (machine.host.root / "etc/refused").exists()


async def test_curl_gets_what_is_served_and_nothing_else(machine: Machine) -> None:
    said = await machine.run(
        "curl -fsS -o /tmp/i.sh https://download2.interactivebrokers.com/x/ibgateway-stable-linux-x64.sh",
        "curl --output /tmp/x https://example.org/x || echo status $?",
    )
    assert (machine.host.root / "tmp/i.sh").read_text().startswith("#!/bin/sh")
    assert "the local cloud doesn't serve https://example.org/x" in said
    assert "status 6" in said


async def test_docker_knows_one_image(machine: Machine) -> None:
    said = await machine.run("docker run -d nginx || echo status $?")
    assert "pull access denied for nginx" in said
    assert "status 125" in said


async def test_a_detached_container_stays_after_its_command(machine: Machine) -> None:
    machine.host.environment["IBKR_SERVERS"] = "127.0.0.1:1"
    await machine.run(
        "docker run -d --name one -p 5000:5000 -p 127.0.0.1:5001:5001 -e IBEAM_ACCOUNT=x voyz/ibeam"
    )
    assert machine.guest
    assert machine.guest.status()["containers"] == ["one"]
    assert list(machine.host.ports) == [5000]
    await machine.guest.shutdown()
    assert machine.host.ports == {}


async def test_a_containers_log_and_name_stay_until_it_is_removed(machine: Machine) -> None:
    machine.host.environment["IBKR_SERVERS"] = "127.0.0.1:1"
    said = await machine.run(
        "docker run -d --name one -e IBEAM_ACCOUNT=x -e IBEAM_PASSWORD=y voyz/ibeam",
        "until docker logs --tail 1 one | grep 'Logging in failed'; do sleep 0.1; done",
        "docker stop one",
        "docker logs one | grep 'No active sessions'",
        "docker run -d --name one voyz/ibeam || echo status $?",
        "docker rm --force one && docker logs one || echo gone",
    )
    assert machine.progress == "done"
    assert 'The container name "/one" is already in use' in said
    assert "No such container: one" in said
    assert "gone" in said


async def test_a_port_that_is_published_on_loopback_is_the_machines_own(machine: Machine) -> None:
    machine.host.environment["IBKR_SERVERS"] = "127.0.0.1:1"
    await machine.run("docker run -d --name one -p 127.0.0.1:5010:5000 voyz/ibeam")
    assert machine.host.ports == {}
    assert (machine.host.run / ".m/port-5010").is_symlink()


async def test_a_unit_that_a_script_starts_can_be_asked_for(machine: Machine) -> None:
    unit = '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/sh -c "exit 0"\\n'
    said = await machine.run(
        "systemctl is-active x || echo before",
        f"printf '{unit}' > /etc/systemd/system/x.service",
        "systemctl daemon-reload",
        "systemctl start x && systemctl is-active x",
    )
    assert "runcmd: inactive" in said
    assert "runcmd: active" in said


async def test_a_failing_boot_command_is_said_and_the_boot_goes_on(host: LaptopHost) -> None:
    guest = Guest(host, "#cloud-config\nbootcmd: [[no-such-command]]\nruncmd: [[touch, /etc/done]]\n", "gce")
    await guest.boot()
    assert "cloud-init: bootcmd ended with status 127" in host.text
    assert (host.root / "etc/done").exists()
    await guest.shutdown()


async def test_user_data_that_cannot_be_read_is_said_and_the_machine_is_there(host: LaptopHost) -> None:
    guest = Guest(host, "hello", "gce")
    await guest.boot()
    assert guest.status()["cloud_init"] == "error"
    assert "cloud-init: user data is neither a script" in host.text
    await guest.shutdown()


async def test_a_machine_without_user_data_boots(host: LaptopHost) -> None:
    guest = Guest(host, "", "gce")
    await guest.boot()
    assert guest.status() == {
        "cloud_init": "done", "units": {}, "failed": [], "containers": [], "firewall": {}
    }  # fmt: skip
    await guest.shutdown()


async def test_a_service_that_says_when_it_is_ready_is_waited_for(host: LaptopHost) -> None:
    script = (
        "#!/usr/bin/python3\\nimport os, socket, signal, sys\\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'])\\n"
        "s.send(b'STATUS=warming up'); open('/etc/warm', 'w').close(); s.send(b'READY=1')\\n"
        "signal.pause()\\n"
    )
    user_data = (
        "#cloud-config\nwrite_files:\n"
        f'- {{path: /opt/n, permissions: "0755", content: "{script}"}}\n'
        '- {path: /etc/systemd/system/n.service, content: "[Service]\\nType=notify\\nExecStart=/opt/n\\n"}\n'
        "runcmd: ['systemctl start n && touch /etc/started']\n"
    )
    guest = Guest(host, user_data, "gce")
    await guest.boot()
    assert (host.root / "etc/warm").exists()
    assert (host.root / "etc/started").exists()
    assert guest.status()["units"]["n.service"]["state"] == "active"
    await guest.shutdown()


async def test_a_machine_off_the_internet_installs_nothing(host: LaptopHost) -> None:
    user_data = "#cloud-config\npackages: [docker.io]\nruncmd: ['curl https://x/IBCLinux.zip', 'docker ps']\n"
    guest = Guest(host, user_data, "gce", offline=lambda: "the network has no NAT")
    await guest.boot()
    assert "cloud-init: no package could be installed: the network has no NAT" in host.text
    assert "Connection timed out: the network has no NAT" in host.text
    assert "docker: command not found" in host.text
    await guest.shutdown()


async def test_what_was_installed_once_needs_the_internet_no_more(host: LaptopHost) -> None:
    host.environment["IBKR_SERVERS"] = "127.0.0.1:1"
    user_data = "#cloud-config\npackages: [docker.io]\nruncmd: [docker pull voyz/ibeam]\n"
    first = Guest(host, user_data, "droplet")
    await first.boot()
    await first.shutdown()
    again = "#cloud-config\nbootcmd: [docker run -d --name one voyz/ibeam, docker pull voyz/ibeam:2]\n"
    second = Guest(host, again, "droplet", offline=lambda: "cut off")
    await second.boot()
    assert second.status()["containers"] == ["one"]
    assert "i/o timeout: cut off" in host.text
    await second.shutdown()
