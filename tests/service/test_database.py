"""The database: the schema that migrations make, the journal over PostgreSQL, and who may hold the lease."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

import broker.fleet.models
import broker.service.alarms
import broker.service.values  # noqa: F401 - all add their tables to the metadata
from broker.errors import DuplicateClientOrderId
from broker.fleet.keys import FleetKeys
from broker.fleet.repository import Repository
from broker.fleet.vault import LocalKeyWrapper, Vault
from broker.journal import Journal
from broker.models import Fill, OrderReport, Status
from broker.pins import PinnedCertificates
from broker.placement import legs_of
from broker.service import lease
from broker.service.database import SCHEMA_REVISION, make_engine, why_not_ready
from broker.service.lease import LeaseStore
from broker.service.migrate import MIGRATIONS, migrate
from broker.tables import metadata
from tests.broker.ordering import request


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    yield made
    made.dispose()


def test_migrations_make_exactly_the_tables_that_the_code_uses(engine: Engine) -> None:
    with engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_an_upgrade_keeps_orders_and_a_downgrade_gives_them_back(empty_database: str) -> None:
    engine = make_engine(empty_database, 0)
    told: list[str] = []
    migrate(engine, "0001", say=told.append)
    with engine.begin() as db:
        db.execute(
            text(
                "insert into orders (id, account, client_order_id, symbol, side, qty, order_type,"
                " time_in_force, status, warnings, filled_qty, created_at, updated_at) values"
                " (:id, 'A1', 'old', 'AAPL', 'buy', 5, 'market', 'day', 'filled', '[]', 5, now(), now())"
            ),
            {"id": "a" * 32},
        )
    migrate(engine, say=told.append)
    journal = Journal(engine)
    [old] = journal.recent("A1", 10)
    assert (old.client_order_id, old.legs, old.commission, old.extended_hours) == ("old", [], None, False)
    journal.enter("A1", request(client_order_id="new", order_type="stop", stop_price=5.0))
    migrate(engine, "0001", say=told.append)
    with engine.connect() as db:
        assert set(db.execute(text("select client_order_id from orders")).scalars()) == {"old", "new"}
    migrate(engine, say=told.append)
    assert [o.client_order_id for o in journal.recent("A1", 10)] == ["new", "old"]
    engine.dispose()


def test_an_orders_timeline_says_what_an_older_version_did_not_keep(empty_database: str) -> None:
    engine = make_engine(empty_database, 0)
    migrate(engine, "0007", say=lambda _said: None)
    journal = Journal(engine)
    order, _ = journal.enter("A1", request(client_order_id="old"))
    with engine.begin() as db:  # as the version before this one wrote it
        db.execute(text("update orders set status = 'submitted' where id = :of"), {"of": order.id})
    migrate(engine, say=lambda _said: None)
    journal.update(order.id, OrderReport(Status.FILLED, filled_qty=5, filled_price=190.0))
    told = Fill("e1", order.id, "old", "AAPL", "buy", 5, 190.0, "2026-11-20T15:00:00+00:00", account_id="A1")
    journal.fills.record(replace(told, commission=1.0))
    life = journal.timeline(journal.get("A1", order.id))
    assert [entry.status or entry.kind for entry in life.entries] == ["sent", "gap", "filled", "fill"]
    assert "It was submitted at last" in life.entries[1].text
    migrate(engine, "0007", say=lambda _said: None)
    assert journal.get("A1", order.id).status == Status.FILLED
    migrate(engine, say=lambda _said: None)
    forgotten = journal.timeline(journal.get("A1", order.id))
    assert {entry.status or entry.kind for entry in forgotten.entries} == {"sent", "gap", "filled", "fill"}
    engine.dispose()


def test_a_gateways_pin_is_taken_on_data_and_forgotten_by_a_downgrade(empty_database: str) -> None:
    engine = make_engine(empty_database, 0)
    migrate(engine, "0004", say=lambda _said: None)
    Journal(engine).enter("A1", request(client_order_id="kept"))
    migrate(engine, say=lambda _said: None)
    pins = PinnedCertificates(engine)
    first, second = b"a certificate", b"another one"
    with ThreadPoolExecutor(8) as threads:
        shown = [first if n % 2 else second for n in range(16)]
        assert len(set(threads.map(lambda der: pins.first_seen("10.0.0.5:5000", der), shown))) == 1
    pins.accept("10.0.0.5:5000", second, "ada")
    assert pins.first_seen("10.0.0.5:5000", first) == hashlib.sha256(second).hexdigest()
    assert pins.find("10.0.0.6:5000") is None
    migrate(engine, "0004", say=lambda _said: None)
    migrate(engine, say=lambda _said: None)
    assert pins.find("10.0.0.5:5000") is None
    assert [order.client_order_id for order in Journal(engine).recent("A1", 10)] == ["kept"]
    engine.dispose()


def test_a_downgrade_forgets_the_chosen_ib_account_and_no_more(empty_database: str) -> None:
    engine = make_engine(empty_database, 0)
    migrate(engine, say=lambda _said: None)
    vault = Vault(LocalKeyWrapper({"k1": b"1" * 32}))
    accounts = Repository(engine, vault, FleetKeys(engine, vault))
    made = accounts.connect("ada", "paper", "ib-user", "secret", "ada")
    accounts.change(made, "ib_account", "ada", "DU2222222", ib_account="DU2222222")
    migrate(engine, "0008", say=lambda _said: None)
    migrate(engine, say=lambda _said: None)
    [kept] = accounts.of_user("ada")
    assert (kept.id, kept.ib_account) == (made.id, "")
    assert accounts.login(kept)[0].password == "secret"
    engine.dispose()


def test_fills_recorded_by_many_threads_at_once_are_one(engine: Engine) -> None:
    journal = Journal(engine)
    order, _ = journal.enter("A1", request(client_order_id="one"))
    told = Fill("e1", order.id, "one", "AAPL", "buy", 5, 200.0, "2026-11-20T15:00:00+00:00", account_id="A1")
    with ThreadPoolExecutor(8) as threads:
        news = list(threads.map(lambda _n: journal.fills.record(told), range(16)))
    assert sum(n is not None for n in news) == 1
    journal.fills.record(replace(told, commission=1.5))
    assert journal.get("A1", order.id).commission == 1.5
    assert journal.fills.compare("A1", {"AAPL": 5.0}) == []


def test_the_service_expects_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA_REVISION


def test_readiness_wants_the_schema_and_takes_a_newer_one(engine: Engine, empty_database: str) -> None:
    assert why_not_ready(engine) == ""
    with engine.begin() as db:
        db.execute(text("update alembic_version set version_num = '9999'"))
    assert why_not_ready(engine) == "", "an old revision serves beside the new one's migrations"
    with engine.begin() as db:
        db.execute(text("update alembic_version set version_num = :now"), {"now": SCHEMA_REVISION})
    empty = make_engine(empty_database)
    assert "run the migration job" in why_not_ready(empty)
    empty.dispose()


def test_readiness_of_a_database_that_is_away_names_no_secret() -> None:
    engine = make_engine("postgresql+psycopg://user:hunter2@127.0.0.1:9/db")
    assert "can't be used" in why_not_ready(engine)
    assert "hunter2" not in why_not_ready(engine)


def test_of_many_threads_one_order_is_entered_and_one_may_send_it(engine: Engine) -> None:
    journal = Journal(engine)
    asked = request(client_order_id="one")
    with ThreadPoolExecutor(12) as threads:
        entered = list(threads.map(lambda _n: journal.enter("A1", asked), range(24)))
        assert len({order.id for order, _ in entered}) == 1
        assert sum(may_send for _, may_send in entered) == 1
        journal.mark_unsent(entered[0][0].id)
        again = list(threads.map(lambda _n: journal.enter("A1", asked), range(24)))
        assert sum(may_send for _, may_send in again) == 1, "what didn't leave may be sent once more"


def test_a_bracket_is_entered_and_given_up_as_one(engine: Engine) -> None:
    journal = Journal(engine)
    bracket = request(client_order_id="b", take_profit_price=220.0, stop_loss_price=180.0)
    journal.enter("A1", legs_of(bracket)[1])
    with pytest.raises(DuplicateClientOrderId):
        journal.enter("A1", replace(bracket, qty=9), legs=legs_of(replace(bracket, qty=9)))
    assert journal.find("A1", "b") is None, "a leg's id was taken: nothing is entered"
    with ThreadPoolExecutor(8) as threads:
        entered = list(threads.map(lambda _n: journal.enter("A2", bracket, legs=legs_of(bracket)), range(16)))
    assert sum(may_send for _, may_send in entered) == 1
    assert {tuple(order.legs) for order, _ in entered} == {tuple(entered[0][0].legs)}
    journal.update(entered[0][0].id, OrderReport(Status.REJECTED, reason="no"))
    assert {order.status for order in journal.recent("A2", 10)} == {Status.REJECTED}
    assert len(journal.recent("A2", 10)) == 3


def test_reports_at_the_same_time_lose_nothing(engine: Engine) -> None:
    journal = Journal(engine)
    order, _ = journal.enter("A1", request(client_order_id="one", qty=50))
    reports = [
        OrderReport(Status.PARTIALLY_FILLED, filled_qty=n, filled_price=10.0, warnings=(f"w{n}",))
        for n in range(1, 21)
    ]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda r: journal.update(order.id, r), reports))
    found = journal.get("A1", order.id)
    assert found.filled_qty == 20
    assert len(found.warnings) == 20
    life = journal.timeline(found)
    assert sum(entry.kind == "message" for entry in life.entries) == 20
    assert sum(entry.status == "partially_filled" for entry in life.entries) == 1


def test_what_many_write_of_one_order_at_once_is_all_there_in_one_order(engine: Engine) -> None:
    journal, other = Journal(engine), Journal(engine)
    order, _ = journal.enter("A1", request(client_order_id="one", qty=50))

    def write(n: int) -> None:
        if n % 2:
            told = Fill(f"e{n}", order.id, "one", "AAPL", "buy", 1, 1.0, "2026-11-20T15:00:00+00:00")
            (journal if n % 3 else other).fills.record(replace(told, account_id="A1"))
        else:
            (other if n % 3 else journal).end_change(order.id, f"w{n}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))
    entries = journal.timeline(journal.get("A1", order.id)).entries
    assert sum(entry.kind == "fill" for entry in entries) == 20
    assert sum(entry.kind == "message" for entry in entries) == 20


def store(engine: Engine, holder: str, ttl: float = 60.0) -> LeaseStore:
    return LeaseStore(engine, "ibkr:gateway:4002:1", holder, ttl)


def test_one_of_many_takes_a_free_lease(engine: Engine) -> None:
    stores = [store(engine, f"h{n}") for n in range(12)]
    with ThreadPoolExecutor(12) as threads:
        taken = list(threads.map(lambda s: s.take().held, stores))
    assert sum(taken) == 1


def test_a_holder_renews_and_sees_who_asks(engine: Engine) -> None:
    old, new = store(engine, "old"), store(engine, "new")
    assert old.take() == lease.Taken(True, False)
    assert new.take().held is False
    assert old.take() == lease.Taken(True, False), "trying to take it isn't asking for it"
    new.ask()
    assert old.take() == lease.Taken(True, True)


def test_what_is_released_on_request_goes_to_who_asked(engine: Engine) -> None:
    old, new, third = (store(engine, name) for name in ("old", "new", "third"))
    old.take()
    new.ask()
    old.release()
    assert old.take().held is False, "whoever hands over doesn't snatch it back"
    assert third.take().held is False
    assert new.take() == lease.Taken(True, False)


def test_a_request_of_a_process_that_died_is_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "WANTED_SECONDS", 0.0)
    old, new = store(engine, "old"), store(engine, "new")
    old.take()
    new.ask()
    time.sleep(0.01)  # the database's clock has to pass the moment of asking
    assert old.take() == lease.Taken(True, False), "nobody is there any more to hand over to"
    old.release()
    assert old.take().held


def test_a_lease_runs_out_on_the_databases_clock(engine: Engine) -> None:
    old, new = store(engine, "old", ttl=0.0), store(engine, "new")
    assert old.take().held
    assert new.take().held, "its time was over at once"
    old.release()
    assert new.take().held, "only the holder can release"
