"""What the gateway sends: message numbers and the fields of each reply, for server versions 157 to 176.

Sources: ib_insync/decoder.py and ibapi/decoder.py with ibapi/orderdecoder.py (the method of the same name in
each). Fields named `version` are sent as the number beside the table.
"""

from __future__ import annotations

from localcloud.gateways.tws.codec import Repeat, Since, Table, Until, When

# A contract as orders, executions and positions carry it; `primaryExchange` is not sent.
CONTRACT: Table = (
    "conId", "symbol", "secType", "lastTradeDateOrContractMonth", "strike", "right", "multiplier", "exchange",
    "currency", "localSymbol", "tradingClass",
)  # fmt: skip
TAGS: Table = ("tag", "value")
COMBO: Table = (
    "comboLegsDescrip",
    Repeat("comboLegs", ("conId", "ratio", "action", "exchange", "openClose", "shortSaleSlot",
                         "designatedLocation", "exemptCode")),
    Repeat("orderComboLegs", ("price",)),
    Repeat("smartComboRoutingParams", TAGS),
    "scaleInitLevelSize", "scaleSubsLevelSize", "scalePriceIncrement",
    When("scalePriceIncrement", (
        "scalePriceAdjustValue", "scalePriceAdjustInterval", "scaleProfitOffset", "scaleAutoReset",
        "scaleInitPosition", "scaleInitFillQty", "scaleRandomPercent",
    )),
    "hedgeType", When("hedgeType", ("hedgeParam",)),
)  # fmt: skip
DELTA_NEUTRAL: Table = ("hasDeltaNeutral", When("hasDeltaNeutral", ("dncConId", "dncDelta", "dncPrice")))
ALGO: Table = ("algoStrategy", When("algoStrategy", (Repeat("algoParams", TAGS),)), "solicited")
PEG_BENCH: Table = (
    When("orderType", (
        "referenceContractId", "isPeggedChangeAmountDecrease", "peggedChangeAmount", "referenceChangeAmount",
        "referenceExchangeId",
    ), "PEG BENCH"),
)  # fmt: skip
ATS: Table = (
    Since(170, ("minTradeQty", "minCompeteSize", "competeAgainstBestOffset", "midOffsetAtWhole",
                "midOffsetAtHalf")),
)  # fmt: skip

# ib_insync/decoder.py: openOrder; ibapi/decoder.py: processOpenOrder.
OPEN_ORDER: Table = (
    "orderId", *CONTRACT, "action", "totalQuantity", "orderType", "lmtPrice", "auxPrice", "tif", "ocaGroup",
    "account", "openClose", "origin", "orderRef", "clientId", "permId", "outsideRth", "hidden",
    "discretionaryAmt", "goodAfterTime", "sharesAllocation", "faGroup", "faMethod", "faPercentage",
    "faProfile", "modelCode", "goodTillDate", "rule80A", "percentOffset", "settlingFirm", "shortSaleSlot",
    "designatedLocation", "exemptCode", "auctionStrategy", "startingPrice", "stockRefPrice", "delta",
    "stockRangeLower", "stockRangeUpper", "displaySize", "blockOrder", "sweepToFill", "allOrNone", "minQty",
    "ocaType", "eTradeOnly", "firmQuoteOnly", "nbboPriceCap", "parentId", "triggerMethod", "volatility",
    "volatilityType", "deltaNeutralOrderType", "deltaNeutralAuxPrice",
    When("deltaNeutralOrderType", (
        "deltaNeutralConId", "deltaNeutralSettlingFirm", "deltaNeutralClearingAccount",
        "deltaNeutralClearingIntent", "deltaNeutralOpenClose", "deltaNeutralShortSale",
        "deltaNeutralShortSaleSlot", "deltaNeutralDesignatedLocation",
    )),
    "continuousUpdate", "referencePriceType", "trailStopPrice", "trailingPercent", "basisPoints",
    "basisPointsType", *COMBO, "optOutSmartRouting", "clearingAccount", "clearingIntent", "notHeld",
    *DELTA_NEUTRAL, *ALGO, "whatIf", "status", "initMarginBefore", "maintMarginBefore",
    "equityWithLoanBefore", "initMarginChange", "maintMarginChange", "equityWithLoanChange",
    "initMarginAfter", "maintMarginAfter", "equityWithLoanAfter", "commission", "minCommission",
    "maxCommission", "commissionCurrency", "warningText", "randomizeSize", "randomizePrice", *PEG_BENCH,
    "conditionCount", "adjustedOrderType", "triggerPrice", "trailStopPrice", "lmtPriceOffset",
    "adjustedStopPrice", "adjustedStopLimitPrice", "adjustedTrailingAmount", "adjustableTrailingUnit",
    "softDollarTierName", "softDollarTierVal", "softDollarTierDisplayName", "cashQty",
    "dontUseAutoPriceForHedge", "isOmsContainer", "discretionaryUpToLimitPrice", "usePriceMgmtAlgo",
    Since(159, ("duration",)), Since(160, ("postToAts",)), Since(162, ("autoCancelParent",)), *ATS,
)  # fmt: skip

