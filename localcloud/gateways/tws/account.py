"""Account values, portfolio, positions and profit and loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localcloud.gateways.tws import contracts
from localcloud.gateways.tws.client import ApiClient
from localcloud.gateways.tws.codec import Request
from localcloud.gateways.tws.messages import Complaint

if TYPE_CHECKING:
    from localcloud.gateways.tws.gateway import Gateway

# IBKR's account keys (TWS API, "Account Summary" and "Account Value Keys") and where they come from.
KEYS: dict[str, str] = {
    "NetLiquidation": "net_liquidation",
    "TotalCashValue": "total_cash",
    "SettledCash": "settled_cash",
    "AccruedCash": "accrued_cash",
    "BuyingPower": "buying_power",
    "EquityWithLoanValue": "equity_with_loan",
    "PreviousDayEquityWithLoanValue": "previous_equity",
    "GrossPositionValue": "gross_position_value",
    "RegTEquity": "reg_t_equity",
    "RegTMargin": "reg_t_margin",
    "SMA": "sma",
    "InitMarginReq": "init_margin",
    "MaintMarginReq": "maint_margin",
    "AvailableFunds": "available_funds",
    "ExcessLiquidity": "excess_liquidity",
    "FullInitMarginReq": "init_margin",
    "FullMaintMarginReq": "maint_margin",
    "FullAvailableFunds": "available_funds",
    "FullExcessLiquidity": "excess_liquidity",
    "LookAheadInitMarginReq": "init_margin",
    "LookAheadMaintMarginReq": "maint_margin",
    "LookAheadAvailableFunds": "available_funds",
    "LookAheadExcessLiquidity": "excess_liquidity",
}
# Keys without a currency.
PLAIN_KEYS: dict[str, str] = {"Cushion": "cushion", "Leverage": "leverage"}
# Keys of the ledger, sent for the base currency and for BASE.
LEDGER_KEYS: dict[str, str] = {
    "CashBalance": "total_cash",
    "TotalCashBalance": "total_cash",
    "StockMarketValue": "stock_value",
    "NetLiquidationByCurrency": "net_liquidation",
    "UnrealizedPnL": "unrealized_pnl",
    "RealizedPnL": "realized_pnl",
}
DAY_TRADES = ("DayTradesRemaining", *(f"DayTradesRemainingT+{day}" for day in range(1, 5)))
SUMMARY_TAGS = frozenset(
    {*KEYS, *PLAIN_KEYS, *DAY_TRADES, "AccountType", "HighestSeverity", "LookAheadNextChange"}
)
LEDGER_TAG = "$LEDGER"
MOST_SUMMARIES = 2
Row = tuple[str, str, str]


def _amount(value: float) -> str:
    return f"{value:.2f}"


def plain_rows(summary: dict[str, Any]) -> list[Row]:
    """(key, value, currency) of everything but the ledger."""
    currency = summary["currency"]
    rows: list[Row] = [("AccountType", "INDIVIDUAL", ""), ("LookAheadNextChange", "0", "")]
    # -1: no limit, the account is above the pattern day trader's minimum.
    rows += [(tag, "-1", "") for tag in DAY_TRADES]
    rows += [(key, str(summary[name]), "") for key, name in PLAIN_KEYS.items()]
    return rows + [(key, _amount(summary[name]), currency) for key, name in KEYS.items()]


def ledger_rows(summary: dict[str, Any]) -> list[Row]:
    """(key, value, currency) of the ledger, by currency and for the whole (BASE)."""
    rows: list[Row] = []
    for currency in ("BASE", summary["currency"]):
        rows += [(key, _amount(summary[name]), currency) for key, name in LEDGER_KEYS.items()]
        rows += [("Currency", currency, currency), ("ExchangeRate", "1.00", currency)]
    return rows


def account_of(client: ApiClient, account: str) -> str:
    """The account that a request names, or the only one. Raises Complaint 321."""
    known = client.gateway.brokerage.accounts
    if not account and len(known) == 1:
        return known[0]
    if account not in known:
        raise Complaint(321, f"'bW' : cause - The account code is invalid or missing: {account!r}")
    return account


async def _summary(client: ApiClient, account: str) -> dict[str, Any]:
    answer = await client.gateway.brokerage.remembered("account_summary", account)
    return dict(answer["summary"])


async def _positions(client: ApiClient, account: str) -> list[dict[str, Any]]:
    return list((await client.gateway.brokerage.remembered("positions", account))["positions"])


# -- reqAccountUpdates ----------------------------------------------------------------


async def updates(client: ApiClient, request: Request) -> None:
    """Subscribes to values and portfolio of one account, or ends that subscription."""
    if not request.flag("subscribe"):
        client.account_updates = None
        return
    account = account_of(client, request["account"])
    summary, held = await _summary(client, account), await _positions(client, account)
    client.account_updates = account
    _send_values(client, account, summary)
    for position in held:
        _send_portfolio(client, position)
    client.send("updateAccountTime", time=client.gateway.brokerage.now().strftime("%H:%M"))
    client.send("accountDownloadEnd", account=account)


def _send_values(client: ApiClient, account: str, summary: dict[str, Any]) -> None:
    client.send("updateAccountValue", key="AccountCode", value=account, currency="", account=account)
    client.send("updateAccountValue", key="AccountReady", value="true", currency="", account=account)
    for key, value, currency in plain_rows(summary) + ledger_rows(summary):
        client.send("updateAccountValue", key=key, value=value, currency=currency, account=account)


def _send_portfolio(client: ApiClient, position: dict[str, Any]) -> None:
    client.send(
        "updatePortfolio",
        **contracts.fields(position["contract"]),
        position=position["position"],
        marketPrice=position["market_price"],
        marketValue=position["market_value"],
        averageCost=position["average_cost"],
        unrealizedPNL=position["unrealized_pnl"],
        realizedPNL=position["realized_pnl"],
        account=position["account"],
    )


# -- reqAccountSummary ----------------------------------------------------------------


async def summary(client: ApiClient, request: Request) -> None:
    """Subscribes to chosen values of all accounts. Raises Complaint 321 and 322."""
    identity = request.integer("reqId")
    tags = [tag for tag in request["tags"].split(",") if tag]
    unknown = [tag for tag in tags if tag not in SUMMARY_TAGS and not tag.startswith(LEDGER_TAG)]
    if unknown or not tags:
        raise Complaint(321, f"'bN' : cause - The tag {','.join(unknown)!r} is not valid")
    if request["group"] != "All":
        raise Complaint(321, f"'bN' : cause - The group {request['group']!r} is not valid")
    if identity not in client.summaries and len(client.summaries) >= MOST_SUMMARIES:
        raise Complaint(322, "'bN' : cause - Maximum number of account summary requests exceeded")
    for account in client.gateway.brokerage.accounts:
        _send_summary(client, identity, tags, await _summary(client, account))
    client.summaries[identity] = tags
    client.send("accountSummaryEnd", reqId=identity)


def _send_summary(client: ApiClient, identity: int, tags: list[str], values: dict[str, Any]) -> None:
    rows = [row for row in plain_rows(values) if row[0] in tags]
    wanted = {tag.partition(":")[2] or "BASE" for tag in tags if tag.startswith(LEDGER_TAG)}
    rows += [row for row in ledger_rows(values) if row[2] in wanted or "ALL" in wanted]
    for key, value, currency in rows:
        client.send(
            "accountSummary",
            reqId=identity,
            account=values["account"],
            tag=key,
            value=value,
            currency=currency,
        )


async def cancel_summary(client: ApiClient, request: Request) -> None:
    """Ends a summary's subscription."""
    client.summaries.pop(request.integer("reqId"), None)


