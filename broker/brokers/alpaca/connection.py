"""One account at Alpaca: connecting, and what is only read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from broker.base import BaseBroker, Capabilities
from broker.brokers.alpaca.desk import Desk
from broker.brokers.alpaca.news import News
from broker.brokers.alpaca.records import Records
from broker.brokers.alpaca.stream import UpdateStream
from broker.brokers.alpaca.translation import ORDER_TYPES, position_of
from broker.brokers.alpaca.wire import NeverLeft, Wire, trading_client
from broker.errors import (
    BrokerError,
    BrokerFailure,
    NotAuthenticated,
    NotConnected,
    RateLimited,
    UnsupportedOperation,
)
from broker.journal import Journal
from broker.market.alpaca_data import AlpacaQuotes
from broker.models import (
    AccountInfo,
    Clock,
    Health,
    Position,
    Quote,
    iso,
)
from broker.placement import Guard
from broker.risk.modes import Declared, agreed_mode
from broker.validation import check_symbol


class Connection(BaseBroker):
    """One API key's account."""

    name = "alpaca"
    capabilities = Capabilities(
        order_types=ORDER_TYPES,
        times_in_force=frozenset({"day", "gtc", "ioc", "fok", "opg", "cls"}),
        fractional=True,
        quotes=True,
        notional=True,
        replace=True,
        fills=True,
        fees=True,
        stream=True,
        bracket=True,
        extended_hours=True,
    )

    def __init__(
        self,
        journal: Journal,
        *,
        api_key: str,
        secret_key: str,
        paper: bool = True,
        endpoint: str = "",
        data_endpoint: str = "",
        stream_endpoint: str = "",
        feed: str = "iex",
        guard: Guard | None = None,
    ) -> None:
        """The endpoints are other URLs than Alpaca's own, for tests and proxies.

        With `endpoint`, the stream is at its `/stream` as Alpaca's is, unless `stream_endpoint` says
        otherwise, and quotes need a `data_endpoint`: no key goes to a host that nobody named.
        `feed`: see `AlpacaQuotes`. `guard` may refuse orders (see `broker.placement.place`).
        """
        self._journal = journal
        self._guard = guard
        self._declared = Declared("alpaca", "paper" if paper else "live", endpoint=endpoint)
        self._wire = Wire(trading_client(api_key, secret_key, paper, endpoint))
        self._records = Records(journal)
        self._desk = Desk(self._wire, self._records, journal)
        if endpoint and not stream_endpoint:
            stream_endpoint = f"ws{endpoint.rstrip('/').removeprefix('http')}/stream"

        def stream(updated: Callable[[Any], None], listening: Callable[[], None]) -> UpdateStream:
            return UpdateStream(
                api_key,
                secret_key,
                paper=paper,
                endpoint=stream_endpoint,
                updated=updated,
                listening=listening,
            )

        self._news = News(self._wire, self._records, self._desk, journal, self._account_id, stream)
        self._data: AlpacaQuotes | None = None
        if data_endpoint or not endpoint:
            self._data = AlpacaQuotes(api_key, secret_key, feed=feed, endpoint=data_endpoint)
        else:
            self.capabilities = replace(self.capabilities, quotes=False)
        self._assets: dict[str, tuple[str, datetime]] = {}
        self._opening = threading.Lock()

    # Connecting

    def connect(self) -> bool:
        """Read the account, and begin to listen.

        Raises `NotConnected` (it goes on trying), `PaperLiveMismatch`: the endpoint or the declared
        mode doesn't agree with the account's number.
        """
        with self._opening:
            self._wire.open = True
            try:
                self._account_id()
            except NotAuthenticated:
                raise  # trying again with the same key can't help
            except (NotConnected, RateLimited, BrokerFailure):
                self._news.start()
                raise
            except BrokerError:
                self._wire.open = False
                raise
            self._news.start()
        return True

    def disconnect(self) -> None:
        """Stop listening. Later calls raise `NotConnected` until the next `connect`."""
        with self._opening:
            self._wire.open = False
            self._wire.reason = "disconnect() was called"
            self._news.stop()

    def health(self) -> Health:
        """One request to Alpaca. `details` tells the stream's state: orders are looked up without it.

        Its `unknown_outcomes` are orders that left, and that Alpaca neither answered nor shows.

        While the minute's requests are used up it is as it was last proved, and `reason` says so.
        """
        began = datetime.now(UTC)
        limited, took = "", None
        try:
            self._ask(self._wire.client.get_clock)
            took = round((datetime.now(UTC) - began).total_seconds() * 1000, 3)
        except RateLimited as refusal:
            limited = refusal.message
        except (NotConnected, BrokerFailure) as failure:
            doing = "asking at each call" if self._wire.open else "nothing: connect() was not called"
            return self._health("disconnected", failure.message, doing)
        return self._health("connected", limited, round_trip_ms=took)

    def _health(self, state: str, reason: str, doing: str = "", round_trip_ms: float | None = None) -> Health:
        return Health(
            state == "connected",
            state,
            self._wire.since.isoformat(),
            reason,
            doing,
            proved_at=iso(self._wire.proved_at),
            round_trip_ms=round_trip_ms,
            details={
                "stream": self._news.state,
                "reconciled": self._news.reconciled,
                "unknown_outcomes": self._news.unknown,
            },
        )

    # Questions

    def get_accounts(self) -> list[str]:
        """See `BaseBroker.get_accounts`: an API key is one account's."""
        return [self._account_id()]

    def get_account(self, *, account: str = "") -> AccountInfo:
        """See `BaseBroker.get_account`. `id` is the account's number, as everywhere here."""
        self._chosen(account)
        found = self._ask(self._wire.client.get_account)
        return AccountInfo(
            id=str(found.account_number or found.id),
            cash=float(found.cash),
            buying_power=float(found.buying_power),
            portfolio_value=float(found.portfolio_value or found.equity),
            equity=float(found.equity),
            last_equity=float(found.last_equity),
            last_equity_source="equity at the previous trading day's close",
            currency=found.currency or "USD",
        )

    def get_positions(self, *, account: str = "") -> list[Position]:
        """See `BaseBroker.get_positions`."""
        self._chosen(account)
        found = self._ask(self._wire.client.get_all_positions)
        return sorted((position_of(p) for p in found), key=lambda p: p.symbol)

    def get_position(self, symbol: str, *, account: str = "") -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        self._chosen(account)
        found = self._ask(lambda: self._wire.client.get_open_position(symbol), missing=True)
        return None if found is None else position_of(found)

    def get_quote(self, symbol: str) -> Quote:
        """See `BaseBroker.get_quote`. The IEX feed is one exchange's prices."""
        if self._data is None:
            raise UnsupportedOperation("no data endpoint was named beside the trading endpoint")
        return self._data.quote(symbol)

    def clock(self) -> Clock:
        """Alpaca's own clock."""
        found = self._ask(self._wire.client.get_clock)
        now = found.timestamp.isoformat()
        return Clock(now, bool(found.is_open), iso(found.next_open), iso(found.next_close), "broker")

    def _account_id(self) -> str:
        if not self._records.account:
            found = self._ask(self._wire.client.get_account)
            number = str(found.account_number or "")
            agreed_mode(self._declared, number)
            self._records.account = number
        if not self._wire.open:
            raise NeverLeft("the broker isn't connected", since=self._wire.since, doing="call connect()")
        return self._records.account

    def _chosen(self, account: str) -> str:
        """The key's account; it has one. Raises `InvalidRequest`."""
        if not account:
            return self._account_id()
        return self._one_of([self._account_id()], account)

    def _ask(self, request: Callable[[], Any], *, missing: bool = False) -> Any:
        return self._wire.ask(request, missing=missing)
