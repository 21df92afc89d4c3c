"""Quotes: snapshots and streams of ticks.

Tick types (TWS API, "Available Tick Types"; ibapi/ticktype.py): live and delayed ones have different numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localcloud.gateways.tws import contracts
from localcloud.gateways.tws.client import ApiClient
from localcloud.gateways.tws.codec import Request
from localcloud.gateways.tws.messages import Complaint

if TYPE_CHECKING:
    from localcloud.gateways.tws.gateway import Gateway

LIVE, DELAYED = 1, 3
# Field of a quote: (tick type live, tick type delayed, field that holds the size sent along).
PRICES: dict[str, tuple[int, int, str]] = {
    "bid": (1, 66, "bid_size"),
    "ask": (2, 67, "ask_size"),
    "last": (4, 68, "last_size"),
    "high": (6, 72, ""),
    "low": (7, 73, ""),
    "close": (9, 75, ""),
    "open": (14, 76, ""),
}
SIZES: dict[str, tuple[int, int]] = {
    "bid_size": (0, 69),
    "ask_size": (3, 70),
    "last_size": (5, 71),
    "volume": (8, 74),
}
LAST_TIMESTAMP, DELAYED_LAST_TIMESTAMP = 45, 88


@dataclass
class Ticket:
    """A running market data request: what it is for and what was sent last."""

    identity: int
    conid: int
    kind: int
    sent: dict[str, Any] = field(default_factory=dict)


async def request(client: ApiClient, request: Request) -> None:
    """Starts a stream of ticks, or answers once with a snapshot."""
    identity = request.integer("reqId")
    if identity in client.market_data:
        raise Complaint(322, "'bM' : cause - Duplicate ticker ID for API request")
    contract = await contracts.find_one(client, request)
    snapshot = request.flag("snapshot") or request.flag("regulatorySnapshot")
    method = "quote" if snapshot else "subscribe"
    answer = await client.gateway.brokerage.call(method, conid=contract["conid"])
    ticket = Ticket(identity, contract["conid"], _kind(client, identity, answer["entitlement"]))
    client.send("marketDataType", reqId=identity, type=ticket.kind)
    client.send("tickReqParams", reqId=identity, minTick=contract["min_tick"], bboExchange="9c0001",
                snapshotPermissions=3)  # fmt: skip
    if answer["farms_up"]:
        _send_ticks(client, ticket, answer["quote"])
    if snapshot:
        client.send("tickSnapshotEnd", reqId=identity)
    else:
        client.market_data[identity] = ticket


def _kind(client: ApiClient, identity: int, entitlement: str) -> int:
    """Live or delayed data, by what the user has subscribed and the client asked for. Raises Complaint."""
    wants_delayed = client.market_data_type in (3, 4)
    if entitlement == "competing":
        raise Complaint(10197)
    if entitlement == "none":
        raise Complaint(354)
    if entitlement == "delayed":
        if not wants_delayed:
            raise Complaint(10089)
        client.complain(identity, 10167)
        return DELAYED
    return LIVE


async def cancel(client: ApiClient, request: Request) -> None:
    """Ends a stream. Raises Complaint 300 for an id without one."""
    identity = request.integer("reqId")
    ticket = client.market_data.pop(identity, None)
    if ticket is None:
        raise Complaint(300, str(identity))
    await _unsubscribe_unused(client.gateway, {ticket.conid})


async def forget(client: ApiClient) -> None:
    """Ends all streams of a client that has gone."""
    conids = {ticket.conid for ticket in client.market_data.values()}
    client.market_data.clear()
    await _unsubscribe_unused(client.gateway, conids)


async def resubscribe(gateway: Gateway) -> None:
    """Asks a restored link for the quotes that clients still wait for."""
    for conid in _wanted(gateway):
        await gateway.brokerage.call("subscribe", conid=conid)


async def _unsubscribe_unused(gateway: Gateway, conids: set[int]) -> None:
    for conid in conids - _wanted(gateway):
        await gateway.brokerage.call("unsubscribe", conid=conid)


def _wanted(gateway: Gateway) -> set[int]:
    return {ticket.conid for client in gateway.clients.values() for ticket in client.market_data.values()}


def send_quote(gateway: Gateway, quote: dict[str, Any]) -> None:
    """Passes a quote on to every client that streams it."""
    for client in gateway.clients.values():
        for ticket in client.market_data.values():
            if ticket.conid == quote["conid"]:
                _send_ticks(client, ticket, quote)


def _send_ticks(client: ApiClient, ticket: Ticket, quote: dict[str, Any]) -> None:
    """Sends what changed since the last time."""
    column = 1 if ticket.kind == DELAYED else 0
    changed = {name for name, value in quote.items() if ticket.sent.get(name) != value}
    ticket.sent = quote
    for name, (*types, size) in PRICES.items():
        if name in changed or size in changed:
            client.send(
                "tickPrice",
                reqId=ticket.identity,
                type=types[column],
                price=quote[name],
                size=quote[size] if size else 0,
                attributes=1,
            )
    for name, kinds in SIZES.items():
        if name in changed:
            client.send("tickSize", reqId=ticket.identity, type=kinds[column], size=quote[name])
    if "last" in changed:
        kind = DELAYED_LAST_TIMESTAMP if column else LAST_TIMESTAMP
        client.send("tickString", reqId=ticket.identity, type=kind, value=int(quote["time"]))