# ib_insync/decoder.py: completedOrder; ibapi/decoder.py: processCompletedOrderMsg. It has no order id.
COMPLETED_ORDER: Table = (
    *CONTRACT, "action", "totalQuantity", "orderType", "lmtPrice", "auxPrice", "tif", "ocaGroup", "account",
    "openClose", "origin", "orderRef", "permId", "outsideRth", "hidden", "discretionaryAmt", "goodAfterTime",
    "faGroup", "faMethod", "faPercentage", "faProfile", "modelCode", "goodTillDate", "rule80A",
    "percentOffset", "settlingFirm", "shortSaleSlot", "designatedLocation", "exemptCode", "startingPrice",
    "stockRefPrice", "delta", "stockRangeLower", "stockRangeUpper", "displaySize", "sweepToFill",
    "allOrNone", "minQty", "ocaType", "triggerMethod", "volatility", "volatilityType",
    "deltaNeutralOrderType", "deltaNeutralAuxPrice",
    When("deltaNeutralOrderType", (
        "deltaNeutralConId", "deltaNeutralShortSale", "deltaNeutralShortSaleSlot",
        "deltaNeutralDesignatedLocation",
    )),
    "continuousUpdate", "referencePriceType", "trailStopPrice", "trailingPercent", *COMBO,
    "clearingAccount", "clearingIntent", "notHeld", *DELTA_NEUTRAL, *ALGO, "status", "randomizeSize",
    "randomizePrice", *PEG_BENCH, "conditionCount", "trailStopPrice", "lmtPriceOffset", "cashQty",
    "dontUseAutoPriceForHedge", "isOmsContainer", "autoCancelDate", "filledQuantity", "refFuturesConId",
    "autoCancelParent", "shareholder", "imbalanceOnly", "routeMarketableToBbo", "parentPermId",
    "completedTime", "completedStatus", *ATS,
)  # fmt: skip

# ib_insync/decoder.py: contractDetails; ibapi/decoder.py: processContractDataMsg.
CONTRACT_DETAILS: Table = (
    Until(164, ("version",)), "reqId", "symbol", "secType", "lastTradeDateOrContractMonth", "strike", "right",
    "exchange", "currency", "localSymbol", "marketName", "tradingClass", "conId", "minTick",
    Until(164, ("mdSizeMultiplier",)), "multiplier", "orderTypes", "validExchanges", "priceMagnifier",
    "underConId", "longName", "primaryExchange", "contractMonth", "industry", "category", "subcategory",
    "timeZoneId", "tradingHours", "liquidHours", "evRule", "evMultiplier", Repeat("secIds", TAGS),
    "aggGroup", "underSymbol", "underSecType", "marketRuleIds", "realExpirationDate", "stockType",
    Since(164, ("minSize", "sizeIncrement", "suggestedSizeIncrement")),
)  # fmt: skip
EXECUTION: Table = (
    "reqId", "orderId", *CONTRACT, "execId", "time", "account", "execExchange", "side", "shares", "price",
    "permId", "clientId", "liquidation", "cumQty", "avgPrice", "orderRef", "evRule", "evMultiplier",
    "modelCode", "lastLiquidity",
)  # fmt: skip
PORTFOLIO_VALUE: Table = (
    "version", "conId", "symbol", "secType", "lastTradeDateOrContractMonth", "strike", "right", "multiplier",
    "primaryExchange", "currency", "localSymbol", "tradingClass", "position", "marketPrice", "marketValue",
    "averageCost", "unrealizedPNL", "realizedPNL", "account",
)  # fmt: skip
SYMBOL_SAMPLES: Table = (
    "reqId",
    Repeat("samples", ("conId", "symbol", "secType", "primaryExchange", "currency",
                       Repeat("derivatives", ("secType",)), Since(176, ("description", "issuerId")))),
)  # fmt: skip

