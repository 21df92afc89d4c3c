"""What a person does with ib_insync or ib_async, unmodified: `ib_client.py PORT`; prints JSON.

A program of its own, since the two libraries can't share an environment: the test runs it in both.
"""

import json
import sys

try:
    import ib_async as ib_library
except ImportError:
    import ib_insync as ib_library


def main(port: int) -> None:
    """Read the account, trade a little, print what was seen."""
    ib = ib_library.IB()
    ib.connect("127.0.0.1", port, clientId=77, timeout=20)
    try:
        summary = {row.tag: row.value for row in ib.accountSummary()}
        (contract,) = ib.qualifyContracts(ib_library.Stock("IBM", "SMART", "USD"))
        (ticker,) = ib.reqTickers(contract)
        bought = ib.placeOrder(contract, ib_library.MarketOrder("BUY", 2))
        wait(ib, lambda: bought.isDone())
        resting = ib.placeOrder(contract, ib_library.LimitOrder("BUY", 1, round(ticker.bid / 2, 2)))
        wait(ib, lambda: resting.orderStatus.status in ("Submitted", "PreSubmitted"))
        rested = resting.orderStatus.status
        ib.cancelOrder(resting.order)
        wait(ib, lambda: resting.isDone())
        wait(ib, lambda: any(item.contract.symbol == "IBM" for item in ib.portfolio()))
        print(
            json.dumps(
                {
                    "library": ib_library.__name__,
                    "net_liquidation": float(summary["NetLiquidation"]),
                    "con_id": contract.conId,
                    "bid": ticker.bid,
                    "ask": ticker.ask,
                    "bought": bought.orderStatus.status,
                    "fills": sum(fill.execution.shares for fill in bought.fills),
                    "rested": rested,
                    "cancelled": resting.orderStatus.status,
                    "position": sum(p.position for p in ib.positions() if p.contract.symbol == "IBM"),
                }
            )
        )
    finally:
        ib.disconnect()


def wait(ib: "ib_library.IB", until: "callable") -> None:
    """Let the library work until the condition holds, 20 s at most."""
    for _ in range(200):
        if until():
            return
        ib.sleep(0.1)
    raise TimeoutError("the gateway didn't get there")


if __name__ == "__main__":
    main(int(sys.argv[1]))
