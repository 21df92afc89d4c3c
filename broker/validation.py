"""What is refused before anything is sent, whatever the broker. All problems are reported at once."""

from __future__ import annotations

import math
import re
import uuid
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from broker.base import Capabilities
from broker.errors import FieldProblem, InvalidRequest, field_problem, shown
from broker.models import Order, OrderRequest

__all__ = ["check_client_order_id", "check_order", "check_replacement", "check_symbol", "shown"]

#: a ticker, with an optional class or suffix: AAPL, BRK.B
SYMBOL = re.compile(r"[A-Z][A-Z0-9]{0,11}(\.[A-Z0-9]{1,4})?")
#: fits TWS's orderRef and Alpaca's client_order_id, and needs no escaping anywhere
CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
LONGEST_CLIENT_ORDER_ID = 64
#: what a bracket's legs add to its client order id
TAKE_PROFIT, STOP_LOSS = ".tp", ".sl"
#: beyond this a quantity, price or amount is a slip of the keyboard, not an order
LARGEST_QTY = 10_000_000
LARGEST_PRICE = 10_000_000.0
LARGEST_VALUE = 1_000_000_000.0
#: decimal places of a share's fraction (Alpaca's)
FRACTION_PLACES = 9
#: SEC rule 612: stocks are quoted in cents, below one dollar in hundredths of a cent
CENT, FINE_TICK = Decimal("0.01"), Decimal("0.0001")


@dataclass(frozen=True)
class _Prices:
    """The price fields of an order type: those it must have, and those it may have."""

    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


_ENTRY_LEGS = frozenset({"take_profit_price", "stop_loss_price"})
_TYPES = {
    "market": _Prices(may=_ENTRY_LEGS),
    "limit": _Prices(frozenset({"limit_price"}), _ENTRY_LEGS),
    "stop": _Prices(frozenset({"stop_price"})),
    "stop_limit": _Prices(frozenset({"stop_price", "limit_price"})),
    "trailing_stop": _Prices(may=frozenset({"trail_amount", "trail_percent"})),
}
_PRICES = ("limit_price", "stop_price", "trail_amount", "take_profit_price", "stop_loss_price")


def check_symbol(symbol: object, field: str = "symbol") -> str:
    """The symbol in the form used everywhere here (upper case). Raises `InvalidRequest` naming `field`."""
    if isinstance(symbol, str) and SYMBOL.fullmatch(symbol.upper()) and symbol.isascii():
        return symbol.upper()
    raise InvalidRequest(
        [FieldProblem(field, "must be a ticker such as AAPL or BRK.B, without spaces", shown(symbol))]
    )


def check_client_order_id(client_order_id: object) -> str:
    """The id, if it can be one. Raises `InvalidRequest`."""
    if isinstance(client_order_id, str) and CLIENT_ORDER_ID.fullmatch(client_order_id):
        return client_order_id
    said = "must be 1 to 64 letters, digits or . _ : - and begin with a letter or digit"
    raise InvalidRequest([field_problem("client_order_id", said, client_order_id)])


def check_order(request: OrderRequest, capabilities: Capabilities) -> OrderRequest:
    """The order in normal form, with a client order id. Raises `InvalidRequest` with every problem."""
    problems: list[FieldProblem] = []
    symbol, client_order_id = request.symbol, request.client_order_id or uuid.uuid4().hex
    try:
        symbol = check_symbol(request.symbol)
    except InvalidRequest as wrong:
        problems += wrong.problems
    side = _choice("side", request.side, {"buy", "sell"}, problems)
    order_type = _choice("order_type", request.order_type, capabilities.order_types, problems)
    time_in_force = _choice("time_in_force", request.time_in_force, capabilities.times_in_force, problems)
    _check_amount(request, order_type, capabilities, problems)
    if order_type in _TYPES:
        _check_prices(request, order_type, capabilities, problems)
    _check_extended_hours(request, order_type, capabilities, problems)
    try:
        client_order_id = check_client_order_id(client_order_id)
    except InvalidRequest as wrong:
        problems += wrong.problems
    if not problems:
        _check_sense(request, side, problems)
    if problems:
        raise InvalidRequest(problems)
    numbers: dict[str, Any] = {
        name: None if (value := getattr(request, name)) is None else float(value)
        for name in ("qty", "notional", "trail_percent", *_PRICES)
    }
    return replace(
        request,
        symbol=symbol,
        side=side,
        order_type=order_type,
        time_in_force=time_in_force,
        client_order_id=client_order_id,
        **numbers,
    )