# -- positions ----------------------------------------------------------------


def _position_fields(position: dict[str, Any]) -> dict[str, Any]:
    # Positions carry the listing exchange where orders carry SMART.
    listing = position["contract"]["primary_exchange"]
    return {
        **contracts.fields(position["contract"], listing),
        "account": position["account"],
        "position": position["position"],
        "averageCost": position["average_cost"],
    }


async def positions(client: ApiClient, request: Request) -> None:
    """Subscribes to the positions of all accounts."""
    for account in client.gateway.brokerage.accounts:
        for position in await _positions(client, account):
            client.send("position", **_position_fields(position))
    client.positions = True
    client.send("positionEnd")


async def cancel_positions(client: ApiClient, request: Request) -> None:
    """Ends the subscription to positions."""
    client.positions = False


async def positions_multi(client: ApiClient, request: Request) -> None:
    """Subscribes to the positions of one account."""
    identity, account = request.integer("reqId"), account_of(client, request["account"])
    for position in await _positions(client, account):
        client.send("positionMulti", reqId=identity, **_position_fields(position))
    client.positions_multi[identity] = account
    client.send("positionMultiEnd", reqId=identity)


async def cancel_positions_multi(client: ApiClient, request: Request) -> None:
    """Ends the subscription to one account's positions."""
    client.positions_multi.pop(request.integer("reqId"), None)


