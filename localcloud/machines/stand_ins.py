"""What a machine's image, its packages and the internet supply, as the local cloud has it.

Each stand-in does what its users can tell: iptables remembers rules, mount makes a disk's content appear,
curl fetches what is served, docker and IBC start the paper gateways. `BY_PATH` are files that an installer
puts on the machine: without the installation they aren't there.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from localcloud.machines.artefacts import served
from localcloud.machines.calls import Call, Done, Exec, GuestMachine, Holding, Outcome, StandIn, option
from localcloud.machines.containers import docker
from localcloud.machines.disks import blkid, mkfs, mount, mountpoint
from localcloud.machines.packages import add_packages
from localcloud.machines.service import ProgramMissing
from localcloud.machines.systemctl import systemctl as do_systemctl
from localcloud.processes import module_environment

_NO_JARS, _NO_SETTINGS, _NO_INI = 4, 5, 6
_CURL_NO_HOST, _CURL_TIMEOUT = 6, 28
_APT_FAILED = 100


async def ibcstart(machine: GuestMachine, call: Call) -> Outcome:
    """IBC's ibcstart.sh: checks what it checks, with its exit statuses, and starts the paper gateway."""
    options = dict(word.split("=", 1) for word in call.arguments if word.startswith("--") and "=" in word)
    refusal = _ibc_refusal(machine, call, options)
    if refusal:
        return refusal
    ini, settings = Path(options["--ibc-ini"]), options["--tws-settings-path"]
    command = [sys.executable, "-m", "localcloud.gateways.tws", "--ibc-ini", str(ini)]
    mode = options.get("--mode", "live")
    command += ["--mode", mode]
    command += ["--socket", str(machine.port_socket(_api_port(ini)))]
    return await machine.host.spawn(command, env=module_environment(), cwd=settings, log=f"ibgateway {mode}")


def xvfb(machine: GuestMachine, call: Call) -> Outcome:
    """Xvfb: a display that programs may connect to while it runs."""
    _needs(machine, "xvfb", call)
    display = call.arguments[0]
    machine.displays.add(display)
    return Holding(lambda: machine.displays.discard(display))


def socat(machine: GuestMachine, call: Call) -> Outcome:
    """socat TCP4-LISTEN:P,... TCP4:127.0.0.1:Q: the machine's port P leads to its own port Q."""
    _needs(machine, "socat", call)
    ends = [word.split(",")[0] for word in call.words]
    kinds = [end.split(":")[0].upper() for end in ends]
    if len(ends) != 2 or "LISTEN" not in kinds[0] or not kinds[1].startswith("TCP"):
        return Done(1, stderr=f"socat: the local cloud does TCP-LISTEN to TCP only, not {' '.join(ends)}\n")
    port = int(ends[0].rsplit(":", 1)[1])
    machine.host.listen(port, machine.port_socket(int(ends[1].rsplit(":", 1)[1])))
    return Holding(lambda: machine.host.unlisten(port))


async def systemctl(machine: GuestMachine, call: Call) -> Outcome:
    """systemctl, on the machine's units."""
    code, text = await do_systemctl(machine.units, call.arguments)
    text = f"{text}\n" if text else ""
    return Done(code, stdout=text) if code in (0, 3) else Done(code, stderr=text)


def curl(machine: GuestMachine, call: Call) -> Outcome:
    """curl --output FILE URL, for what the internet of the local cloud serves."""
    arguments = call.arguments
    output = option(arguments, "--output", "-o")
    url = next((word for word in arguments if word.startswith(("http://", "https://"))), "")
    offline = machine.offline()
    if offline:
        return Done(_CURL_TIMEOUT, stderr=f"curl: ({_CURL_TIMEOUT}) Connection timed out: {offline}\n")
    content = served(url)
    if content is None:
        return Done(_CURL_NO_HOST, stderr=f"curl: ({_CURL_NO_HOST}) the local cloud doesn't serve {url}\n")
    if output:
        Path(output).write_bytes(content)
        return Done()
    return Done(stdout=content.decode(errors="replace"))


def unzip(machine: GuestMachine, call: Call) -> Outcome:
    """unzip FILE -d FOLDER."""
    _needs(machine, "unzip", call)
    folder = option(call.arguments, "-d")
    archives = [word for word in call.words if word != folder]
    try:
        with zipfile.ZipFile(archives[0]) as archive:
            archive.extractall(folder or ".")
    except (zipfile.BadZipFile, OSError) as error:
        return Done(9, stderr=f"unzip: {error}\n")
    return Done()


def apt_get(machine: GuestMachine, call: Call) -> Outcome:
    """apt-get: what is installed is there from then on."""
    offline = machine.offline()
    if offline:
        return Done(_APT_FAILED, stderr=f"E: Unable to fetch some archives: {offline}\n")
    if "install" in call.words:
        add_packages(machine, {word for word in call.words if word != "install"})
    return Done(stdout=f"{' '.join(call.words)}: the image has it\n")


def runuser(machine: GuestMachine, call: Call) -> Outcome:
    """runuser -u USER -- COMMAND: this laptop has no such user, so it is run as ours."""
    arguments = call.arguments
    return Exec(tuple(arguments[arguments.index("--") + 1 :] if "--" in arguments else arguments[2:]))


