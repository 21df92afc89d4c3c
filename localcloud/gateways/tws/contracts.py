"""Contracts: which one a request means, their details, and the search by symbol or name."""

from __future__ import annotations

from typing import Any

from localcloud.gateways.tws.client import ApiClient
from localcloud.gateways.tws.codec import Request
from localcloud.gateways.tws.messages import Complaint

# A selection of what the real gateway lists for a US stock.
ORDER_TYPES = "ACTIVETIM,DAY,GTC,IOC,FOK,LMT,MKT,STP,STPLMT,WHATIF"
DERIVATIVES = ({"secType": "CFD"}, {"secType": "OPT"}, {"secType": "IOPT"}, {"secType": "WAR"})


async def find(client: ApiClient, request: Request) -> list[dict[str, Any]]:
    """All contracts that fit a request. Raises Complaint 200 when there are none."""
    exchange = request["exchange"]
    conid = request.integer("conId")
    if request["secType"] not in ("", "STK"):
        raise Complaint(200)
    found = await client.gateway.brokerage.contracts(
        symbol=request["symbol"] or request["localSymbol"],
        conid=conid,
        currency=request["currency"],
        exchange=exchange,
        primary_exchange=request["primaryExchange"],
    )
    fitting = [item for item in found if not exchange or exchange in item["valid_exchanges"].split(",")]
    if not fitting:
        raise Complaint(200)
    return fitting


async def find_one(client: ApiClient, request: Request) -> dict[str, Any]:
    """The contract of an order or a quote. Raises Complaint: none, several, or no exchange given."""
    if not request["exchange"]:
        raise Complaint(321, "'bH' : cause - Please enter exchange")
    found = await find(client, request)
    if len(found) > 1:
        complaint = Complaint(200)
        complaint.text = f"The contract description specified for {found[0]['symbol']} is ambiguous."
        raise complaint
    return found[0]


def fields(contract: dict[str, Any], exchange: str = "SMART") -> dict[str, Any]:
    """A contract's fields as replies carry them."""
    return {
        "conId": contract["conid"],
        "symbol": contract["symbol"],
        "secType": contract["sec_type"],
        "strike": 0.0,
        "right": "",
        "exchange": exchange,
        "primaryExchange": contract["primary_exchange"],
        "currency": contract["currency"],
        "localSymbol": contract["local_symbol"],
        "tradingClass": contract["trading_class"],
    }


async def details(client: ApiClient, request: Request) -> None:
    """Contract details: one reply for the exchange asked for, or one for each exchange that trades it."""
    identity = request.integer("reqId")
    for contract in await find(client, request):
        full = (await client.gateway.brokerage.call("contract_details", conid=contract["conid"]))["contract"]
        exchanges = [request["exchange"]] if request["exchange"] else full["valid_exchanges"].split(",")
        for exchange in exchanges:
            client.send("contractDetails", reqId=identity, **_details(full, exchange))
    client.send("contractDetailsEnd", reqId=identity)


def _details(contract: dict[str, Any], exchange: str) -> dict[str, Any]:
    exchanges = contract["valid_exchanges"]
    return {
        **fields(contract, exchange),
        "marketName": contract["trading_class"],
        "minTick": contract["min_tick"],
        "mdSizeMultiplier": 1,
        "orderTypes": ORDER_TYPES,
        "validExchanges": exchanges,
        "priceMagnifier": 1,
        "underConId": 0,
        # ib_insync and ibapi undo escapes in the long name, so the wire carries it escaped.
        "longName": contract["name"].encode("unicode-escape").decode(),
        "industry": contract["industry"],
        "category": contract["category"],
        "timeZoneId": contract["time_zone"],
        "tradingHours": contract["trading_hours"],
        "liquidHours": contract["liquid_hours"],
        "evMultiplier": 0,
        "aggGroup": 1,
        "marketRuleIds": ",".join(["26"] * len(exchanges.split(","))),
        "stockType": contract["stock_type"],
        "minSize": 1,
        "sizeIncrement": 1,
        "suggestedSizeIncrement": 100,
    }


async def matching_symbols(client: ApiClient, request: Request) -> None:
    """Contracts whose symbol begins with, or whose name holds, a pattern; 16 at most."""
    found = (await client.gateway.brokerage.call("search", pattern=request["pattern"]))["contracts"]
    samples = [{**fields(item), "description": item["name"], "derivatives": DERIVATIVES} for item in found]
    client.send("symbolSamples", reqId=request.integer("reqId"), samples=samples)
