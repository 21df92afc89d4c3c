"""Orders: placing, changing, cancelling, and what clients are told about them.

An order belongs to the client id that placed it: only that client changes it, cancels it and hears of it;
client 0 also hears of orders that were not placed over this API, once it asked to (reqAutoOpenOrders).

An order with transmit=False stays in the gateway until a child of it comes with transmit=True, and then
leaves with all its children (TWS API, "Bracket Orders"). Until then nothing tells of it: no status, no list,
neither before nor after a new connection (ib_insync 346, 416). A restart of the gateway forgets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.exchange.models import WORKING, Refused
from localcloud.gateways.tws import account, contracts, order_fields, times
from localcloud.gateways.tws.client import ApiClient
from localcloud.gateways.tws.codec import Request
from localcloud.gateways.tws.messages import Complaint

if TYPE_CHECKING:
    from localcloud.gateways.tws.gateway import Gateway

ORDER_TYPES = frozenset({"MKT", "LMT", "STP", "STP LMT", "TRAIL"})
READ_ONLY = "'bH' : cause - The API interface is currently in Read-Only mode."
# How the exchange's refusals are worded on this wire.
CODES = {"tick": 110, "unknown_contract": 200, "not_working": 104, "buying_power": 201}
Order = dict[str, Any]
Key = tuple[int, int]


@dataclass
class Held:
    """An order that hasn't been transmitted, and the (client id, order id) of its parent."""

    wanted: Order
    contract: dict[str, Any]
    parent: Key | None


# -- whose order it is ----------------------------------------------------------------


def key_of(order: Order) -> tuple[int, int] | None:
    """(client id, order id) of an order that was placed over this API, else None."""
    owner = order["client"]
    return (owner["client_id"], owner["order_id"]) if owner.get("api") == "tws" else None


def learn(gateway: Gateway, order: Order) -> None:
    """Remembers under which key an order can be changed, and that its order id is used up."""
    key = key_of(order)
    if key is not None:
        gateway.order_keys[key] = order["perm_id"]
        gateway.next_ids[key[0]] = max(gateway.next_order_id(key[0]), key[1] + 1)


def _audience(gateway: Gateway, order: Order) -> ApiClient | None:
    key = key_of(order)
    if key is not None:
        return gateway.clients.get(key[0])
    master = gateway.clients.get(0)
    return master if master is not None and master.auto_open_orders else None


# -- what clients are told ----------------------------------------------------------------


def _send_order(client: ApiClient, order: Order, contract: dict[str, Any]) -> None:
    client.send("openOrder", **order_fields.open_order(order, contract))
    client.send("orderStatus", **order_fields.status(order))


def _contract(order: Order) -> dict[str, Any]:
    return dict(order["contract"])


def send_status(gateway: Gateway, order: Order) -> None:
    """An order's status changed: openOrder and orderStatus, and the message 202 for a cancelled one."""
    client = _audience(gateway, order)
    if client is None:
        return
    _send_order(client, order, _contract(order))
    if order["status"] == "Cancelled":
        client.complain(order_fields.order_id(order), 202, order["reason"])


def send_execution(gateway: Gateway, execution: dict[str, Any], order: Order | None) -> None:
    """A fill, to the client whose order it is."""
    client = _audience(gateway, execution)
    if client is not None:
        client.send("execDetails", **order_fields.execution(execution, reqId=-1))


def send_commission(gateway: Gateway, report: dict[str, Any]) -> None:
    """What a fill cost, to the client whose order it is."""
    execution = gateway.brokerage.executions.get(report["exec_id"])
    client = _audience(gateway, execution) if execution is not None else None
    if client is not None:
        client.send("commissionReport", **order_fields.commission(report))


# -- placeOrder ----------------------------------------------------------------


