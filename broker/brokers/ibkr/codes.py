"""What TWS's message codes mean. Source: IBKR's list of API message codes, and what was seen at gateways."""

from __future__ import annotations

from typing import Final

#: the socket stays open, but nothing behind the gateway answers; 2110 is TWS's own word for it
LINK_LOST: Final = frozenset({1100, 2110})
#: the link is back and the gateway kept its subscriptions
LINK_RESTORED: Final = 1102
#: the link is back and subscriptions are lost: everything is asked anew
LINK_RESTORED_DATA_LOST: Final = 1101
CLIENT_ID_IN_USE: Final = 326

#: about an order that is live all the same: 10349 its time in force was set by a preset, 399 a
#: remark (held until the opening, say), 404 shares to borrow are being looked for, 10167 data is delayed
ORDER_REMARKS: Final = frozenset({399, 404, 2109, 10167, 10349})

#: "Order Canceled - reason": by us, by TWS, by the exchange
ORDER_CANCELLED: Final = 202

#: about a request to cancel, not about the order: unknown id, or a state that can't be cancelled
CANCEL_REFUSED: Final = frozenset({161, 10147, 10148})

#: final whatever the order's state was: TWS or the exchange refused it
ORDER_REFUSED: Final = frozenset({201, 203})

#: refusals of an order that TWS hasn't acknowledged; for a live order they refuse a change of it
ORDER_INVALID: Final = frozenset(
    {
        103,  # duplicate order id
        104,  # a filled order can't be changed
        105,  # doesn't match the original order
        106,  # can't be transmitted
        107,  # an incomplete order can't be transmitted
        109,  # price out of range
        110,  # price off the tick
        111,  # time in force and order type don't go together
        113,  # time in force is missing
        116,  # an inactive order can't be changed
        118,  # algo not valid
        135,  # no such order id
        136,  # can't be cancelled
        140,  # size isn't a whole number
        141,  # limit price isn't a number
        144,  # size must be above 0
        200,  # no such contract
        321,  # the request doesn't validate
        387,  # order type not supported here
        388,  # below the smallest size
        391,  # time in force not valid here
        412,  # the contract can't be traded
        434,  # the size can't be zero
        436,  # an account must be given
        460,  # no trading permission
        463,  # a price is missing
        10268,  # eTradeOnly
        10289,  # size in cash only
        10293,  # order size limit
    }
)

#: no price: not subscribed (354, 10089, 10090, 10168), delayed instead (10167), a competing session
#: (10197), or none there is (162, "HMDS query returned no data")
NO_MARKET_DATA: Final = frozenset({162, 200, 354, 10089, 10090, 10168, 10186, 10197})
#: too many requests: 100 messages a second, 420 real-time data; 162, too, if its text says "pacing violation"
PACING: Final = frozenset({100, 420})


def is_pacing(code: int, text: str) -> bool:
    """True for a request that was one too many: it may be made again later. 162 alone means no data."""
    return code in PACING or (code == 162 and "pacing" in text.lower())


def is_remark(code: int) -> bool:
    """True for what TWS only remarks about an order: it is live, whatever the library makes of it."""
    return code in ORDER_REMARKS or 2100 <= code < 2200
