"""IBKR's message codes and texts that this gateway sends.

Source: TWS API, "Message Codes" (interactivebrokers.github.io/tws-api/message_codes.html), and the texts that
users of the real gateway quote.
"""

from __future__ import annotations

NO_ID = -1
TEXTS: dict[int, str] = {
    100: "Max rate of messages per second has been exceeded:{detail}",
    103: "Duplicate order id",
    104: "Cannot modify a filled order.",
    105: "Order being modified does not match original order",
    110: "The price does not conform to the minimum price variation for this contract.",
    135: "Can't find order with id ={detail}",
    161: ("Cancel attempted when order is not in a cancellable state.  Order permId = {detail}"),
    162: "Historical Market Data Service error message:{detail}",
    200: "No security definition has been found for the request",
    201: "Order rejected - reason:{detail}",
    202: "Order Canceled - reason:{detail}",
    300: "Can't find EId with tickerId:{detail}",
    320: "Error reading request.-{detail}",
    321: "Error validating request.-{detail}",
    322: "Error processing request.-{detail}",
    326: "Unable to connect as the client id is already in use. Retry with a unique client id.",
    354: (
        "Requested market data is not subscribed.Check API status by selecting the Account menu then under "
        "Management choose Market Data Subscription Manager and/or availability of delayed data.{detail}"
    ),
    387: "Unsupported order type for this exchange and security type.",
    399: "Order Message:\n{detail}",
    434: "The order size cannot be zero.",
    504: "Not connected",
    505: "Fatal Error: Unknown message id.{detail}",
    1100: "Connectivity between IB and Trader Workstation has been lost.",
    1101: "Connectivity between IB and Trader Workstation has been restored - data lost.",
    1102: (
        "Connectivity between IB and Trader Workstation has been restored - data maintained. "
        "All data farms are connected: usfarm; ushmds; secdefnj."
    ),
    2103: "Market data farm connection is broken:usfarm",
    2104: "Market data farm connection is OK:usfarm",
    2106: "HMDS data farm connection is OK:ushmds",
    2110: (
        "Connectivity between Trader Workstation and server is broken. It will be restored automatically."
    ),
    2158: "Sec-def data farm connection is OK:secdefnj",
    10089: (
        "Requested market data requires additional subscription for API. See link in 'Market Data "
        "Connections' dialog for more details.Delayed market data is available.{detail}"
    ),
    10147: "OrderId {detail} that needs to be cancelled is not found.",
    10148: "OrderId {detail}.",
    10167: "Requested market data is not subscribed. Displaying delayed market data.",
    10197: "No market data during competing live session",
    10243: "Fractional-sized order cannot be placed via API. Please refer to our website for more details.",
    10268: "The 'EtradeOnly' order attribute is not supported.",
    10269: "The 'FirmQuoteOnly' order attribute is not supported.",
}


class Complaint(Exception):
    """A request is answered with an IBKR message code instead of data."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.text = TEXTS[code].replace("{detail}", detail)
