"""IBKRBroker when things go wrong: no false empties, no lost and no doubled order, back by itself.

Faults are the exchange's and the gateway's (switched on over the admin socket), or a process that
is killed. What became of orders is read from the exchange's book.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker
from broker.errors import NotAuthenticated, NotConnected, OrderNotCancellable, OrderOutcomeUnknown
from broker.journal import Journal
from broker.models import Order
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import Paper, eventually, free_port


def resting(broker: IBKRBroker, client_order_id: str = "") -> Order:
    """A limit order far from the price."""
    return broker.place_limit_order(
        "AAPL", 5, "buy", 100.0, client_order_id=client_order_id, time_in_force="gtc"
    )


def raises_not_connected(call: Callable[[], object]) -> NotConnected | None:
    try:
        call()
    except NotConnected as away:
        return away
    return None


def test_a_gateway_that_is_away_is_an_error_with_since_and_doing_never_an_empty_list(
    broker: IBKRBroker, paper: Paper
) -> None:
    paper.processes[-1].kill()
    away = eventually(lambda: raises_not_connected(broker.get_positions), "the dead gateway is noticed")
    for call in (broker.get_account, broker.get_positions, broker.get_orders_history):
        with pytest.raises(NotConnected) as refused:
            call()
        assert refused.value.since == away.since, "since when it has been away, not since the last attempt"
        assert refused.value.doing
    with pytest.raises(NotConnected):
        broker.place_market_order("AAPL", 1, "buy")
    health = broker.health()
    assert not health.ok
    assert health.reason
    paper.start_gateway()
    eventually(lambda: broker.health().ok, "it reconnects by itself")
    assert broker.get_positions() == []


def test_a_connection_that_breaks_under_a_call_says_since_when_and_what_goes_on(broker: IBKRBroker) -> None:
    async def lose_it_and_ask() -> None:
        session = broker._session()
        session.end("the gateway closed the connection")
        await session.ask(asyncio.sleep(60))  # the supervisor hasn't had its turn yet

    with pytest.raises(NotConnected, match="closed the connection") as broke:
        broker._call(lose_it_and_ask())
    assert broke.value.doing == "connecting again"
    away = raises_not_connected(broker.get_positions)
    assert away is None or away.since == broke.value.since, "one loss, one time"


def test_a_broker_that_starts_before_its_gateway_connects_when_it_comes(
    make_broker: Callable[..., IBKRBroker], paper: Paper
) -> None:
    gateway = paper.processes[-1]
    gateway.terminate()
    gateway.wait(10)
    broker = make_broker()
    with pytest.raises(NotConnected, match="refuses connections"):
        broker.connect()
    paper.start_gateway()
    eventually(lambda: broker.health().ok, "connecting goes on after a failed connect()")


def test_1100_refuses_orders_though_the_socket_is_open_and_1102_lets_them_through(
    broker: IBKRBroker, paper: Paper
) -> None:
    paper.fault("link_down", True)
    eventually(lambda: broker.health().state == "link_lost", "1100 is noticed")
    away = raises_not_connected(broker.get_positions)
    assert away is not None
    assert "1100" in away.reason
    assert raises_not_connected(lambda: broker.place_market_order("AAPL", 1, "buy"))
    paper.fault("link_down", False)
    eventually(lambda: broker.health().ok, "1102 is noticed")
    assert settled(broker, broker.place_market_order("AAPL", 1, "buy"), "filled")
    assert len(paper.book()) == 1


def test_after_1101_everything_is_read_anew(broker: IBKRBroker, paper: Paper) -> None:
    order = resting(broker)
    before = broker.health().details["session_since"]
    paper.fault("data_lost", True)
    paper.fault("link_down", True)
    eventually(lambda: broker.health().state == "link_lost", "1100 is noticed")
    paper.fault("link_down", False)

    def anew() -> bool:
        health = broker.health()
        return health.ok and health.details["session_since"] > before

    eventually(anew, "the session is opened anew: what it was told before 1101 may be wrong")
    assert broker.get_order(order.id).status == "submitted"


def test_a_fill_while_away_is_found_after_reconnecting(broker: IBKRBroker, paper: Paper) -> None:
    order = resting(broker)
    paper.processes[-1].kill()
    paper.admin("set_price", symbol="AAPL", price=90.0)
    eventually(lambda: [o for o in paper.book() if o["status"] == "Filled"], "the exchange fills it")
    paper.start_gateway()
    eventually(lambda: broker.health().ok, "it reconnects")
    found = broker.get_order(order.id)
    assert (found.status, found.filled_qty) == ("filled", 5)
    assert found.filled_price is not None


def test_after_the_nightly_restart_an_order_is_known_by_its_permanent_id(
    broker: IBKRBroker, paper: Paper
) -> None:
    first = resting(broker, "before")
    paper.gateway("restart", seconds=0.3)
    eventually(lambda: raises_not_connected(broker.get_account), "the restart is noticed")
    eventually(lambda: broker.health().ok, "it is back after the restart")
    second = resting(broker, "after")
    assert broker.cancel_order(first.id)
    assert settled(broker, first, "cancelled")
    assert broker.get_order(second.id).status == "submitted", (
        "order ids were issued anew; only the first was cancelled"
    )


def test_a_client_id_in_use_is_said_and_waited_for(
    broker: IBKRBroker, make_broker: Callable[..., IBKRBroker], tmp_path: object
) -> None:
    second = make_broker(journal=Journal.in_file(":memory:"))
    with pytest.raises(NotConnected, match="326"):
        second.connect()
    assert second.health().state == "client_id_in_use"
    broker.disconnect()
    eventually(lambda: second.health().ok, "it takes the id over once it is free")


def test_an_accepted_order_whose_answer_was_lost_is_found_and_not_sent_again(
    broker: IBKRBroker, paper: Paper
) -> None:
    paper.fault("lose_answers", 1)
    asked = request(client_order_id="lost", order_type="limit", limit_price=100.0)
    with contextlib.suppress(OrderOutcomeUnknown):
        broker.place_order(asked)
    eventually(lambda: broker.health().ok, "the link comes back")

    def known() -> Order | None:
        with contextlib.suppress(OrderOutcomeUnknown, NotConnected):
            return broker.place_order(asked)
        return None

    order = eventually(known, "repeating the call finds the order")
    assert order.status == "submitted"
    assert len(paper.book()) == 1, "the exchange has it once"


def test_a_hanging_gateway_is_noticed_by_the_heartbeat(broker: IBKRBroker, paper: Paper) -> None:
    paper.gateway("hang")
    # The account is read from what the gateway told before, so only the heartbeat can notice.
    eventually(
        lambda: raises_not_connected(broker.get_account), "a silent gateway's old values aren't served"
    )
    assert not broker.health().ok
    paper.gateway("resume")
    eventually(lambda: broker.health().ok, "it recovers")


def test_an_order_to_a_hanging_gateway_is_unknown_and_settles_later(broker: IBKRBroker, paper: Paper) -> None:
    broker.get_quote("AAPL")  # its contract is known, so that the order itself is what hangs
    paper.gateway("hang")
    with pytest.raises(OrderOutcomeUnknown) as silence:
        broker.place_order(request(client_order_id="silent", order_type="limit", limit_price=100.0))
    paper.gateway("resume")
    eventually(lambda: broker.health().ok, "it recovers")
    order = broker.get_order(silence.value.order.id)
    if paper.book():  # the gateway passed it on after all
        order = settled(broker, order, "submitted")
    assert len(paper.book()) <= 1
    assert order.status in ("submitted", "unknown"), "never taken for rejected: nobody refused it"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (10349, "Order TIF was set to DAY based on order preset."),
        (399, "Warning: your order will not be placed at the exchange until 09:30"),
        (404, "Shares for this order are not immediately available for short sale"),
        (2109, "Order Event Warning: Attribute 'Outside RTH' is ignored"),
        (110, "The price does not conform to the minimum price variation"),
    ],
)
def test_a_remark_about_a_live_order_leaves_it_live(
    broker: IBKRBroker, paper: Paper, code: int, text: str
) -> None:
    """The libraries show a live order as Cancelled (10349) or ValidationError (399 ...): ib_async 191."""
    order = resting(broker)
    paper.gateway("error", id=int(broker.get_order(order.id).broker_order_id or 0), code=code, message=text)
    found = eventually(lambda: (o := broker.get_order(order.id)).warnings and o, "the remark is kept")
    assert found.status == "submitted"
    assert str(code) in found.warnings[0]
    assert broker.cancel_order(order.id)


def test_202_is_a_cancel_with_its_reason(broker: IBKRBroker, paper: Paper) -> None:
    """Under ib_insync a 202 leaves the order at Submitted."""
    order = resting(broker)
    number = int(broker.get_order(order.id).broker_order_id or 0)
    paper.gateway("error", id=number, code=202, message="Order Canceled - reason:end of day")
    found = settled(broker, order, "cancelled")
    assert "end of day" in (found.reason or "")


def test_a_held_order_is_returned_as_accepted_and_not_waited_for(broker: IBKRBroker, paper: Paper) -> None:
    paper.fault("hold_orders", True)
    assert resting(broker).status == "accepted"


def test_an_order_that_filled_before_the_cancel_arrived_says_so(broker: IBKRBroker, paper: Paper) -> None:
    order = resting(broker)
    paper.admin("set_price", symbol="AAPL", price=90.0)
    settled(broker, order, "filled")
    with pytest.raises(OrderNotCancellable, match="filled"):
        broker.cancel_order(order.id)


def test_a_live_gateway_is_refused_in_paper_mode_and_the_other_way_round(
    make_broker: Callable[..., IBKRBroker],
) -> None:
    broker = make_broker(trading_mode="live")
    with pytest.raises(NotConnected, match="paper account"):
        broker.connect()
    assert not broker.health().ok


@contextlib.contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """A port that accepts, and sends `answer` to whatever comes; None closes at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    if answer is None:
                        line.close()
                    else:
                        held.append(line)
                        line.recv(1000)
                        line.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        for line in held:
            line.close()