def chown(machine: GuestMachine, call: Call) -> Outcome:
    """chown and chgrp: who owns a path is noted."""
    if len(call.words) < 2:
        return Done(1, stderr=f"{call.name}: missing operand\n")
    owner, *paths = call.words
    recursive = any(word in ("-R", "--recursive") for word in call.arguments)
    for path in map(Path, paths):
        if not path.exists():
            return Done(1, stderr=f"{call.name}: cannot access '{path}': No such file or directory\n")
        for one in (path, *path.rglob("*")) if recursive else (path,):
            machine.cloud_init.note_owner(machine.paths.restore(str(one)), owner)
    return Done()


def install(machine: GuestMachine, call: Call) -> Outcome:
    """install [-d] [-o USER] [-g GROUP] [-m MODE]: owners are noted, the rest is done."""
    arguments = call.arguments
    taken = {name: option(arguments, name) for name in ("-o", "-g", "-m")}
    mode = int(taken["-m"] or "0755", 8)
    words = [word for word in call.words if word not in taken.values()]
    if "-d" in arguments:
        targets = [Path(word) for word in words]
        for target in targets:
            target.mkdir(parents=True, exist_ok=True)
    else:
        *sources, last = map(Path, words)
        targets = [last / source.name if last.is_dir() else last for source in sources]
        for source, target in zip(sources, targets, strict=True):
            shutil.copyfile(source, target)
    for target in targets:
        target.chmod(mode)
        if taken["-o"]:
            machine.cloud_init.note_owner(machine.paths.restore(str(target)), taken["-o"])
    return Done()


def iptables(machine: GuestMachine, call: Call) -> Outcome:
    """iptables and ip6tables: chains and rules are remembered, and asked for with -C."""
    action, chain, *rule = [word for word in call.arguments if word not in ("-w", "--wait")]
    chains = machine.firewall
    name, text = f"{call.name}:{chain}", " ".join(rule)
    known = chains.setdefault(name, []) if chain in ("INPUT", "FORWARD", "OUTPUT") else chains.get(name)
    if action in ("-N", "--new-chain"):
        if known is not None:
            return Done(1, stderr=f"{call.name}: Chain already exists.\n")
        chains[name] = []
        return Done()
    if known is None:
        return Done(1, stderr=f"{call.name}: No chain/target/match by that name.\n")
    if action in ("-C", "--check"):
        return Done(0 if text in known else 1)
    if action in ("-F", "--flush"):
        known.clear()
    elif action in ("-A", "--append"):
        known.append(text)
    elif action in ("-I", "--insert"):
        known.insert(0, text)
    elif action in ("-D", "--delete") and text in known:
        known.remove(text)
    else:
        return Done(2, stderr=f"{call.name}: {action} {chain} can't be done\n")
    return Done()


def journalctl(machine: GuestMachine, call: Call) -> Outcome:
    """journalctl: there is no journal, what units say goes to the machine's log."""
    return Done()


def nothing_to_do(machine: GuestMachine, call: Call) -> Outcome:
    """A command whose effect can't be seen from outside a machine of the local cloud."""
    machine.host.log(f"{call.name}: skipped: the local cloud's machines have nothing to do for it")
    return Done()


BY_NAME: dict[str, StandIn] = {
    "Xvfb": xvfb,
    "apt": apt_get,
    "apt-get": apt_get,
    "blkid": blkid,
    "chgrp": chown,
    "chown": chown,
    "curl": curl,
    "docker": docker,
    "install": install,
    "ip6tables": iptables,
    "iptables": iptables,
    "journalctl": journalctl,
    "mkfs.ext4": mkfs,
    "mount": mount,
    "mountpoint": mountpoint,
    "runuser": runuser,
    "socat": socat,
    "systemctl": systemctl,
    "unzip": unzip,
    **dict.fromkeys(
        ("apt-mark", "fallocate", "groupadd", "hostnamectl", "logger", "mkswap", "modprobe", "swapon",
         "sysctl", "timedatectl", "udevadm", "update-ca-certificates", "useradd", "usermod"),
        nothing_to_do,
    ),
}  # fmt: skip

BY_PATH: dict[str, StandIn] = {"/opt/ibc/scripts/ibcstart.sh": ibcstart}


def _needs(machine: GuestMachine, package: str, call: Call) -> None:
    if package not in machine.packages:
        raise ProgramMissing(f"{call.name}: command not found (package {package} isn't installed)")


def _ibc_refusal(machine: GuestMachine, call: Call, options: Mapping[str, str]) -> Done | None:
    """What ibcstart.sh, and then Java, look for before anything starts."""
    version = next(iter(call.words), "")
    settings, ini = options.get("--tws-settings-path", ""), options.get("--ibc-ini", "")
    if not Path(settings).is_dir():
        return Done(_NO_SETTINGS, stderr=f"Error: TWS settings path: {settings} does not exist\n")
    if not (Path(options.get("--tws-path", "")) / "ibgateway" / version / "jars").is_dir():
        return Done(_NO_JARS, stderr=f"Error: Offline TWS/Gateway version {version} is not installed\n")
    if not Path(ini).is_file():
        return Done(_NO_INI, stderr=f"Error: IBC configuration file: {ini} does not exist\n")
    display = call.env.get("DISPLAY", "")
    if display not in machine.displays:
        return Done(1, stderr=f"java.awt.AWTError: Can't connect to X11 window server using '{display}'\n")
    return None


def _api_port(ini: Path) -> int:
    """OverrideTwsApiPort of IBC's settings; the gateway's own default for live without it."""
    for line in ini.read_text(encoding="iso-8859-1").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "OverrideTwsApiPort" and value.strip():
            return int(value)
    return 4001
