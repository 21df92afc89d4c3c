"""Alpaca through alpaca-py, behind the broker interface: the default, and the rollback.

`wire` sends each request once and says what an answer means; `translation` turns Alpaca's words into
ours; `records` takes them down and tells listeners; `desk` places, replaces and cancels; `news` is
the stream with what follows a gap; `connection` and `broker` are the interface.
"""

from broker.brokers.alpaca.broker import AlpacaBroker

__all__ = ["AlpacaBroker"]