async def updates_multi(client: ApiClient, request: Request) -> None:
    """Subscribes to the values of one account."""
    identity, account = request.integer("reqId"), account_of(client, request["account"])
    _send_updates_multi(client, identity, await _summary(client, account))
    client.updates_multi[identity] = account
    client.send("accountUpdateMultiEnd", reqId=identity)


def _send_updates_multi(client: ApiClient, identity: int, values: dict[str, Any]) -> None:
    for key, value, currency in plain_rows(values) + ledger_rows(values):
        client.send(
            "accountUpdateMulti",
            reqId=identity,
            account=values["account"],
            key=key,
            value=value,
            currency=currency,
        )


async def cancel_updates_multi(client: ApiClient, request: Request) -> None:
    """Ends the subscription to one account's values."""
    client.updates_multi.pop(request.integer("reqId"), None)


# -- profit and loss ----------------------------------------------------------------


async def pnl(client: ApiClient, request: Request) -> None:
    """Subscribes to an account's profit and loss."""
    identity, account = request.integer("reqId"), account_of(client, request["account"])
    client.pnl[identity] = account
    await _send_client_pnl(client)


async def cancel_pnl(client: ApiClient, request: Request) -> None:
    """Ends the subscription to an account's profit and loss."""
    client.pnl.pop(request.integer("reqId"), None)


async def pnl_single(client: ApiClient, request: Request) -> None:
    """Subscribes to one position's profit and loss."""
    identity, account = request.integer("reqId"), account_of(client, request["account"])
    client.pnl_single[identity] = (account, request.integer("conId"))
    await _send_client_pnl(client)


async def cancel_pnl_single(client: ApiClient, request: Request) -> None:
    """Ends the subscription to one position's profit and loss."""
    client.pnl_single.pop(request.integer("reqId"), None)


async def _send_client_pnl(client: ApiClient) -> None:
    for identity, account in list(client.pnl.items()):
        values = await _summary(client, account)
        client.send(
            "pnl",
            reqId=identity,
            daily=values["daily_pnl"],
            unrealized=values["unrealized_pnl"],
            realized=values["realized_pnl"],
        )
    for identity, (account, conid) in list(client.pnl_single.items()):
        for row in await _positions(client, account):
            if row["conid"] == conid:
                client.send(
                    "pnlSingle",
                    reqId=identity,
                    position=row["position"],
                    daily=row["unrealized_pnl"],
                    unrealized=row["unrealized_pnl"],
                    realized=row["realized_pnl"],
                    value=row["market_value"],
                )


async def send_pnl(gateway: Gateway) -> None:
    """Sends profit and loss to all subscribers."""
    for client in list(gateway.clients.values()):
        await _send_client_pnl(client)


# -- pushed ----------------------------------------------------------------


def send_position(gateway: Gateway, position: dict[str, Any]) -> None:
    """A position changed: tells all who subscribed to it."""
    for client in gateway.clients.values():
        if client.positions:
            client.send("position", **_position_fields(position))
        for identity, account in client.positions_multi.items():
            if account == position["account"]:
                client.send("positionMulti", reqId=identity, **_position_fields(position))
        if client.account_updates == position["account"]:
            _send_portfolio(client, position)


def send_values(gateway: Gateway, values: dict[str, Any]) -> None:
    """An account's values changed: tells all who subscribed to them."""
    for client in gateway.clients.values():
        if client.account_updates == values["account"]:
            _send_values(client, values["account"], values)
        for identity, tags in client.summaries.items():
            _send_summary(client, identity, tags, values)
        for identity, account in client.updates_multi.items():
            if account == values["account"]:
                _send_updates_multi(client, identity, values)


async def refresh(gateway: Gateway) -> None:
    """The periodic update of values and portfolios, whose prices have moved."""
    wanted = {client.account_updates for client in gateway.clients.values() if client.account_updates}
    for account in wanted:
        values = (await gateway.brokerage.remembered("account_summary", account))["summary"]
        held = (await gateway.brokerage.remembered("positions", account))["positions"]
        for client in gateway.clients.values():
            if client.account_updates == account:
                _send_values(client, account, values)
                for position in held:
                    _send_portfolio(client, position)
