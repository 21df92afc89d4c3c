"""POST /v2/orders and PATCH /v2/orders/{id}: from a request's body to what the exchange is asked for.

Rules: docs.alpaca.markets, "Placing Orders" (order types, minimum price variance, extended hours, bracket,
OCO and OTO orders) and "Fractional Trading". Messages are Alpaca's where a public record of them was found;
those of plainly malformed requests are worded here.
"""

from __future__ import annotations

import math
import uuid
from typing import Any

from localcloud.exchange.instruments import Instrument
from localcloud.exchange.market import is_on_tick
from localcloud.gateways.alpaca import symbols
from localcloud.gateways.alpaca.errors import forbidden, malformed, unprocessable

Json = dict[str, Any]
TYPES = {"market": "MKT", "limit": "LMT", "stop": "STP", "stop_limit": "STP LMT", "trailing_stop": "TRAIL"}
TIMES = {"day": "DAY", "gtc": "GTC", "ioc": "IOC", "fok": "FOK"}
AUCTIONS = ("opg", "cls")
_PRICES = {"limit": ("limit_price",), "stop": ("stop_price",), "stop_limit": ("limit_price", "stop_price")}
_EVERY_PRICE = ("limit_price", "stop_price")
LONGEST_CLIENT_ORDER_ID = 128
SMALLEST_COST_BASIS = 1.0


def number(body: Json, name: str, shown: str = "") -> float | None:
    """A number that came as a JSON number or as a string. Raises ApiError."""
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise malformed(f"{shown or name} is not a number: {value!r}")
    return found


def new_order(body: Json) -> Json:
    """The exchange's `place_order` parameters for an order's body, but for the account. Raises ApiError."""
    instrument = _instrument(body)
    order_class = str(body.get("order_class") or "simple")
    kind, tif = _kind_and_time(body)
    quantity, notional = _amount(body)
    _check_fraction(quantity, notional, kind, tif, order_class)
    prices = _prices(body, kind, instrument)
    if body.get("extended_hours") and (kind, tif) != ("limit", "day"):
        raise unprocessable("extended hours order must be DAY limit orders")
    wanted: Json = {
        "conid": instrument.conid,
        "side": str(body["side"]).upper(),
        "quantity": quantity or 0.0,
        "order_type": TYPES[kind],
        **prices,
        "tif": TIMES[tif],
        "outside_rth": bool(body.get("extended_hours")),
        "order_ref": client_order_id(body) or str(uuid.uuid4()),
        "client": {"class": order_class},
        "unique_reference": True,
        "keep_refused": False,
    }
    if notional is not None:
        wanted["notional"] = notional
    if kind == "trailing_stop":
        wanted |= _trail(body)
    if order_class != "simple":
        wanted |= _linked(body, order_class, kind, instrument)
    return wanted


def check_cost_basis(wanted: Json, price: float) -> float:
    """What the order costs, in USD. Raises ApiError below a dollar."""
    basis = float(wanted.get("notional") or wanted["quantity"] * (wanted.get("limit_price") or price))
    if basis < SMALLEST_COST_BASIS:
        raise forbidden("cost basis must be >= minimal amount of order 1", cost_basis=symbols.text(basis))
    return basis