async def place(client: ApiClient, request: Request) -> None:
    """Places an order, changes the working one of the same id, or previews one (whatIf)."""
    gateway = client.gateway
    _check(gateway, request)
    name = account.account_of(client, request["account"])
    contract = await contracts.find_one(client, request)
    wanted = _wanted(client, request, name, contract)
    if request.flag("whatIf"):
        await _preview(client, request, wanted, contract)
        return
    key = (client.client_id, request.integer("orderId"))
    parent = _parent(client, request)
    if key in gateway.order_keys:
        await _modify(client, key, wanted)
        return
    if not gateway.brokerage.connected:
        raise Complaint(504)
    held = Held(wanted, contract, parent)
    gateway.next_ids[key[0]] = max(gateway.next_order_id(key[0]), key[1] + 1)
    if not request.flag("transmit"):
        await _hold(client, key, held)
        return
    entry = _entry(gateway, key, held)
    children = [k for k, other in gateway.held.items() if other.parent == entry and k != key]
    family = {entry: gateway.held.get(entry, held)} | {k: gateway.held[k] for k in children} | {key: held}
    for member in family:
        gateway.held.pop(member, None)
    await _transmit(client, family, attached_to=parent if parent not in family else None)


async def _hold(client: ApiClient, key: Key, held: Held) -> None:
    try:
        await client.gateway.brokerage.call("preview_order", **held.wanted)
    except Refused as refusal:
        raise _worded(refusal) from None
    client.gateway.held[key] = held


def _entry(gateway: Gateway, key: Key, held: Held) -> Key:
    """The order with which an order that is transmitted leaves: its parent, if that was held back."""
    if held.parent is None or held.parent not in gateway.held:
        return key
    if gateway.held[held.parent].parent is not None:
        raise Complaint(321, "'bH' : cause - Children of children are not served by this paper gateway")
    return held.parent


async def _transmit(client: ApiClient, family: dict[Key, Held], attached_to: Key | None) -> None:
    """Sends an order with its children to the exchange as one."""
    gateway = client.gateway
    (_, entry), *children = family.items()
    wanted = dict(entry.wanted)
    legs = [{**child.wanted} for _, child in children]
    for leg in legs:
        del leg["group"]  # TWS puts the children of an order into a group of its own
    if attached_to is not None:
        wanted["parent"] = gateway.order_keys[attached_to]
    gateway.order_keys |= dict.fromkeys(family, 0)
    try:
        answer = await gateway.brokerage.call("place_order", **wanted, legs=legs)
    except Refused as refusal:
        for member in family:
            del gateway.order_keys[member]
            complaint = _worded(refusal)
            client.error(member[1], complaint.code, complaint.text)
        return
    except ConnectionError:
        # The exchange may or may not have it: silence, as in life, until the link is back.
        return
    for placed in answer["legs"]:
        _answer_placed(client, {"order": placed, "waits_until": None}, entry.contract)
    _answer_placed(client, answer, entry.contract)


def _answer_placed(client: ApiClient, answer: dict[str, Any], contract: dict[str, Any]) -> None:
    """Refusals and warnings; the status of an accepted order comes as an event."""
    order = answer["order"]
    client.gateway.order_keys[(client.client_id, order_fields.order_id(order))] = order["perm_id"]
    if order["status"] == "Inactive":
        client.gateway.brokerage.orders[order["perm_id"]] = order
        _send_order(client, order, contract)
        client.complain(order_fields.order_id(order), 201, order["reason"])
    elif answer["waits_until"] is not None:
        opening = times.write(answer["waits_until"])
        listing = f"{contract['primary_exchange']}.{contract['trading_class']}"
        client.complain(
            order_fields.order_id(order),
            399,
            f"{order['side']} {order['quantity']:g} {contract['symbol']} {listing}\n"
            f"Warning: Your order will not be placed at the exchange until {opening}.",
        )


def _parent(client: ApiClient, request: Request) -> Key | None:
    """The key of an order's parent, which has to be there still (ib_insync 647). Raises Complaint 135."""
    number, gateway = request.integer("parentId"), client.gateway
    if not number:
        return None
    key = (client.client_id, number)
    order = gateway.brokerage.orders.get(gateway.order_keys.get(key, 0))
    if key in gateway.held or (order is not None and order["status"] in WORKING):
        return key
    raise Complaint(135, str(number))


def _check(gateway: Gateway, request: Request) -> None:
    """Refuses what the gateway itself does not take. Raises Complaint."""
    if gateway.settings.read_only:
        raise Complaint(321, READ_ONLY)
    if request.get("conditionCount") not in ("0", ""):
        raise Complaint(321, "'bH' : cause - Conditional orders are not served by this paper gateway")
    if request.flag("eTradeOnly"):
        raise Complaint(10268)
    if request.flag("firmQuoteOnly"):
        raise Complaint(10269)
    if request["orderType"] not in ORDER_TYPES:
        raise Complaint(387)
    quantity = request.number("totalQuantity")
    if not quantity:
        raise Complaint(434)
    if quantity == quantity and quantity % 1:  # not for NaN, which the exchange refuses
        raise Complaint(10243)


