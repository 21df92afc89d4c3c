"""Runs the paper exchange until it is told to stop.

python -m localcloud.exchange --state DIR --socket PATH --admin PATH [--seed N]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from localcloud.exchange.server import ExchangeServer


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ExchangeServer(arguments.state, arguments.socket, arguments.admin, seed=arguments.seed):
        print("paper exchange: ready", flush=True)
        await stop.wait()


def main() -> None:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.exchange", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of the exchange's book")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket that gateways link to")
    parser.add_argument("--admin", type=Path, required=True, help="Unix socket of the administration")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random walk (default 1)")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