def check_replacement(
    order: Order,
    capabilities: Capabilities,
    *,
    qty: float | None,
    limit_price: float | None,
    stop_price: float | None,
    time_in_force: str | None,
) -> dict[str, float | str]:
    """What changes, in normal form. Raises `InvalidRequest` with every problem; nothing to change is one."""
    problems: list[FieldProblem] = []
    asked = {"qty": qty, "limit_price": limit_price, "stop_price": stop_price, "time_in_force": time_in_force}
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        problems.append(
            field_problem("qty", "or a price or time in force must be given: nothing changes", None)
        )
    if qty is not None and (order.legs or order.parent_id):
        said = "a bracket's can't be changed: cancel it and place another"
        problems.append(field_problem("qty", said, qty))
    elif qty is not None:
        _check_qty(qty, capabilities, problems)
        if not problems and float(qty) <= order.filled_qty:
            problems.append(field_problem("qty", f"must be above what is filled, {order.filled_qty:g}", qty))
    for name in ("limit_price", "stop_price"):
        value = asked[name]
        if value is not None and name not in _TYPES[order.order_type].needs:
            problems.append(field_problem(name, f"a {order.order_type} order has none", value))
        elif value is not None:
            _check_price(name, value, problems)
    if time_in_force is not None:
        given["time_in_force"] = _choice(
            "time_in_force", time_in_force, capabilities.times_in_force, problems
        )
    if problems:
        raise InvalidRequest(problems)
    return {name: value if isinstance(value, str) else float(value) for name, value in given.items()}


def _choice(field: str, value: object, known: frozenset[str] | set[str], problems: list[FieldProblem]) -> str:
    if isinstance(value, str) and value.lower() in known:
        return value.lower()
    problems.append(field_problem(field, f"must be one of {', '.join(sorted(known))}", value))
    return ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _check_amount(
    request: OrderRequest, order_type: str, capabilities: Capabilities, problems: list[FieldProblem]
) -> None:
    """A quantity, or an amount of money in its place."""
    if request.notional is None:
        _check_qty(request.qty, capabilities, problems)
        return
    number = _number(request.notional)
    if not capabilities.notional:
        problems.append(
            field_problem("notional", "this broker takes quantities only: give qty", request.notional)
        )
    elif number is None or not 0 < number <= LARGEST_VALUE:
        said = f"must be an amount above 0 and at most {LARGEST_VALUE:.0f}"
        problems.append(field_problem("notional", said, request.notional))
    elif _places(number) > 2:
        problems.append(field_problem("notional", "must be in whole cents", request.notional))
    elif order_type and order_type != "market":
        problems.append(field_problem("notional", "only a market order can have one", request.notional))
    if request.qty != 0:
        problems.append(field_problem("qty", "must be 0 beside a notional amount", request.qty))


def _check_qty(qty: object, capabilities: Capabilities, problems: list[FieldProblem]) -> None:
    number = _number(qty)
    if number is None or number <= 0:
        problems.append(field_problem("qty", "must be a number above 0", qty))
    elif number > LARGEST_QTY:
        problems.append(field_problem("qty", f"must be at most {LARGEST_QTY}", qty))
    elif not capabilities.fractional and number != int(number):
        problems.append(field_problem("qty", "must be whole: this broker takes no fractions", qty))
    elif _places(number) > FRACTION_PLACES:
        problems.append(field_problem("qty", f"may have {FRACTION_PLACES} decimal places at most", qty))


