"""Interactive Brokers through IB Gateway (TWS API).

codes       what TWS's message codes mean for an order and for the link
library     the one module that imports ib_insync or ib_async
loop        the event loop in a thread of its own, and how others call into it
orders      orders as TWS tells of them, by its own messages
session     one connection: handshake, synchronisation, requests
link        whether the connection holds, since when, and what is being done
supervisor  connects, proves, loses and connects again, for ever
journal_writer  carries order events to the journal
broker      the broker interface on top
"""

from broker.brokers.ibkr.broker import IBKRBroker

__all__ = ["IBKRBroker"]
