"""Orders on their way in: what is asked back, what is refused, and what goes to the exchange.

IBKR asks before it takes an order that looks unusual. A question has an id that must be confirmed at
/iserver/reply, and may be followed by another one. There is one conversation at a time: a new order forgets
an unanswered question, whose id is then "not found" (ibind 35, 103).
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import Any

from localcloud.exchange.models import Refused
from localcloud.gateways.client_portal.errors import Refusal
from localcloud.gateways.client_portal.gateway import Gateway, Json, refused

# IBKR's precautionary settings as they are shipped.
PERCENT_LIMIT = 3.0
SIZE_LIMIT = 500
VALUE_LIMIT = 100_000

_TYPES = {"MKT": "MKT", "MARKET": "MKT", "LMT": "LMT", "LIMIT": "LMT", "STP": "STP", "STOP": "STP",
          "STOP_LIMIT": "STP LMT", "STPLMT": "STP LMT", "STP LMT": "STP LMT",
          "TRAIL": "TRAIL"}  # fmt: skip
_TRAILS = {"amt": "trail_amount", "%": "trail_percent"}
_SURE = "Are you sure you want to submit this order?"


@dataclass(frozen=True)
class Question:
    """What IBKR asks; `message_id` can be suppressed for the rest of the session."""

    message_id: str
    text: str


@dataclass
class Conversation:
    """An order, of a bracket with its children, that waits for answers.

    `perm_id` is set when a working order is to be changed.
    """

    wanted: Json
    questions: list[Question]
    perm_id: int | None = None
    children: list[Json] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class OrderEntry:
    """Places, changes and cancels orders of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._open: Conversation | None = None
        # References on their way or accepted: of two equal orders at once, one is refused.
        self._references: set[str] = set()

    async def place(self, account: str, orders: Any) -> Any:
        """The answer to POST /iserver/account/{account}/orders: the orders, a question, or `{"error"}`.

        Raises Refusal 400 for what isn't an order or a bracket.
        """
        if not isinstance(orders, list) or not orders or not all(isinstance(one, dict) for one in orders):
            raise Refusal(400, "Bad Request: orders must hold one order, or a bracket")
        _check_bracket(orders)
        wanted, *children = [self._read(account, one) for one in orders]
        if await self._is_registered(account, wanted["order_ref"]):
            return _registered(wanted["order_ref"])
        asked: dict[str, Question] = {}
        for one in (wanted, *children):
            for question in await self._questions(one):
                asked.setdefault(question.message_id, question)
        return await self._begin(Conversation(wanted, list(asked.values()), children=children))

    async def modify(self, account: str, order_id: str, changes: Json) -> Any:
        """The answer to POST /iserver/account/{account}/order/{id}; the whole order is given again."""
        order = await self.find(order_id)
        if order is None or order["account"] != account:
            return {"error": f"OrderID {order_id} doesn't exist"}
        wanted = self._read(account, {**_as_given(order), **changes})
        return await self._begin(Conversation(wanted, await self._questions(wanted), order["perm_id"]))

    async def cancel(self, account: str, order_id: str) -> Any:
        """The answer to DELETE: the request was received, which says nothing about what becomes of it."""
        order = await self.find(order_id)
        if order is None or order["account"] != account:
            return {"error": f"OrderID {order_id} doesn't exist"}
        try:
            await self.gateway.session.call("cancel_order", perm_id=order["perm_id"])
        except Refused as refusal:
            return {"error": f"OrderID {order_id} can't be cancelled: {refusal.message}"}
        return {"msg": "Request was submitted", "order_id": order["perm_id"], "conid": order["conid"],
                "account": account}  # fmt: skip

    async def reply(self, question_id: str, confirmed: bool) -> Any:
        """The answer to POST /iserver/reply/{id}: the order, or the next question. Raises Refusal 400."""
        conversation = self._open
        if conversation is None or conversation.id != question_id:
            raise Refusal(400, f"reply id not found: '{question_id}'")
        self._open = None
        if not confirmed:
            return {"error": "Order not confirmed "}
        rest = conversation.questions[1:]
        return await self._begin(
            Conversation(conversation.wanted, rest, conversation.perm_id, conversation.children)
        )

    async def _begin(self, conversation: Conversation) -> Any:
        unanswered = [
            question
            for question in conversation.questions
            if question.message_id not in self.gateway.suppressed
        ]
        self._open = None
        if unanswered:
            conversation.questions = unanswered
            self._open = conversation
            question = unanswered[0]
            return [{"id": conversation.id, "message": [question.text], "isSuppressed": False,
                     "messageIds": [question.message_id]}]  # fmt: skip
        return await self._send(conversation)

    async def _send(self, conversation: Conversation) -> Any:
        wanted, reference = conversation.wanted, conversation.wanted["order_ref"]
        if conversation.perm_id is None and reference:
            if reference in self._references:
                return _registered(reference)
            self._references.add(reference)
        try:
            if conversation.perm_id is None:
                answer = await self.gateway.session.call("place_order", **wanted, legs=conversation.children)
            else:
                kept = ("quantity", "limit_price", "stop_price", "order_type", "tif", *_TRAILS.values())
                changes = {name: wanted.get(name) for name in kept}
                answer = await self.gateway.session.call(
                    "modify_order", perm_id=conversation.perm_id, **changes
                )
        except Refused as refusal:
            self._references.discard(reference)
            if refusal.code in ("tick", "buying_power", "not_working"):
                return {"error": refusal.message}
            raise refused(refusal) from None
        order = answer["order"]
        if order["reason_code"]:
            return {"error": order["reason"]}
        return [{"order_id": str(one["perm_id"]), "order_status": one["status"], "encrypt_message": "1",
                 **({"local_order_id": one["order_ref"]} if one["order_ref"] else {})}
                for one in (order, *answer.get("legs", []))]  # fmt: skip

    async def preview(self, account: str, orders: Any) -> Any:
        """The answer to POST /iserver/account/{account}/orders/whatif."""
        if not isinstance(orders, list) or not orders or not isinstance(orders[0], dict):
            raise Refusal(400, "Bad Request: orders is required")
        wanted = self._read(account, orders[0])
        try:
            found = (await self.gateway.session.call("preview_order", **wanted))["preview"]
        except Refused as refusal:
            raise refused(refusal) from None
        reference = wanted["limit_price"] or (await self._quote(wanted["conid"]))["quote"]["last"]
        amount, currency = wanted["quantity"] * reference, found["currency"]
        shares = f"{wanted['quantity']:g} Shares"
        return {
            "amount": {"amount": f"{amount:,.2f} {currency} ({shares})",
                       "commission": f"{found['commission']:,.2f} {currency}",
                       "total": f"{amount + found['commission']:,.2f} {currency}"},
            **{name: _changes(found, key) for name, key in
               (("equity", "equity"), ("initial", "init_margin"), ("maintenance", "maint_margin"))},
            "warn": found["warning"] or None,
            "error": None,
        }  # fmt: skip

    async def find(self, order_id: str) -> Json | None:
        """An order of this login by its id, or None."""
        for account in self.gateway.session.accounts:
            for order in await self.all_orders(account):
                if str(order["perm_id"]) == order_id:
                    return order
        return None

    async def all_orders(self, account: str) -> list[Json]:
        """Working orders and those that ended today."""
        call = self.gateway.session.call
        working: list[Json] = (await call("open_orders", account=account))["orders"]
        ended: list[Json] = (await call("completed_orders", account=account))["orders"]
        return working + ended

    async def _is_registered(self, account: str, reference: str) -> bool:
        if not reference or reference in self._references:
            return bool(reference)
        return any(order["order_ref"] == reference for order in await self.all_orders(account))

    async def _quote(self, conid: int) -> Json:
        return await self.gateway.session.call("quote", conid=conid)

    def _read(self, account: str, given: Json) -> Json:
        """What the exchange needs of an order as the API takes it. Raises Refusal 400."""
        order_type = _TYPES.get(str(given.get("orderType", "")).upper())
        side, conid = str(given.get("side", "")).upper(), given.get("conid")
        if conid is None and given.get("conidex"):
            conid = str(given["conidex"]).partition("@")[0]
        if order_type is None:
            raise Refusal(400, "Bad Request: orderType is missing or not supported")
        if side not in ("BUY", "SELL"):
            raise Refusal(400, "Bad Request: side must be BUY or SELL")
        if given.get("acctId", account) != account:
            raise Refusal(400, "Bad Request: acctId is not the account of the path")
        price, other = _number(given, "price"), _number(given, "auxPrice")
        quantity, number = _number(given, "quantity"), _number({"conid": conid}, "conid")
        if quantity is None or number is None:
            raise Refusal(400, "Bad Request: conid and quantity are required")
        return {
            "account": account,
            "conid": int(number),
            "side": side,
            "quantity": quantity,
            "order_type": order_type,
            "limit_price": price if order_type in ("LMT", "STP LMT") else None,
            # "For STP|TRAIL this is the stop price": of a trailing order, where it begins
            "stop_price": price
            if order_type in ("STP", "TRAIL")
            else other
            if order_type == "STP LMT"
            else None,
            "tif": str(given.get("tif") or "DAY").upper(),
            "outside_rth": bool(given.get("outsideRTH")),
            # "Children orders will not have its own cOID" (Client Portal API, Place Orders).
            "order_ref": "" if given.get("parentId") else str(given.get("cOID") or ""),
            **(_trail(given) if order_type == "TRAIL" else {}),
        }

    async def _questions(self, wanted: Json) -> list[Question]:
        contract = await self.gateway.contract(wanted["conid"])
        answer = await self._quote(wanted["conid"])
        limit, market = wanted["limit_price"], answer["quote"]["last"]
        described = f'"{wanted["side"]} {wanted["quantity"]:g} {contract["symbol"]}'
        described += f" {contract['primary_exchange']}.{contract['trading_class']}"
        asked = []
        if answer["entitlement"] in ("none", "competing"):
            asked.append(
                Question(
                    "o354",
                    "You are submitting an order without market data. We strongly recommend "
                    "against this as it may result in erroneous and unexpected trades.\n" + _SURE,
                )
            )
        if limit is not None and abs(limit - market) / market * 100 > PERCENT_LIMIT:
            asked.append(
                Question(
                    "o163",
                    f'The following order {described} @ {limit:g}" price exceeds \n'
                    f"the Percentage constraint of {PERCENT_LIMIT:g}%.\n{_SURE}",
                )
            )
        if wanted["quantity"] > SIZE_LIMIT:
            asked.append(
                Question(
                    "o383",
                    f'The following order {described}" size exceeds the Size Limit of {SIZE_LIMIT}.\n{_SURE}',
                )
            )
        value = wanted["quantity"] * (limit or market)
        if value > VALUE_LIMIT:
            asked.append(
                Question(
                    "o451",
                    f'The following order {described}" value estimate of {value:,.2f} USD '
                    f"exceeds \nthe Total Value Limit of {VALUE_LIMIT:,} USD.\n{_SURE}",
                )
            )
        if wanted["order_type"] == "MKT":
            asked.append(
                Question(
                    "o10151",
                    "<h4>Market Order Confirmation</h4>A Market Order is an instruction to "
                    "trade your order at any available price in the market.",
                )
            )
        if wanted["order_type"] in ("STP", "STP LMT", "TRAIL"):
            asked.append(
                Question(
                    "o10331",
                    "You are about to submit a stop order. Please be aware of the various "
                    "stop order types available and the risks associated with each one.\n" + _SURE,
                )
            )
        return asked


