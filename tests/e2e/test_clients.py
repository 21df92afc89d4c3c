"""Unmodified TWS clients reach the gateway through the tunnel, and nobody without it."""

import json
import subprocess
import threading
from pathlib import Path

import pytest
from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.order import Order
from ibapi.wrapper import EWrapper

from tests.e2e.conftest import Service
from tests.e2e.tunnel import tunnel
from tools.environments import IB_ASYNC, MAIN, Environment
from tools.local_stack import LocalStack

CLIENT = Path(__file__).with_name("ib_client.py")


@pytest.mark.parametrize(("environment", "library"), [(MAIN, "ib_insync"), (IB_ASYNC, "ib_async")])
def test_ib_insync_and_ib_async_trade_through_the_tunnel(
    stack: LocalStack, service: Service, environment: Environment, library: str
) -> None:
    with tunnel(stack) as port:
        answer = subprocess.run(
            [environment.python, CLIENT, str(port)], capture_output=True, text=True, timeout=90
        )
    assert answer.returncode == 0, answer.stderr[-2000:]
    seen = json.loads(answer.stdout)
    assert seen["library"] == library
    assert seen["con_id"] == 8314, "IBM's real contract id"
    assert 0 < seen["bid"] <= seen["ask"]
    assert (seen["bought"], seen["fills"]) == ("Filled", 2)
    assert seen["rested"] in ("Submitted", "PreSubmitted")
    assert seen["cancelled"] == "Cancelled"
    assert seen["position"] >= 2
    assert seen["net_liquidation"] > 0


class OfficialClient(EWrapper, EClient):
    """IBKR's own client, with events for what a test waits for."""

    def __init__(self) -> None:
        EClient.__init__(self, self)
        self.next_id: int | None = None
        self.statuses: list[str] = []
        self.summary: dict[str, str] = {}
        self.contracts: list[int] = []
        self.errors: list[tuple[int, str]] = []
        self.ready, self.summed, self.detailed, self.done = (threading.Event() for _ in range(4))

    def nextValidId(self, orderId: int) -> None:  # noqa: N802, N803 - IBKR's names
        self.next_id = orderId
        self.ready.set()

    def accountSummary(self, reqId, account, tag, value, currency) -> None:  # noqa: N802, N803
        self.summary[tag] = value

    def accountSummaryEnd(self, reqId: int) -> None:  # noqa: N802, N803
        self.summed.set()

    def contractDetails(self, reqId, contractDetails) -> None:  # noqa: N802, N803
        self.contracts.append(contractDetails.contract.conId)

    def contractDetailsEnd(self, reqId: int) -> None:  # noqa: N802, N803
        self.detailed.set()

    def orderStatus(self, orderId, status, *rest) -> None:  # noqa: N802, N803
        self.statuses.append(status)
        if status in ("Filled", "Cancelled", "Inactive"):
            self.done.set()

    def error(self, reqId, errorCode, errorString) -> None:  # noqa: N803
        self.errors.append((errorCode, errorString))


def test_the_official_client_trades_through_the_tunnel(stack: LocalStack, service: Service) -> None:
    client = OfficialClient()
    with tunnel(stack) as port:
        client.connect("127.0.0.1", port, 88)
        reader = threading.Thread(target=client.run)
        reader.start()
        try:
            assert client.ready.wait(20), client.errors
            client.reqAccountSummary(1, "All", "NetLiquidation,BuyingPower")
            assert client.summed.wait(20)
            assert float(client.summary["NetLiquidation"]) > 0
            contract = Contract()
            contract.symbol, contract.secType = "AAPL", "STK"
            contract.exchange, contract.currency = "SMART", "USD"
            client.reqContractDetails(2, contract)
            assert client.detailed.wait(20)
            assert client.contracts == [265598]
            order = Order()
            order.action, order.orderType, order.totalQuantity = "BUY", "MKT", 1
            # 9.81 sets both by default, and a gateway refuses such orders with 10268.
            order.eTradeOnly = order.firmQuoteOnly = False
            assert client.next_id is not None
            client.placeOrder(client.next_id, contract, order)
            assert client.done.wait(20), client.errors
            assert client.statuses[-1] == "Filled"
        finally:
            client.disconnect()
            reader.join(10)
