"""The contract endpoints: from a symbol to a contract id, and what a contract is."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from localcloud.gateways.client_portal.errors import Refusal
from localcloud.gateways.client_portal.gateway import Gateway, Json, body, whole


async def stocks(gateway: Gateway, request: Request) -> Any:
    """GET /trsrv/stocks?symbols=AAPL,IBM: `{"AAPL": [{"name": .., "contracts": [{"conid": 265598, ..}]}]}`.

    A symbol that isn't known has an empty list.
    """
    symbols = [symbol for symbol in request.query_params.get("symbols", "").split(",") if symbol]
    if not symbols:
        raise Refusal(400, "Bad Request: symbols is required")
    answer: Json = {}
    for symbol in symbols:
        found = (await gateway.session.call("contracts", symbol=symbol))["contracts"]
        names: dict[str, list[Json]] = {}
        for contract in found:
            names.setdefault(contract["name"], []).append(contract)
        answer[symbol] = [
            {
                "name": name,
                "chineseName": None,
                "assetClass": "STK",
                "contracts": [
                    {
                        "conid": contract["conid"],
                        "exchange": contract["primary_exchange"],
                        "isUS": contract["currency"] == "USD",
                    }
                    for contract in contracts
                ],
            }
            for name, contracts in names.items()
        ]
    return answer


async def search(gateway: Gateway, request: Request) -> Any:
    """GET or POST /iserver/secdef/search; `name` true searches company names."""
    given = dict(request.query_params) if request.method == "GET" else await body(request)
    symbol = str(given.get("symbol") or "")
    if not symbol:
        raise Refusal(400, "Bad Request: symbol is required")
    found = (await gateway.session.call("search", pattern=symbol))["contracts"]
    if str(given.get("name", "")).lower() not in ("true", "1"):
        found = [contract for contract in found if contract["symbol"] == symbol.upper()]
    if not found:
        return {"error": "No symbol found"}
    return [
        {
            "conid": str(contract["conid"]),
            "companyHeader": f"{contract['name']} - {contract['primary_exchange']}",
            "companyName": contract["name"],
            "symbol": contract["symbol"],
            "description": contract["primary_exchange"],
            "restricted": None,
            "fop": None,
            "opt": None,
            "war": None,
            "sections": [{"secType": "STK"}],
        }
        for contract in found
    ]


def info_row(contract: Json) -> Json:
    """A contract as /iserver/contract/{conid}/info shows it."""
    return {
        "cfi_code": "",
        "symbol": contract["symbol"],
        "cusip": None,
        "expiry_full": None,
        "con_id": contract["conid"],
        "maturity_date": None,
        "industry": contract["industry"],
        "instrument_type": contract["sec_type"],
        "trading_class": contract["trading_class"],
        "valid_exchanges": contract["valid_exchanges"],
        "allow_sell_long": False,
        "is_zero_commission_security": False,
        "local_symbol": contract["local_symbol"],
        "contract_clarification_type": None,
        "contract_month": None,
        "currency": contract["currency"],
        "text": None,
        "underlying_con_id": 0,
        "r_t_h": True,
        "multiplier": None,
        "underlying_issuer": None,
        "company_name": contract["name"],
        "category": contract["category"],
        "smart_available": True,
        "exchange": contract["exchange"],
    }


async def info(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/contract/{conid}/info."""
    return info_row(await gateway.contract(whole(request.path_params["conid"], "conid")))


async def rules(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/contract/rules, and /iserver/contract/{conid}/info-and-rules with both."""
    wanted = request.path_params.get("conid")
    if wanted is None:
        wanted = (await body(request)).get("conid")
    contract = await gateway.contract(whole(str(wanted), "conid"))
    limits = {
        "algoEligible": True,
        "overnightEligible": True,
        "costReport": False,
        "canTradeAcctIds": gateway.session.accounts,
        "error": None,
        "orderTypes": ["limit", "market", "stop", "stop_limit"],
        "orderTypesOutside": ["limit", "stop_limit"],
        "defaultSize": 100,
        "cashSize": 0.0,
        "sizeIncrement": 1,
        "tifTypes": ["GTC/o", "DAY/o", "IOC/MARKET,LIMIT,o"],
        "limitPrice": None,
        "preview": True,
        "increment": contract["min_tick"],
        "incrementType": 1,
        "incrementRules": [{"lowerEdge": 0.0, "increment": contract["min_tick"]}],
        "cashCcy": contract["currency"],
    }
    if "conid" in request.path_params:
        return {**info_row(contract), "rules": limits}
    return limits