# Name: (message number, value of the field `version`, fields). ibapi/message.py, class IN.
REPLIES: dict[str, tuple[int, int, Table]] = {
    "tickPrice": (1, 6, ("version", "reqId", "type", "price", "size", "attributes")),
    "tickSize": (2, 6, ("version", "reqId", "type", "size")),
    "orderStatus": (3, 0, ("orderId", "status", "filled", "remaining", "avgFillPrice", "permId", "parentId",
                           "lastFillPrice", "clientId", "whyHeld", "mktCapPrice")),
    "error": (4, 2, ("version", "reqId", "code", "message", Since(166, ("advancedOrderRejectJson",)))),
    "openOrder": (5, 0, OPEN_ORDER),
    "updateAccountValue": (6, 2, ("version", "key", "value", "currency", "account")),
    "updatePortfolio": (7, 8, PORTFOLIO_VALUE),
    "updateAccountTime": (8, 1, ("version", "time")),
    "nextValidId": (9, 1, ("version", "orderId")),
    "contractDetails": (10, 8, CONTRACT_DETAILS),
    "execDetails": (11, 0, EXECUTION),
    "managedAccounts": (15, 1, ("version", "accounts")),
    "historicalData": (17, 0, ("reqId", "start", "end", Repeat("bars", (
        "date", "open", "high", "low", "close", "volume", "average", "count")))),
    "tickString": (46, 6, ("version", "reqId", "type", "value")),
    "currentTime": (49, 1, ("version", "time")),
    "contractDetailsEnd": (52, 1, ONE_ID := ("version", "reqId")),
    "openOrderEnd": (53, 1, ("version",)),
    "accountDownloadEnd": (54, 1, ("version", "account")),
    "execDetailsEnd": (55, 1, ONE_ID),
    "tickSnapshotEnd": (57, 1, ONE_ID),
    "marketDataType": (58, 1, ("version", "reqId", "type")),
    "commissionReport": (59, 1, ("version", "execId", "commission", "currency", "realizedPNL", "yield",
                                 "yieldRedemptionDate")),
    "position": (61, 3, ("version", "account", *CONTRACT, "position", "averageCost")),
    "positionEnd": (62, 1, ("version",)),
    "accountSummary": (63, 1, ("version", "reqId", "account", "tag", "value", "currency")),
    "accountSummaryEnd": (64, 1, ONE_ID),
    "positionMulti": (71, 1, ("version", "reqId", "account", *CONTRACT, "position", "averageCost",
                              "modelCode")),
    "positionMultiEnd": (72, 1, ONE_ID),
    "accountUpdateMulti": (73, 1, ("version", "reqId", "account", "modelCode", "key", "value", "currency")),
    "accountUpdateMultiEnd": (74, 1, ONE_ID),
    "symbolSamples": (79, 0, SYMBOL_SAMPLES),
    "tickReqParams": (81, 0, ("reqId", "minTick", "bboExchange", "snapshotPermissions")),
    "pnl": (94, 0, ("reqId", "daily", "unrealized", "realized")),
    "pnlSingle": (95, 0, ("reqId", "position", "daily", "unrealized", "realized", "value")),
    "completedOrder": (101, 0, COMPLETED_ORDER),
    "completedOrdersEnd": (102, 0, ()),
}  # fmt: skip
