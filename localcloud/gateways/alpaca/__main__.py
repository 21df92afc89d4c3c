"""Serves the paper Alpaca of an exchange by itself; the local cloud's daemon mounts it instead.

python -m localcloud.gateways.alpaca --exchange unix:PATH --listen 127.0.0.1:8401

Clients' URLs are http://HOST:PORT/trading, http://HOST:PORT/data and ws://HOST:PORT/stream.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from localcloud.gateways.alpaca.app import build_app
from localcloud.gateways.alpaca.gateway import Gateway, Settings
from localcloud.gateways.alpaca.limits import REQUESTS_PER_MINUTE
from localcloud.gateways.client_portal.serving import Endpoint, Server, parse_address


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gateway = Gateway(Settings(arguments.exchange, arguments.requests_per_minute))
    sockets = Endpoint(address=arguments.listen).open()
    async with Server(build_app(gateway), sockets).serving():
        host, port = sockets[0].getsockname()[:2]
        print(f"paper alpaca: ready at http://{host}:{port}", flush=True)
        await stop.wait()
        await gateway.close()


def main() -> None:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.gateways.alpaca", description=__doc__)
    parser.add_argument("--exchange", required=True, help="unix:PATH or HOST:PORT of the paper exchange")
    parser.add_argument("--listen", type=parse_address, default=("127.0.0.1", 8401), metavar="HOST:PORT")
    parser.add_argument("--requests-per-minute", type=int, default=REQUESTS_PER_MINUTE)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
