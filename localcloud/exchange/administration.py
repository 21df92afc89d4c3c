"""What the admin socket can do.

Users, market, clock, prices, faults, and a look into the exchange's own book.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.exchange.engine import Exchange
from localcloud.exchange.models import Refused
from localcloud.exchange.orderdesk import OrderDesk
from localcloud.exchange.sessions import Session


class Administration:
    """Handles admin requests: `{"id", "method", "params"}`, answered as on the link."""

    def __init__(
        self,
        exchange: Exchange,
        desk: OrderDesk,
        sessions: dict[str, Session],
        cut_links: Callable[[], None],
    ) -> None:
        self.exchange, self.desk, self.sessions, self._cut_links = exchange, desk, sessions, cut_links
        self._methods: dict[str, Callable[..., dict[str, Any]]] = {
            "add_user": self._add_user,
            "remove_user": self._remove_user,
            "users": self._users,
            "approve_second_factor": self._approve,
            "set_market": self._set_market,
            "set_clock": self._set_clock,
            "set_price": self._set_price,
            "set_position": self._set_position,
            "set_fault": self._set_fault,
            "faults": self._faults,
            "cut_links": self._cut,
            "gateway": self._gateway,
            "orders": self._orders,
            "executions": self._executions,
            "account": self._account,
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; refusals are answers too."""
        method, params = request.get("method"), dict(request.get("params") or {})
        try:
            if method not in self._methods:
                raise Refused("unknown_method", f"no admin method is named {method!r}")
            try:
                return {"id": request.get("id"), "result": self._methods[str(method)](**params)}
            except TypeError as error:
                raise Refused("invalid", f"{method}: {error}") from error
        except Refused as refusal:
            return {"id": request.get("id"), "error": {"code": refusal.code, "message": refusal.message}}

    def _add_user(self, name: str, password: str, **options: Any) -> dict[str, Any]:
        user = self.exchange.add_user(name, password, **options)
        return {"name": user.name, "mode": user.mode, "accounts": user.accounts}

    def _remove_user(self, name: str) -> dict[str, Any]:
        self.exchange.remove_user(name)
        session = self.sessions.pop(name, None)
        if session is not None:
            session.user = None
            session.send({"event": "session_taken"})
        return {}

    def _users(self) -> dict[str, Any]:
        rows = [
            {
                "name": user.name,
                "mode": user.mode,
                "accounts": user.accounts,
                "second_factor": user.second_factor,
                "waiting_for_second_factor": user.waiting > 0,
                "logged_in": user.name in self.sessions,
            }
            for user in self.exchange.users.values()
        ]
        return {"users": rows}

    def _approve(self, name: str) -> dict[str, Any]:
        if name not in self.exchange.users:
            raise Refused("invalid", f"no user is named {name!r}")
        self.exchange.users[name].approved.set()
        return {}

    def _set_market(self, hours: str) -> dict[str, Any]:
        if hours not in ("open", "calendar"):
            raise Refused("invalid", f"market hours are open or calendar, not {hours!r}")
        self.exchange.hours.hours = "open" if hours == "open" else "calendar"
        self.exchange.save_settings()
        return {}

    def _set_clock(self, at: float | None = None, frozen: bool = False) -> dict[str, Any]:
        self.exchange.clock.set(at, frozen=frozen)
        self.desk.step()
        return {"time": self.exchange.clock.now()}

    def _set_price(
        self, symbol: str, price: float, currency: str = "USD", hold: bool = True
    ) -> dict[str, Any]:
        found = self.exchange.catalogue.find(symbol, currency=currency)
        if len(found) != 1:
            raise Refused("unknown_contract", f"no contract is {symbol!r} in {currency}")
        if price <= 0:
            raise Refused("invalid", f"price must be above 0, not {price}")
        quote = self.exchange.market.set_price(found[0].conid, price, hold=hold)
        self.desk.step()
        return {"quote": quote.as_dict()}

    def _set_position(
        self, account: str, symbol: str, quantity: float, average_cost: float, currency: str = "USD"
    ) -> dict[str, Any]:
        """A transfer of shares: no order and no cash goes with it."""
        found = self.exchange.catalogue.find(symbol, currency=currency)
        if len(found) != 1:
            raise Refused("unknown_contract", f"no contract is {symbol!r} in {currency}")
        owner = self.exchange.account(account)
        position = owner.position(found[0].conid)
        position.quantity, position.average_cost = quantity, average_cost if quantity else 0.0
        self.exchange.keep_position(position, owner)
        return {}

    def _set_fault(self, name: str, value: Any) -> dict[str, Any]:
        faults = self.exchange.faults
        before = faults.farms_down
        faults.set(name, value)
        if faults.link_down:
            self._cut_links()
        if faults.farms_down != before:
            for session in list(self.sessions.values()):
                session.send({"event": "farms", "up": not faults.farms_down})
        return {"faults": faults.as_dict()}

    def _faults(self) -> dict[str, Any]:
        return {"faults": self.exchange.faults.as_dict()}

    def _cut(self) -> dict[str, Any]:
        self._cut_links()
        return {}

    def _gateway(self, action: str, name: str | None = None, **content: Any) -> dict[str, Any]:
        """Asks gateways (of one user, or all) for a fault of their own, such as dropping API clients."""
        chosen = [session for user, session in self.sessions.items() if name in (None, user)]
        for session in chosen:
            session.send({"event": "gateway", "action": action, **content})
        return {"gateways": len(chosen)}

    def _orders(self, account: str) -> dict[str, Any]:
        """The exchange's own book of orders, whatever front ends remember."""
        return {"orders": [o.as_dict() for o in self.exchange.orders.values() if o.account == account]}

    def _executions(self, account: str) -> dict[str, Any]:
        return {"executions": self.exchange.executions_of(account, 0.0)}

    def _account(self, account: str) -> dict[str, Any]:
        positions = self.exchange.positions(account)
        return {"summary": self.exchange.account_summary(account), "positions": positions}