def _wanted(client: ApiClient, request: Request, name: str, contract: dict[str, Any]) -> dict[str, Any]:
    kind = request["orderType"]
    return {
        "account": name,
        "conid": contract["conid"],
        "side": request["action"],
        "quantity": request.number("totalQuantity"),
        "order_type": kind,
        "limit_price": request.number("lmtPrice") if kind in ("LMT", "STP LMT") else None,
        "stop_price": request.number("auxPrice") if kind in ("STP", "STP LMT") else None,
        "group": request["ocaGroup"],
        "group_type": request.integer("ocaType") or 3,
        **_trail(request),
        "tif": request["tif"] or "DAY",
        "outside_rth": request.flag("outsideRth"),
        "order_ref": request["orderRef"],
        "client": {
            "api": "tws",
            "client_id": client.client_id,
            "order_id": request.integer("orderId"),
            "parent_id": request.integer("parentId"),
            "wire": order_fields.kept(request),
        },
    }


def _trail(request: Request) -> dict[str, float]:
    """How far a TRAIL order follows the price: auxPrice in currency, or trailingPercent (TWS API, TRAIL).

    trailStopPrice is where its stop begins.
    """
    if request["orderType"] != "TRAIL":
        return {}
    percent, begins = request.number("trailingPercent"), request.number("trailStopPrice")
    first = {"stop_price": begins} if begins and begins < 1e300 else {}
    if percent and percent < 1e300:
        return {"trail_percent": percent, **first}
    return {"trail_amount": request.number("auxPrice") or 0.0, **first}


async def _preview(
    client: ApiClient, request: Request, wanted: dict[str, Any], contract: dict[str, Any]
) -> None:
    try:
        answer = await client.gateway.brokerage.call("preview_order", **wanted)
    except Refused as refusal:
        raise _worded(refusal) from None
    client.send("openOrder", **order_fields.preview(wanted, contract, answer["preview"]))


async def _modify(client: ApiClient, key: tuple[int, int], wanted: dict[str, Any]) -> None:
    brokerage = client.gateway.brokerage
    order = brokerage.orders.get(client.gateway.order_keys[key])
    if order is None or order["status"] in ("Cancelled", "Inactive"):
        raise Complaint(103)
    if order["status"] == "Filled":
        raise Complaint(104)
    if (order["conid"], order["side"], order["account"]) != tuple(
        wanted[name] for name in ("conid", "side", "account")
    ):
        raise Complaint(105)
    names = ("quantity", "limit_price", "order_type", "tif", "client", "trail_amount", "trail_percent")
    changes = {name: wanted.get(name) for name in names}
    changes["client"] = {**wanted["client"], "parent_id": order["client"].get("parent_id", 0)}
    if wanted["order_type"] != "TRAIL":  # a trail's stop has moved since
        changes["stop_price"] = wanted["stop_price"]
    try:
        await brokerage.call("modify_order", perm_id=order["perm_id"], **changes)
    except Refused as refusal:
        raise _worded(refusal) from None


def _worded(refusal: Refused) -> Complaint:
    """IBKR's words for what the exchange refused."""
    if refusal.code == "buying_power":
        return Complaint(201, refusal.message)
    if refusal.code in CODES:
        return Complaint(CODES[refusal.code])
    return Complaint(321, f"'bH' : cause - {refusal.message}")


# -- cancelling ----------------------------------------------------------------


async def cancel(client: ApiClient, request: Request) -> None:
    """Cancels an order of this client. Raises Complaint 10147, 10148, 161."""
    if client.gateway.settings.read_only:
        raise Complaint(321, READ_ONLY)
    number = request.integer("orderId")
    if (client.client_id, number) in client.gateway.held:
        _drop(client.gateway, (client.client_id, number))
        return
    perm_id = client.gateway.order_keys.get((client.client_id, number), 0)
    order = client.gateway.brokerage.orders.get(perm_id)
    if order is None:
        raise Complaint(10147, str(number))
    if order["status"] == "Filled":
        raise Complaint(161, str(perm_id))
    if order["status"] in ("Cancelled", "Inactive"):
        state = order["status"]
        raise Complaint(10148, f"{number} that needs to be cancelled can not be cancelled, state: {state}")
    try:
        await client.gateway.brokerage.call("cancel_order", perm_id=perm_id)
    except Refused as refusal:
        if refusal.code == "not_working":  # it traded while the cancel was under way
            raise Complaint(161, str(perm_id)) from None
        raise