def test_a_forwarder_without_a_gateway_behind_it_is_told_apart_from_a_firewall(
    make_broker: Callable[..., IBKRBroker],
) -> None:
    """socat accepts with the gateway dead, so an open port proves nothing (UnusualAlpha 55)."""
    with listening(None) as port, pytest.raises(NotConnected, match="no API answers"):
        make_broker(port=port).connect()
    with listening(b"") as port, pytest.raises(NotConnected, match="no API answers"):
        make_broker(port=port, timeout=0.5).connect()
    with pytest.raises(NotConnected, match="refuses connections"):
        make_broker(port=free_port()).connect()


def test_a_handshake_without_accounts_means_not_logged_in(make_broker: Callable[..., IBKRBroker]) -> None:
    version = b"176\x0020261121 10:00:00 UTC\x00"
    with listening(len(version).to_bytes(4, "big") + version) as port:
        broker = make_broker(port=port, timeout=0.5)
        with pytest.raises(NotAuthenticated, match="isn't logged in"):
            broker.connect()
        assert broker.health().state == "not_logged_in"


@pytest.mark.parametrize("mode", ["live", "paper", ""])
def test_a_second_factor_is_suspected_of_live_logins_that_are_not_there_only(
    make_broker: Callable[..., IBKRBroker], mode: str
) -> None:
    """A gateway that waits for a person looks, behind socat, as one that restarts; paper needs none."""

    def suspected(**options: Any) -> tuple[str, bool]:
        broker = make_broker(trading_mode=mode, timeout=0.5, **options)
        with pytest.raises(NotConnected):
            broker.connect()
        health = broker.health()
        return health.state, health.second_factor

    version = b"176\x0020261121 10:00:00 UTC\x00"
    with listening(len(version).to_bytes(4, "big") + version) as port:
        assert suspected(port=port) == ("not_logged_in", mode != "paper")
    with listening(None) as port:
        assert suspected(port=port) == ("no_api", mode != "paper")
    assert suspected(port=free_port()) == ("disconnected", False), "nothing is there that could wait"


