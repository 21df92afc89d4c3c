"""What instances tell each other over the database."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from broker.fleet.wakes import ASKED, PASSED, Wakes


class Instance:
    """One with what it has heard."""

    def __init__(self, engine: Engine, stack: str) -> None:
        self.heard: queue.Queue[tuple[str, str]] = queue.Queue()
        self.wakes = Wakes(engine, stack, lambda what, account: self.heard.put((what, account)))
        self.wakes.start()
        assert self.next() == (ASKED, ""), "what was told before it listened isn't known"

    def next(self) -> tuple[str, str]:
        return self.heard.get(timeout=30)


@pytest.fixture
def two(engine: Engine) -> Iterator[tuple[Instance, Instance]]:
    made = Instance(engine, "test"), Instance(engine, "test")
    yield made
    for instance in made:
        instance.wakes.stop()


def test_the_others_of_a_stack_are_told_and_nobody_else(
    engine: Engine, two: tuple[Instance, Instance]
) -> None:
    one, other = two
    stranger = Instance(engine, "another stack")
    one.wakes.tell(ASKED, "ib-demo-1")
    one.wakes.tell(PASSED)
    assert [other.next(), other.next()] == [(ASKED, "ib-demo-1"), (PASSED, "")]
    other.wakes.tell(PASSED)
    assert one.next() == (PASSED, ""), "its own came first, if it had heard them"
    stranger.wakes.tell(PASSED)
    stranger.wakes.stop()
    other.wakes.tell(ASKED)
    assert one.next() == (ASKED, "")
    assert stranger.heard.empty()


def test_a_connection_that_is_cut_is_made_again_and_nothing_is_missed(
    engine: Engine, two: tuple[Instance, Instance]
) -> None:
    one, other = two
    with engine.begin() as db:
        listening = text(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where query = 'listen fleet' and datname = current_database()"
        )
        assert len(db.execute(listening).all()) == 2
    one.wakes.tell(ASKED, "ib-demo-2")
    assert other.next()[0] == ASKED, "the account or, heard anew, anything"
    assert other.wakes.listening.wait(30)


def test_a_database_that_is_away_is_no_failure_of_who_tells(engine: Engine) -> None:
    from sqlalchemy import create_engine

    away = create_engine(
        "postgresql+psycopg://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 2}
    )
    wakes = Wakes(away, "test", lambda *_told: None)
    wakes.start()
    wakes.tell(ASKED)
    wakes.stop()
    assert not wakes._thread.is_alive()
