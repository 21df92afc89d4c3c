"""What clients send: the fields of each request, from server version 157 on.

Sources: ib_insync/client.py and ibapi/client.py (the method of the same name in each), which agree for the
versions that this gateway offers. `version` is the request's own version field, which nobody needs any more.
"""

from __future__ import annotations

from localcloud.gateways.tws.codec import Repeat, Since, Table, Until, When

CONTRACT: Table = (
    "conId", "symbol", "secType", "lastTradeDateOrContractMonth", "strike", "right", "multiplier", "exchange",
    "primaryExchange", "currency", "localSymbol", "tradingClass",
)  # fmt: skip
LEGS: Table = (When("secType", (Repeat("legs", ("conId", "ratio", "action", "exchange")),), "BAG"),)
DELTA_NEUTRAL: Table = ("hasDeltaNeutral", When("hasDeltaNeutral", ("dncConId", "dncDelta", "dncPrice")))
ONE_ID: Table = ("version", "reqId")
ONLY_ID: Table = ("reqId",)

# ib_insync/client.py: placeOrder; ibapi/client.py: placeOrder. faProfile went away with version 177.
PLACE_ORDER: Table = (
    "orderId", *CONTRACT, "secIdType", "secId", "action", "totalQuantity", "orderType", "lmtPrice",
    "auxPrice", "tif", "ocaGroup", "account", "openClose", "origin", "orderRef", "transmit", "parentId",
    "blockOrder", "sweepToFill", "displaySize", "triggerMethod", "outsideRth", "hidden",
    When("secType", (
        Repeat("comboLegs", ("conId", "ratio", "action", "exchange", "openClose", "shortSaleSlot",
                             "designatedLocation", "exemptCode")),
        Repeat("orderComboLegs", ("price",)),
        Repeat("smartComboRoutingParams", ("tag", "value")),
    ), "BAG"),
    "sharesAllocation", "discretionaryAmt", "goodAfterTime", "goodTillDate", "faGroup", "faMethod",
    "faPercentage", Until(177, ("faProfile",)), "modelCode", "shortSaleSlot", "designatedLocation",
    "exemptCode", "ocaType", "rule80A", "settlingFirm", "allOrNone", "minQty", "percentOffset", "eTradeOnly",
    "firmQuoteOnly", "nbboPriceCap", "auctionStrategy", "startingPrice", "stockRefPrice", "delta",
    "stockRangeLower", "stockRangeUpper", "overridePercentageConstraints", "volatility", "volatilityType",
    "deltaNeutralOrderType", "deltaNeutralAuxPrice",
    # Any text here is followed by its group, the word None included (ib_insync sends back what it was told).
    When("deltaNeutralOrderType", (
        "deltaNeutralConId", "deltaNeutralSettlingFirm", "deltaNeutralClearingAccount",
        "deltaNeutralClearingIntent", "deltaNeutralOpenClose", "deltaNeutralShortSale",
        "deltaNeutralShortSaleSlot", "deltaNeutralDesignatedLocation",
    )),
    When("deltaNeutralOrderType", (
        "deltaNeutralConId", "deltaNeutralSettlingFirm", "deltaNeutralClearingAccount",
        "deltaNeutralClearingIntent", "deltaNeutralOpenClose", "deltaNeutralShortSale",
        "deltaNeutralShortSaleSlot", "deltaNeutralDesignatedLocation",
    ), "None"),
    "continuousUpdate", "referencePriceType", "trailStopPrice", "trailingPercent", "scaleInitLevelSize",
    "scaleSubsLevelSize", "scalePriceIncrement",
    When("scalePriceIncrement", (
        "scalePriceAdjustValue", "scalePriceAdjustInterval", "scaleProfitOffset", "scaleAutoReset",
        "scaleInitPosition", "scaleInitFillQty", "scaleRandomPercent",
    )),
    "scaleTable", "activeStartTime", "activeStopTime", "hedgeType", When("hedgeType", ("hedgeParam",)),
    "optOutSmartRouting", "clearingAccount", "clearingIntent", "notHeld", *DELTA_NEUTRAL, "algoStrategy",
    When("algoStrategy", (Repeat("algoParams", ("tag", "value")),)),
    "algoId", "whatIf", "orderMiscOptions", "solicited", "randomizeSize", "randomizePrice",
    When("orderType", (
        "referenceContractId", "isPeggedChangeAmountDecrease", "peggedChangeAmount", "referenceChangeAmount",
        "referenceExchangeId",
    ), "PEG BENCH"),
    # What follows the conditions is read by CONDITION_FREE_REST when there are none.
    "conditionCount",
)  # fmt: skip
CONDITION_FREE_REST: Table = (
    "adjustedOrderType", "triggerPrice", "lmtPriceOffset", "adjustedStopPrice", "adjustedStopLimitPrice",
    "adjustedTrailingAmount", "adjustableTrailingUnit", "extOperator", "softDollarTierName",
    "softDollarTierVal", "cashQty", "mifid2DecisionMaker", "mifid2DecisionAlgo", "mifid2ExecutionTrader",
    "mifid2ExecutionAlgo", "dontUseAutoPriceForHedge", "isOmsContainer", "discretionaryUpToLimitPrice",
    "usePriceMgmtAlgo", Since(158, ("duration",)), Since(160, ("postToAts",)),
    Since(162, ("autoCancelParent",)), Since(166, ("advancedErrorOverride",)),
    Since(169, ("manualOrderTime",)),
)  # fmt: skip
PLACE_ORDER_WHOLE: Table = (
    *PLACE_ORDER,
    When("conditionCount", CONDITION_FREE_REST, "0"),
    When("conditionCount", CONDITION_FREE_REST, ""),
)