def _drop(gateway: Gateway, key: Key) -> None:
    """Forgets an order that was never transmitted, and its children."""
    held = gateway.held.pop(key)
    client = gateway.clients.get(key[0])
    if client is not None:
        client.send("orderStatus", **order_fields.never_sent(held.wanted))
        client.complain(key[1], 202, "")
    for child in [k for k, other in gateway.held.items() if other.parent == key]:
        _drop(gateway, child)


async def cancel_all(client: ApiClient, request: Request) -> None:
    """Cancels all working orders, whoever placed them."""
    if client.gateway.settings.read_only:
        raise Complaint(321, READ_ONLY)
    for key in list(client.gateway.held):
        if key in client.gateway.held:  # a child goes with its parent
            _drop(client.gateway, key)
    for order in client.gateway.brokerage.working_orders():
        try:
            await client.gateway.brokerage.call("cancel_order", perm_id=order["perm_id"])
        except Refused:
            # It ended by itself meanwhile, and its own status says so.
            continue


# -- lists ----------------------------------------------------------------


async def own_open_orders(client: ApiClient, request: Request) -> None:
    """Working orders of this client; for client 0 also those that weren't placed over this API."""
    _send_open(client, lambda key: key[0] == client.client_id if key else client.client_id == 0)


async def all_open_orders(client: ApiClient, request: Request) -> None:
    """Working orders of all clients."""
    _send_open(client, lambda key: True)


def _send_open(client: ApiClient, wanted: Any) -> None:
    if client.gateway.settings.read_only:
        raise Complaint(321, READ_ONLY)
    for order in client.gateway.brokerage.working_orders():
        if wanted(key_of(order)):
            _send_order(client, order, _contract(order))
    client.send("openOrderEnd")


async def auto_open_orders(client: ApiClient, request: Request) -> None:
    """Client 0 hears of orders that weren't placed over this API from now on. Raises Complaint 321."""
    if client.client_id != 0:
        raise Complaint(321, "'bF' : cause - Only the default client (i.e 0) can auto bind orders.")
    client.auto_open_orders = request.flag("bind")


async def completed_orders(client: ApiClient, request: Request) -> None:
    """Orders that ended today; they carry no order id."""
    if client.gateway.settings.read_only:
        raise Complaint(321, READ_ONLY)
    midnight = client.gateway.brokerage.midnight()
    for order in client.gateway.brokerage.orders.values():
        ended = order["status"] in ("Filled", "Cancelled") and order["updated"] >= midnight
        if ended and not (request.flag("apiOnly") and key_of(order) is None):
            client.send("completedOrder", **order_fields.completed(order, _contract(order)))
    client.send("completedOrdersEnd")


async def executions(client: ApiClient, request: Request) -> None:
    """Today's fills that pass the filter, each followed by its commission report."""
    identity = request.integer("reqId")
    try:
        since = times.parse(request["time"]).timestamp() if request["time"] else 0.0
    except ValueError as error:
        raise Complaint(321, f"'bX' : cause - {error}") from None
    since = max(since, client.gateway.brokerage.midnight())
    chosen = [
        execution
        for execution in client.gateway.brokerage.executions.values()
        if execution["time"] >= since and _passes(execution, request)
    ]
    for execution in chosen:
        client.send("execDetails", **order_fields.execution(execution, reqId=identity))
    client.send("execDetailsEnd", reqId=identity)
    for execution in chosen:
        client.send("commissionReport", **order_fields.commission(execution))


def _passes(execution: dict[str, Any], request: Request) -> bool:
    contract = execution["contract"]
    key = key_of(execution)
    given = {
        "account": execution["account"],
        "symbol": contract["symbol"],
        "secType": contract["sec_type"],
        "exchange": execution["exchange"],
        "side": execution["side"],
    }
    if request.integer("clientId") and (key is None or key[0] != request.integer("clientId")):
        return False
    return all(not request[name] or request[name].upper() == value.upper() for name, value in given.items())