def changes(body: Json, order: Json) -> Json:
    """The exchange's `replace_order` parameters for the changes to a working order. Raises ApiError."""
    if order["notional"] is not None:
        # "Notional orders cannot be replaced" (reference, Replace Order by ID).
        raise unprocessable("notional orders cannot be replaced")
    kind = next(name for name, code in TYPES.items() if code == order["order_type"])
    wanted: Json = {"order_ref": client_order_id(body) or str(uuid.uuid4())}
    quantity = number(body, "qty")
    if quantity is not None:
        if quantity <= 0:
            raise unprocessable("qty must be > 0")
        if (quantity % 1 or order["quantity"] % 1) and quantity != order["quantity"]:
            # "You can only patch full shares for now" (ibid.).
            raise unprocessable("qty of fractional orders cannot be changed")
        wanted["quantity"] = quantity
    instrument = symbols.find(symbols.to_alpaca(order["contract"]["symbol"]))
    assert instrument is not None, "an order for something that isn't listed was accepted"
    for name in _EVERY_PRICE:
        price = number(body, name)
        if price is not None:
            if name not in _PRICES.get(kind, ()):
                raise unprocessable(f"{kind} orders require no {name.replace('_', ' ')}")
            wanted[name] = _price(price, name, instrument)
    trail = number(body, "trail")
    if trail is not None:
        if kind != "trailing_stop" or trail <= 0:
            raise unprocessable("trail must be > 0 and is only valid for trailing_stop orders")
        wanted["trail_percent" if order["trail_percent"] is not None else "trail_amount"] = trail
    if body.get("time_in_force"):
        wanted["tif"] = TIMES[_choice(body, "time_in_force", TIMES)]
    if not any(_changes(order, name, value) for name, value in wanted.items() if name != "order_ref"):
        raise unprocessable("order parameters are not changed")
    return wanted


def _changes(order: Json, name: str, value: Any) -> bool:
    return bool(order[name] != value)


def client_order_id(body: Json) -> str:
    """The client's own id for an order, or "". Raises ApiError when it is too long."""
    chosen = str(body.get("client_order_id") or "")
    if len(chosen) > LONGEST_CLIENT_ORDER_ID:
        raise malformed(f"client_order_id must be no more than {LONGEST_CLIENT_ORDER_ID} characters")
    return chosen


def _choice(body: Json, name: str, known: Any) -> str:
    value = str(body.get(name) or "")
    if not value:
        raise malformed(f"{name} is required")
    if value not in known:
        raise malformed(f"invalid {name}: {value}")
    return value


def _instrument(body: Json) -> Instrument:
    symbol = body.get("symbol")
    if not symbol:
        raise malformed("symbol is required")
    instrument = symbols.find(str(symbol))
    if instrument is None:
        raise unprocessable(f'asset "{symbol}" not found')
    return instrument


def _kind_and_time(body: Json) -> tuple[str, str]:
    _choice(body, "side", ("buy", "sell"))
    kind = _choice(body, "type", TYPES)
    tif = str(body.get("time_in_force") or "")
    if tif in AUCTIONS:
        raise unprocessable(f"time_in_force {tif} is not served by the paper exchange")
    return kind, _choice(body, "time_in_force", TIMES)


def _amount(body: Json) -> tuple[float | None, float | None]:
    quantity, notional = number(body, "qty"), number(body, "notional")
    if quantity is None and notional is None:
        raise malformed("qty or notional is required")
    if quantity is not None and notional is not None:
        raise malformed("only one of qty or notional is accepted")
    if quantity is not None and quantity <= 0:
        raise unprocessable("qty must be > 0")
    if notional is not None and notional <= 0:
        raise unprocessable("notional must be > 0")
    if quantity is not None and round(quantity, 9) != quantity:
        raise unprocessable("qty can have at most 9 decimal places")
    return quantity, notional


def _check_fraction(
    quantity: float | None, notional: float | None, kind: str, tif: str, order_class: str
) -> None:
    if notional is None and not (quantity or 0) % 1:
        return
    if order_class != "simple":
        raise unprocessable("fractional orders must be simple orders")
    if tif != "day":
        raise unprocessable("fractional orders must be DAY orders")
    if kind == "trailing_stop":
        raise unprocessable("fractional orders must be market, limit, stop, or stop_limit orders")


def _prices(body: Json, kind: str, instrument: Instrument) -> Json:
    found: Json = {}
    for name in _EVERY_PRICE:
        price, wanted = number(body, name), name in _PRICES.get(kind, ())
        if price is None and wanted:
            raise unprocessable(f"{kind.replace('_', ' ')} orders require {name.replace('_', ' ')}")
        if price is not None and not wanted:
            raise unprocessable(f"{kind.replace('_', ' ')} orders require no stop or limit price")
        if price is not None:
            found[name] = _price(price, name, instrument)
    return found


