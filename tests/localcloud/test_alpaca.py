"""The paper Alpaca as the local cloud serves it: who reaches it, and the accounts that it opens.

What it answers is tested in tests/alpaca.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockLatestQuoteRequest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest
from alpaca.trading.stream import TradingStream

from localcloud.apis.app import api_server, listening_socket
from localcloud.cloud import Cloud
from localcloud.control import Daemon
from tests.localcloud.playground import Network

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1]).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@pytest.fixture
async def apis(cloud: Cloud) -> AsyncIterator[Cloud]:
    """The cloud with its API server running, without an exchange."""
    server = api_server(cloud)
    task = asyncio.create_task(server.serve(sockets=[listening_socket(cloud)]))
    while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield cloud
    server.should_exit = True
    await task


@pytest.fixture
def daemon(tmp_path: Path, prefix: str) -> Iterator[Daemon]:
    """A started daemon."""
    found = Daemon(tmp_path / "home")
    assert found.start(prefix)
    yield found
    found.stop()


def trading(settings: dict[str, str]) -> TradingClient:
    """A client with what `localcloud env` prints."""
    key, secret = settings["ALPACA_API_KEY"], settings["ALPACA_SECRET_KEY"]
    return TradingClient(key, secret, url_override=settings["ALPACA_TRADING_URL"])


async def asked(cloud: Cloud, network: Network) -> str:
    """What a virtual machine gets that asks for the clock without a key."""
    host = network.vm("vm", f"{network.prefix}.1.6")
    printed: list[str] = []
    url = f"{cloud.settings.api_url}/alpaca/trading/v2/clock"
    argv = [sys.executable, "-c", ASK, url]
    process = await cloud.processes.spawn(argv, owner=host.name, log=printed.append)
    await process.wait()
    return "".join(printed)


async def test_a_machine_without_a_way_to_the_internet_does_not_reach_alpaca(
    apis: Cloud, network: Network
) -> None:
    said = await asked(apis, network)
    assert said.startswith("503"), said
    assert "Alpaca can't be reached" in said


async def test_a_machine_behind_nat_reaches_alpaca_and_needs_a_key_there(
    apis: Cloud, network: Network
) -> None:
    network.declare("gcp:compute/router:Router", "router", network="vpc")
    network.declare(
        "gcp:compute/routerNat:RouterNat",
        "nat",
        router="router",
        sourceSubnetworkIpRangesToNat="ALL_SUBNETWORKS_ALL_IP_RANGES",
    )
    assert (await asked(apis, network)).startswith("401")


def test_the_clouds_own_account_is_opened_when_it_is_first_used(daemon: Daemon) -> None:
    settings = daemon.call("env")
    assert (settings["ALPACA_API_KEY"][:2], len(settings["ALPACA_SECRET_KEY"])) == ("PK", 40)
    client = trading(settings)
    account = client.get_account()
    assert (account.cash, account.status) == ("100000", "ACTIVE")
    order = client.submit_order(
        MarketOrderRequest(symbol="SPY", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    )
    data = StockHistoricalDataClient(
        settings["ALPACA_API_KEY"], settings["ALPACA_SECRET_KEY"], url_override=settings["ALPACA_DATA_URL"]
    )
    quote = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="SPY"))["SPY"]
    assert 0 < quote.bid_price < quote.ask_price
    daemon.stop()
    daemon.start()
    assert daemon.call("env")["ALPACA_API_KEY"] == settings["ALPACA_API_KEY"]
    assert trading(settings).get_order_by_id(order.id).symbol == "SPY", "the account outlasts the daemon"


async def test_the_stream_is_served_beside_the_apis(daemon: Daemon) -> None:
    settings = await asyncio.to_thread(daemon.call, "env")
    told: asyncio.Queue[str] = asyncio.Queue()
    stream = TradingStream(
        settings["ALPACA_API_KEY"], settings["ALPACA_SECRET_KEY"], url_override=settings["ALPACA_STREAM_URL"]
    )

    async def take(update: object) -> None:
        told.put_nowait(str(update.event))  # type: ignore[attr-defined]

    stream.subscribe_trade_updates(take)
    await stream._start_ws()
    assert b"listening" in await stream._ws.recv()
    consuming = asyncio.create_task(stream._consume())
    request = MarketOrderRequest(symbol="SPY", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    await asyncio.to_thread(trading(settings).submit_order, request)
    while "FILL" not in (await told.get()).upper():
        pass
    consuming.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await consuming
    await stream.close()


def test_further_accounts_are_opened_from_the_command_line(daemon: Daemon) -> None:
    argv = [sys.executable, "-m", "localcloud", "--home", str(daemon.home), "user", "add", "PKMINE"]
    said = subprocess.check_output([*argv, "--kind", "alpaca"], cwd=ROOT, text=True)
    assert "opened PA3" in said
    secret = said.split("password: ")[1].strip()
    assert len(secret) == 40
    settings = daemon.call("env") | {"ALPACA_API_KEY": "PKMINE", "ALPACA_SECRET_KEY": secret}
    assert trading(settings).get_account().account_number.startswith("PA3")
    with pytest.raises(APIError):
        trading(settings | {"ALPACA_SECRET_KEY": "guessed"}).get_account()
