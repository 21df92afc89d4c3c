"""Brokerage sessions: what a logged-in gateway may ask, and the one-session-per-user rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from localcloud.exchange.engine import Exchange
from localcloud.exchange.models import WORKING, Order, Refused
from localcloud.exchange.orderdesk import OrderDesk
from localcloud.exchange.users import LoginFailed, User

Send = Callable[[dict[str, Any]], None]
SECOND_FACTOR_WAIT = 180.0
LONGEST_CALENDAR_DAYS = 3660
REPLACEABLE = frozenset(
    {
        "quantity",
        "limit_price",
        "stop_price",
        "tif",
        "trail_amount",
        "trail_percent",
        "order_ref",
        "client",
        "high_water",
    }
)


class Session:
    """One link's view of the exchange; calls need a login first."""

    def __init__(self, exchange: Exchange, desk: OrderDesk, sessions: dict[str, Session], send: Send) -> None:
        self.exchange, self.desk, self.send = exchange, desk, send
        self.user: User | None = None
        self.subscribed: set[int] = set()
        self._sessions = sessions

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Answers one request. Raises Refused or LoginFailed."""
        if method == "login":
            return await self.login(**params)
        if method == "server_time":
            return {"time": self.exchange.clock.now()}
        if self.user is None:
            raise Refused("not_logged_in", "log in first, or again: this link has no brokerage session")
        if method not in METHODS:
            raise Refused("unknown_method", f"no method is named {method!r}")
        if "account" in params and params["account"] not in self.user.accounts:
            raise Refused("unknown_account", f"{params['account']!r} is not an account of this user")
        try:
            return METHODS[method](self, **params)
        except TypeError as error:
            raise Refused("invalid", f"{method}: {error}") from error

    async def login(
        self,
        username: str,
        password: str,
        mode: str = "paper",
        compete: bool = True,
        wait: float = SECOND_FACTOR_WAIT,
    ) -> dict[str, Any]:
        """Opens the user's brokerage session; with `compete` an earlier one loses it."""
        user = await self.exchange.authenticate(username, password, mode, wait)
        earlier = self._sessions.get(user.name)
        if earlier is not None and earlier is not self:
            if not compete:
                raise LoginFailed("competing")
            earlier.user = None
            earlier.subscribed.clear()
            earlier.send({"event": "session_taken"})
        self.user = user
        self._sessions[user.name] = self
        faults = self.exchange.faults
        return {"accounts": user.accounts, "data_lost": faults.data_lost, "farms_up": not faults.farms_down}

    def close(self) -> None:
        """Ends the session, as when its link is gone."""
        if self.user is not None and self._sessions.get(self.user.name) is self:
            del self._sessions[self.user.name]
        self.user = None
        self.subscribed.clear()

    # -- contracts and prices ----------------------------------------------------------------------

    def contracts(
        self,
        symbol: str = "",
        conid: int = 0,
        currency: str = "",
        exchange: str = "",
        primary_exchange: str = "",
    ) -> dict[str, Any]:
        """Contracts by id, or by symbol and what narrows it down."""
        if conid:
            known = self.exchange.catalogue.by_conid.get(conid)
            found = [known] if known is not None else []
        else:
            found = self.exchange.catalogue.find(
                symbol, currency=currency, exchange=exchange, primary_exchange=primary_exchange
            )
        return {"contracts": [item.as_dict() for item in found]}

    def search(self, pattern: str) -> dict[str, Any]:
        """Contracts whose symbol or name matches."""
        return {"contracts": [item.as_dict() for item in self.exchange.catalogue.search(pattern)]}

    def contract_details(self, conid: int) -> dict[str, Any]:
        """A contract with its trading hours."""
        return {"contract": self.exchange.contract_details(conid)}

    def quote(self, conid: int) -> dict[str, Any]:
        """The quote now.

        `entitlement`: live, delayed, none or competing; front ends decide what that means.
        """
        self.exchange.instrument(conid)
        faults = self.exchange.faults
        return {
            "quote": self.exchange.market.quote(conid).as_dict(),
            "entitlement": faults.market_data,
            "farms_up": not faults.farms_down,
        }

    def subscribe(self, conid: int) -> dict[str, Any]:
        """As `quote`, and events `quote` from now on."""
        answer = self.quote(conid)
        self.subscribed.add(conid)
        return answer

    def unsubscribe(self, conid: int) -> dict[str, Any]:
        """No more events `quote` for a contract."""
        self.subscribed.discard(conid)
        return {}

    def history(self, conid: int, days: int, end: float | None = None) -> dict[str, Any]:
        """Daily bars."""
        return {"bars": self.exchange.history(conid, days, end)}

    # -- the clock ---------------------------------------------------------------------------------

    def clock(self) -> dict[str, Any]:
        """The exchange's time, and when it opens and closes next (seconds since the epoch)."""
        now, hours = self.exchange.clock.now(), self.exchange.hours
        return {
            "time": now,
            "is_open": hours.is_open(now),
            "next_open": hours.following_open(now),
            "next_close": hours.close_of(now),
        }

    def calendar(self, start: str, end: str) -> dict[str, Any]:
        """Sessions from day `start` to day `end` (YYYY-MM-DD), at most LONGEST_CALENDAR_DAYS of days."""
        first, last = date.fromisoformat(start), date.fromisoformat(end)
        if (last - first).days > LONGEST_CALENDAR_DAYS:
            raise Refused("invalid", f"a calendar has at most {LONGEST_CALENDAR_DAYS} days")
        sessions = []
        for ahead in range((last - first).days + 1):
            day = first + timedelta(days=ahead)
            session = self.exchange.hours.session(day)
            if session is not None:
                opens, closes = session
                row = {"date": day.isoformat(), "open": f"{opens:%H:%M}", "close": f"{closes:%H:%M}"}
                sessions.append(row)
        return {"sessions": sessions}

    # -- account -----------------------------------------------------------------------------------

    def account_summary(self, account: str) -> dict[str, Any]:
        """Amounts of an account."""
        return {"summary": self.exchange.account_summary(account)}

    def positions(self, account: str) -> dict[str, Any]:
        """Open positions."""
        return {"positions": self.exchange.positions(account)}

    def executions(self, account: str, since: float = 0.0) -> dict[str, Any]:
        """Fills since a time (seconds since the epoch)."""
        return {"executions": self.exchange.executions_of(account, since)}

    def open_orders(self, account: str) -> dict[str, Any]:
        """Working orders."""
        return {"orders": self.exchange.orders_of(account, working=True)}

    def completed_orders(self, account: str) -> dict[str, Any]:
        """Orders that ended today (New York)."""
        return {"orders": self.exchange.orders_of(account, working=False)}

    def buying_power(self, account: str) -> dict[str, Any]:
        """What may still be bought for, working orders taken off; USD."""
        return {"buying_power": round(self.desk.acceptance.buying_power(account), 2)}

    def orders(self, account: str, perm_id: int = 0, reference: str = "") -> dict[str, Any]:
        """Every order of an account since it was opened; or the one of an id or a reference.

        A reference that was used again leads to the latest of its orders.
        """
        if reference:
            perm_id = self.exchange.references.get((account, reference), -1)
        known = [self.exchange.orders.get(perm_id)] if perm_id else list(self.exchange.orders.values())
        return {
            "orders": [
                self.exchange.order_row(order)
                for order in known
                if order is not None and order.account == account
            ]
        }

    # -- orders ------------------------------------------------------------------------------------

    def place_order(self, **order: Any) -> dict[str, Any]:
        """Accepts an order (see `OrderDesk.place`); its events follow the answer.

        `waits_until`: when the market opens (epoch seconds), None while it is open. `legs`: the orders that
        were placed with it.
        """
        placed = self.desk.place(**order)
        wanted: list[Any] = order.get("legs") or []
        legs = [self.exchange.orders[placed.perm_id + number] for number in range(1, len(wanted) + 1)]
        answer = {
            **self._then_activate(placed),
            "legs": [self.exchange.order_row(leg) for leg in legs],
        }
        for leg in legs:
            asyncio.get_running_loop().call_soon(self.desk.publish_status, leg)
        return answer

    def preview_order(self, **order: Any) -> dict[str, Any]:
        """What an order would cost (see `OrderDesk.preview`)."""
        return {"preview": self.desk.preview(**order)}

    def modify_order(self, perm_id: int, **changes: Any) -> dict[str, Any]:
        """Changes a working order (see `OrderDesk.modify`)."""
        self._own(perm_id)
        return self._then_activate(self.desk.modify(perm_id, **changes))

    def replace_order(self, perm_id: int, **changes: Any) -> dict[str, Any]:
        """Puts a changed copy in the place of a working order (see `OrderDesk.replace`)."""
        self._own(perm_id)
        if unknown := set(changes) - REPLACEABLE:
            raise Refused("invalid", f"replace_order doesn't change {', '.join(sorted(unknown))}")
        new = self.desk.replace(perm_id, **changes)
        old = self.exchange.orders[perm_id]
        asyncio.get_running_loop().call_soon(self.desk.publish_status, old)
        return self._then_activate(new)

    def cancel_order(self, perm_id: int) -> dict[str, Any]:
        """Cancels what hasn't traded."""
        self._own(perm_id)
        return {"order": self.exchange.order_row(self.desk.cancel(perm_id))}

    def _own(self, perm_id: int) -> None:
        order = self.exchange.orders.get(perm_id)
        assert self.user is not None, "call() lets nobody in without a login"
        if order is None or order.account not in self.user.accounts:
            raise Refused("unknown_order", f"no order of this user has the permanent id {perm_id}")

    def _then_activate(self, order: Order) -> dict[str, Any]:
        # On the loop's next turn, so that the answer leaves before the events.
        asyncio.get_running_loop().call_soon(self.desk.activate, order)
        now, hours = self.exchange.clock.now(), self.exchange.hours
        waits = order.status in WORKING and not hours.is_open(now, extended=order.outside_rth)
        return {
            "order": self.exchange.order_row(order),
            "waits_until": hours.next_open(now) if waits else None,
        }


METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    method.__name__: method
    for method in (
        Session.contracts,
        Session.search,
        Session.contract_details,
        Session.quote,
        Session.subscribe,
        Session.unsubscribe,
        Session.history,
        Session.account_summary,
        Session.positions,
        Session.executions,
        Session.buying_power,
        Session.orders,
        Session.clock,
        Session.calendar,
        Session.open_orders,
        Session.completed_orders,
        Session.place_order,
        Session.preview_order,
        Session.modify_order,
        Session.replace_order,
        Session.cancel_order,
    )
}
