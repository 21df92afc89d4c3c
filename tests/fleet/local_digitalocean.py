"""The local cloud's DigitalOcean API on a loop of its own in a thread, for clients that block."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from localcloud.apis.digitalocean import routes
from localcloud.digitalocean import Delays, DigitalOcean, account_token
from localcloud.digitalocean.parts import DROPLET, droplet_notes
from tests.digitalocean.conftest import SmallCloud

NO_DELAYS = Delays(visible=0, listed=0, create=0, action=0, firewall=0)


class LocalDigitalOcean:
    """The API, its address, its token, and what is in it."""

    def __init__(self, home: Path, machines: Any = None) -> None:
        """In the thread of its loop: the store's database belongs to one thread."""
        self.cloud = SmallCloud(home)
        self.cloud.machines = machines or self.cloud.machines
        self.account = DigitalOcean(self.cloud, NO_DELAYS)
        self.cloud.extensions["digitalocean"] = self.account
        self.cloud.machines.on_change(self.account.machine_changed)
        self.token = account_token(self.cloud)
        self.requests: list[str] = []
        self.url = ""
        self.loop = asyncio.get_running_loop()

    def note(self, key: str, value: Any) -> None:
        """One of the account's settings."""
        self.do(lambda: self.cloud.store.note("digitalocean", key, value))

    def faults(self, *faults: dict[str, Any]) -> None:
        self.note("faults", list(faults))

    def delays(self, **seconds: float) -> None:
        self.note("delays", {"visible": 0, "listed": 0, "create": 0, "action": 0, "firewall": 0} | seconds)

    def show_all(self) -> None:
        """Reads and lists have caught up."""

        def forget() -> None:
            for droplet in self.cloud.store.all(DROPLET):
                for key in ("visible_at", "listed_at"):
                    self.cloud.store.forget(droplet_notes(droplet.id), key)

        self.do(forget)

    def ids(self) -> list[int]:
        """The droplets that exist, listed or not."""
        return self.do(lambda: sorted(int(d.id) for d in self.cloud.store.all(DROPLET)))

    def count(self) -> int:
        return len(self.ids())

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of a function, called in the API's loop."""

        async def call() -> Any:
            return work()

        return self.run(call())

    def run(self, work: Any) -> Any:
        """The result of a coroutine, run in the API's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def settle(self) -> None:
        """Returns once no action is running."""
        for droplet in self.ids():
            self.run(self.account.settled_droplet(droplet))


@contextlib.contextmanager
def serving(home: Path, machines: Any = None) -> Iterator[LocalDigitalOcean]:
    """Serves the API until the context ends. `machines` are its droplets' (none unless given)."""
    started: queue.Queue[LocalDigitalOcean] = queue.Queue()
    # Said to be TCP, or asyncio leaves Nagle's algorithm on, and each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # so that who comes before the server does waits for it
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        made = LocalDigitalOcean(home, machines)
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}/digitalocean"
        app = Starlette(routes=[Mount("/digitalocean", routes=routes(made.cloud))])

        async def counting(scope: Any, receive: Any, send: Any) -> None:
            made.requests.append(f"{scope['method']} /v2" + scope["path"].rpartition("/v2")[2])
            await app(scope, receive, send)

        config = uvicorn.Config(counting, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        servers.append(uvicorn.Server(config))
        started.put(made)
        await servers[0].serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield started.get(timeout=30)
    finally:
        servers[0].should_exit = True
        thread.join(10)
