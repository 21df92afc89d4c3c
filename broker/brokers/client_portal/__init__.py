"""Interactive Brokers through a Client Portal gateway (an IBeam droplet).

tls        who is at the other end: a PEM file, a pin, or the certificate seen first
wire       one request over ibind, sent once, over a connection that was checked
pacing     IBKR's limits, in which a cancel overtakes
session    the brokerage session: opened, kept alive, lost, opened again
questions  what IBKR asks about an order, and which of it is confirmed
answers    what the gateway's answers mean
entry      orders on their way out: place, change, cancel
book       orders and fills on their way in, to the journal and to listeners
told       what listeners were told, where several processes share a gateway
stream     the websocket that tells of them
market     contracts, quotes, hours
account    balances, positions, previews
"""

from broker.brokers.client_portal.broker import ClientPortalBroker

__all__ = ["ClientPortalBroker"]
