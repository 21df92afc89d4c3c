"""`python -m localcloud.gateways.client_portal`: a gateway with IBeam, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
from argparse import Namespace
from contextlib import AsyncExitStack
from pathlib import Path

from localcloud.gateways.client_portal.app import build_app
from localcloud.gateways.client_portal.certificate import write_shipped_certificate
from localcloud.gateways.client_portal.gateway import Gateway
from localcloud.gateways.client_portal.ibeam import IBeam, health_app
from localcloud.gateways.client_portal.serving import Endpoint, Server, parse_address
from localcloud.gateways.client_portal.settings import Settings, arguments, read_settings


def endpoint(path: Path | None, address: str | None) -> Endpoint:
    """Where a server of this process listens. Raises ValueError."""
    return Endpoint(path, parse_address(address) if address else None)


async def run(options: Namespace, settings: Settings, folder: Path) -> None:
    """Serves until SIGTERM or SIGINT; then logs out."""
    gateway = Gateway(settings)
    ibeam = IBeam(gateway)
    certificate = (options.cert, options.key) if options.cert else write_shipped_certificate(folder)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as servers:
        api = Server(build_app(gateway), endpoint(options.socket, options.listen).open(), certificate)
        await servers.enter_async_context(api.serving())
        health = Server(health_app(ibeam), endpoint(options.health_socket, options.health_listen).open())
        if health.sockets:
            await servers.enter_async_context(health.serving())
        looking_after = asyncio.create_task(ibeam.run())
        await stop.wait()
        looking_after.cancel()
        await asyncio.gather(looking_after, return_exceptions=True)
        await gateway.session.log_out()


def main() -> int:
    """Reads arguments and environment; 2 when they don't fit."""
    options = arguments().parse_args()
    logs: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if options.log_file:
        logs.append(logging.FileHandler(options.log_file, encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s|%(levelname)s| %(message)s", handlers=logs)
    try:
        settings = read_settings(options, os.environ)
        if not options.socket and not options.listen:
            raise ValueError("nowhere to listen: --socket or --listen")
        if bool(options.cert) != bool(options.key):
            raise ValueError("--cert and --key belong together")
        endpoint(options.socket, options.listen)
    except ValueError as error:
        print(f"client portal gateway: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="client-portal-") as folder:
        asyncio.run(run(options, settings, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
