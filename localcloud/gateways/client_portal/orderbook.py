"""Orders as they are shown: lists, one order's status, trades.

Lists hold the current brokerage session's orders; trades reach seven days back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from localcloud.exchange.models import WORKING
from localcloud.gateways.client_portal.errors import Refusal, accounts_first, unavailable
from localcloud.gateways.client_portal.gateway import Gateway, Json
from localcloud.gateways.client_portal.orders import OrderEntry

MOST_TRADE_DAYS = 7
_TYPE_NAMES = {"MKT": ("Market", "MARKET"), "LMT": ("Limit", "LIMIT"), "STP": ("Stop", "STOP"),
               "STP LMT": ("Stop Limit", "STOP_LIMIT"),
               "TRAIL": ("Trailing Stop", "TRAILING_STOP")}  # fmt: skip
# What `filters` of /iserver/account/orders calls the statuses.
_FILTERS = {"inactive": "Inactive", "pending_submit": "PendingSubmit", "pre_submitted": "PreSubmitted",
            "submitted": "Submitted", "filled": "Filled", "pending_cancel": "PendingCancel",
            "cancelled": "Cancelled"}  # fmt: skip


def moment(seconds: float, form: str) -> str:
    """A time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def describe(order: Json, symbol: str = "") -> str:
    """`Sold 5 AAPL Market, Day` or `Buy 5 AAPL Limit 230.00, GTC`."""
    done = order["status"] == "Filled"
    verb = {("BUY", True): "Bought", ("SELL", True): "Sold", ("BUY", False): "Buy", ("SELL", False): "Sell"}
    price = order["limit_price"] or order["stop_price"]
    parts = [verb[order["side"], done], f"{order['quantity']:g}", symbol, _TYPE_NAMES[order["order_type"]][0],
             f"{price:.2f}" if price else ""]  # fmt: skip
    return f"{' '.join(part for part in parts if part)}, {order['tif'].title()}"


def order_row(order: Json, contract: Json) -> Json:
    """An order as /iserver/account/orders and the websocket show it."""
    kind, original = _TYPE_NAMES[order["order_type"]]
    price = order["stop_price"] if order["order_type"] in ("STP", "TRAIL") else order["limit_price"]
    row = {
        "acct": order["account"],
        "account": order["account"],
        "conid": order["conid"],
        "conidex": str(order["conid"]),
        "orderId": order["perm_id"],
        "cashCcy": contract["currency"],
        "sizeAndFills": f"{order['filled']:g}/{order['quantity']:g}",
        "orderDesc": describe(order, contract["symbol"]),
        "description1": contract["symbol"],
        "ticker": contract["symbol"],
        "secType": contract["sec_type"],
        "listingExchange": f"{contract['primary_exchange']}.{contract['trading_class']}",
        "companyName": contract["name"],
        "remainingQuantity": order["remaining"],
        "filledQuantity": order["filled"],
        "totalSize": order["quantity"],
        "status": order["status"],
        "order_ccp_status": order["status"],
        "origOrderType": original,
        "orderType": kind,
        "side": order["side"],
        "timeInForce": "CLOSE" if order["tif"] == "DAY" else order["tif"],
        "lastExecutionTime": moment(order["updated"], "%y%m%d%H%M%S"),
        "lastExecutionTime_r": int(order["updated"] * 1000),
        "avgPrice": f"{order['average_price']:.2f}" if order["filled"] else "",
        "bgColor": "#FFFFFF",
        "fgColor": "#000000",
    }
    if price is not None:
        row["price"] = f"{price:.2f}"
    if order["order_type"] == "STP LMT":
        row["auxPrice"] = f"{order['stop_price']:.2f}"
    if order["order_ref"]:
        row["order_ref"] = order["order_ref"]
    if order["parent"] is not None:
        row["parentId"] = order["parent"]  # "Only exists in child order of bracket"
    return row


async def live_orders(gateway: Gateway, entry: OrderEntry, request: Request) -> Any:
    """GET /iserver/account/orders. The first answer of a session is empty, and so is each with `force`."""
    session, query = gateway.session, request.query_params
    session.require()
    if not session.accounts_asked:
        raise accounts_first()
    first, session.orders_asked = not session.orders_asked, True
    if first or query.get("force", "").lower() == "true":
        return {"orders": [], "snapshot": False}
    wanted = {
        _FILTERS.get(name.strip().lower()) for name in query.get("filters", "").split(",") if name.strip()
    }
    accounts = [session.own(query["accountId"])] if query.get("accountId") else session.accounts
    rows = []
    for account in accounts:
        for order in await entry.all_orders(account):
            ended_before = order["status"] not in WORKING and order["updated"] < session.began
            if ended_before or (wanted and order["status"] not in wanted):
                continue
            rows.append(order_row(order, await gateway.contract(order["conid"])))
    return {"orders": rows, "snapshot": True}


