"""The exchange itself: users, accounts, the market and the book of orders, kept across restarts.

`Exchange` owns the state and answers questions about accounts; `orderdesk.OrderDesk` changes orders. What
happens is published to `subscribers` as events: dictionaries with `event` and `account` (see `link.py` for
their shapes).
"""

from __future__ import annotations

import asyncio
import secrets
import string
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

from localcloud.exchange.clock import Clock, MarketHours
from localcloud.exchange.faults import Faults
from localcloud.exchange.instruments import Catalogue, Instrument, catalogue
from localcloud.exchange.ledger import Account, Kind, Position
from localcloud.exchange.market import Market
from localcloud.exchange.models import WORKING, Execution, Order, Refused, from_row
from localcloud.exchange.store import Book
from localcloud.exchange.users import LoginFailed, User, hash_password, password_matches

SAVE_PRICES_EVERY = 10.0
LONGEST_HISTORY_DAYS = 366 * 5
Subscriber = Callable[[dict[str, Any]], None]


def _account_name(mode: str, kind: Kind) -> str:
    if kind == "alpaca":
        return "PA3" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(9))
    return f"{'DU' if mode == 'paper' else 'U'}{1_000_000 + secrets.randbelow(9_000_000)}"


class Exchange:
    """All state of the exchange. Not thread-safe: it belongs to one event loop."""

    def __init__(self, state: Path, *, seed: int = 1, instruments: Catalogue | None = None) -> None:
        self.clock, self.hours, self.faults = Clock(), MarketHours(), Faults()
        self.catalogue = instruments or catalogue()
        self.market = Market(self.catalogue, self.clock, seed)
        self.book = Book(state)
        self.users: dict[str, User] = {}
        self.accounts: dict[str, Account] = {}
        self.orders: dict[int, Order] = {}
        self.working: dict[int, Order] = {}
        self.executions: list[Execution] = []
        self.references: dict[tuple[str, str], int] = {}
        self.subscribers: list[Subscriber] = []
        self._load()

    def publish(self, account: str, event: str, **content: Any) -> None:
        """Tells every subscriber what happened to an account."""
        for subscriber in self.subscribers:
            subscriber({"event": event, "account": account, **content})

    def price(self, conid: int) -> float:
        """What a position is valued at: the middle of bid and ask."""
        quote = self.market.quote(conid)
        return (quote.bid + quote.ask) / 2

    def instrument(self, conid: int) -> Instrument:
        """The instrument of a contract id. Raises Refused."""
        try:
            return self.catalogue.by_conid[conid]
        except KeyError:
            raise Refused("unknown_contract", f"no contract has the id {conid}") from None

    def account(self, account: str) -> Account:
        """An account, its day begun. Raises Refused."""
        try:
            found = self.accounts[account]
        except KeyError:
            raise Refused("unknown_account", f"no account is named {account!r}") from None
        if found.equity_day != self.clock.day():
            found.start_day(self.clock.day(), self.price)
        return found

    # -- users -------------------------------------------------------------------------------------

    def add_user(
        self,
        name: str,
        password: str,
        *,
        mode: str = "paper",
        cash: float = 1_000_000.0,
        kind: Kind = "margin",
        second_factor: bool = False,
        accounts: list[str] | None = None,
    ) -> User:
        """Opens an account for a new user, or gives an existing one this password and keeps what it holds.

        Account names follow IBKR's: DU and seven digits for paper, U for live; Alpaca's paper accounts have
        PA3 and nine letters and digits. Raises Refused.
        """
        if mode not in ("paper", "live"):
            raise Refused("invalid", f"mode is paper or live, not {mode!r}")
        if kind not in get_args(Kind):
            raise Refused("invalid", f"an account's kind is one of {', '.join(get_args(Kind))}, not {kind!r}")
        known = self.users.get(name)
        if known is not None and known.mode != mode:
            raise Refused("invalid", f"user {name!r} exists with mode {known.mode}")
        if known is not None:
            known.password_hash, known.second_factor = hash_password(password), second_factor
            return self._keep_user(known)
        names = accounts or [_account_name(mode, kind)]
        for account in names:
            if account in self.accounts:
                raise Refused("invalid", f"account {account} belongs to {self.accounts[account].user!r}")
            self.accounts[account] = Account(account, name, kind, cash, cash, self.clock.day())
            self.book.put("accounts", account, self.accounts[account].as_row())
        return self._keep_user(User(name, hash_password(password), mode, names, second_factor))

    def remove_user(self, name: str) -> None:
        """Closes a user's accounts; their orders and executions stay in the book."""
        user = self.users.pop(name, None)
        if user is None:
            raise Refused("invalid", f"no user is named {name!r}")
        for account in user.accounts:
            self.accounts.pop(account, None)
            self.book.delete("accounts", account)
        self.book.delete("users", name)
        self.book.commit()

    async def authenticate(self, name: str, password: str, mode: str, wait: float) -> User:
        """Checks a login. Raises LoginFailed with reason credentials, mode or second_factor."""
        user = self.users.get(name)
        # scrypt takes tens of milliseconds; the market doesn't stand still for it.
        known = user is not None and await asyncio.to_thread(password_matches, password, user.password_hash)
        if user is None or not known:
            raise LoginFailed("credentials")
        if user.mode != mode:
            raise LoginFailed("mode")
        await user.pass_second_factor(wait)
        return user

    # -- questions ---------------------------------------------------------------------------------

    def account_summary(self, account: str) -> dict[str, Any]:
        """Everything that account summaries show (see `ledger.Account.summary`)."""
        return self.account(account).summary(self.price)

    def position_row(self, account: str, position: Position) -> dict[str, Any]:
        """One position as it travels over the link, its contract with it."""
        price = self.price(position.conid)
        value = position.quantity * price
        return {
            "account": account,
            "conid": position.conid,
            "contract": self.instrument(position.conid).as_dict(),
            "position": position.quantity,
            "average_cost": position.average_cost,
            "market_price": round(price, 6),
            "previous_close": self.market.quote(position.conid).close,
            "market_value": round(value, 2),
            "unrealized_pnl": round(value - position.quantity * position.average_cost, 2),
            "realized_pnl": round(position.realized_pnl, 2),
        }

    def positions(self, account: str) -> list[dict[str, Any]]:
        """All open positions of an account."""
        return [self.position_row(account, item) for item in self.account(account).open_positions()]

    def contract_details(self, conid: int) -> dict[str, Any]:
        """A contract with its hours: `trading_hours`, `liquid_hours` (IBKR's format) and `time_zone`."""
        now = self.clock.now()
        return {
            **self.instrument(conid).as_dict(),
            "trading_hours": self.hours.schedule(now, liquid=False),
            "liquid_hours": self.hours.schedule(now, liquid=True),
            "time_zone": "US/Eastern",
        }

    def history(self, conid: int, days: int, end: float | None = None) -> list[dict[str, Any]]:
        """Daily bars of the last `days` weekdays before `end` (default now). Raises Refused."""
        self.instrument(conid)
        if not 1 <= days <= LONGEST_HISTORY_DAYS:
            raise Refused("history", f"history reaches from 1 to {LONGEST_HISTORY_DAYS} days, not {days}")
        before = 0.0 if end is None else self.clock.now() - end
        last = self.clock.eastern() - timedelta(seconds=before)
        day = last.date()
        chosen: list[date] = []
        while len(chosen) < days:
            if day.weekday() < 5:
                chosen.append(day)
            day -= timedelta(days=1)
        return self.market.daily_bars(conid, chosen[::-1])

    def order_row(self, order: Order) -> dict[str, Any]:
        """An order as it travels over the link, its contract with it."""
        return {**order.as_dict(), "contract": self.instrument(order.conid).as_dict()}

    def execution_row(self, execution: Execution) -> dict[str, Any]:
        """A fill as it travels over the link, its contract with it."""
        return {**execution.as_dict(), "contract": self.instrument(execution.conid).as_dict()}

    def orders_of(self, account: str, *, working: bool) -> list[dict[str, Any]]:
        """Working orders, or those that ended since midnight in New York."""
        if working:
            return [self.order_row(order) for order in self.working.values() if order.account == account]
        return [
            self.order_row(order)
            for order in self.orders.values()
            if order.account == account
            and order.status not in WORKING
            and order.updated >= self.clock.midnight()
        ]

    def executions_of(self, account: str, since: float) -> list[dict[str, Any]]:
        """Executions of an account at or after `since` (seconds since the epoch)."""
        chosen = [item for item in self.executions if item.account == account and item.time >= since]
        return [self.execution_row(item) for item in chosen]

    # -- persistence -------------------------------------------------------------------------------

    def keep_order(self, order: Order) -> None:
        """Writes an order to the book and keeps the list of working orders right."""
        order.updated = self.clock.now()
        self.orders[order.perm_id] = order
        if order.order_ref:
            self.references[order.account, order.order_ref] = order.perm_id
        if order.status in WORKING:
            self.working[order.perm_id] = order
        else:
            self.working.pop(order.perm_id, None)
        self.book.put("orders", str(order.perm_id), order.as_dict())

    def keep_trade(self, execution: Execution, position: Position, account: Account) -> None:
        """Writes a fill and what it did to the account."""
        self.executions.append(execution)
        self.book.put("executions", execution.exec_id, execution.as_dict())
        self.keep_position(position, account)

    def keep_position(self, position: Position, account: Account) -> None:
        """Writes an account and one of its positions."""
        row = {"account": account.id, **position.__dict__}
        self.book.put("positions", f"{account.id}/{position.conid}", row)
        self.book.put("accounts", account.id, account.as_row())

    def save_settings(self) -> None:
        """Writes the market's hours, so that a restart finds them."""
        self.book.put("settings", "market", {"hours": self.hours.hours})
        self.book.commit()

    def save_prices(self) -> None:
        """Writes current prices, from which a restarted exchange goes on."""
        for conid, (middle, close) in self.market.prices().items():
            self.book.put("prices", str(conid), {"middle": middle, "close": close})
        self.book.commit()

    def close(self) -> None:
        """Saves prices and closes the book."""
        self.save_prices()
        self.book.close()

    def _keep_user(self, user: User) -> User:
        self.users[user.name] = user
        self.book.put("users", user.name, user.as_row())
        self.book.commit()
        return user

    def _load(self) -> None:
        for _, row in self.book.all("settings"):
            self.hours.hours = row["hours"]
        for key, row in self.book.all("prices"):
            self.market.restore(int(key), row["middle"], row["close"])
        for name, row in self.book.all("users"):
            self.users[name] = from_row(User, row)
        for key, row in self.book.all("accounts"):
            self.accounts[key] = from_row(Account, row)
        for _, row in self.book.all("positions"):
            if row["account"] in self.accounts:
                self.accounts[row["account"]].positions[row["conid"]] = from_row(Position, row)
        for _, row in self.book.all("orders"):
            order: Order = from_row(Order, row)
            self.orders[order.perm_id] = order
            if order.order_ref:
                self.references[order.account, order.order_ref] = order.perm_id
            if order.status in WORKING:
                self.working[order.perm_id] = order
        self.executions = [from_row(Execution, row) for _, row in self.book.all("executions")]
