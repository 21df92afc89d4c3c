"""Commands that send something to the broker."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import typer

from broker.cli import tables
from broker.cli.confirm import confirm_action, confirm_order
from broker.cli.desk import Desk
from broker.cli.program import command
from broker.errors import FieldProblem, InvalidRequest
from broker.models import OrderRequest
from broker.validation import check_order

Symbol = Annotated[str, typer.Argument(help="AAPL, BRK.B ...")]
Qty = Annotated[float | None, typer.Argument(help="Shares; not with --notional.")]
Notional = Annotated[float | None, typer.Option("--notional", help="Money to spend instead of shares.")]
LimitPrice = Annotated[float | None, typer.Option("--limit", help="A limit order at this price.")]
StopPrice = Annotated[
    float | None, typer.Option("--stop", help="A stop order at this price; with --limit a stop-limit order.")
]
Trail = Annotated[
    float | None, typer.Option("--trail", "--trail-amount", help="A trailing stop, this amount behind.")
]
TrailPercent = Annotated[
    float | None, typer.Option("--trail-percent", help="A trailing stop, so many per cent behind.")
]
TakeProfit = Annotated[
    float | None, typer.Option("--take-profit", help="With --stop-loss, a bracket: sells or buys back here.")
]
StopLoss = Annotated[float | None, typer.Option("--stop-loss", help="With --take-profit, a bracket.")]
Tif = Annotated[str, typer.Option("--tif", help="Time in force: day, gtc, and what the broker has.")]
Extended = Annotated[bool, typer.Option("--extended-hours", help="Outside regular hours, too.")]
ClientOrderId = Annotated[
    str,
    typer.Option("--client-order-id", help="Your id: repeated with it, the order is placed only once."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask before a live order.")]


#: what describes an order, in the order of the help: the option and its default
_ORDER: dict[str, tuple[Any, Any]] = {
    "symbol": (Symbol, inspect.Parameter.empty),
    "qty": (Qty, None),
    "notional": (Notional, None),
    "limit_price": (LimitPrice, None),
    "stop_price": (StopPrice, None),
    "trail_amount": (Trail, None),
    "trail_percent": (TrailPercent, None),
    "take_profit_price": (TakeProfit, None),
    "stop_loss_price": (StopLoss, None),
    "time_in_force": (Tif, "day"),
    "extended_hours": (Extended, False),
    "client_order_id": (ClientOrderId, ""),
}


def _takes_order(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put an order's options in the place of `**order` in a command's signature, but for those left out."""

    def change(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in _ORDER.items()
            if name not in left_out
        ]
        needed = [p for p in own if p.default is inspect.Parameter.empty]
        others = [p for p in own if p.default is not inspect.Parameter.empty]
        both = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*needed, *options, *others)]
        function.__signature__ = signature.replace(parameters=both)  # type: ignore[attr-defined]
        return function

    return change


@command("buy")
@_takes_order()
def buy(desk: Desk, yes: Yes = False, **order: Any) -> None:
    """Buy at the market, or as --limit, --stop, --trail and --notional say."""
    _place(desk, order_request("buy", **order), yes)


@command("sell")
@_takes_order()
def sell(desk: Desk, yes: Yes = False, **order: Any) -> None:
    """Sell at the market, or as --limit, --stop, --trail and --notional say."""
    _place(desk, order_request("sell", **order), yes)


@command("preview")
@_takes_order("take_profit_price", "stop_loss_price", "extended_hours", "client_order_id")
def preview(desk: Desk, side: Annotated[str, typer.Argument(help="buy or sell.")], **order: Any) -> None:
    """What an order would cost and change; nothing is placed."""
    found = desk.broker().preview_order(order_request(side, **order))
    desk.show({"preview": found}, tables.preview_table(found))


