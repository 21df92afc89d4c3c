"""Faults of the paper Alpaca, and what unmodified alpaca-py makes of them on the wire."""

from __future__ import annotations

import pytest
import requests

from tests.alpaca.conftest import KEY, Alpaca, market, refused


async def test_alpaca_py_posts_four_times_on_504_and_doubles_an_order_without_an_id(
    alpaca: Alpaca,
) -> None:
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.fault("lose_answers", status=504, times=4, methods=["POST"])
    error = await refused(lambda: alpaca.client().submit_order(market(1)))
    assert error.status_code == 504
    assert alpaca.posts() == 4, "alpaca-py repeats a POST three times"
    assert len(alpaca.book()) == 4, "four orders, where one was meant: why a client order id must be set"


async def test_with_an_id_the_repeated_order_is_refused_as_a_duplicate(alpaca: Alpaca) -> None:
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.fault("lose_answers", status=504, times=1, methods=["POST"])
    error = await refused(lambda: alpaca.client().submit_order(market(1, client_order_id="mine")))
    assert (error.status_code, error.code) == (422, 40010001)
    assert (alpaca.posts(), len(alpaca.book())) == (2, 1), "a refusal that hides an order which is live"
    found = await alpaca.trade(lambda client: client.get_order_by_client_id("mine"))
    await alpaca.until(found, "filled")


async def test_an_answer_can_get_lost_with_its_connection(alpaca: Alpaca) -> None:
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.fault("lose_answers", status=0, methods=["POST"])
    with pytest.raises(requests.exceptions.ConnectionError):
        await alpaca.buy(1, client_order_id="mine")
    assert [order["order_ref"] for order in alpaca.book()] == ["mine"], "it was carried out"


async def test_an_exchange_that_loses_the_answer_leaves_a_504_and_an_order(alpaca: Alpaca) -> None:
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.admin.set_fault("lose_answers", 1)
    client = alpaca.client()
    client._retry = 0
    error = await refused(lambda: client.submit_order(market(1, client_order_id="mine")))
    assert error.status_code == 504
    assert (await alpaca.trade(lambda c: c.get_order_by_client_id("mine"))).client_order_id == "mine"


@pytest.mark.parametrize(("status", "sent"), [(500, 1), (503, 1), (429, 2), (504, 2)])
async def test_api_errors_come_before_anything_is_done(alpaca: Alpaca, status: int, sent: int) -> None:
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.fault("api_errors", status=status, times=1, methods=["POST"])
    if sent == 1:
        error = await refused(lambda: alpaca.client().submit_order(market(1)))
        assert error.status_code == status
    else:
        await alpaca.buy(1)  # alpaca-py repeats after 429 and 504
    assert (alpaca.posts(), len(alpaca.book())) == (sent, sent - 1)


async def test_more_than_the_minutes_requests_are_429_with_the_headers(alpaca: Alpaca) -> None:
    await alpaca.trade(lambda client: client.get_account())
    alpaca.gateway.sessions[KEY].limits["trading"]._now = lambda: 6_000_030.0
    await alpaca.fault("rate_limit", per_minute=2)
    client = alpaca.client()
    client._retry = 0
    await alpaca.trade(lambda client: client.get_clock())
    await alpaca.trade(lambda client: client.get_clock())
    error = await refused(client.get_clock)
    assert (error.status_code, error.code) == (429, 42910000)
    headers = error.response.headers
    assert headers["X-RateLimit-Limit"] == "2"
    assert headers["X-RateLimit-Remaining"] == "0"
    assert headers["X-RateLimit-Reset"] == "6000060", "seconds since the epoch, when the minute ends"


async def test_a_slow_answer_outlasts_an_impatient_client(alpaca: Alpaca) -> None:
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.fault("slow_answers", seconds=0.5, methods=["GET"])
    client = alpaca.client()
    headers = client._get_default_headers()

    def impatient(_: object) -> object:
        return requests.get(f"{alpaca.url}/trading/v2/account", headers=headers, timeout=0.05)

    with pytest.raises(requests.exceptions.ReadTimeout):
        await alpaca.trade(impatient)
