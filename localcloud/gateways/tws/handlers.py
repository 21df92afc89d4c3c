"""Which function answers which request."""

from __future__ import annotations

from collections.abc import Mapping

from localcloud.gateways.tws import account, contracts, history, market_data, orders
from localcloud.gateways.tws.client import ApiClient, Handler
from localcloud.gateways.tws.codec import Request
from localcloud.gateways.tws.messages import Complaint


async def ignore(client: ApiClient, request: Request) -> None:
    """Requests that change nothing here: a log level, a history request that was answered at once."""


async def current_time(client: ApiClient, request: Request) -> None:
    """The server's time, in whole seconds."""
    client.send("currentTime", time=int(client.gateway.brokerage.now().timestamp()))


async def next_id(client: ApiClient, request: Request) -> None:
    """The next valid order id; the number asked for is ignored (TWS API: reqIds)."""
    client.send("nextValidId", orderId=client.gateway.next_order_id(client.client_id))


async def managed_accounts(client: ApiClient, request: Request) -> None:
    """The user's accounts."""
    client.send("managedAccounts", accounts=",".join(client.gateway.brokerage.accounts))


async def market_data_type(client: ApiClient, request: Request) -> None:
    """Live (1), frozen (2), delayed (3) or delayed frozen (4) for the requests that follow."""
    kind = request.integer("type")
    if kind not in (1, 2, 3, 4):
        raise Complaint(321, f"'bO' : cause - market data type {kind} is not one of 1, 2, 3, 4")
    client.market_data_type = kind


HANDLERS: Mapping[str, Handler] = {
    "setServerLogLevel": ignore,
    "cancelHistoricalData": ignore,
    "reqCurrentTime": current_time,
    "reqIds": next_id,
    "reqManagedAccts": managed_accounts,
    "reqMarketDataType": market_data_type,
    "reqMktData": market_data.request,
    "cancelMktData": market_data.cancel,
    "reqHistoricalData": history.request,
    "reqContractDetails": contracts.details,
    "reqMatchingSymbols": contracts.matching_symbols,
    "reqAccountUpdates": account.updates,
    "reqAccountSummary": account.summary,
    "cancelAccountSummary": account.cancel_summary,
    "reqPositions": account.positions,
    "cancelPositions": account.cancel_positions,
    "reqPositionsMulti": account.positions_multi,
    "cancelPositionsMulti": account.cancel_positions_multi,
    "reqAccountUpdatesMulti": account.updates_multi,
    "cancelAccountUpdatesMulti": account.cancel_updates_multi,
    "reqPnL": account.pnl,
    "cancelPnL": account.cancel_pnl,
    "reqPnLSingle": account.pnl_single,
    "cancelPnLSingle": account.cancel_pnl_single,
    "placeOrder": orders.place,
    "cancelOrder": orders.cancel,
    "reqGlobalCancel": orders.cancel_all,
    "reqOpenOrders": orders.own_open_orders,
    "reqAllOpenOrders": orders.all_open_orders,
    "reqAutoOpenOrders": orders.auto_open_orders,
    "reqCompletedOrders": orders.completed_orders,
    "reqExecutions": orders.executions,
}
