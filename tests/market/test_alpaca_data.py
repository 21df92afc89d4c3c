"""Alpaca's quotes through the real alpaca-py, from the paper Alpaca over a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from broker.errors import ConfigurationError, MarketDataUnavailable, RateLimited, UnknownSymbol
from broker.market.alpaca_data import AlpacaQuotes
from tests.alpaca.conftest import KEY, SECRET, Alpaca, alpaca, folder  # noqa: F401 - fixtures


def source(alpaca: Alpaca) -> AlpacaQuotes:  # noqa: F811
    return AlpacaQuotes(KEY, SECRET, endpoint=f"{alpaca.url}/data")


async def test_a_quote_has_the_book_the_last_trade_and_their_time(alpaca: Alpaca) -> None:  # noqa: F811
    quote = await asyncio.to_thread(source(alpaca).quote, "aapl")
    assert quote.symbol == "AAPL"
    assert quote.last == pytest.approx(100, rel=0.02)
    assert quote.bid is not None
    assert quote.ask is not None
    assert 0 < quote.bid <= quote.ask
    assert (quote.kind, quote.source) == ("live", "alpaca iex")
    assert quote.age_seconds < 60
    assert quote.time.endswith("+00:00")


async def test_the_delayed_feed_is_called_delayed(alpaca: Alpaca) -> None:  # noqa: F811
    delayed = AlpacaQuotes(KEY, SECRET, feed="delayed_sip", endpoint=f"{alpaca.url}/data")
    assert (await asyncio.to_thread(delayed.quote, "AAPL")).kind == "delayed"


async def test_a_symbol_that_alpaca_does_not_know_is_unknown(alpaca: Alpaca) -> None:  # noqa: F811
    with pytest.raises(UnknownSymbol):
        await asyncio.to_thread(source(alpaca).quote, "NOSUCHX")


async def test_no_subscription_is_no_price_and_says_so(alpaca: Alpaca) -> None:  # noqa: F811
    await alpaca.admin.set_fault("market_data", "none")
    with pytest.raises(MarketDataUnavailable, match="subscription") as failure:
        await asyncio.to_thread(source(alpaca).quote, "AAPL")
    assert failure.value.code == 403


async def test_a_wrong_key_is_no_price(alpaca: Alpaca) -> None:  # noqa: F811
    wrong = AlpacaQuotes("PKWRONGWRONGWRONG001", SECRET, endpoint=f"{alpaca.url}/data")
    with pytest.raises(MarketDataUnavailable):
        await asyncio.to_thread(wrong.quote, "AAPL")


def answering(response: bytes) -> tuple[str, list[bytes]]:
    """A server that gives one answer to every request, and what it was sent."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536))
                connection.sendall(response)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", seen


def test_too_many_requests_is_asked_once_and_says_when_to_come_back() -> None:
    body = b'{"code": 42910000, "message": "rate limit exceeded"}'
    head = (
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    )
    url, seen = answering(head % len(body) + body)
    with pytest.raises(RateLimited) as failure:
        AlpacaQuotes(KEY, SECRET, endpoint=url).quote("AAPL")
    assert failure.value.retry_after == 7
    assert len(seen) == 1, "alpaca-py would ask four times"


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"AAPL": {"latestTrade": {"p": "x"}}}', b'{"AAPL": {}}']
)
def test_an_answer_without_a_price_is_no_quote(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    url, _ = answering(head % len(body) + body)
    with pytest.raises(MarketDataUnavailable):
        AlpacaQuotes(KEY, SECRET, endpoint=url).quote("AAPL")


def test_no_way_to_alpaca_is_no_price() -> None:
    with pytest.raises(MarketDataUnavailable, match="can't be reached"):
        AlpacaQuotes(KEY, SECRET, endpoint="http://127.0.0.1:1").quote("AAPL")


def test_a_feed_that_alpaca_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="iex, sip, delayed_sip"):
        AlpacaQuotes(KEY, SECRET, feed="opra")