@command("replace")
def replace(
    desk: Desk,
    order_id: Annotated[str, typer.Argument(help="Our id of the order.")],
    qty: Annotated[float | None, typer.Option("--qty", help="The whole quantity, filled shares too.")] = None,
    limit_price: LimitPrice = None,
    stop_price: StopPrice = None,
    time_in_force: Annotated[str | None, typer.Option("--tif")] = None,
    yes: Yes = False,
) -> None:
    """Change a working order."""
    broker = desk.broker()
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("qty", qty),
            ("limit_price", limit_price),
            ("stop_price", stop_price),
            ("time_in_force", time_in_force),
        )
        if value is not None
    }
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changes.items())
    confirm_action(desk, broker, f"change order {order_id}: {told}", yes)
    found = broker.replace_order(order_id, **changes)
    desk.show({"order": found}, tables.orders_table([found], "Changed"))


@command("cancel")
def cancel(desk: Desk, order_id: Annotated[str, typer.Argument(help="Our id of the order.")]) -> None:
    """Cancel an order. Doesn't ask: it only takes risk away."""
    broker = desk.broker()
    broker.cancel_order(order_id)
    found = broker.get_order(order_id)
    desk.show({"order": found}, tables.orders_table([found], "Cancelled"))


@command("cancel-all")
def cancel_all(desk: Desk, yes: Yes = False) -> None:
    """Cancel every working order, protective stops among them."""
    broker = desk.broker()
    confirm_action(desk, broker, "cancel all working orders, protective stops among them", yes)
    found = broker.cancel_all_orders()
    desk.show({"orders": found}, tables.orders_table(found, "Cancelled") if found else "no working orders")


@command("close")
def close(
    desk: Desk,
    symbol: Symbol,
    qty: Annotated[float | None, typer.Option("--qty", help="Only so many shares.")] = None,
    client_order_id: ClientOrderId = "",
    yes: Yes = False,
) -> None:
    """Sell what is held of a symbol, or buy back what is short, at the market."""
    broker = desk.broker()
    client_order_id = client_order_id or uuid.uuid4().hex
    position = broker.get_position(symbol)
    if position is not None and position.qty:
        side = "sell" if position.qty > 0 else "buy"
        shown = OrderRequest(position.symbol, side, abs(position.qty) if qty is None else qty, "market")
        confirm_order(desk, broker, shown, yes)
    desk.note(f"client order id {client_order_id}")
    found = broker.close_position(symbol, qty=qty, client_order_id=client_order_id)
    desk.show({"order": found}, tables.orders_table([found], "Placed"))


def order_request(side: str, **given: Any) -> OrderRequest:
    """The order that the options describe. Raises `InvalidRequest` for options that exclude each other."""
    trailing = given["trail_amount"] is not None or given["trail_percent"] is not None
    stop, limit = given["stop_price"] is not None, given["limit_price"] is not None
    problems = []
    if trailing and (stop or limit):
        said = "is its own kind of order: leave --limit and --stop out"
        problems.append(FieldProblem("trail", said, "both"))
    if (given["qty"] is None) == (given["notional"] is None):
        said = "either shares or --notional, one of the two"
        problems.append(FieldProblem("qty", said, "nothing" if given["qty"] is None else "both"))
    if problems:
        raise InvalidRequest(problems)
    if trailing:
        order_type = "trailing_stop"
    elif stop:
        order_type = "stop_limit" if limit else "stop"
    else:
        order_type = "limit" if limit else "market"
    given["qty"] = given["qty"] or 0.0
    return OrderRequest(side=side, order_type=order_type, placed_by="command line", **given)


def _place(desk: Desk, request: OrderRequest, yes: bool) -> None:
    broker = desk.broker()
    # Refused before a person is asked to confirm it; without a client order id it gets one here.
    request = check_order(request, broker.capabilities)
    confirm_order(desk, broker, request, yes)
    # Said before it is sent: with it the command can be repeated whatever happens to its answer.
    desk.note(f"client order id {request.client_order_id}")
    found = broker.place_order(request)
    desk.show({"order": found}, tables.orders_table([found], "Placed"))
