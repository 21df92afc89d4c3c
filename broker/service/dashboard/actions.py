"""What the pages' forms do. Each answer is a dialog; what was typed is never lost to an error.

An order's id is made with its form, so that a form that is sent twice is one order.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError

from broker.base import BaseBroker
from broker.errors import (
    BrokerError,
    FieldProblem,
    InvalidRequest,
    NotConnected,
    OrderNotFound,
    OrderOutcomeUnknown,
    UnsupportedOperation,
)
from broker.journal import Journal
from broker.models import Order, OrderRequest
from broker.service import halt
from broker.service.connections import Connection
from broker.service.dashboard.dialogs import DialogRoute
from broker.service.dashboard.forms import sent
from broker.service.dashboard.pages import dashboard_of
from broker.service.problems import field_name
from broker.service.routes import Reader, Trader, Via
from broker.service.schemas import OrderBody, ReplaceBody
from broker.timeline_words import executed_at, more, what

actions = APIRouter(include_in_schema=False, route_class=DialogRoute)

OrderId = Annotated[str, Path(max_length=64)]
Words = Annotated[str, Query(max_length=64)]

_ORDER_FIELDS = tuple(OrderBody.model_fields)
#: a form without anything in it
_EMPTY = dict.fromkeys(
    ("symbol", "side", "qty", "order_type", "limit_price", "stop_price", "trail_percent", "time_in_force"), ""
)
_NUMBERS = ("qty", "limit_price", "stop_price", "notional", "trail_amount", "trail_percent")
#: which fields a kind of order has, for the script that hides the others
_SHOWS = {
    "limit_price": "limit stop_limit",
    "stop_price": "stop stop_limit",
    "trail_percent": "trailing_stop",
}


class Line(NamedTuple):
    """One line of an order's life."""

    at: str
    kind: str
    what: str
    more: str
    #: when the broker executed it, where that was told late
    executed: str | None


@actions.get("/orders/{connection_id}/new")
async def new_order(
    who: Trader,
    via: Via,
    connection_id: str,
    request: Request,
    symbol: Words = "",
    side: Words = "buy",
    qty: Words = "",
) -> Response:
    """An empty form, or one that closes a position."""
    form = {
        "symbol": symbol,
        "side": side if side in ("buy", "sell") else "buy",
        "qty": qty,
        "order_type": "market",
        "time_in_force": "day",
        "client_order_id": uuid.uuid4().hex,
    }
    return _form(request, connection_id, via.broker, form)


@actions.post("/orders/{connection_id}/edit")
async def edit_order(who: Trader, via: Via, connection_id: str, request: Request) -> Response:
    """Back from the preview."""
    return _form(request, connection_id, via.broker, await sent(request))


@actions.post("/orders/{connection_id}/preview")
async def preview_order(who: Trader, via: Via, connection_id: str, request: Request) -> Response:
    """What the order would cost, and the question whether to place it."""
    form = _EMPTY | await sent(request)
    broker = via.broker
    try:
        asked = _asked(form, who.user)
        preview, why = await broker.preview_order_async(asked), ""
    except InvalidRequest as wrong:
        return _form(request, connection_id, broker, form, {p.field: p.message for p in wrong.problems})
    except UnsupportedOperation:
        preview, why = None, "This broker gives no preview."
    except BrokerError as failure:
        return _form(request, connection_id, broker, form, problem=failure.message)
    account = dashboard_of(request).watch(connection_id, via, request).shown.account.value
    return dashboard_of(request).html(
        "dialogs/preview.html",
        via=connection_id,
        form=form,
        preview=preview,
        no_preview=why,
        mode=via.mode,
        account=account.id if account is not None else "",
    )


@actions.post("/orders/{connection_id}")
async def place_order(who: Trader, via: Via, connection_id: str, request: Request) -> Response:
    """Place the order that was previewed."""
    form = await sent(request)
    order, problem, unknown = None, "", False
    again = form
    if via.mode == "live" and form.get("real_money") != "yes":
        problem = "It would trade real money, and that wasn't confirmed."
    else:
        try:
            asked = _asked(form, who.user)
            async with via.trading() as broker:
                order = await asyncio.shield(broker.place_order_async(asked))
        except OrderOutcomeUnknown as silence:
            problem, unknown = silence.message, True
        except NotConnected as away:
            problem = away.message  # nothing was sent: under the same id it is the same order
        except BrokerError as failure:
            problem = failure.message
            # Under its id the answer would be the same for ever.
            again = {**form, "client_order_id": uuid.uuid4().hex}
    return _done(request, connection_id, via, order=order, problem=problem, unknown=unknown, again=again)


