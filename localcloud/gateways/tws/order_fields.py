"""An order of the exchange as the fields of openOrder, completedOrder, orderStatus and execDetails."""

from __future__ import annotations

from typing import Any

from localcloud.gateways.tws import contracts, times
from localcloud.gateways.tws.codec import Request

# What the wire says for a number that isn't there (ibapi/common.py: UNSET_DOUBLE).
UNSET = "1.7976931348623157E308"
Order = dict[str, Any]
# What openOrder holds where the client said nothing, as a real gateway's messages show it.
DEFAULTS: dict[str, Any] = {
    "openClose": "",
    "origin": 0,
    "outsideRth": 0,
    "hidden": 0,
    "discretionaryAmt": 0,
    "shortSaleSlot": 0,
    "exemptCode": -1,
    "auctionStrategy": 0,
    "displaySize": "",
    "blockOrder": 0,
    "sweepToFill": 0,
    "allOrNone": 0,
    "ocaType": 3,
    "eTradeOnly": 0,
    "firmQuoteOnly": 0,
    "parentId": 0,
    "triggerMethod": 0,
    "volatilityType": 0,
    "deltaNeutralOrderType": "None",
    "deltaNeutralConId": 0,
    "deltaNeutralOpenClose": "?",
    "deltaNeutralShortSale": 0,
    "deltaNeutralShortSaleSlot": 0,
    "continuousUpdate": 0,
    "referencePriceType": 0,
    "optOutSmartRouting": 0,
    "clearingIntent": "IB",
    "notHeld": 0,
    "hasDeltaNeutral": 0,
    "solicited": 0,
    "randomizeSize": 0,
    "randomizePrice": 0,
    "conditionCount": 0,
    "adjustedOrderType": "None",
    "triggerPrice": UNSET,
    "lmtPriceOffset": UNSET,
    "adjustedStopPrice": UNSET,
    "adjustedStopLimitPrice": UNSET,
    "adjustedTrailingAmount": UNSET,
    "adjustableTrailingUnit": 0,
    "cashQty": "",
    "dontUseAutoPriceForHedge": 1,
    "isOmsContainer": 0,
    "discretionaryUpToLimitPrice": 0,
    "usePriceMgmtAlgo": 0,
    "autoCancelParent": 0,
    "imbalanceOnly": 0,
    "routeMarketableToBbo": 0,
}
MARGINS = ("initMargin", "maintMargin", "equityWithLoan")
NO_COSTS: dict[str, Any] = {
    **{f"{name}{moment}": UNSET for name in MARGINS for moment in ("Before", "Change", "After")},
    **dict.fromkeys(("commission", "minCommission", "maxCommission"), UNSET),
}
# What a client said and hears again in openOrder; contract, account and prices come from the exchange.
ECHOED = (
    "openClose", "origin", "hidden", "discretionaryAmt", "goodAfterTime", "goodTillDate",
    "modelCode", "rule80A", "settlingFirm", "shortSaleSlot", "designatedLocation", "exemptCode",
    "displaySize", "blockOrder", "sweepToFill", "allOrNone", "minQty", "triggerMethod",
    "clearingAccount", "clearingIntent", "notHeld", "algoStrategy", "algoParams", "solicited", "exchange",
)  # fmt: skip


def kept(request: Request) -> dict[str, Any]:
    """What of a request is kept with the order, to be told again."""
    return {name: request[name] for name in ECHOED if request.get(name) not in (None, "")}


def order_id(order: Order) -> int:
    """The order id under which its client knows the order; 0 if it wasn't placed over this API."""
    return int(order["client"].get("order_id", 0))


def _client_id(order: Order) -> int:
    return int(order["client"].get("client_id", 0))


def _common(order: Order, contract: dict[str, Any]) -> dict[str, Any]:
    wire = dict(order["client"].get("wire", {}))
    exchange = wire.pop("exchange", "SMART")
    return {
        **DEFAULTS,
        **NO_COSTS,
        **wire,
        **contracts.fields(contract, exchange),
        "action": order["side"],
        "totalQuantity": order["quantity"],
        "orderType": order["order_type"],
        "lmtPrice": order["limit_price"] or 0.0,
        **_stop(order),
        "tif": order["tif"],
        "account": order["account"],
        "orderRef": order["order_ref"],
        "outsideRth": order["outside_rth"],
        "parentId": order["client"].get("parent_id", 0),
        "ocaGroup": order["group"],
        "ocaType": order["group_type"],
    }