def _check_bracket(orders: list[Json]) -> None:
    """Several orders in one request are a bracket: children name the parent's cOID. Raises Refusal 400."""
    parent, *children = orders
    name = parent.get("cOID")
    if parent.get("parentId"):
        raise Refusal(400, f"Bad Request: parent order {parent['parentId']} is not in this request")
    if children and (not name or any(child.get("parentId") != name for child in children)):
        raise Refusal(400, "Bad Request: only one order may be submitted, unless it is a bracket")


def _trail(given: Json) -> Json:
    """trailingType `amt` or `%`, and trailingAmt."""
    kind, distance = _TRAILS.get(str(given.get("trailingType"))), _number(given, "trailingAmt")
    if kind is None or distance is None:
        raise Refusal(400, "Bad Request: trailingType and trailingAmt are required for a TRAIL order")
    return {kind: distance}


def _registered(reference: str) -> Json:
    return {"error": f"Order couldn't be submitted: Local order ID={reference} is already registered."}


def _number(given: Json, name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Refusal(400, f"Bad Request: {name} must be a number")
    return number


def _as_given(order: Json) -> Json:
    """A working order in the form in which orders are given."""
    kind = order["order_type"]
    given = {"conid": order["conid"], "side": order["side"], "quantity": order["quantity"],
             "orderType": "STOP_LIMIT" if kind == "STP LMT" else kind, "tif": order["tif"]}  # fmt: skip
    if kind == "TRAIL":  # its stop has moved since it was given
        by_percent = order["trail_percent"] is not None
        distance = order["trail_percent"] if by_percent else order["trail_amount"]
        return {**given, "trailingType": "%" if by_percent else "amt", "trailingAmt": distance}
    stop_only = kind == "STP"
    return {**given, "price": order["stop_price"] if stop_only else order["limit_price"],
            "auxPrice": None if stop_only else order["stop_price"]}  # fmt: skip


def _changes(found: Json, key: str) -> Json:
    parts = (("current", "before"), ("change", "change"), ("after", "after"))
    return {name: f"{found[f'{key}_{part}']:,.0f}" for name, part in parts}