async def order_status(gateway: Gateway, entry: OrderEntry, request: Request) -> Any:
    """GET /iserver/account/order/status/{id}: numbers are text, side is B or S. Unknown orders are 503."""
    gateway.session.require()
    order = await entry.find(request.path_params["order_id"])
    if order is None:
        raise unavailable()
    contract = await gateway.contract(order["conid"])
    kind = _TYPE_NAMES[order["order_type"]][1]
    ended = order["status"] in ("Filled", "Cancelled", "Inactive")
    shown = {
        "sub_type": None,
        "request_id": "1",
        "server_id": "0",
        "order_id": order["perm_id"],
        "conidex": str(order["conid"]),
        "conid": order["conid"],
        "symbol": contract["symbol"],
        "side": order["side"][0],
        "contract_description_1": contract["symbol"],
        "listing_exchange": f"{contract['primary_exchange']}.{contract['trading_class']}",
        "option_acct": "c",
        "company_name": contract["name"],
        "size": f"{order['remaining']:.1f}",
        "total_size": f"{order['quantity']:.1f}",
        "currency": contract["currency"],
        "account": order["account"],
        "order_type": kind,
        "cum_fill": f"{order['filled']:.1f}",
        "order_status": order["status"],
        "order_ccp_status": "2" if order["status"] == "Filled" else "0",
        "order_status_description": f"Order {order['status']}",
        "tif": order["tif"],
        "fg_color": "#FFFFFF",
        "bg_color": "#000000",
        "order_not_editable": ended,
        "editable_fields": "" if ended else "\x1e",
        "cannot_cancel_order": ended,
        "deactivate_order": False,
        "sec_type": contract["sec_type"],
        "order_description": describe(order),
        "order_description_with_contract": describe(order, contract["symbol"]),
        "alert_active": 1,
        "child_order_type": "0",
        "order_clearing_account": order["account"],
        "size_and_fills": f"{order['filled']:g}/{order['quantity']:g}",
        "order_time": moment(order["created"], "%y%m%d%H%M%S"),
        "allowed_duplicate_opposite": True,
    }
    if order["limit_price"] is not None:
        shown["limit_price"] = f"{order['limit_price']:.2f}"
    if order["stop_price"] is not None:
        shown["stop_price"] = f"{order['stop_price']:.2f}"
    if order["filled"]:
        shown["average_price"] = f"{order['average_price']:.2f}"
    return shown


def trade_row(execution: Json, contract: Json, username: str) -> Json:
    """A fill as /iserver/account/trades shows it."""
    verb = "Bought" if execution["side"] == "BUY" else "Sold"
    size, venue = f"{execution['quantity']:g}", execution["exchange"]
    return {
        "execution_id": execution["exec_id"],
        "symbol": contract["symbol"],
        "supports_tax_opt": "1",
        "side": execution["side"][0],
        "order_description": f"{verb} {size} @ {execution['price']:.2f} on {venue}",
        "order_id": execution["perm_id"],
        "order_ref": execution["order_ref"],
        "trade_time": moment(execution["time"], "%Y%m%d-%H:%M:%S"),
        "trade_time_r": int(execution["time"] * 1000),
        "size": execution["quantity"],
        "price": f"{execution['price']:.2f}",
        "submitter": username,
        "exchange": venue,
        "commission": f"{execution['commission']:.2f}",
        "net_amount": round(execution["quantity"] * execution["price"], 2),
        "account": execution["account"],
        "accountCode": execution["account"],
        "account_allocation_name": execution["account"],
        "company_name": contract["name"],
        "contract_description_1": contract["symbol"],
        "sec_type": contract["sec_type"],
        "listing_exchange": f"{contract['primary_exchange']}.{contract['trading_class']}",
        "conid": execution["conid"],
        "conidEx": str(execution["conid"]),
        "clearing_id": "IB",
        "clearing_name": "IB",
        "liquidation_trade": "0",
        "is_event_trading": "0",
    }


async def trades(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/account/trades?days=7: today's without `days`; the newest first."""
    session = gateway.session
    session.require()
    if not session.accounts_asked:
        raise accounts_first()
    days = request.query_params.get("days", "1")
    if not days.isdigit() or not 1 <= int(days) <= MOST_TRADE_DAYS:
        raise Refusal(500, f"days must be between 1 and {MOST_TRADE_DAYS}")
    now = (await session.call("server_time"))["time"]
    rows: list[Json] = []
    for account in session.accounts:
        since = now - int(days) * 86400
        found = (await session.call("executions", account=account, since=since))["executions"]
        rows += [trade_row(one, await gateway.contract(one["conid"]), session.username) for one in found]
    return sorted(rows, key=lambda row: -row["trade_time_r"])
