"""The account endpoints: accounts, summary, ledger, positions, profit and loss."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request

from localcloud.gateways.client_portal.gateway import Gateway, Json, body, whole

PAGE = 100

# Names in /portfolio/{account}/summary, and the exchange's for the same amount.
_AMOUNTS = {
    "accruedcash": "accrued_cash",
    "availablefunds": "available_funds",
    "buyingpower": "buying_power",
    "equitywithloanvalue": "equity_with_loan",
    "excessliquidity": "excess_liquidity",
    "fullavailablefunds": "available_funds",
    "fullexcessliquidity": "excess_liquidity",
    "fullinitmarginreq": "init_margin",
    "fullmaintmarginreq": "maint_margin",
    "grosspositionvalue": "gross_position_value",
    "initmarginreq": "init_margin",
    "maintmarginreq": "maint_margin",
    "netliquidation": "net_liquidation",
    "previousdayequitywithloanvalue": "previous_equity",
    "regtequity": "reg_t_equity",
    "regtmargin": "reg_t_margin",
    "settledcash": "settled_cash",
    "sma": "sma",
    "totalcashvalue": "total_cash",
}
_WITH_SEGMENT = ("accruedcash", "availablefunds", "equitywithloanvalue", "excessliquidity", "netliquidation",
                 "totalcashvalue", "initmarginreq", "maintmarginreq", "grosspositionvalue")  # fmt: skip


async def brokerage_accounts(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/accounts; orders and snapshots need it to have been asked."""
    session = gateway.session
    session.require()
    session.accounts_asked = True
    accounts, paper = session.accounts, session.mode == "paper"
    properties = {"hasChildAccounts": False, "supportsCashQty": True, "noFxConv": False, "isProp": False,
                  "supportsFractions": False, "allowCustomerTime": True, "autoFx": False}  # fmt: skip
    return {
        "accounts": accounts,
        "acctProps": dict.fromkeys(accounts, properties),
        "aliases": {account: account for account in accounts},
        "allowFeatures": {"showGFIS": True, "allowedAssetTypes": "STK", "snapshotRefreshTimeout": 30},
        "chartPeriods": {"STK": ["*"]},
        "groups": [],
        "profiles": [],
        "selectedAccount": accounts[0],
        "serverInfo": session.status()["serverInfo"],
        "sessionId": session.session_id,
        "isFT": False,
        "isPaper": paper,
    }