def _stop(order: Order) -> dict[str, Any]:
    """auxPrice is a stop order's price and a trailing order's distance, whose stop price stands apart."""
    if order["order_type"] != "TRAIL":
        return {"auxPrice": order["stop_price"] or 0.0}
    return {
        "auxPrice": order.get("trail_amount") or UNSET,
        "trailingPercent": order.get("trail_percent") or UNSET,
        "trailStopPrice": UNSET if order.get("stop_price") is None else order["stop_price"],
    }


def open_order(order: Order, contract: dict[str, Any]) -> dict[str, Any]:
    """Fields of openOrder."""
    return {
        **_common(order, contract),
        "orderId": order_id(order),
        "clientId": _client_id(order),
        "permId": order["perm_id"],
        "status": order["status"],
        "whatIf": 0,
    }


def preview(wanted: dict[str, Any], contract: dict[str, Any], costs: dict[str, Any]) -> dict[str, Any]:
    """Fields of the openOrder that answers a whatIf order; amounts are text with two decimals."""
    amounts = {
        f"{name}{moment.title()}": f"{costs[f'{source}_{moment}']:.2f}"
        for name, source in zip(MARGINS, ("init_margin", "maint_margin", "equity"), strict=True)
        for moment in ("before", "change", "after")
    }
    return {
        **_common(wanted, contract),
        "orderId": wanted["client"]["order_id"],
        "clientId": wanted["client"]["client_id"],
        "permId": 0,
        "status": "PreSubmitted",
        "whatIf": 1,
        **amounts,
        "commission": costs["commission"],
        "minCommission": "",
        "maxCommission": "",
        "commissionCurrency": costs["currency"],
        "warningText": costs["warning"],
    }


def status(order: Order) -> dict[str, Any]:
    """Fields of orderStatus."""
    return {
        "orderId": order_id(order),
        "status": order["status"],
        "filled": order["filled"],
        "remaining": order["remaining"],
        "avgFillPrice": order["average_price"],
        "permId": order["perm_id"],
        "parentId": order["client"].get("parent_id", 0),
        "lastFillPrice": order["last_price"],
        "clientId": _client_id(order),
        "whyHeld": _why_held(order),
        "mktCapPrice": 0,
    }


def never_sent(wanted: dict[str, Any]) -> dict[str, Any]:
    """Fields of the orderStatus that ends an order which was never transmitted."""
    nothing = {"status": "Cancelled", "filled": 0.0, "average_price": 0.0, "perm_id": 0, "last_price": 0.0}
    return status({**wanted, **nothing, "remaining": wanted["quantity"]})


def _why_held(order: Order) -> str:
    """What a PreSubmitted order waits for: its parent's fill, its trigger; as real gateways say it."""
    waits = order["status"] == "PreSubmitted"
    child = waits and order["parent"] is not None and not order["routed"]
    trigger = waits and order["order_type"] in ("STP", "STP LMT", "TRAIL")
    return ",".join(word for word, held in (("child", child), ("trigger", trigger)) if held)


def completed(order: Order, contract: dict[str, Any]) -> dict[str, Any]:
    """Fields of completedOrder."""
    filled = order["status"] == "Filled"
    return {
        **_common(order, contract),
        "permId": order["perm_id"],
        "status": order["status"],
        "filledQuantity": order["filled"],
        "trailStopPrice": UNSET,
        "autoCancelParent": 0,
        "parentPermId": order["parent"] or 0,
        "completedTime": times.write(order["updated"]),
        "completedStatus": f"Filled Size: {order['filled']:g}" if filled else "Cancelled by Trader",
    }


def execution(fill: dict[str, Any], *, reqId: int) -> dict[str, Any]:
    """Fields of execDetails; `reqId` is -1 for a live fill."""
    return {
        **contracts.fields(fill["contract"], fill["exchange"]),
        "reqId": reqId,
        "orderId": order_id(fill),
        "execId": fill["exec_id"],
        "time": times.write(fill["time"]),
        "account": fill["account"],
        "execExchange": fill["exchange"],
        "side": "BOT" if fill["side"] == "BUY" else "SLD",
        "shares": fill["quantity"],
        "price": fill["price"],
        "permId": fill["perm_id"],
        "clientId": _client_id(fill),
        "liquidation": 0,
        "cumQty": fill["cumulative"],
        "avgPrice": fill["average_price"],
        "orderRef": fill["order_ref"],
        "lastLiquidity": fill["liquidity"],
    }


def commission(report: dict[str, Any]) -> dict[str, Any]:
    """Fields of commissionReport; a fill that closed nothing has no realized profit."""
    realized = report["realized_pnl"]
    return {
        "execId": report["exec_id"],
        "commission": report["commission"],
        "currency": report["currency"],
        "realizedPNL": UNSET if realized is None else realized,
    }