def _price(price: float, name: str, instrument: Instrument) -> float:
    if price <= 0:
        raise unprocessable(f"{name.replace('_', ' ')} must be > 0")
    # "Limit price >= $1.00: max decimals 2; < $1.00: max decimals 4" (Placing Orders, Sub-penny increments).
    tick = max(instrument.tick, 0.01 if price >= 1 else 0.0001)
    if not is_on_tick(price, tick):
        raise unprocessable(
            f"invalid {name} {symbols.text(price)}. "
            "sub-penny increment does not fulfill minimum pricing criteria"
        )
    return price


def _trail(body: Json) -> Json:
    amount, percent = number(body, "trail_price"), number(body, "trail_percent")
    if (amount is None) == (percent is None):
        raise malformed("trailing stop orders require either trail_price or trail_percent")
    if (amount or percent or 0) <= 0:
        raise unprocessable("trail_price and trail_percent must be > 0")
    return {"trail_amount": amount} if amount is not None else {"trail_percent": percent}


def _linked(body: Json, order_class: str, kind: str, instrument: Instrument) -> Json:
    """The legs of a bracket, OTO or OCO order."""
    if order_class not in ("bracket", "oto", "oco"):
        raise malformed(f"invalid order_class: {order_class}")
    profit, loss = body.get("take_profit") or {}, body.get("stop_loss") or {}
    if not isinstance(profit, dict) or not isinstance(loss, dict):
        raise malformed("take_profit and stop_loss are objects")
    if order_class == "oco":
        if kind != "limit":
            raise unprocessable("oco orders must be limit orders")
        leg = _stop_leg(loss, order_class, instrument)
        return {"legs": [{**leg, "side": str(body["side"]).upper()}], "one_cancels_other": True}
    if order_class == "bracket" and not (profit and loss):
        raise malformed("bracket orders require take_profit.limit_price and stop_loss.stop_price")
    legs = []
    if profit:
        legs.append(_profit_leg(profit, order_class, instrument))
    if loss:
        legs.append(_stop_leg(loss, order_class, instrument))
    if order_class == "oto" and len(legs) != 1:
        raise malformed("oto orders require either take_profit or stop_loss")
    if order_class == "bracket":
        above = legs[0]["limit_price"] - legs[1]["stop_price"]
        if (above if body["side"] == "buy" else -above) <= 0:
            sign = ">" if body["side"] == "buy" else "<"
            raise unprocessable(f"take_profit.limit_price must be {sign} stop_loss.stop_price")
    return {"legs": legs}


def _profit_leg(profit: Json, order_class: str, instrument: Instrument) -> Json:
    limit = number(profit, "limit_price", "take_profit.limit_price")
    if limit is None:
        raise malformed(f"{order_class} orders require take_profit.limit_price")
    return {"order_type": "LMT", "limit_price": _price(limit, "take_profit.limit_price", instrument),
            **_own_fields(order_class)}  # fmt: skip


def _stop_leg(loss: Json, order_class: str, instrument: Instrument) -> Json:
    stop = number(loss, "stop_price", "stop_loss.stop_price")
    if stop is None:
        raise malformed(f"{order_class} orders require stop_loss.stop_price")
    leg: Json = {"order_type": "STP", "stop_price": _price(stop, "stop_loss.stop_price", instrument)}
    limit = number(loss, "limit_price", "stop_loss.limit_price")
    if limit is not None:
        leg |= {"order_type": "STP LMT", "limit_price": _price(limit, "stop_loss.limit_price", instrument)}
    return {**leg, **_own_fields(order_class)}


def _own_fields(order_class: str) -> Json:
    return {"order_ref": str(uuid.uuid4()), "client": {"class": order_class}}
