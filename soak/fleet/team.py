"""A DigitalOcean team: the local cloud's API over droplets that run `machine`, with a clock that is moved.

Everything goes over the wire: pydo on the one side, the API of `localcloud` on the other. Each request passes
`_wire`, which tells the judge what is asked for before it is carried out, and may let an answer get lost.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from localcloud.addresses import Addresses
from localcloud.apis.digitalocean import routes
from localcloud.cloud import CloudError
from localcloud.digitalocean import Delays, DigitalOcean, account_token
from localcloud.digitalocean.parts import DROPLET
from localcloud.state import Store
from soak.fleet.clock import Clock
from soak.fleet.judge import Judge, Made
from soak.fleet.machine import Certificate, Machine, make_certificates

STACK = "soak"
_CERTIFICATES = 40
#: virtual seconds from the 202 until a droplet is up, and until its agent first asks to enrol
BOOT_SECONDS = (8.0, 45.0)
_NO_DELAYS = {"visible": 0, "listed": 0, "create": 0, "action": 0, "firewall": 0}


class _Network:
    """Who may reach whom isn't this soak's matter."""

    def changed(self) -> None:
        """Nothing to do."""


class _Machines:
    """The droplets' software, for the local cloud, which boots, switches and removes it; in its loop."""

    def __init__(self, clock: Clock, judge: Judge, drawn: random.Random, free: list[Certificate], port: int):
        self.by_name: dict[str, Machine] = {}
        self.free, self.port = free, port
        self.slow = True
        self._clock, self._judge, self._drawn = clock, judge, drawn
        self._callbacks: list[Callable[[str, str], None]] = []

    async def boot(self, name: str, kind: str, spec: dict[str, Any]) -> None:
        """A droplet comes up, after a while."""
        machine = self.by_name.get(name)
        if machine is None:
            number = int(name.partition("/")[2])
            machine = Machine(number, spec["user_data"], self.free.pop(), self._clock.read, self._pushed)
            self.by_name[name] = machine
        machine.address = spec["address"]
        await self._clock.sleep(self._drawn.uniform(*BOOT_SECONDS) if self.slow else 0)
        if name in self.by_name:
            await machine.start(self.port)

    def update(self, name: str, **changes: Any) -> None:
        """Tags aren't known to machines."""

    async def power_off(self, name: str) -> None:
        """A droplet's power is off."""
        await self.by_name[name].stop()

    async def delete(self, name: str) -> None:
        """A droplet is gone."""
        machine = self.by_name.pop(name, None)
        if machine is not None:
            await machine.stop()
        self._judge.gone(int(name.partition("/")[2]))
        for callback in self._callbacks:
            callback(name, "ABSENT")

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        """Who wants to know of deleted machines."""
        self._callbacks.append(callback)

    def _pushed(self, machine: Machine, message: dict[str, Any]) -> None:
        self._judge.pushed(machine.id, message["account_id"])


@dataclass
class _Cloud:
    """What the local cloud's DigitalOcean needs of a cloud."""

    home: Path
    store: Store
    addresses: Addresses
    machines: _Machines
    network: _Network = field(default_factory=_Network)
    extensions: dict[str, Any] = field(default_factory=dict)


