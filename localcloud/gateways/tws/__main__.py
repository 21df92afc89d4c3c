"""Runs a paper IB Gateway under IBC's settings.

    python -m localcloud.gateways.tws --ibc-ini PATH [--mode paper|live] (--socket PATH | --listen HOST:PORT)

Without --socket and --listen it listens on 127.0.0.1 at OverrideTwsApiPort (or 4001 live, 4002 paper). The
exchange is at $IBKR_SERVERS (HOST:PORT or unix:PATH). As in life, the API port opens only once the login has
completed. A refused login leaves the process at the login dialog, without a port, because every restart would
be another attempt at a locked account. Exit code 87: nobody confirmed the second factor (IBC's
--on2fatimeout=exit).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from localcloud.exchange.users import LoginFailed
from localcloud.gateways.tws.brokerage import SecondFactorTimeout
from localcloud.gateways.tws.gateway import Gateway, Listen, on_port, on_unix_socket
from localcloud.gateways.tws.ibc import IbcSettings, read_settings

SECOND_FACTOR_TIMEOUT = 87
DIALOGS = {
    "credentials": "Unrecognized Username or Password",
    "mode": "The specified user is not enabled for this trading mode",
}
log = logging.getLogger("ibgateway")


async def run(settings: IbcSettings, server: str, listen: Listen) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gateway = Gateway(settings, server)
    serving = asyncio.create_task(gateway.serve(listen))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if serving.done():
            await serving
    except LoginFailed as failure:
        log.info("IBC: Login failed: %s", DIALOGS.get(failure.reason, failure.reason))
        await stopped
    except SecondFactorTimeout:
        log.info("IBC: Second Factor Authentication timed out; nobody confirmed the login")
        return SECOND_FACTOR_TIMEOUT
    finally:
        serving.cancel()
        stopped.cancel()
        await asyncio.gather(serving, stopped, return_exceptions=True)
    return 0


def main() -> int:
    """Reads arguments and settings, and runs the gateway."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.gateways.tws", description=__doc__)
    parser.add_argument("--ibc-ini", type=Path, required=True, help="IBC's config.ini")
    parser.add_argument("--mode", choices=("paper", "live"), help="wins over TradingMode")
    parser.add_argument("--socket", type=Path, help="Unix socket to serve the API on")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address to serve the API on")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s")
    server = os.environ.get("IBKR_SERVERS", "")
    if not server:
        parser.error("IBKR_SERVERS must say where the exchange is (HOST:PORT or unix:PATH)")
    try:
        settings = read_settings(arguments.ibc_ini, arguments.mode)
    except (OSError, ValueError) as error:
        parser.error(f"--ibc-ini {arguments.ibc_ini}: {error}")
    if arguments.socket is not None:
        listen = on_unix_socket(arguments.socket)
    else:
        host, _, port = (arguments.listen or f"127.0.0.1:{settings.port}").rpartition(":")
        listen = on_port(host, int(port))
    return asyncio.run(run(settings, server, listen))


if __name__ == "__main__":
    sys.exit(main())
