"""The droplets of the local DigitalOcean API: each runs the very agent that cloud-init puts on it.

Replaced are only what a droplet has around the agent: systemd (which counts the container's starts) and the
gateway behind the proxy, which is logged in as soon as its container was started with a login.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import ssl
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_AGENT = Path(__file__).parents[2] / "cloud-init" / "files" / "ibeam" / "agent"
_CODE = compile(_AGENT.read_text("utf-8").partition("\nif __name__")[0], str(_AGENT), "exec")

#: a droplet's folder has what it asks when it enrols, and then that it was answered
ASKING, ASKED = "asking.json", "asked"
READY = {"authenticated": True, "connected": True, "competing": False, "established": True}


def free_port() -> int:
    """A port that is free on all of this machine's loopback addresses, most likely."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def agent_settings(user_data: str) -> dict[str, Any]:
    """The agent's settings in a droplet's user data; empty for a droplet of somebody else's."""
    document = yaml.load(user_data or "{}", yaml.CSafeLoader)
    for file in (document or {}).get("write_files", ()):
        if file["path"].endswith("agent.json"):
            raw = file["content"]
            plain = base64.b64decode(raw).decode() if "64" in file.get("encoding", "") else raw
            found: dict[str, Any] = json.loads(plain)
            return found
    return {}


@dataclass
class Machine:
    """A droplet from its first boot to its end. `told` hears of a `login` that came and of each `start`."""

    name: str
    address: str
    settings: dict[str, Any] = field(repr=False)
    folder: Path
    port: int
    told: Callable[[Machine, str], None]
    up: bool = False
    container: bool = False
    gateway: dict[str, Any] = field(default_factory=lambda: dict(READY))
    #: answered this many times with 500 after the work was done
    lost_answers: int = 0
    certificate: str = ""

    @property
    def account(self) -> str:
        return str(self.settings.get("account_id", ""))

    @property
    def token(self) -> str:
        return str(self.settings.get("enrolment_token", ""))

    @property
    def has_asked(self) -> bool:
        """Whether its enrolment was answered. Noted in its folder: a process of its own may answer."""
        return (self.folder / ASKED).exists()

    def note_asked(self) -> None:
        """It doesn't ask again."""
        (self.folder / ASKED).touch()

    @property
    def credentials(self) -> tuple[str, str] | None:
        """What is in the droplet's memory."""
        secrets = self.folder / "memory" / "secrets"
        if not self.up or not (secrets / "password").exists():
            return None
        return (secrets / "account").read_text("utf-8"), (secrets / "password").read_text("utf-8")

    async def boot(self) -> None:
        """Starts the agent as systemd does. Its disk was kept, its memory wasn't."""
        (self.folder / "disk").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "memory", ignore_errors=True)
        agent = self._module()
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        if not key.exists():
            private, public = agent.make_certificate(agent.ipaddress.ip_address(self.address))
            key.write_bytes(private)
            certificate.write_bytes(public)
        self.certificate = certificate.read_text("ascii")
        (self.folder / ASKING).write_text(json.dumps([self.account, self.token, self.certificate]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        pushes = agent.Pushes(self.settings, digest(self.certificate))
        self._agent = agent.Agent(self.settings, agent.Login(""), pushes)
        loop = agent.asyncio.get_running_loop()
        self._listening = await loop.create_server(
            self._agent._connection, self.address, self.port, ssl=context
        )
        self.up = True

    async def power_off(self) -> None:
        """Nobody answers any more, and the memory is empty."""
        if self.up:
            self.up = self.container = False
            self._listening.close()
            await self._agent._server.shutdown(0.01)  # to aiohttp 0 is for ever
            shutil.rmtree(self.folder / "memory", ignore_errors=True)

    def _module(self) -> Any:
        agent = types.ModuleType(f"agent_of_{self.name}")
        exec(_CODE, agent.__dict__)  # noqa: S102 - the agent is a program, not a module
        agent.STATE, agent.MEMORY = self.folder / "disk", self.folder / "memory"
        agent.CONTAINER_UID = os.getuid()
        agent.say = lambda _text: None
        agent.Gateway = lambda: types.SimpleNamespace(tickle=self._answer, pass_on=self._answer)
        machine = self

        async def command(*argv: str, limit: int = 0) -> tuple[int, str]:
            if argv[:2] == ("systemctl", "restart"):
                machine.container = True
                machine.told(machine, "start")
            return 0, "active" if machine.container else "inactive"

        class Agent(agent.Agent):  # type: ignore[misc]  # of a module made above
            async def _take_credentials(self, request: Any) -> Any:
                answer = await super()._take_credentials(request)
                machine.told(machine, "login")
                return machine._lost() or answer

            async def _restart(self, request: Any) -> Any:
                answer = await super()._restart(request)
                return machine._lost() or answer

        agent.command, agent.Agent = command, Agent
        return agent

    def _lost(self) -> web.Response | None:
        if self.lost_answers == 0:
            return None
        self.lost_answers -= 1
        return web.Response(status=500)

    async def _answer(self, request: Any) -> web.Response:
        if not self.container:
            return web.json_response({"status": 503}, status=503, content_type="application/problem+json")
        if request.path.endswith("/orders"):
            return web.json_response({"orders": [], "snapshot": True})
        return web.json_response({"iserver": {"authStatus": self.gateway}})


class DropletMachines:
    """The machines of a cloud: what `localcloud.digitalocean` boots, switches off and removes."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self._port = port
        self._callbacks: list[Callable[[str, str], None]] = []
        self.all: dict[str, Machine] = {}
        self.problems: list[str] = []
        #: how often a gateway was started with a login, by account: each may be a push to a phone
        self.starts: Counter[str] = Counter()

    async def boot(self, name: str, kind: str, spec: dict[str, Any]) -> None:
        machine = self.all.get(name)
        if machine is None:
            settings = agent_settings(spec["user_data"])
            folder = self._home / "droplets" / name
            machine = Machine(name, spec["address"], settings, folder, self._port, self._told)
            self.all[name] = machine
        if machine.settings and not machine.up:
            await machine.boot()

    async def power_off(self, name: str) -> None:
        await self.all[name].power_off()

    async def delete(self, name: str) -> None:
        machine = self.all.pop(name, None)
        if machine is not None:
            await machine.power_off()
            shutil.rmtree(machine.folder, ignore_errors=True)
            for callback in self._callbacks:
                callback(name, "ABSENT")

    def update(self, name: str, **changes: Any) -> None:
        """Tags changed: nothing that an agent sees."""

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        self._callbacks.append(callback)

    def of(self, account: str) -> list[Machine]:
        """An account's machines that exist."""
        return [m for m in self.all.values() if m.account == account]

    def _told(self, machine: Machine, what: str) -> None:
        if what == "start":
            self.starts[machine.account] += 1
        holders = [m.name for m in self.of(machine.account) if m.credentials is not None]
        if len(holders) > 1:
            self.problems.append(f"{holders} of {machine.account} hold credentials at once")


def digest(certificate: str) -> str:
    """SHA-256 of a PEM certificate, as a handshake shows it."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
