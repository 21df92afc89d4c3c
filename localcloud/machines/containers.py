"""Docker on a machine of the local cloud: one image is to be had, IBeam's, and it is the paper gateway.

A container has ports of its own; a published one is a port of the machine, on all addresses or on loopback.
"""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.machines.calls import Call, Done, GuestMachine, Outcome, option
from localcloud.machines.service import ProgramMissing, Running
from localcloud.processes import module_environment

_IMAGE = re.compile(r"(?:docker\.io/)?voyz/ibeam(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")
_FLAGS = {
    "-d",
    "--detach",
    "--rm",
    "-i",
    "-t",
    "-it",
    "-ti",
    "--init",
    "--read-only",
    "--interactive",
    "--tty",
}
_SHORT = {"-e": "--env", "-v": "--volume", "-p": "--publish", "-d": "--detach"}
_API_PORT, _HEALTH_PORT = 5000, 5001
_REFUSED, _NO_COMMAND = 125, 1


class DockerError(Exception):
    """docker refuses; the message is what it prints."""


@dataclass
class Options:
    """What `docker run` was asked for."""

    image: str = ""
    name: str = ""
    detached: bool = False
    removed: bool = False
    env: dict[str, str] = field(default_factory=dict, repr=False)
    mounts: list[tuple[str, str]] = field(default_factory=list)
    ports: list[tuple[str, int, int]] = field(default_factory=list)


async def docker(machine: GuestMachine, call: Call) -> Outcome:
    """The command `docker`: pull, run, stop, rm, ps, logs and image inspect."""
    if "docker.io" not in machine.packages:
        raise ProgramMissing("docker: command not found (package docker.io isn't installed)")
    verb, *arguments = call.arguments or [""]
    try:
        if verb == "run":
            return await _run(machine, read_options(arguments))
        if verb == "pull":
            _pull(machine, arguments[-1])
            return Done(stdout=f"{arguments[-1]}: the image is here\n")
        if verb in ("stop", "kill", "rm"):
            return await _end(machine, arguments, removing=verb == "rm")
        if verb == "logs":
            return _logs(machine, arguments)
    except DockerError as error:
        return Done(_REFUSED, stderr=f"docker: {error}\n")
    if verb == "ps":
        return Done(stdout="".join(f"{name}\n" for name in machine.containers))
    if verb in ("image", "inspect", "version", "info"):
        return Done()
    return Done(_NO_COMMAND, stderr=f"docker {verb}: the local cloud doesn't have this\n")


def read_options(arguments: list[str]) -> Options:
    """Reads the arguments of `docker run`. Raises DockerError."""
    options, rest = Options(), list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name in _FLAGS or name == "--detach":
            options.detached = options.detached or name in ("-d", "--detach")
            options.removed = options.removed or name == "--rm"
            continue
        if not equals:
            if not rest:
                raise DockerError(f"flag needs an argument: {word}")
            value = rest.pop(0)
        _take(options, name, value)
    if not rest:
        raise DockerError("'docker run' requires at least 1 argument")
    options.image = rest[0]
    return options


def parse_env_file(text: str) -> dict[str, str]:
    """A docker env file: NAME=value to the line's end, as it stands; # begins a comment line."""
    found = {}
    for raw in text.split("\n"):
        line = raw.lstrip()
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if equals:
                found[name] = value.removesuffix("\r")
    return found


def _take(options: Options, name: str, value: str) -> None:
    if name == "--name":
        options.name = value
    elif name == "--env":
        key, _, text = value.partition("=")
        options.env[key] = text
    elif name == "--env-file":
        try:
            options.env.update(parse_env_file(Path(value).read_text(encoding="utf-8")))
        except OSError:
            raise DockerError(f"open {value}: no such file or directory") from None
    elif name == "--volume":
        outside, _, inside = value.partition(":")
        options.mounts.append((inside.removesuffix(":ro").removesuffix(":rw"), outside))
    elif name == "--publish":
        *address, outside, inside = value.split(":")
        options.ports.append((":".join(address), int(outside), int(inside.removesuffix("/tcp"))))