def _check_prices(
    request: OrderRequest, order_type: str, capabilities: Capabilities, problems: list[FieldProblem]
) -> None:
    allowed = _TYPES[order_type]
    for name in (*_PRICES, "trail_percent"):
        value = getattr(request, name)
        if value is None:
            if name in allowed.needs:
                problems.append(field_problem(name, f"is required for a {order_type} order", None))
        elif name not in allowed.needs | allowed.may:
            problems.append(field_problem(name, f"a {order_type} order has none", value))
        elif name == "trail_percent":
            number = _number(value)
            if number is None or not 0 < number < 100:
                problems.append(field_problem(name, "must be above 0 and below 100 per cent", value))
        else:
            _check_price(name, value, problems)
    if order_type == "trailing_stop" and (request.trail_amount is None) == (request.trail_percent is None):
        said = "a trailing_stop order needs one of trail_amount and trail_percent"
        problems.append(field_problem("trail_amount", said, request.trail_amount))
    legs = {name for name in _ENTRY_LEGS if getattr(request, name) is not None}
    if legs and not capabilities.bracket:
        name = min(legs)
        problems.append(field_problem(name, "this broker takes no brackets", getattr(request, name)))
    elif len(legs) == 1:
        said = f"is required beside {min(legs)}: a bracket has both"
        problems.append(field_problem(min(_ENTRY_LEGS - legs), said, None))


def _check_price(name: str, value: object, problems: list[FieldProblem]) -> None:
    number = _number(value)
    if number is None or not 0 < number <= LARGEST_PRICE:
        problems.append(field_problem(name, f"must be above 0 and at most {LARGEST_PRICE:.0f}", value))
        return
    tick = CENT if number >= 1 else FINE_TICK
    if Decimal(repr(number)) % tick:
        problems.append(field_problem(name, f"must be a multiple of the tick, {tick}", value))


def _check_extended_hours(
    request: OrderRequest, order_type: str, capabilities: Capabilities, problems: list[FieldProblem]
) -> None:
    value: object = request.extended_hours
    if not isinstance(value, bool):
        problems.append(field_problem("extended_hours", "must be true or false", value))
    elif value and not capabilities.extended_hours:
        problems.append(field_problem("extended_hours", "this broker trades in regular hours only", value))
    elif value and order_type and order_type != "limit":
        problems.append(field_problem("extended_hours", "only a limit order can trade outside hours", value))


def _check_sense(request: OrderRequest, side: str, problems: list[FieldProblem]) -> None:
    """Numbers that are right one by one and make no order together."""
    price = request.limit_price or request.stop_price
    if price is not None and request.qty * price > LARGEST_VALUE:
        said = f"times the price must be at most {LARGEST_VALUE:.0f}"
        problems.append(field_problem("qty", said, request.qty))
    gain, loss = request.take_profit_price, request.stop_loss_price
    if gain is None or loss is None:
        return
    _check_bracket(request, problems)
    upwards = 1 if side == "buy" else -1
    entry = request.limit_price
    if (gain - loss) * upwards <= 0:
        said = f"must be {'above' if side == 'buy' else 'below'} stop_loss_price for a {side}"
        problems.append(field_problem("take_profit_price", said, gain))
    elif entry is not None and not (gain - entry) * upwards > 0:
        problems.append(
            field_problem("take_profit_price", "must be on the gaining side of limit_price", gain)
        )
    elif entry is not None and not (entry - loss) * upwards > 0:
        problems.append(field_problem("stop_loss_price", "must be on the losing side of limit_price", loss))


def _check_bracket(request: OrderRequest, problems: list[FieldProblem]) -> None:
    """What no broker takes of a bracket; the rules are Alpaca's, which are the narrowest."""
    if request.time_in_force.lower() not in ("day", "gtc"):
        problems.append(field_problem("time_in_force", "a bracket's is day or gtc", request.time_in_force))
    if request.extended_hours:
        problems.append(field_problem("extended_hours", "a bracket trades in regular hours only", True))
    if request.notional is not None:
        problems.append(
            field_problem("notional", "a bracket is for whole shares: give qty", request.notional)
        )
    elif request.qty != int(request.qty):
        problems.append(field_problem("qty", "a bracket is for whole shares", request.qty))
    longest = LONGEST_CLIENT_ORDER_ID - len(TAKE_PROFIT)
    if len(request.client_order_id) > longest:
        said = f"a bracket's has {longest} characters at most: its legs' ids are made of it"
        problems.append(field_problem("client_order_id", said, request.client_order_id))


def _places(number: float) -> int:
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