class Team:
    """The API, its token, its droplets. Public methods are for the schedule's thread and block."""

    def __init__(self, clock: Clock, network: str) -> None:
        """`network`: the first two numbers of its addresses, such as `127.90`: loopback, nobody else's."""
        self.clock = clock
        self.url = ""
        self.token = ""
        self._network = network
        self._loop = asyncio.new_event_loop()
        self._app: Starlette | None = None
        # Said to be TCP, or asyncio leaves Nagle's algorithm on, and each answer takes 40 ms.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.agent_port = int(free.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._home: tempfile.TemporaryDirectory[str] | None = None
        with tempfile.TemporaryDirectory() as folder:
            self._certificates = make_certificates(Path(folder), _CERTIFICATES)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        config = uvicorn.Config(
            self._wire, interface="asgi3", log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._loop.run_until_complete(self._server.serve(sockets=[self._listener]))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine, run in the API's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of a function, called in the API's loop."""

        async def call() -> Any:
            return work()

        return self.run(call())

    def begin(self, judge: Judge, drawn: random.Random) -> None:
        """An empty team."""
        self.judge = judge
        self.machines = _Machines(self.clock, judge, drawn, list(self._certificates), self.agent_port)
        self.lost_answers: list[str] = []
        self.refusals = 0
        self._home = tempfile.TemporaryDirectory(prefix="soak-")
        self.do(self._open)
        self.note("droplet_limit", 1000)
        self.note("rate_limits", {"hour": 10**9, "minute": 10**9})  # they go by the machine's clock
        self.note("delays", _NO_DELAYS)

    def _open(self) -> None:
        assert self._home is not None
        home = Path(self._home.name)
        self.store = Store.open(home)
        made: Any = _Cloud(home, self.store, Addresses(self.store, self._network), self.machines)
        self.account = made.extensions["digitalocean"] = DigitalOcean(
            made, Delays(**_NO_DELAYS), self.clock.read
        )
        self.machines.on_change(self.account.machine_changed)
        self.token = account_token(made)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/digitalocean"
        self._app = Starlette(routes=[Mount("/digitalocean", routes=routes(made))])

    def end(self) -> None:
        """The team is no more."""

        async def stop() -> None:
            for machine in self.machines.by_name.values():
                await machine.stop()
            self.store.close()

        self.run(stop())
        if self._home is not None:
            self._home.cleanup()

    def close(self) -> None:
        """Ends the server."""
        self._server.should_exit = True
        self._thread.join(10)

    # what a person sees and does in the console

    def note(self, key: str, value: Any) -> None:
        """One of the account's settings."""
        self.do(lambda: self.store.note("digitalocean", key, value))

    def fault(self, **fault: Any) -> None:
        """See localcloud/digitalocean/faults.py."""

        def add() -> None:
            faults = list(self.store.notes("digitalocean").get("faults") or [])
            self.store.note("digitalocean", "faults", [*faults, fault])

        self.do(add)

    def lag(self, **seconds: float) -> None:
        """How long a droplet is left out of reads (`visible`) and lists (`listed`)."""
        self.note("delays", _NO_DELAYS | seconds)

    def heal(self) -> None:
        """No faults any more."""
        self.note("faults", [])
        self.note("delays", _NO_DELAYS)
        self.note("droplet_limit", 1000)
        self.lost_answers.clear()

    def droplets(self) -> dict[int, dict[str, Any]]:
        """All droplets that exist, listed or not: `status`, `tags`."""
        return self.do(  # type: ignore[no-any-return]
            lambda: {
                int(d.id): {"status": d.outputs["status"], "tags": list(d.outputs["tags"])}
                for d in self.store.all(DROPLET)
            }
        )

    def machine(self, number: int) -> Machine | None:
        """What runs on a droplet."""
        return self.machines.by_name.get(f"droplet/{number}")

    def by_hand(self, number: int, what: str) -> None:
        """Somebody deletes, switches off, reboots or rebuilds a droplet. One that is busy refuses."""

        async def act() -> None:
            machine = self.machines.by_name.get(f"droplet/{number}")
            if machine is None:
                return
            if what == "delete":
                await self.account.delete_droplet(number)
            elif what == "rebuild":
                await machine.stop()
                machine.certificate, machine.sequence = self.machines.free.pop(), 0
                machine.enrolment = "none"
                await machine.start(self.agent_port)
            else:
                await self.account.act_on_droplet(number, {"type": what})

        try:
            self.run(act())
        except CloudError:
            return
        self.settle()

    def add_foreign(self, *tags: str) -> int | None:
        """Somebody else's droplet, up and running at once; None if the team may have no more."""

        async def add() -> int:
            self.machines.slow = False
            try:
                made = await self.account.create_droplet(
                    {"name": "x", "region": "nyc1", "size": "s-1vcpu-1gb", "image": "ubuntu-24-04-x64",
                     "tags": list(tags)}
                )  # fmt: skip
                number = int(made["droplet"]["id"])
                await self.account.settled_droplet(number)
                return number
            finally:
                self.machines.slow = True

        try:
            return int(self.run(add()))
        except CloudError:
            return None

    def reach(self, number: int, reachable: bool) -> None:
        """The network between the service and a droplet."""

        async def switch() -> None:
            machine = self.machines.by_name.get(f"droplet/{number}")
            if machine is not None:
                machine.reachable = reachable
                await machine.listen(self.agent_port)

        self.run(switch())

    def settle(self) -> None:
        """Returns once nothing goes on that doesn't wait for time to pass."""

        async def calm() -> None:
            await self.clock.wake()
            actions = self.account.droplets.actions  # the local cloud's, which tell nobody
            while sum(map(actions.pending, self._ids())) > self.clock.sleepers:  # noqa: ASYNC110
                await asyncio.sleep(0)

        self.run(calm())

    def _ids(self) -> list[str]:
        return [droplet.id for droplet in self.store.all(DROPLET)]

    # the wire

    async def _wire(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._app is not None
        method, path = scope["method"], "/v2" + scope["path"].rpartition("/v2")[2]
        raw = b""
        while True:
            part = await receive()
            raw += part.get("body", b"")
            if not part.get("more_body"):
                break
        self.judge.asked(method, path, json.loads(raw) if raw else {})
        answer: list[Any] = []

        async def replay() -> Any:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def keep(message: Any) -> None:
            answer.append(message)

        known = set(self._ids())
        await self._app(scope, replay, keep)
        status = answer[0]["status"]
        if method == "POST" and path == "/v2/droplets":
            self._note_made(json.loads(raw), known)
        lost = next(
            (one for one in self.lost_answers if one == f"{method} {path}".rstrip("0123456789")), None
        )
        if lost is not None:
            self.lost_answers.remove(lost)
        if lost is not None or (status >= 400 and (method, status) != ("GET", 404)):
            self.refusals += 1
        if lost is not None:
            # Half of an answer, and then the connection breaks.
            await send(
                {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"99")]}
            )
            await send({"type": "http.response.body", "body": b"{", "more_body": False})
            return
        for message in answer:
            await send(message)

    def _note_made(self, body: dict[str, Any], known: set[str]) -> None:
        """Whatever was answered, the droplet may have been made."""
        tags = dict(tag.partition(":")[::2] for tag in body["tags"])
        for number in set(self._ids()) - known:
            made = Made(int(number), tags.get("account", ""), tags.get("enrolment", ""), self.clock.now)
            self.judge.made(made)