def test_a_frozen_gateway_process_gets_a_deadline_not_an_endless_wait(
    broker: IBKRBroker, paper: Paper
) -> None:
    gateway = paper.processes[-1]
    gateway.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(NotConnected):
            broker.get_quote("MSFT")
        eventually(lambda: not broker.health().ok, "the frozen gateway is noticed")
    finally:
        gateway.send_signal(signal.SIGCONT)
    eventually(lambda: broker.health().ok, "it recovers")


def test_a_disconnect_in_the_middle_of_a_placement_leaves_its_outcome_open_never_unsent(
    broker: IBKRBroker, paper: Paper, journal: Journal
) -> None:
    account = broker.get_account().id
    broker.get_quote("AAPL")  # its contract is known, so that the order itself is what hangs
    paper.gateway("hang")
    session = broker._running().session
    assert session is not None
    failures: list[BaseException] = []

    def place() -> None:
        try:
            resting(broker, "in-the-middle")
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=place)
    thread.start()
    # The journal says `sent` a moment before: a disconnection then is one before anything has left.
    eventually(lambda: list(session.book), "the order left")
    assert [o.status for o in journal.recent(account, 1)] == ["sent"]
    broker.disconnect()
    thread.join(30)
    told = [type(failure) for failure in failures]
    assert told == [OrderOutcomeUnknown], "called unsent, it would be sent a second time"
    paper.gateway("resume")
