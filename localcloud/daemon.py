"""The daemon: one process, one event loop, everything of one local cloud.

`<home>/daemon.lock` is held as long as it lives: that, not a process id, says whether it runs.
`<home>/daemon.json` says where its interfaces are. See `warden` for what happens when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import logging.handlers
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from localcloud import warden
from localcloud.cloud import Cloud, CloudError, Settings, open_cloud
from localcloud.state import Store, StoreDamagedError

DEFAULT_NETWORK = "127.20"
_NETWORK = re.compile(r"127\.(25[0-5]|2[0-4]\d|1?\d?\d)")
_LOG_BYTES = 5_000_000
_PRIVATE_UMASK = 0o077


class AlreadyRunningError(Exception):
    """Another daemon has this home."""


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the home's lock. Raises `AlreadyRunningError`."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "daemon.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(f"a local cloud is already running in {home}") from None
        yield


def is_running(home: Path) -> bool:
    """Whether a daemon holds the home's lock."""
    if not (home / "daemon.lock").exists():
        return False
    try:
        with locked(home):
            return False
    except AlreadyRunningError:
        return True


def serve(home: Path, network: str | None, images: Mapping[str, str], ready: IO[str] | None) -> int:
    """Run the daemon until it is told to stop; the exit status.

    `ready` gets one line: "ready", or "error: ..." with the reason it could not start.
    """
    os.umask(_PRIVATE_UMASK)
    _allow_many_files()
    try:
        with locked(home):
            _configure_logging(home, to_terminal=ready is None)
            warden.end_children_of(home)
            _remove_leftovers(home)
            asyncio.run(_run(home, network, images, ready))
    except (AlreadyRunningError, CloudError, StoreDamagedError) as error:
        _report(ready, f"error: {error}")
        return 1
    except Exception as error:
        logging.getLogger("localcloud").exception("the daemon failed")
        _report(ready, f"error: {type(error).__name__}; see {home / 'logs' / 'daemon.log'}")
        return 1
    return 0


async def _run(home: Path, network: str | None, images: Mapping[str, str], ready: IO[str] | None) -> None:
    # Imported here: whoever only asks for the lock needn't pay for a web server.
    from localcloud.apis.admin import AdminServer
    from localcloud.apis.app import api_server, listening_socket
    from localcloud.exchange_process import ExchangeProcess
    from localcloud.machines import cloudrun
    from localcloud.providers.server import serve_providers, stop_providers
    from localcloud.scheduler import Scheduler

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    prefix = _settle_network(home, network)
    run = Path(tempfile.mkdtemp(prefix="lc-", dir=_short_folder()))
    cloud = open_cloud(Settings(home, prefix, run))
    exchange = ExchangeProcess(cloud)
    admin = AdminServer(cloud, exchange, stop.set)
    server = api_server(cloud)
    background: list[asyncio.Task[Any]] = []
    try:
        for name, folder in images.items():
            cloud.store.note("images", name, folder)
        listener = listening_socket(cloud)
        background.append(asyncio.create_task(server.serve(sockets=[listener])))
        exchange.start()
        ports = await serve_providers(cloud)
        admin.start()
        _announce(cloud, ports, admin.path)
        _report(ready, "ready")
        cloud.log.info("ready: network %s.0.0/16, providers %s", prefix, ports)
        background.append(asyncio.create_task(_resume(cloud)))
        await stop.wait()
        cloud.log.info("stopping")
    finally:
        (home / "daemon.json").unlink(missing_ok=True)
        admin.close()
        await stop_providers(cloud)
        for task in background[1:]:
            task.cancel()
        await asyncio.gather(*background[1:], return_exceptions=True)
        await Scheduler.of(cloud).close()
        await cloudrun.settle(cloud)
        await cloud.machines.close()
        await exchange.stop()
        server.should_exit = True
        await asyncio.gather(*background[:1], return_exceptions=True)
        cloud.network.close()
        cloud.processes.close()
        cloud.store.close()


async def _resume(cloud: Cloud) -> None:
    """Bring back what ran before, while the daemon already answers."""
    from localcloud.digitalocean import DigitalOcean
    from localcloud.machines import cloudrun
    from localcloud.scheduler import Scheduler

    try:
        await cloudrun.resume(cloud)
        await cloud.machines.resume()
        await DigitalOcean.of(cloud).take_up()
        Scheduler.of(cloud).resume()
    except Exception:
        cloud.log.exception("not everything came back")


def _settle_network(home: Path, wanted: str | None) -> str:
    """The cloud network's prefix: as wanted, as remembered, or the default.

    Raises `CloudError` 400 for a malformed one, or when what exists already has other addresses.
    """
    if wanted is not None and not _NETWORK.fullmatch(wanted):
        raise CloudError(
            400, f"--network {wanted}: give two octets such as {DEFAULT_NETWORK} (127.0 to 127.255)"
        )
    store = Store.open(home)
    try:
        remembered: str | None = store.notes("settings").get("network")
        if wanted and remembered and wanted != remembered and store.notes("machines"):
            raise CloudError(
                409,
                f"this local cloud's machines have addresses in {remembered}.0.0/16; destroy the stack "
                f"before changing the network to {wanted}",
            )
        chosen = wanted or remembered or DEFAULT_NETWORK
        if chosen != remembered:
            store.note("settings", "network", chosen)
        return chosen
    finally:
        store.close()


def _announce(cloud: Cloud, ports: Mapping[str, int], admin_socket: Path) -> None:
    """Write daemon.json in one step: a reader sees all of it or none."""
    content = {
        "pid": os.getpid(),
        "api_url": cloud.settings.api_url,
        "admin_socket": str(admin_socket),
        "providers": dict(ports),
        "network": cloud.settings.network,
        "run": str(cloud.settings.run),
    }
    draft = cloud.settings.home / "daemon.json.draft"
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.chmod(0o600)
    draft.replace(cloud.settings.home / "daemon.json")


def _remove_leftovers(home: Path) -> None:
    """What a daemon that was killed together with its warden left: its run-time folder."""
    path = home / "daemon.json"
    try:
        run = Path(json.loads(path.read_text())["run"])
    except (OSError, ValueError, KeyError):
        return
    if run.name.startswith("lc-") and run.parent == Path(_short_folder()):
        shutil.rmtree(run, ignore_errors=True)
    path.unlink(missing_ok=True)


def _short_folder() -> str:
    """Where the run-time folder goes: a Unix socket's path has room for 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 30 else "/tmp"  # noqa: S108 -- mkdtemp makes a private folder in it


def _allow_many_files() -> None:
    """A hundred machines need some thousand descriptors; the usual soft limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _configure_logging(home: Path, *, to_terminal: bool) -> None:
    folder = home / "logs"
    folder.mkdir(exist_ok=True, mode=0o700)
    file = logging.handlers.RotatingFileHandler(folder / "daemon.log", maxBytes=_LOG_BYTES, backupCount=1)
    handlers: list[logging.Handler] = [file]
    if to_terminal:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(
        level=logging.INFO, handlers=handlers, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Their request lines hold query strings, and nobody needs a line per request.
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _report(ready: IO[str] | None, line: str) -> None:
    if ready is None:
        print(line, file=sys.stderr)
        return
    try:
        ready.write(line + "\n")
        ready.close()
    except BrokenPipeError:
        pass  # whoever started us has left; the log has it
