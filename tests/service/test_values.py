"""What an account was worth: kept each minute, thinned out for a month, gone after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select

from broker.errors import NotConnected
from broker.models import AccountInfo
from broker.service.database import make_engine
from broker.service.values import ValueKeeper, ValueStore, account_values


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The database."""
    made = make_engine(database_url)
    yield made
    made.dispose()


def worth(value: float, account: str = "DU1") -> AccountInfo:
    return AccountInfo(account, 0, 0, value, value, value)


def remember(engine: Engine, *points: tuple[timedelta, float], account: str = "DU1") -> None:
    now = datetime.now(UTC)
    with engine.begin() as db:
        for ago, value in points:
            row = {
                "connection": "default",
                "at": now - ago,
                "account": account,
                "value": value,
                "currency": "USD",
            }
            db.execute(account_values.insert().values(row))


def test_a_day_has_the_last_value_of_each_minute_and_a_month_of_each_hour(engine: Engine) -> None:
    hour = timedelta(hours=1)
    # Two values of one minute, two minutes of one hour, and one of another account.
    start = datetime.now(UTC).replace(minute=10, second=0, microsecond=0) - 3 * hour
    now = datetime.now(UTC)
    for seconds, value in ((1, 100.0), (30, 101.0), (70, 102.0)):
        remember(engine, (now - start - timedelta(seconds=seconds), value))
    remember(engine, (timedelta(days=5), 90.0), (timedelta(days=40), 1.0))
    remember(engine, (2 * hour, 7.0), account="DU2")

    store = ValueStore(engine)
    day = store.read("default", "DU1", "day")
    assert day.values == [101.0, 102.0]
    assert day.times == sorted(day.times)
    month = store.read("default", "DU1", "month")
    assert month.values == [90.0, 102.0]
    assert month.times[0] == pytest.approx((now - timedelta(days=5)).timestamp(), abs=60)
    assert store.read("other", "DU1", "day").values == []


def test_values_of_long_ago_go(engine: Engine) -> None:
    remember(engine, (timedelta(days=40), 1.0), (timedelta(days=31), 2.0))
    ValueStore(engine).keep("default", worth(3.0))
    with engine.connect() as db:
        assert db.execute(select(account_values.c.value).order_by(account_values.c.at)).scalars().all() == [
            2.0,
            3.0,
        ]


async def test_a_connection_that_is_away_leaves_a_gap_and_goes_on(engine: Engine) -> None:
    answers: list[AccountInfo | Exception] = [worth(1.0), NotConnected("away"), worth(2.0)]
    asked = asyncio.Event()

    async def account() -> AccountInfo:
        answer = answers.pop(0)
        if not answers:
            asked.set()
            answers.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    keeper = ValueKeeper("default", account, ValueStore(engine), every=1.1)
    keeper.start()
    await asyncio.wait_for(asked.wait(), 30)
    found: list[float] = []
    for _ in range(200):
        with engine.connect() as db:
            found = list(db.execute(select(account_values.c.value).order_by(account_values.c.at)).scalars())
        if 2.0 in found:
            break
        await asyncio.sleep(0.05)
    await keeper.stop()
    assert found[:2] == [1.0, 2.0]
    with engine.connect() as db:
        count = db.execute(select(func.count()).select_from(account_values)).scalar_one()
    await asyncio.sleep(1.2)
    with engine.connect() as db:
        assert db.execute(select(func.count()).select_from(account_values)).scalar_one() == count


async def test_a_stop_that_comes_together_with_the_answer_is_heard(engine: Engine) -> None:
    answer: asyncio.Future[AccountInfo] = asyncio.get_running_loop().create_future()

    async def account() -> AccountInfo:
        return await answer

    keeper = ValueKeeper("default", account, ValueStore(engine))
    keeper.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result(worth(1.0))
    stopping = asyncio.create_task(keeper.stop())
    stopped, _ = await asyncio.wait({stopping}, timeout=5)
    assert stopped
