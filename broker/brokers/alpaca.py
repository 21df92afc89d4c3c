"""Alpaca through alpaca-py: the rollback, and the default.

alpaca-py repeats a POST on 429 and 504, up to four times, and has no request timeout. A repeated
order with a client order id is refused as a duplicate, but its first copy may have been filled
meanwhile and the caller would read a refusal. So the library's retries are off, for everything,
in `_client`, and an order's ambiguous failure is looked up by its client order id.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from broker.base import BaseBroker, Capabilities
from broker.errors import (
    BrokerFailure,
    NotAuthenticated,
    NotConnected,
    OrderNotCancellable,
    RateLimited,
    UnknownSymbol,
)
from broker.journal import Journal
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Clock,
    Health,
    Order,
    OrderReport,
    OrderRequest,
    Position,
    Status,
    iso,
)
from broker.placement import Guard, NothingKnown, place, rejection
from broker.validation import check_symbol

if TYPE_CHECKING:
    from alpaca.trading.client import TradingClient

T = TypeVar("T")

#: seconds to connect and to read; an order that takes longer is looked up
TIMEOUT = (5.0, 15.0)

#: Alpaca's order statuses (docs.alpaca.markets, order lifecycle) in our words
_STATUS = {
    "new": Status.SUBMITTED,
    "accepted": Status.ACCEPTED,
    "accepted_for_bidding": Status.ACCEPTED,
    "held": Status.ACCEPTED,
    "pending_new": Status.PENDING,
    "pending_review": Status.PENDING,
    "pending_replace": Status.SUBMITTED,
    "partially_filled": Status.PARTIALLY_FILLED,
    "filled": Status.FILLED,
    "done_for_day": Status.INACTIVE,
    "stopped": Status.INACTIVE,
    "suspended": Status.INACTIVE,
    "calculated": Status.INACTIVE,
    "canceled": Status.CANCELLED,
    "replaced": Status.CANCELLED,
    "expired": Status.EXPIRED,
    "rejected": Status.REJECTED,
    "pending_cancel": Status.PENDING_CANCEL,
}


class AlpacaBroker(BaseBroker):
    """Alpaca implementation of BaseBroker."""

    name = "alpaca"
    capabilities = Capabilities(
        times_in_force=frozenset({"day", "gtc", "ioc", "fok", "opg", "cls"}), fractional=True
    )

    def __init__(
        self,
        journal: Journal,
        *,
        api_key: str,
        secret_key: str,
        paper: bool = True,
        endpoint: str = "",
        guard: Guard | None = None,
    ) -> None:
        """`endpoint`: another URL than Alpaca's own, for tests and proxies.

        `guard` may refuse orders (see `broker.placement.place`).
        """
        self._journal = journal
        self._guard = guard
        self._client = _client(api_key, secret_key, paper, endpoint)
        self._account = ""
        self._since = datetime.now(UTC)
        self._reason = "connect() was not called"

    def connect(self) -> bool:
        """Read the account, and settle what the journal holds open. Raises `NotConnected`."""
        self._account_id()
        for order in self._journal.unsettled(self._account):
            self._look_up(order)
        return True

    def disconnect(self) -> None:
        """Nothing is held: every call is a request of its own."""

    def get_account(self) -> AccountInfo:
        """See `BaseBroker.get_account`."""
        found: Any = self._ask(self._client.get_account)
        return AccountInfo(
            id=str(found.id),
            cash=float(found.cash),
            buying_power=float(found.buying_power),
            portfolio_value=float(found.portfolio_value),
            equity=float(found.equity),
            last_equity=float(found.last_equity),
            last_equity_source="equity at the previous trading day's close",
            currency=found.currency or "USD",
        )

    def get_positions(self) -> list[Position]:
        """See `BaseBroker.get_positions`."""
        found: Any = self._ask(self._client.get_all_positions)
        return sorted((_position(p) for p in found), key=lambda p: p.symbol)

    def get_position(self, symbol: str) -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        found: Any = self._ask(lambda: self._client.get_open_position(symbol), missing=True)
        return None if found is None else _position(found)

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""
        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=self._account_id,
            prepare=self._asset,
            send=self._send,
            settle=self._look_up,
            note=lambda order, report: self._journal.update(order.id, report),
            guard=self._guard,
        )

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`."""
        order = self._journal.get(self._account_id(), order_id)
        return order if order.status in (*FINAL_STATUSES, Status.RECORDED) else self._look_up(order)

    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """See `BaseBroker.get_orders_history`. Orders that others placed are among them."""
        from alpaca.trading.enums import QueryOrderStatus
        from alpaca.trading.requests import GetOrdersRequest

        account = self._account_id()
        asked = GetOrdersRequest(status=QueryOrderStatus.ALL, limit=min(limit, 500))
        found: Any = self._ask(lambda: self._client.get_orders(asked))
        for theirs in found:
            ours = self._journal.find(account, theirs.client_order_id)
            if ours is not None:
                self._journal.update(ours.id, _report(theirs))
            elif theirs.qty is not None:
                self._journal.adopt(account, _request(theirs), _report(theirs))
        return self._journal.recent(account, limit)

    def cancel_order(self, order_id: str) -> bool:
        """See `BaseBroker.cancel_order`."""
        order = self.get_order(order_id)
        number = order.broker_order_id
        if order.status in FINAL_STATUSES or number is None:
            raise OrderNotCancellable(f"the order is {order.status}", order)
        try:
            self._ask(lambda: self._client.cancel_order_by_id(number))
        except _Refused as refusal:
            raise OrderNotCancellable(refusal.message, order) from None
        self._look_up(order)
        return True

    def clock(self) -> Clock:
        """Alpaca's own clock."""
        found: Any = self._ask(self._client.get_clock)
        now = found.timestamp.isoformat()
        return Clock(now, bool(found.is_open), iso(found.next_open), iso(found.next_close), "broker")

    def health(self) -> Health:
        """One request to Alpaca."""
        began = datetime.now(UTC)
        try:
            self._ask(self._client.get_clock)
        except (NotConnected, RateLimited, BrokerFailure) as failure:
            self._reason = self._reason or failure.message
            return Health(
                False, "disconnected", self._since.isoformat(), failure.message, "asking at each call"
            )
        now = datetime.now(UTC)
        return Health(
            True,
            "connected",
            self._since.isoformat(),
            proved_at=now.isoformat(),
            round_trip_ms=round((now - began).total_seconds() * 1000, 3),
        )

    def _account_id(self) -> str:
        if not self._account:
            found: Any = self._ask(self._client.get_account)
            self._account = str(found.account_number or found.id)
        return self._account

    def _asset(self, request: OrderRequest) -> str:
        found: Any = self._ask(lambda: self._client.get_asset(request.symbol), missing=True)
        if found is None:
            raise UnknownSymbol(request.symbol)
        return str(found.symbol)

    def _send(self, order: Order, symbol: str) -> OrderReport:
        from alpaca.trading.enums import OrderSide, TimeInForce
        from alpaca.trading.requests import LimitOrderRequest, MarketOrderRequest

        body: dict[str, Any] = {
            "symbol": symbol,
            "qty": order.qty,
            "side": OrderSide(order.side),
            "time_in_force": TimeInForce(order.time_in_force),
            "client_order_id": order.client_order_id,
        }
        limited = order.order_type == "limit"
        asked = (
            LimitOrderRequest(**body, limit_price=order.limit_price)
            if limited
            else MarketOrderRequest(**body)
        )
        try:
            return _report(self._ask(lambda: self._client.submit_order(asked)))
        except _Refused as refusal:
            if "client_order_id must be unique" in refusal.message:
                # It is there already: sent by us before, or by another program under the same id.
                raise NothingKnown("Alpaca has an order of this client order id already") from refusal
            raise rejection(refusal.message, refusal.code) from None
        except (NotAuthenticated, RateLimited):
            raise  # refused at the door: no order came of it
        except (NotConnected, BrokerFailure) as failure:
            return self._found_after(order, failure)

    def _found_after(self, order: Order, failure: NotConnected | BrokerFailure) -> OrderReport:
        try:
            found: Any = self._ask(
                lambda: self._client.get_order_by_client_id(order.client_order_id), missing=True
            )
        except (NotConnected, RateLimited, BrokerFailure):
            found = None
        if found is None:  # no proof that there is none: it may still be on its way
            raise NothingKnown(f"Alpaca didn't answer: {failure.message}")
        return _report(found)

    def _look_up(self, order: Order) -> Order:
        found: Any = self._ask(
            lambda: self._client.get_order_by_client_id(order.client_order_id), missing=True
        )
        if found is None:
            self._journal.mark_unknown(order.id, "Alpaca shows no order of this client order id")
            return self._journal.get(order.account_id, order.id)
        return self._journal.update(order.id, _report(found))

    def _ask(self, request: Callable[[], T], missing: bool = False) -> T | None:
        """One request, once. `missing`: a 404 is an answer, None.

        Raises `_Refused`, `BrokerFailure`, `RateLimited`, `NotConnected`, `NotAuthenticated`.
        """
        import requests
        from alpaca.common.exceptions import APIError

        try:
            answer = request()
        except APIError as error:
            self._note(up=True)
            _refuse(error, missing)
            return None
        except (requests.RequestException, OSError) as failure:
            self._note(up=False)
            raise NotConnected(
                f"Alpaca can't be reached: {type(failure).__name__}",
                since=self._since,
                doing="each call tries anew",
            ) from failure
        except ValueError as failure:  # a body that isn't JSON, or not what the model expects
            raise BrokerFailure(f"Alpaca's answer makes no sense: {type(failure).__name__}") from failure
        self._note(up=True)
        return answer

    def _note(self, up: bool) -> None:
        if up == bool(self._reason):
            self._since = datetime.now(UTC)
        self._reason = "" if up else "Alpaca can't be reached"