@actions.get("/orders/{connection_id}/{order_id}")
async def order_life(
    who: Reader, via: Via, connection_id: str, order_id: OrderId, request: Request
) -> Response:
    """An order's whole life, in a dialog."""
    return await _life("dialogs/life.html", via, connection_id, order_id, request)


@actions.get("/orders/{connection_id}/{order_id}/life")
async def order_life_now(
    who: Reader, via: Via, connection_id: str, order_id: OrderId, request: Request
) -> Response:
    """The same anew, for the dialog that is open: something has happened to the order."""
    return await _life("dialogs/life_now.html", via, connection_id, order_id, request)


async def _life(
    template: str, via: Connection, connection_id: str, order_id: str, request: Request
) -> Response:
    away, can_replace = "", False
    try:
        broker = via.broker
        can_replace = broker.capabilities.replace
        life = await broker.get_order_timeline_async(order_id)
    except OrderNotFound:
        raise
    except BrokerError as failure:
        # The journal knows it all the same, as it was.
        shown = dashboard_of(request).watch(connection_id, via, request).shown.orders.value or []
        known = next((order for order in shown if order.id == order_id), None)
        if known is None:
            raise
        away = failure.message
        life = await asyncio.to_thread(Journal(request.app.state.engine).timeline, known)
    return dashboard_of(request).html(
        template,
        via=connection_id,
        order=life.order,
        life=[Line(one.at, one.kind, what(one), more(one), executed_at(one)) for one in life.entries],
        away=away,
        can_replace=can_replace,
    )


@actions.post("/orders/{connection_id}/{order_id}/cancel")
async def cancel_order(
    who: Trader, via: Via, connection_id: str, order_id: OrderId, request: Request
) -> Response:
    """Ask the broker to cancel; the list of orders shows what becomes of it."""
    try:
        async with via.trading() as broker:
            await asyncio.shield(broker.cancel_order_async(order_id))
        said = "The order is being cancelled."
    except BrokerError as failure:
        said = f"Not cancelled: {failure.message}"
    dashboard_of(request).watch(connection_id, via, request).refresh()
    return dashboard_of(request).html("dialogs/spoken.html", said=said)


@actions.get("/orders/{connection_id}/{order_id}/change")
async def change_form(
    who: Trader, via: Via, connection_id: str, order_id: OrderId, request: Request
) -> Response:
    """A form with the order's quantity and prices."""
    order = await via.broker.get_order_async(order_id)
    form = {
        name: f"{getattr(order, name):g}"
        for name in ("qty", "limit_price", "stop_price")
        if getattr(order, name)
    }
    return _change_form(request, connection_id, via.mode, order, form)


@actions.post("/orders/{connection_id}/{order_id}/change")
async def change_order(
    who: Trader, via: Via, connection_id: str, order_id: OrderId, request: Request
) -> Response:
    """Change a working order."""
    form = await sent(request)
    before = await via.broker.get_order_async(order_id)
    try:
        if via.mode == "live" and form.get("real_money") != "yes":
            raise BrokerError("it would trade real money, and that wasn't confirmed")
        body = _validated(
            ReplaceBody, _typed({n: v for n, v in form.items() if n in ReplaceBody.model_fields})
        )
        changed = {
            name: value
            for name, value in body.model_dump(exclude_none=True).items()
            if value != getattr(before, name)
        }
        async with via.trading() as broker:
            order = await asyncio.shield(broker.replace_order_async(order_id, **changed))
    except InvalidRequest as wrong:
        errors = {p.field: p.message for p in wrong.problems}
        return _change_form(request, connection_id, via.mode, before, form, errors)
    except OrderOutcomeUnknown as silence:
        return _done(request, connection_id, via, done="changed", problem=silence.message, unknown=True)
    except BrokerError as failure:
        return _change_form(request, connection_id, via.mode, before, form, problem=failure.message)
    return _done(request, connection_id, via, done="changed", order=order)


@actions.get("/switch/{action}")
async def switch_form(who: halt.Operator, action: halt.Action, request: Request) -> Response:
    """The question before the kill switch is pulled, or lifted."""
    return dashboard_of(request).html("dialogs/switch.html", action=action, problem="", reason="")