# Message number: (name, fields). ibapi/message.py, class OUT.
REQUESTS: dict[int, tuple[str, Table]] = {
    1: ("reqMktData", ("version", "reqId", *CONTRACT, *LEGS, *DELTA_NEUTRAL, "genericTickList", "snapshot",
                       "regulatorySnapshot", "mktDataOptions")),
    2: ("cancelMktData", ONE_ID),
    3: ("placeOrder", PLACE_ORDER_WHOLE),
    4: ("cancelOrder", ("version", "orderId", Since(169, ("manualCancelOrderTime",)))),
    5: ("reqOpenOrders", ("version",)),
    6: ("reqAccountUpdates", ("version", "subscribe", "account")),
    7: ("reqExecutions", ("version", "reqId", "clientId", "account", "time", "symbol", "secType", "exchange",
                          "side")),
    8: ("reqIds", ("version", "count")),
    9: ("reqContractDetails", ("version", "reqId", *CONTRACT, "includeExpired", "secIdType", "secId",
                               Since(176, ("issuerId",)))),
    14: ("setServerLogLevel", ("version", "level")),
    15: ("reqAutoOpenOrders", ("version", "bind")),
    16: ("reqAllOpenOrders", ("version",)),
    17: ("reqManagedAccts", ("version",)),
    20: ("reqHistoricalData", ("reqId", *CONTRACT, "includeExpired", "endDateTime", "barSize", "duration",
                               "useRTH", "whatToShow", "formatDate", *LEGS, "keepUpToDate", "options")),
    25: ("cancelHistoricalData", ONE_ID),
    49: ("reqCurrentTime", ("version",)),
    58: ("reqGlobalCancel", ("version",)),
    59: ("reqMarketDataType", ("version", "type")),
    61: ("reqPositions", ("version",)),
    62: ("reqAccountSummary", ("version", "reqId", "group", "tags")),
    63: ("cancelAccountSummary", ONE_ID),
    64: ("cancelPositions", ("version",)),
    71: ("startApi", ("version", "clientId", "optionalCapabilities")),
    74: ("reqPositionsMulti", ("version", "reqId", "account", "modelCode")),
    75: ("cancelPositionsMulti", ONE_ID),
    76: ("reqAccountUpdatesMulti", ("version", "reqId", "account", "modelCode", "ledgerAndNLV")),
    77: ("cancelAccountUpdatesMulti", ONE_ID),
    81: ("reqMatchingSymbols", ("reqId", "pattern")),
    92: ("reqPnL", ("reqId", "account", "modelCode")),
    93: ("cancelPnL", ONLY_ID),
    94: ("reqPnLSingle", ("reqId", "account", "modelCode", "conId")),
    95: ("cancelPnLSingle", ONLY_ID),
    99: ("reqCompletedOrders", ("apiOnly",)),
}  # fmt: skip
# Numbers that clients may send and this gateway doesn't serve, so that its refusal can name them.
UNSERVED: dict[int, str] = {
    10: "reqMktDepth", 11: "cancelMktDepth", 12: "reqNewsBulletins", 13: "cancelNewsBulletins",
    18: "requestFA", 19: "replaceFA", 21: "exerciseOptions", 22: "reqScannerSubscription",
    23: "cancelScannerSubscription", 24: "reqScannerParameters", 50: "reqRealTimeBars",
    51: "cancelRealTimeBars", 52: "reqFundamentalData", 53: "cancelFundamentalData",
    54: "calculateImpliedVolatility", 55: "calculateOptionPrice", 56: "cancelCalculateImpliedVolatility",
    57: "cancelCalculateOptionPrice", 65: "verifyRequest", 66: "verifyMessage", 67: "queryDisplayGroups",
    68: "subscribeToGroupEvents", 69: "updateDisplayGroup", 70: "unsubscribeFromGroupEvents",
    72: "verifyAndAuthRequest", 73: "verifyAndAuthMessage", 78: "reqSecDefOptParams",
    79: "reqSoftDollarTiers", 80: "reqFamilyCodes", 82: "reqMktDepthExchanges", 83: "reqSmartComponents",
    84: "reqNewsArticle", 85: "reqNewsProviders", 86: "reqHistoricalNews", 87: "reqHeadTimeStamp",
    88: "reqHistogramData", 89: "cancelHistogramData", 90: "cancelHeadTimeStamp", 91: "reqMarketRule",
    96: "reqHistoricalTicks", 97: "reqTickByTickData", 98: "cancelTickByTickData", 100: "reqWshMetaData",
    101: "cancelWshMetaData", 102: "reqWshEventData", 103: "cancelWshEventData", 104: "reqUserInfo",
}  # fmt: skip
# Where the request id stands in an unserved request: after a version field, or at once.
UNSERVED_WITHOUT_VERSION = frozenset(
    {78, 79, 83, 84, 86, 87, 88, 89, 90, 91, 96, 97, 98, 100, 101, 102, 103, 104}
)