async def _run(machine: GuestMachine, options: Options) -> Outcome:
    _pull(machine, options.image)
    name = options.name or f"ibeam-{len(machine.containers)}"
    log = _log_of(machine, name)
    if name in machine.containers or log.exists():
        raise DockerError(f'Conflict. The container name "/{name}" is already in use')
    command = [sys.executable, "-m", "localcloud.gateways.client_portal"]
    command += ["--socket", str(_port_of(machine, name, _API_PORT))]
    command += ["--health-socket", str(_port_of(machine, name, _HEALTH_PORT))]
    command += ["--log-file", str(log)]
    for inside, outside in options.mounts:
        command += ["--mount", f"{machine.paths.restore(inside)}={outside}"]
    log.touch(mode=0o600)
    published = _publish(machine, name, options)
    running = await machine.host.spawn(command, env={**options.env, **module_environment()}, log=name)
    machine.containers[name] = running
    ended = asyncio.create_task(_clean_up(machine, name, running, published, options.removed))
    machine.tasks.add(ended)
    ended.add_done_callback(machine.tasks.discard)
    return Done(stdout=f"{name}\n") if options.detached else running


def _port_of(machine: GuestMachine, name: str, port: int) -> Path:
    """The socket that stands for a port inside a container."""
    return machine.paths.own / f"{name}-{port}"


def _log_of(machine: GuestMachine, name: str) -> Path:
    """What a container printed; there from its start until it is removed."""
    return machine.paths.own / f"{name}.log"


def _remove(machine: GuestMachine, name: str) -> None:
    """What is left of a container that ended."""
    _log_of(machine, name).unlink(missing_ok=True)


def _publish(machine: GuestMachine, name: str, options: Options) -> list[int]:
    """Opens the container's ports on the machine; one that is bound to loopback, there only."""
    published = []
    for address, outside, inside in options.ports:
        socket = _port_of(machine, name, inside)
        loopback = machine.port_socket(outside)
        loopback.unlink(missing_ok=True)
        loopback.symlink_to(socket)
        if address in ("127.0.0.1", "localhost"):
            continue
        machine.host.listen(outside, socket)
        published.append(outside)
    return published


async def _clean_up(
    machine: GuestMachine, name: str, running: Running, published: list[int], removed: bool
) -> None:
    await running.wait()
    machine.containers.pop(name, None)
    for port in published:
        machine.host.unlisten(port)
    if removed:
        _remove(machine, name)


async def _end(machine: GuestMachine, arguments: list[str], removing: bool) -> Outcome:
    names = [word for word in arguments if not word.startswith("-") and not word.isdigit()]
    for name in names:
        running, log = machine.containers.get(name), _log_of(machine, name)
        if running is None and not log.exists():
            return Done(1, stderr=f"Error response from daemon: No such container: {name}\n")
        if running:
            running.terminate()
            await running.wait()
        if removing:
            _remove(machine, name)
    return Done(stdout="".join(f"{name}\n" for name in names))


def _logs(machine: GuestMachine, arguments: list[str]) -> Outcome:
    """docker logs [--tail N] NAME."""
    log = _log_of(machine, arguments[-1])
    if not log.exists():
        return Done(1, stderr=f"Error response from daemon: No such container: {arguments[-1]}\n")
    tail = int(option(arguments, "--tail", "-n") or 0)
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return Done(stdout="".join(lines[-tail:] if tail else lines))


def _pull(machine: GuestMachine, image: str) -> None:
    """Makes an image be there. Once pulled it stays, so a machine that is off the internet can start it."""
    pulled = machine.paths.inside("/var/lib/docker/images")
    here = pulled.read_text().splitlines() if pulled.exists() else []
    if image in here:
        return
    if not _IMAGE.fullmatch(image):
        raise DockerError(f"pull access denied for {image}: the local cloud has voyz/ibeam only")
    offline = machine.offline()
    if offline:
        raise DockerError(f"Get https://registry-1.docker.io/v2/: i/o timeout: {offline}")
    pulled.parent.mkdir(parents=True, exist_ok=True)
    pulled.write_text("".join(f"{name}\n" for name in [*here, image]))
