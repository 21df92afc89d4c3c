"""The daemon's own interface, on a Unix socket that only its owner can open: what the command line uses.

One request a connection: a line of JSON {"method", "params"}, answered by a line {"result"} or
{"error": {"status", "message"}}. After the answer to `tunnel` the connection is the tunnel; after
that to `logs` with `follow` the log's lines come as they are written.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.apis import alpaca, digitalocean, oidc, run
from localcloud.cloud import CloudError
from localcloud.exchange_process import ExchangeProcess
from localcloud.machines.console import DROPLET, delete_as_a_person
from localcloud.machines.host import log_path
from localcloud.network import IAP

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_LINE_LIMIT = 1_000_000
_LOG_TAIL_BYTES = 100_000
_FOLLOW_SECONDS = 0.2

Params = dict[str, Any]


class AdminServer:
    """Answers the command line. `stop` is called when it asks the daemon to stop."""

    def __init__(self, cloud: Cloud, exchange: ExchangeProcess, stop: Callable[[], None]) -> None:
        self._cloud = cloud
        self._exchange = exchange
        self._stop = stop
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.path = cloud.settings.run / "admin.sock"
        self._methods: dict[str, Callable[[Params], Awaitable[Any]]] = {
            "status": self._status,
            "machines": self._machines,
            "token": self._token,
            "env": self._env,
            "images": self._images,
            "why": self._why,
            "user_add": self._user_add,
            "find": self._find,
            "delete_machine": self._delete_machine,
            "reset_machine": self._reset_machine,
            "kill_unit": self._kill_unit,
            "stop": self._stop_daemon,
        }

    def start(self) -> None:
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        mask = os.umask(0o177)  # the socket is born with the right mode: no moment where others may open it
        try:
            self._listener.bind(str(self.path))
        finally:
            os.umask(mask)
        self._listener.listen()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Stop listening; requests under way are dropped."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        task = asyncio.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        keep = False
        try:
            request = await _read_line(client)
            method, params = request["method"], request.get("params") or {}
            if method == "tunnel":
                keep = await self._tunnel(client, params)
            elif method == "logs":
                await self._logs(client, params)
            elif method in self._methods:
                await _answer(client, result=await self._methods[method](params))
            else:
                raise CloudError(404, f"no method '{method}'")
        except CloudError as error:
            await _answer(client, error={"status": error.status, "message": error.message})
        except (OSError, ValueError, KeyError) as error:
            await _answer(client, error={"status": 400, "message": f"bad request: {type(error).__name__}"})
        except Exception as error:
            self._cloud.log.exception("an admin request failed")
            text = f"{type(error).__name__}; see the daemon's log"
            await _answer(client, error={"status": 500, "message": text})
        finally:
            if not keep:
                client.close()

    async def _tunnel(self, client: socket.socket, params: Params) -> bool:
        """Answer first: what follows on the connection belongs to the tunnel."""
        machine, port = self._named(params["name"]), int(params["port"])
        verdict = self._cloud.network.verdict(IAP, machine, port)
        if not verdict.allowed:
            raise CloudError(403, f"{machine}:{port} can't be reached through IAP: {verdict.why}")
        if not any(one.port == port for one in self._cloud.network.listening(machine)):
            raise CloudError(503, f"nothing listens on port {port} of {machine}")
        await _answer(client, result={"machine": machine})
        if params.get("check"):
            return False
        self._cloud.network.hand_over(client, IAP, machine, port)
        return True

    async def _logs(self, client: socket.socket, params: Params) -> None:
        path = self._log_of(params["name"])
        await _answer(client, result={"path": str(path)})
        loop = asyncio.get_running_loop()
        tail = int(params.get("tail") or _LOG_TAIL_BYTES)
        position = max(0, path.stat().st_size - tail) if path.exists() else 0
        while True:
            if path.exists():
                size = path.stat().st_size
                position = 0 if size < position else position  # it was turned over
                with path.open("rb") as file:
                    file.seek(position)
                    data = file.read()
                position += len(data)
                await loop.sock_sendall(client, data)
            if not params.get("follow"):
                return
            await asyncio.sleep(_FOLLOW_SECONDS)

    async def _status(self, _: Params) -> Params:
        network = self._cloud.network
        return {
            "pid": os.getpid(),
            "home": str(self._cloud.settings.home),
            "network": self._cloud.settings.network,
            "api_url": self._cloud.settings.api_url,
            "exchange": self._exchange.status(),
            "machines": await self._machines({}),
            "connections": len(network.connections()),
            "accepted": [[*seen, count] for seen, count in network.accepted.items()],
            "refused": [[*seen, count] for seen, count in network.refused.items()],
        }

    async def _machines(self, _: Params) -> list[Params]:
        machines = self._cloud.machines
        found = [self._titled(machines.describe(name)) for name in machines.names()]
        services = {one["name"]: one for one in found}
        for listening in self._cloud.network.listening():
            shown = services.get(listening.machine)
            if shown is not None:
                shown["listening"] = [*shown.get("listening", []), f"{listening.address}:{listening.port}"]
        return found

    def _titled(self, described: Params) -> Params:
        """With the name that a droplet's owner gave it; its machine's name has only the number."""
        droplet = self._cloud.store.get(DROPLET, described["name"].removeprefix("droplet/"))
        return {**described, "title": droplet.inputs.get("name", "") if droplet else ""}

    async def _token(self, params: Params) -> Params:
        roles = [str(role) for role in params.get("roles") or ["user", "trader"]]
        unknown = [role for role in roles if role not in oidc.ROLES]
        if unknown:
            raise CloudError(400, f"unknown role {', '.join(unknown)}: choose from {', '.join(oidc.ROLES)}")
        seconds = int(params.get("seconds") or 3600)
        return {"token": oidc.user_token(self._cloud, str(params["user"]), roles, seconds)}

    async def _env(self, _: Params) -> Params:
        return {
            "LOCALCLOUD_API_URL": self._cloud.settings.api_url,
            "IBKR_SERVERS": self._cloud.settings.exchange_address,
            **digitalocean.endpoint_settings(self._cloud),
            **alpaca.client_settings(self._cloud),
            **run.client_settings(self._cloud),
            **oidc.client_settings(self._cloud),
        }

    async def _images(self, params: Params) -> Params:
        for name, folder in params.items():
            self._cloud.store.note("images", name, _checkout(folder, name))
        return self._cloud.store.notes("images")

    async def _why(self, params: Params) -> Params:
        source = params["source"]
        known = self._cloud.network.topology()
        if known.place(source) is None and source not in ("internet", IAP):
            source = self._named(source)
        destination = params["destination"]
        if known.place(destination) is None and not destination[:1].isdigit():
            destination = self._named(destination)
        try:
            verdict = self._cloud.network.verdict(source, destination, int(params["port"]))
        except ValueError as error:
            raise CloudError(400, str(error)) from None
        return {"source": source, "destination": destination, "allowed": verdict.allowed, "why": verdict.why}

    async def _user_add(self, params: Params) -> Params:
        kind = params.get("kind") or "margin"
        return await self._exchange.add_user(params["name"], params["password"], params["mode"], kind=kind)

    async def _find(self, params: Params) -> list[str]:
        """What an engine that was killed had made: the ids of a type's resources with just these inputs."""
        resources = self._cloud.store.all(params["type"])
        return [found.id for found in resources if found.inputs == params["inputs"]]

    async def _delete_machine(self, params: Params) -> Params:
        machine = self._named(params["name"])
        await delete_as_a_person(self._cloud, machine)
        return {"machine": machine}

    async def _reset_machine(self, params: Params) -> Params:
        """As `gcloud compute instances reset`: its memory is gone, its disks stay."""
        machine = self._named(params["name"])
        if not machine.startswith(("gce/", "droplet/")):
            raise CloudError(400, f"only virtual machines and droplets can be reset, not {machine}")
        await self._cloud.machines.power_off(machine)
        await self._cloud.machines.power_on(machine)
        return {"machine": machine}

    async def _kill_unit(self, params: Params) -> Params:
        """As `systemctl kill --signal=KILL` on the machine: whether it comes back is the unit's business."""
        machine, unit = self._named(params["name"]), str(params["unit"])
        software = self._cloud.machines.describe(machine)["software"] or {}
        pids = {name: state["pid"] for name, state in software.get("units", {}).items() if state["pid"]}
        if unit not in pids:
            raise CloudError(404, f"{unit} doesn't run on {machine}; there run: {', '.join(pids) or 'none'}")
        os.kill(pids[unit], signal.SIGKILL)
        return {"machine": machine, "unit": unit, "pid": pids[unit]}

    async def _stop_daemon(self, _: Params) -> Params:
        self._stop()
        return {"pid": os.getpid()}

    def _named(self, name: str) -> str:
        """A machine by its full name, or by the end of it when only one ends so; a droplet by its name."""
        names = list(self._cloud.network.topology().places)
        if name in names:
            return name
        found = [one for one in names if one.endswith(f"/{name}")]
        found += [f"droplet/{droplet.id}" for droplet in self._cloud.store.find(DROPLET, name=name)]
        if len(found) == 1:
            return found[0]
        problem = f"several machines are named '{name}'" if found else f"there is no machine '{name}'"
        raise CloudError(404, f"{problem}; there are: {', '.join(names) or 'none'}")

    def _log_of(self, name: str) -> Path:
        folder = self._cloud.settings.log_folder
        if name in ("daemon", "exchange"):
            return folder / f"{name}.log"
        kept = log_path(folder, name)  # of a machine that is gone, perhaps
        if kept.resolve().parent == folder.resolve() and kept.exists():
            return kept
        service = self._cloud.store.notes("run.services").get(name.removeprefix("run/"))
        if service:
            return log_path(folder, f"run/{name.removeprefix('run/')}/{service['active']}")
        return log_path(folder, self._named(name))


def _checkout(folder: str, image: str) -> str:
    if not (Path(folder) / "Dockerfile").is_file():
        raise CloudError(400, f"image {image}: there is no Dockerfile in {folder}")
    return str(Path(folder).resolve())


async def _read_line(client: socket.socket) -> Params:
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(b"\n"):
        part = await loop.sock_recv(client, 65_536)
        if not part or len(data) > _LINE_LIMIT:
            raise ValueError("no request")
        data += part
    request = json.loads(data)
    if not isinstance(request, dict):
        raise ValueError("not an object")
    return request


async def _answer(client: socket.socket, **answer: Any) -> None:
    try:
        await asyncio.get_running_loop().sock_sendall(client, json.dumps(answer).encode() + b"\n")
    except OSError:
        pass  # whoever asked has left
