"""What is refused before anything is sent, whatever the broker. All problems are reported at once."""

from __future__ import annotations

import math
import re
import uuid
from dataclasses import replace

from broker.base import Capabilities
from broker.errors import FieldProblem, InvalidRequest
from broker.models import OrderRequest

#: a ticker, with an optional class or suffix: AAPL, BRK.B
SYMBOL = re.compile(r"[A-Z][A-Z0-9]{0,11}(\.[A-Z0-9]{1,4})?")
#: fits TWS's orderRef and Alpaca's client_order_id, and needs no escaping anywhere
CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
#: beyond this a quantity or price is a slip of the keyboard, not an order
LARGEST_QTY = 10_000_000
LARGEST_PRICE = 10_000_000.0


def check_symbol(symbol: object, field: str = "symbol") -> str:
    """The symbol in the form used everywhere here (upper case). Raises `InvalidRequest` naming `field`."""
    if isinstance(symbol, str) and SYMBOL.fullmatch(symbol.upper()) and symbol.isascii():
        return symbol.upper()
    raise InvalidRequest(
        [FieldProblem(field, "must be a ticker such as AAPL or BRK.B, without spaces", shown(symbol))]
    )


def check_order(request: OrderRequest, capabilities: Capabilities) -> OrderRequest:
    """The order in normal form, with a client order id. Raises `InvalidRequest` with every problem."""
    problems: list[FieldProblem] = []
    symbol = request.symbol
    try:
        symbol = check_symbol(request.symbol)
    except InvalidRequest as wrong:
        problems += wrong.problems
    side = _choice("side", request.side, {"buy", "sell"}, problems)
    order_type = _choice("order_type", request.order_type, capabilities.order_types, problems)
    time_in_force = _choice("time_in_force", request.time_in_force, capabilities.times_in_force, problems)
    _check_qty(request.qty, capabilities, problems)
    _check_limit_price(request, order_type, problems)
    client_order_id = request.client_order_id or uuid.uuid4().hex
    if not (isinstance(client_order_id, str) and CLIENT_ORDER_ID.fullmatch(client_order_id)):
        problems.append(
            FieldProblem(
                "client_order_id",
                "must be 1 to 64 letters, digits or . _ : - and begin with a letter or digit",
                shown(client_order_id),
            )
        )
    if problems:
        raise InvalidRequest(problems)
    return replace(
        request,
        symbol=symbol,
        side=side,
        qty=float(request.qty),
        order_type=order_type,
        limit_price=None if request.limit_price is None else float(request.limit_price),
        time_in_force=time_in_force,
        client_order_id=client_order_id,
    )


def shown(value: object) -> str:
    """A value as it may stand in a message: short, printable, on one line."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of thousands of digits has no text
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."


def _choice(field: str, value: object, known: frozenset[str] | set[str], problems: list[FieldProblem]) -> str:
    if isinstance(value, str) and value.lower() in known:
        return value.lower()
    problems.append(FieldProblem(field, f"must be one of {', '.join(sorted(known))}", shown(value)))
    return ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _check_qty(qty: object, capabilities: Capabilities, problems: list[FieldProblem]) -> None:
    number = _number(qty)
    if number is None or number <= 0:
        problems.append(FieldProblem("qty", "must be a number above 0", shown(qty)))
    elif number > LARGEST_QTY:
        problems.append(FieldProblem("qty", f"must be at most {LARGEST_QTY}", shown(qty)))
    elif not capabilities.fractional and number != int(number):
        problems.append(FieldProblem("qty", "must be whole: this broker takes no fractions", shown(qty)))


def _check_limit_price(request: OrderRequest, order_type: str, problems: list[FieldProblem]) -> None:
    price = request.limit_price
    if order_type == "limit":
        number = _number(price)
        if price is None:
            problems.append(FieldProblem("limit_price", "is required for a limit order", "nothing"))
        elif number is None or not 0 < number <= LARGEST_PRICE:
            problems.append(
                FieldProblem("limit_price", f"must be above 0 and at most {LARGEST_PRICE:.0f}", shown(price))
            )
    elif order_type == "market" and price is not None:
        problems.append(FieldProblem("limit_price", "a market order has none", shown(price)))
