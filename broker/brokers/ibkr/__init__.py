"""Interactive Brokers through IB Gateway (TWS API).

codes       what TWS's message codes mean for an order and for the link
library     the one module that imports ib_insync or ib_async
loop        the event loop in a thread of its own, and how others call into it
order_types our order types in TWS's words
executions  executions, their ids and corrections
signals     what coroutines wait for
orders      orders as TWS tells of them, by its own messages
pacing      turns for orders, so that cancels need none
desk        orders on their way out: placed, changed, cancelled, previewed
news        what TWS says about orders, on its way to the journal and to listeners
session     one connection: handshake, synchronisation, requests
holdings    positions, converted once
link        whether the connection holds, since when, and what is being done
supervisor  connects, proves, loses and connects again, for ever
journal_writer  carries order events to the journal
connection  makes the connection, tells how it is, and takes calls to its loop
broker      the broker interface on top
"""

from broker.brokers.ibkr.broker import IBKRBroker

__all__ = ["IBKRBroker"]