class _Refused(BrokerFailure):
    """Alpaca said no: a 4xx with a code and a message."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _client(api_key: str, secret_key: str, paper: bool, endpoint: str) -> TradingClient:
    from alpaca.trading.client import TradingClient

    client = TradingClient(api_key, secret_key, paper=paper, url_override=endpoint or None)
    # The library offers no way to turn its retries off (retry_attempts=0 is ignored) or to set a
    # timeout, so both are set here, on attributes that must be there.
    if not isinstance(getattr(client, "_retry", None), int) or not hasattr(client, "_session"):
        raise BrokerFailure("this version of alpaca-py hides its retries: orders could be sent twice")
    client._retry = 0
    session: Any = client._session
    session.request = functools.partial(session.request, timeout=TIMEOUT)
    return client


def _refuse(error: Any, missing: bool) -> None:
    """Raise what an error answer means; a 404 that may be is none."""
    status = error.status_code
    try:
        message, code = str(error.message), str(error.code)
    except (ValueError, KeyError, TypeError):  # an error page instead of JSON
        message, code = f"Alpaca answered {status}", str(status)
    if status == 404 and missing:
        return
    if status == 401 or (status == 403 and "forbidden" in message.lower()):
        raise NotAuthenticated(
            f"Alpaca refuses the API key: {message}", doing="nothing: a person mends the key"
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After", "60") if error.response is not None else "60"
        raise RateLimited("Alpaca's request limit is used up", float(wait) if wait.isdigit() else 60.0)
    if status is not None and status >= 500:
        raise BrokerFailure(f"Alpaca answered {status}")
    raise _Refused(message, code)


def _report(found: Any) -> OrderReport:
    status = str(getattr(found.status, "value", found.status))
    return OrderReport(
        status=_STATUS.get(status, Status.PENDING),
        broker_status=status,
        filled_qty=float(found.filled_qty or 0),
        filled_price=float(found.filled_avg_price) if found.filled_avg_price is not None else None,
        broker_order_id=str(found.id),
        permanent_id=str(found.id),
    )


def _request(found: Any) -> OrderRequest:
    kind = found.order_type or found.type
    return OrderRequest(
        symbol=str(found.symbol)[:32],
        side=str(found.side.value),
        qty=float(found.qty),
        order_type=str(kind.value)[:16],
        limit_price=float(found.limit_price) if found.limit_price is not None else None,
        time_in_force=str(found.time_in_force.value)[:8],
        client_order_id=str(found.client_order_id)[:64],
        placed_by="not through this journal",
    )


def _position(found: Any) -> Position:
    return Position(
        symbol=str(found.symbol),
        qty=float(found.qty),
        avg_entry_price=float(found.avg_entry_price),
        current_price=float(found.current_price),
        market_value=float(found.market_value),
        unrealized_pl=float(found.unrealized_pl),
        unrealized_plpc=float(found.unrealized_plpc),
        instrument_id=str(found.asset_id),
    )