@actions.post("/switch/{action}")
async def pull_switch(who: halt.Operator, action: halt.Action, request: Request) -> Response:
    """Halt or resume trading."""
    form = await sent(request)
    reason = form.get("reason", "").strip()
    try:
        if not reason:
            raise BrokerError("Say why: the reason is kept.")
        if action == "halt":
            cancel = form.get("cancel_orders") == "yes"
            done = await halt.halt(who, halt.HaltBody(reason=reason, cancel_orders=cancel), request)
            heading, lines = "Trading is halted", _halted(done)
        else:
            state = await halt.resume(who, halt.ResumeBody(reason=reason), request)
            heading = "Trading is still halted" if state.halted else "Trading is on again"
            lines = [f"It is halted by the {state.source}, too: lift it there."] if state.halted else []
    except (BrokerError, ValidationError) as failure:
        said = failure.message if isinstance(failure, BrokerError) else "The reason is too long."
        return dashboard_of(request).html("dialogs/switch.html", action=action, problem=said, reason=reason)
    dashboard_of(request).refresh()
    return dashboard_of(request).html("dialogs/said.html", heading=heading, lines=lines, bad=False)


def _halted(done: halt.Halting) -> list[str]:
    cancelled = sum(len(orders) for orders in done.cancelled.values())
    lines = ["No order leaves until somebody resumes."]
    if done.under_way:
        lines.append(f"{len(done.under_way)} orders had left and have no answer yet: look at them.")
    if cancelled:
        lines.append(f"{cancelled} working orders are being cancelled.")
    lines += [f"Orders of {name} couldn't be cancelled: {why}" for name, why in done.not_cancelled.items()]
    return lines


def _done(
    request: Request,
    connection_id: str,
    via: Connection,
    *,
    done: str = "placed",
    order: Order | None = None,
    problem: str = "",
    unknown: bool = False,
    again: dict[str, str] | None = None,
) -> Response:
    """What became of it. `again`: the form to go back to, if the order wasn't placed."""
    dashboard_of(request).watch(connection_id, via, request).refresh()
    return dashboard_of(request).html(
        "dialogs/placed.html",
        via=connection_id,
        done=done,
        order=order,
        problem=problem,
        unknown=unknown,
        again=again or {},
    )


def _asked(form: dict[str, str], user: str) -> OrderRequest:
    """The order of a form. Raises `InvalidRequest` with the fields as they are called there."""
    values = _typed({name: form[name] for name in _ORDER_FIELDS if form.get(name)})
    shown = {name for name, kinds in _SHOWS.items() if form.get("order_type") in kinds.split()}
    values = {name: value for name, value in values.items() if name not in _SHOWS or name in shown}
    body: OrderBody = _validated(OrderBody, values)
    return body.request(body.client_order_id or uuid.uuid4().hex, user)


def _typed(values: dict[str, str]) -> dict[str, Any]:
    """With numbers as numbers where they are some; the model says what is wrong with the others."""
    typed: dict[str, Any] = {}
    for name, text in values.items():
        try:
            typed[name] = float(text.replace(",", "")) if name in _NUMBERS and text else text
        except ValueError:
            typed[name] = text
    return {name: value for name, value in typed.items() if value != ""}


def _validated(model: Any, values: dict[str, Any]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as wrong:
        raise InvalidRequest(
            [FieldProblem(field_name(e["loc"]), e["msg"], str(e.get("input"))[:60]) for e in wrong.errors()]
        ) from None


def _form(
    request: Request,
    via: str,
    broker: BaseBroker,
    form: dict[str, str],
    errors: dict[str, str] | None = None,
    problem: str = "",
) -> Response:
    can = broker.capabilities
    errors = errors or {}
    elsewhere = [f"{name}: {said}" for name, said in errors.items() if name not in _EMPTY]
    return dashboard_of(request).html(
        "dialogs/order.html",
        via=via,
        form={**_EMPTY, "client_order_id": uuid.uuid4().hex, **form},
        errors=errors,
        problem=problem or "; ".join(elsewhere),
        shows=_SHOWS,
        order_types=[
            k for k in ("market", "limit", "stop", "stop_limit", "trailing_stop") if k in can.order_types
        ],
        times_in_force=[t for t in ("day", "gtc", "ioc", "fok", "opg", "cls") if t in can.times_in_force],
    )


def _change_form(
    request: Request,
    via: str,
    mode: str,
    order: Order,
    form: dict[str, str],
    errors: dict[str, str] | None = None,
    problem: str = "",
) -> Response:
    return dashboard_of(request).html(
        "dialogs/change.html",
        via=via,
        mode=mode,
        order=order,
        form={"qty": "", "limit_price": "", "stop_price": ""} | form,
        errors=errors or {},
        problem=problem,
    )