async def switch_account(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/account: there is one to choose."""
    gateway.session.require()
    account = gateway.session.own(str((await body(request)).get("acctId")))
    return {"set": True, "acctId": account}


async def portfolio_accounts(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio/accounts and /portfolio/subaccounts; /portfolio/{account}/... needs one of them."""
    gateway.session.require()
    gateway.session.portfolio_asked = True
    return [portfolio_account(account) for account in gateway.session.accounts]


async def paged_subaccounts(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio/subaccounts2 (page by page, for those with many)."""
    accounts = await portfolio_accounts(gateway, request)
    page = whole(request.query_params.get("page", "0"), "page")
    metadata = {"total": len(accounts), "pageSize": 20, "pageNum": page}
    return {"metadata": metadata, "subaccounts": accounts[page * 20 : (page + 1) * 20]}


def portfolio_account(account: str) -> Json:
    """An account as /portfolio shows it; paper accounts' names begin with D."""
    return {
        "id": account,
        "PrepaidCrypto-Z": False,
        "PrepaidCrypto-P": False,
        "brokerageAccess": True,
        "accountId": account,
        "accountVan": account,
        "accountTitle": "",
        "displayName": account,
        "accountAlias": None,
        "accountStatus": 1590724800000,
        "currency": "USD",
        "type": "DEMO" if account.startswith("D") else "INDIVIDUAL",
        "tradingType": "STKNOPT",
        "businessType": "INDEPENDENT",
        "category": "",
        "ibEntity": "IBLLC-US",
        "faclient": False,
        "clearingStatus": "O",
        "covestor": False,
        "noClientTrading": False,
        "trackVirtualFXPortfolio": False,
        "acctCustType": "INDIVIDUAL",
        "parent": {"mmc": [], "accountId": "", "isMParent": False, "isMChild": False, "isMultiplex": False},
        "desc": account,
    }


def _amount(amount: float, currency: str | None, value: str | None = None) -> Json:
    now = int(time.time() * 1000)
    return {"amount": amount, "currency": currency, "isNull": False, "timestamp": now, "value": value,
            "severity": 0}  # fmt: skip


async def summary(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio/{account}/summary: `{"netliquidation": {"amount": 1.0, ...}, ...}`."""
    account = gateway.portfolio_account(request.path_params["account"])
    amounts = (await gateway.session.call("account_summary", account=account))["summary"]
    shown = {name: _amount(amounts[key], amounts["currency"]) for name, key in _AMOUNTS.items()}
    shown |= {f"{name}-s": shown[name] for name in _WITH_SEGMENT}
    shown |= {
        "accountcode": _amount(0.0, None, account),
        "accountready": _amount(0.0, None, "true"),
        "accounttype": _amount(0.0, None, "INDIVIDUAL"),
        "cushion": _amount(0.0, None, str(amounts["cushion"])),
        "leverage-s": _amount(0.0, None, str(amounts["leverage"])),
    }
    return dict(sorted(shown.items()))


async def ledger(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio/{account}/ledger: balances by currency, and BASE."""
    account = gateway.portfolio_account(request.path_params["account"])
    amounts = (await gateway.session.call("account_summary", account=account))["summary"]
    row = {
        "acctcode": account,
        "cashbalance": amounts["total_cash"],
        "cashbalancefxsegment": 0.0,
        "commoditymarketvalue": 0.0,
        "corporatebondsmarketvalue": 0.0,
        "dividends": 0.0,
        "exchangerate": 1,
        "funds": 0.0,
        "futuremarketvalue": 0.0,
        "interest": 0.0,
        "key": "LedgerList",
        "moneyfunds": 0.0,
        "netliquidationvalue": amounts["net_liquidation"],
        "realizedpnl": amounts["realized_pnl"],
        "sessionid": 1,
        "settledcash": amounts["settled_cash"],
        "severity": 0,
        "stockmarketvalue": amounts["stock_value"],
        "stockoptionmarketvalue": 0.0,
        "timestamp": int(time.time()),
        "unrealizedpnl": amounts["unrealized_pnl"],
    }
    return {name: {**row, "currency": name, "secondkey": name} for name in (amounts["currency"], "BASE")}


def position_row(position: Json) -> Json:
    """A position as /portfolio shows it: numbers are numbers here."""
    contract = position["contract"]
    return {
        "acctId": position["account"],
        "conid": position["conid"],
        "contractDesc": contract["symbol"],
        "position": position["position"],
        "mktPrice": position["market_price"],
        "mktValue": position["market_value"],
        "currency": contract["currency"],
        "avgCost": position["average_cost"],
        "avgPrice": position["average_cost"],
        "realizedPnl": position["realized_pnl"],
        "unrealizedPnl": position["unrealized_pnl"],
        "exchs": None,
        "expiry": None,
        "putOrCall": None,
        "multiplier": None,
        "strike": 0.0,
        "exerciseStyle": None,
        "conExchMap": [],
        "assetClass": contract["sec_type"],
        "undConid": 0,
        "model": "",
        "time": 1,
        "allExchanges": contract["valid_exchanges"],
        "listingExchange": contract["primary_exchange"],
        "countryCode": "US",
        "name": contract["name"],
        "ticker": contract["symbol"],
        "fullName": contract["symbol"],
        "group": contract["category"],
        "sector": contract["industry"],
        "type": contract["stock_type"],
        "isUS": contract["currency"] == "USD",
        "pageSize": PAGE,
    }


async def positions(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio/{account}/positions/{page}: 100 rows a page, from a cache."""
    account = gateway.portfolio_account(request.path_params["account"])
    page = whole(request.path_params.get("page", "0"), "pageId")
    found = await gateway.positions(account)
    return [position_row(position) for position in found[page * PAGE : (page + 1) * PAGE]]


async def positions_now(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio2/{account}/positions: all of them, never cached, under other names."""
    account = gateway.portfolio_account(request.path_params["account"])
    return [
        {
            "position": position["position"],
            "conid": str(position["conid"]),
            "avgCost": position["average_cost"],
            "avgPrice": position["average_cost"],
            "currency": position["contract"]["currency"],
            "description": position["contract"]["symbol"],
            "isLastToLoq": False,
            "marketPrice": position["market_price"],
            "marketValue": position["market_value"],
            "realizedPnl": position["realized_pnl"],
            "secType": position["contract"]["sec_type"],
            "timestamp": int(time.time()),
            "unrealizedPnl": position["unrealized_pnl"],
            "assetClass": position["contract"]["sec_type"],
            "sector": position["contract"]["industry"],
            "group": position["contract"]["category"],
            "model": "",
        }
        for position in await gateway.positions(account, fresh=True)
    ]


async def position(gateway: Gateway, request: Request) -> Any:
    """GET /portfolio/{account}/position/{conid}: a list of one, or of none."""
    account = gateway.portfolio_account(request.path_params["account"])
    conid = whole(request.path_params["conid"], "conid")
    return [position_row(found) for found in await gateway.positions(account) if found["conid"] == conid]


async def forget_positions(gateway: Gateway, request: Request) -> Any:
    """POST /portfolio/{account}/positions/invalidate."""
    gateway.forget_positions(gateway.portfolio_account(request.path_params["account"]))
    return {"message": "success"}


async def profit_and_loss_rows(gateway: Gateway) -> Json:
    """Amounts of the day by account."""
    gateway.session.require()
    rows: Json = {}
    for account in gateway.session.accounts:
        amounts = (await gateway.session.call("account_summary", account=account))["summary"]
        rows[f"{account}.Core"] = {
            "rowType": 1,
            "dpl": amounts["daily_pnl"],
            "nl": amounts["net_liquidation"],
            "upl": amounts["unrealized_pnl"],
            "uel": amounts["excess_liquidity"],
            "el": amounts["excess_liquidity"],
            "mv": amounts["stock_value"],
        }
    return rows


async def profit_and_loss(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/account/pnl/partitioned."""
    return {"upnl": await profit_and_loss_rows(gateway)}
