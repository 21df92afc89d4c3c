"""A machine that really boots: systemd as process 1, in namespaces, on an overlay over the image.

It has its own processes, mounts, host name, cgroups and network; its disk is a folder that outlives a power
cycle, its memory (/run, /tmp) doesn't. User data comes as every cloud gives it, from outside and at each boot
(cloud-init's NoCloud). All of it ends with the process that `unshare` started: nothing stays mounted on this
machine.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.boot.image import Image
from tests.boot.internet import Internet
from tests.boot.loop_device import LoopDevice

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 180.0
"""How long a machine may take for anything before it counts as stuck; a loaded computer is slow."""

_DATASOURCE = """\
datasource_list: [NoCloud]
network: {config: disabled}
# A namespace has no disk to grow, and its clock, host name and locale are this machine's.
growpart: {mode: "off"}
resize_rootfs: false
locale: false
ssh_deletekeys: false
ssh_genkeytypes: []
"""

# Reads one line when the network is there. The devices are made anew: this machine's /dev holds its disks.
_BEGIN = """\
set -eu
mount --make-rprivate /
mkdir -p "$WORK/root" "$WORK/work"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK/work" "$WORK/root"
cd "$WORK/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8; mknod -m 666 dev/urandom c 1 9; mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm dev/disk dev/disk/by-id
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
touch dev/console; mount --bind "$CONSOLE" dev/console
for disk in $DISKS; do
    number=${disk##*=}
    mknod -m 660 "dev/loop$number" b 7 "$number"
    ln -s "/dev/loop$number" "dev/disk/by-id/google-${disk%%=*}"
done
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p var/lib/docker
mount --bind "$DOCKER" var/lib/docker
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir "sys/fs/cgroup/$NAME"
echo 0 > "sys/fs/cgroup/$NAME/cgroup.procs"
umount sys/fs/cgroup
exec unshare --cgroup sh -c '
    set -eu
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    echo ready
    read -r _
    exec chroot . env -i container=docker PATH="$PATH" /sbin/init </dev/null >/dev/null 2>&1
'
"""


class Machine:
    """One machine in `internet`'s network at `address`, with a disk at `folder` and its attached `disks` by
    name.
    """

    def __init__(
        self, image: Image, internet: Internet, folder: Path, address: str, disks: Sequence[str] = ()
    ) -> None:
        self._image, self._internet, self._folder, self.address = image, internet, folder, address
        self.upper, self.docker = folder / "disk", folder / "docker"
        for part in (self.upper, self.docker):
            part.mkdir(parents=True)
        self._disks = {name: LoopDevice(folder / f"{name}.img") for name in disks}
        self.console = ""
        self._unshare: subprocess.Popen[str] | None = None
        self._pid, self._since = 0, 0.0
        self._name = ""
        self.write("etc/cloud/cloud.cfg.d/99-boot-tests.cfg", _DATASOURCE)
        self.write("etc/hosts", "127.0.0.1 localhost\n" + internet.hosts)

    def mask(self, *units: str) -> None:
        """Keeps units from ever starting."""
        for unit in units:
            link = self.upper / "etc/systemd/system" / unit
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/dev/null")

    # -- power -------------------------------------------------------------------------------------

    def boot(self, user_data: str) -> None:
        """Switches it on, and waits until cloud-init has done its work."""
        seed = "var/lib/cloud/seed/nocloud"
        self.write(f"{seed}/user-data", user_data, 0o600)
        self.write(f"{seed}/meta-data", f"instance-id: i-boot-tests\nlocal-hostname: {self._folder.name}\n")
        self._power_on()
        self.until(lambda: self.file("run/cloud-init/result.json").exists(), "cloud-init ended")

    def power_off(self) -> None:
        """Shuts it down in order, as a cloud does when somebody stops the machine."""
        assert self._unshare
        self.run("systemctl", "poweroff", check=False)
        try:
            self._unshare.wait(SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """Takes its power away; nothing if it is off."""
        if self._unshare is None:
            return
        if self._unshare.poll() is None:
            os.kill(self._pid, 9)  # process 1 of its namespace: all the others end with it
            self._unshare.wait(30)
        self._unshare, self._pid = None, 0
        self._internet.forget(self._name)
        _remove_cgroups(self._name)
        shutil.rmtree(self._folder / "overlay", ignore_errors=True)

    def close(self) -> None:
        """Switches it off and takes its disks away."""
        self.kill()
        for disk in self._disks.values():
            disk.close()

    def _power_on(self) -> None:
        assert self._unshare is None, "it is on"
        # Not journalctl's --boot: the kernel, and so the number of its boot, stays the same.
        self.console, self._since = "", time.time()
        self._name = f"boot{os.getpid() % 100000}x{time.monotonic_ns() % 10000}"
        master, slave = pty.openpty()
        environment = {
            "PATH": PATH, "NAME": self._name, "CONSOLE": os.ttyname(slave), "LOWER": str(self._image.root),
            "UPPER": str(self.upper), "WORK": str(self._folder / "overlay"), "DOCKER": str(self.docker),
            "DISKS": " ".join(f"{name}={disk.number}" for name, disk in self._disks.items()),
        }  # fmt: skip
        self._unshare = subprocess.Popen(
            ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net",
             "sh", "-c", _BEGIN],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._unshare.stdin
        assert self._unshare.stdout
        assert self._unshare.stderr
        if self._unshare.stdout.readline() != "ready\n":
            raise AssertionError(f"the machine's namespaces couldn't be made: {self._unshare.stderr.read()}")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text()
        self._pid = int(children)
        self._internet.connect(self._name, self._pid, self.address)
        threading.Thread(target=self._read_console, args=(master, slave), daemon=True).start()
        self._unshare.stdin.write("go\n")
        self._unshare.stdin.close()

    def _read_console(self, master: int, slave: int) -> None:
        """Collects what is written to the serial console, until the machine is off."""
        machine = self._unshare
        while machine and machine.poll() is None:
            if select.select([master], [], [], 0.2)[0]:
                self.console += os.read(master, 65536).decode(errors="replace").replace("\r\n", "\n")
        os.close(master)
        os.close(slave)

    # -- a look inside -----------------------------------------------------------------------------

    def file(self, path: str) -> Path:
        """A path of the machine as it is seen from here, /run and mounted disks included."""
        return Path(f"/proc/{self._pid}/root") / path.lstrip("/")

    @property
    def _enter(self) -> list[str]:
        """In front of a command, runs it inside."""
        namespaces = ["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"]
        inside = ["env", "-i", f"PATH={PATH}", "LC_ALL=C.UTF-8"]
        return ["nsenter", "-t", str(self._pid), *namespaces, *inside]

    def disk_image(self, name: str) -> Path:
        """The file behind an attached disk."""
        return self._disks[name].file

    def run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        """What a command prints inside, run by root."""
        done = subprocess.run(
            [*self._enter, *command], capture_output=True, text=True, input=stdin, timeout=SECONDS
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{shlex.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    def state(self, unit: str) -> str:
        """A unit's state in systemd's words."""
        return self.run("systemctl", "is-active", unit, check=False).strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def failed(self) -> list[str]:
        """The units that have failed."""
        listed = self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return [line.split()[0] for line in listed.splitlines()]

    def journal(self, *unit: str) -> str:
        """What units have said since the boot; what the whole machine said, for none."""
        return self.run(
            "journalctl", f"--since=@{self._since:.6f}", "--no-pager", *(f"--unit={name}" for name in unit)
        )

    def unit_faults(self, unit: str) -> str:
        """What systemd finds wrong with a unit's file; empty for nothing."""
        done = subprocess.run(
            [*self._enter, "systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=SECONDS
        )
        return "" if done.returncode == 0 and not done.stderr else done.stdout + done.stderr

    def exposure(self, unit: str) -> float:
        """systemd's figure for how much a unit could do: 0 is little, 10 is everything."""
        said = self.run("systemd-analyze", "security", "--no-pager", unit)
        return float(re.findall(r"exposure level for \S+ ([0-9.]+)", said)[-1])

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits for something that will happen. Shows console and journal when it doesn't."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if self._unshare is None or self._unshare.poll() is not None:
                raise AssertionError(f"the machine went off before {what}:\n{self.console[-4000:]}")
            if time.monotonic() > deadline:
                journal = self.journal()[-9000:]
                raise AssertionError(f"it isn't so that {what}:\n{self.console[-4000:]}\n{journal}")
            time.sleep(0.1)

    def until_active(self, *units: str) -> None:
        """Waits until units are up."""
        self.until(lambda: all(self.state(unit) == "active" for unit in units), f"{units} are active")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Puts a file on the disk of a machine that is off, as its image would have it."""
        file = self.upper / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)


def _remove_cgroups(name: str) -> None:
    """Removes the machine's cgroups, which the kernel keeps when their processes are gone."""
    with tempfile.TemporaryDirectory() as folder:
        script = 'mount -t cgroup2 cgroup2 "$1" && find "$1/$2" -depth -type d -exec rmdir {} +'
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", folder, name], capture_output=True, timeout=30
        )
