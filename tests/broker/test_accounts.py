"""Logins that manage several accounts: over TWS, over Client Portal; and brokers that have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.base import BaseBroker
from broker.brokers.alpaca import AlpacaBroker
from broker.brokers.ibkr import library
from broker.brokers.simulated import SimulatedBroker
from broker.errors import InvalidRequest, LimitExceeded, NotConnected
from broker.factory import build_broker, settings_from_environment
from broker.journal import Journal
from tests.broker.ordering import request, settled
from tests.broker.paper_alpaca import ACCOUNT, paper_alpaca
from tests.broker.paper_gateway import eventually, paper_gateway
from tests.broker.portal_gateway import portal_gateway

FIRST, SECOND = "DU1111111", "DU2222222"


class Login:
    """A login of two accounts behind one of the front ends."""

    def __init__(self, settings: dict[str, str], variable: str, book: Callable[[str], list[Any]]) -> None:
        self._settings = settings | {"MARKET_DATA_SOURCE": "ibkr"}
        self.variable = variable
        self.book = book

    def broker(self, journal: Journal, **settings: str) -> BaseBroker:
        """Guarded, as every program gets it; not connected."""
        return build_broker(settings_from_environment(self._settings | settings), journal)


# Over ib_async, in the environment that has it, only what goes through it.
FRONT_ENDS = ["ibkr"] if library.NAME == "ib_async" else ["ibkr", "ibeam"]


@pytest.fixture(params=FRONT_ENDS, scope="module")
def login(request: pytest.FixtureRequest) -> Iterator[Login]:
    """AAPL stands at 200 dollars."""
    if request.param == "ibkr":
        with paper_gateway(accounts=(FIRST, SECOND)) as paper:
            settings = {"IBKR_GATEWAY_PORT": str(paper.port), "IBKR_TRADING_MODE": "paper"}
            yield Login({"BROKER_TYPE": "ibkr", **settings}, "IBKR_ACCOUNT", paper.book)
        return
    with portal_gateway(accounts=[FIRST, SECOND]) as portal:
        settings = {"IBEAM_URL": portal.url, "IBEAM_CA_FILE": portal.ca_file, "IBKR_TRADING_MODE": "paper"}
        yield Login({"BROKER_TYPE": "ibeam", **settings}, "IBEAM_ACCOUNT_ID", portal.book)


@pytest.fixture
def broker(login: Login, journal: Journal) -> Iterator[BaseBroker]:
    """Of the first account."""
    made = login.broker(journal, **{login.variable: FIRST})
    made.connect()
    yield made
    made.disconnect()


def test_which_account_is_traded_is_never_left_to_chance(login: Login, journal: Journal) -> None:
    made = login.broker(journal)
    with pytest.raises(NotConnected, match=f"{login.variable} must name one of them") as ambiguous:
        made.connect()
    assert FIRST in ambiguous.value.message
    assert SECOND in ambiguous.value.message
    health = made.health()
    assert (health.ok, health.state) == (False, "wrong_account")
    with pytest.raises(NotConnected):
        made.place_market_order("AAPL", 1, "buy")
    made.disconnect()


def test_an_account_that_the_login_does_not_have_is_named(login: Login, journal: Journal) -> None:
    made = login.broker(journal, **{login.variable: "DU9999999"})
    with pytest.raises(NotConnected, match="DU9999999"):
        made.connect()
    assert made.health().state == "wrong_account"
    made.disconnect()


def test_the_connections_own_account_comes_first(login: Login, journal: Journal) -> None:
    made = login.broker(journal, **{login.variable: SECOND})
    made.connect()
    assert made.get_accounts() == [SECOND, FIRST]
    assert made.get_account().id == SECOND
    made.disconnect()


def test_orders_positions_fills_and_balances_are_each_accounts_own(login: Login, broker: BaseBroker) -> None:
    mine = settled(broker, broker.place_order(request(qty=2, client_order_id="one")), "filled")
    theirs = settled(
        broker, broker.place_order(request(qty=3, client_order_id="two", account=SECOND)), "filled"
    )
    assert (mine.account_id, theirs.account_id) == (FIRST, SECOND)
    assert [row["order_ref"] for row in login.book(FIRST)] == ["one"]
    assert [row["order_ref"] for row in login.book(SECOND)] == ["two"]

    def held(account: str) -> float:
        return sum(p.qty for p in broker.get_positions(account=account))

    eventually(lambda: (held(""), held(FIRST), held(SECOND)) == (2, 2, 3), "each holds its own")
    position = broker.get_position("AAPL", account=SECOND)
    assert position is not None
    assert (position.qty, position.market_value) == (3, pytest.approx(600, rel=0.02))
    eventually(lambda: len(broker.get_fills()) >= 2, "both accounts' fills are told")
    assert {(fill.client_order_id, fill.account_id) for fill in broker.get_fills()} == {
        ("one", FIRST),
        ("two", SECOND),
    }
    assert broker.get_account().id == FIRST
    assert broker.get_account(account=SECOND).id == SECOND
    eventually(
        lambda: broker.get_account().cash - broker.get_account(account=SECOND).cash > 150, "and its own cash"
    )
    assert {order.account_id for order in broker.get_orders_history()} == {FIRST, SECOND}
    assert broker.get_order_by_client_id("two").id == theirs.id
    for ask in (broker.get_account, broker.get_positions):
        with pytest.raises(InvalidRequest, match="account"):
            ask(account="DU9999999")
    with pytest.raises(InvalidRequest, match="account"):
        broker.place_order(request(account="DU9999999"))


def test_limits_look_at_the_account_that_the_order_is_for(login: Login, journal: Journal) -> None:
    """Guards against an account that holds nothing lending its room to one that is full."""
    made = login.broker(journal, **{login.variable: FIRST, "RISK_MAX_SHORT_QTY": "0"})
    made.connect()
    held = made.get_position("AAPL", account=SECOND)
    missing = 3 - (held.qty if held else 0)
    if missing > 0:
        bought = made.place_order(request(qty=missing, account=SECOND, client_order_id="stock"))
        settled(made, bought, "filled")
    eventually(lambda: made.get_position("AAPL", account=SECOND), "the second account holds shares")
    own = made.get_position("AAPL")
    with pytest.raises(LimitExceeded, match="max_short_qty"):
        made.place_order(request(side="sell", qty=(own.qty if own else 0) + 1, client_order_id="short"))
    sold = made.place_order(request(side="sell", qty=1, account=SECOND, client_order_id="long"))
    assert settled(made, sold, "filled").account_id == SECOND
    made.disconnect()


def test_a_broker_of_one_account_refuses_another() -> None:
    simulated = SimulatedBroker()
    simulated.connect()
    with paper_alpaca() as paper:
        alpaca: AlpacaBroker = paper.broker(Journal.in_file(":memory:"))
        alpaca.connect()
        for made in (simulated, alpaca):
            [own] = made.get_accounts()
            assert made.get_account(account=own).id == own
            assert made.get_positions(account=own) == []
            for ask in (
                made.get_account,
                made.get_positions,
                lambda made=made, **k: made.get_position("AAPL", **k),
            ):
                with pytest.raises(InvalidRequest, match="account"):
                    ask(account="ANOTHER")
        assert alpaca.get_accounts() == [ACCOUNT]
        alpaca.disconnect()
    simulated.disconnect()
