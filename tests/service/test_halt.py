"""Kill switch and limits where they matter: several processes, one PostgreSQL; and over HTTP."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, func, select

from broker.models import Status
from broker.risk.switch import KillSwitch
from broker.risk.tables import admissions
from broker.service.database import make_engine
from broker.tables import orders

BASE = "/api/v1/connections/default"
ROOT = Path(__file__).resolve().parents[2]

#: places orders one after the other until one is refused, and says what refused it
TRADER = """
import sys
from broker.brokers.simulated import SimulatedBroker
from broker.errors import BrokerError
from broker.journal import Journal
from broker.models import OrderRequest
from broker.risk.guard import Guard
from broker.risk.limits import PAPER
from broker.risk.live import Gateway
from broker.risk.modes import Declared
from broker.service.database import make_engine
import dataclasses

url, name, rate = sys.stdin.readline().split()
journal = Journal(make_engine(url))
limits = dataclasses.replace(PAPER, orders_per_minute=int(rate), max_long_value=None, max_order_value=None)
guard = Guard(journal, Declared("simulated"), Gateway("simulated", ""), limits, position_lag=0.0)
broker = SimulatedBroker(journal, cash=1e12, guard=guard)
guard.attach(broker)
broker.connect()
print("ready", flush=True)
sys.stdin.readline()
placed = 0
while True:
    try:
        broker.place_order(OrderRequest("AAPL", "buy", 1, "market", client_order_id=f"{name}-{placed}"))
    except BrokerError as refusal:
        print(type(refusal).__name__, placed, flush=True)
        break
    placed += 1
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    yield made
    made.dispose()


def traders(url: str, rate: int) -> list[subprocess.Popen[str]]:
    """Two processes that begin to trade at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TRADER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    for name, process in zip("ab", started, strict=True):
        assert process.stdin is not None
        process.stdin.write(f"{url} {name} {rate}\n")
        process.stdin.flush()
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def sent(engine: Engine) -> set[str]:
    with engine.connect() as db:
        return {row.id for row in db.execute(select(orders.c.id).where(orders.c.status != Status.RECORDED))}


def test_a_halt_stops_whatever_two_processes_would_send_after_it(database_url: str, engine: Engine) -> None:
    switch = KillSwitch(engine, environment={})
    running = traders(database_url, 1_000_000)
    poll = threading.Event()
    while len(sent(engine)) < 10:
        poll.wait(0.01)
    switch.halt("ada", "odd fills")
    before = sent(engine)
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert [words[0] for words in said] == ["Halted", "Halted"]
    assert sent(engine) == before, "nothing is sent once halt() has returned"
    assert len(before) == sum(int(words[1]) for words in said)


def test_two_processes_share_the_orders_of_a_minute(database_url: str, engine: Engine) -> None:
    said = [p.communicate(timeout=60)[0].split() for p in traders(database_url, 25)]
    assert [words[0] for words in said] == ["LimitExceeded", "LimitExceeded"]
    assert len(sent(engine)) == sum(int(words[1]) for words in said) == 25
    with engine.connect() as db:
        assert db.execute(select(func.count()).select_from(admissions)).scalar() == 25


Clients = Callable[..., httpx.AsyncClient]


def order(**changes: object) -> dict[str, object]:
    body: dict[str, object] = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market"}
    return body | {"client_order_id": "one"} | changes


async def test_an_operator_halts_and_resumes_and_cancels_still_work(
    app: FastAPI, client_for: Clients
) -> None:
    async with client_for("operator") as operator, client_for("trader") as trader:
        working = order(client_order_id="w", order_type="limit", limit_price=1.0)
        placed = (await trader.post(f"{BASE}/orders", json=working)).json()
        answer = await operator.post("/api/v1/halt", json={"reason": "odd fills"})
        assert answer.status_code == 200
        assert (answer.json()["halted"], answer.json()["by"]) == (True, "ada")
        refused = await trader.post(f"{BASE}/orders", json=order())
        assert refused.status_code in (409, 423, 503)
        assert refused.json()["type"].endswith("halted")
        assert "odd fills" in refused.json()["detail"]
        assert (await trader.delete(f"{BASE}/orders/{placed['id']}")).status_code == 200
        state = (await operator.get("/api/v1/halt")).json()
        assert (state["halted"], state["reason"], state["changes"][0]["action"]) == (
            True,
            "odd fills",
            "halt",
        )
        answer = await operator.post("/api/v1/resume", json={"reason": "looked at it"})
        assert not answer.json()["halted"]
        assert (await trader.post(f"{BASE}/orders", json=order())).status_code == 201


async def test_a_halt_can_cancel_what_works(app: FastAPI, client_for: Clients) -> None:
    async with client_for("operator") as operator, client_for("trader") as trader:
        body = order(order_type="limit", limit_price=1.0)
        placed = (await trader.post(f"{BASE}/orders", json=body)).json()
        answer = await operator.post("/api/v1/halt", json={"reason": "odd fills", "cancel_orders": True})
        assert [o["id"] for o in answer.json()["cancelled"]["default"]] == [placed["id"]]
        assert (await trader.get(f"{BASE}/orders/{placed['id']}")).json()["status"] == "cancelled"


@pytest.mark.parametrize("role", ["user", "trader"])
async def test_only_operators_touch_the_switch(app: FastAPI, client_for: Clients, role: str) -> None:
    async with client_for(role) as client:
        assert (await client.get("/api/v1/halt")).status_code == 403
        assert (await client.post("/api/v1/halt", json={"reason": "mine"})).status_code == 403
        assert (await client.post("/api/v1/resume", json={"reason": "mine"})).status_code == 403


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x", "by": "bob"}], ids=str
)
async def test_a_halt_needs_a_reason_and_takes_its_person_from_the_token(
    app: FastAPI, client_for: Clients, body: dict[str, str]
) -> None:
    async with client_for("operator") as operator:
        assert (await operator.post("/api/v1/halt", json=body)).status_code == 422
        assert not (await operator.get("/api/v1/halt")).json()["halted"]


async def test_trades_are_exported_as_csv(app: FastAPI, client_for: Clients) -> None:
    async with client_for("trader") as trader:
        await trader.post(f"{BASE}/orders", json=order(qty=2))
        answer = await trader.get(f"{BASE}/trades.csv", params={"zone": "America/New_York"})
        assert answer.headers["content-type"].startswith("text/csv")
        (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert (row["symbol"], row["qty"], row["client_order_id"]) == ("AAPL", "2", "one")
        wrong = await trader.get(f"{BASE}/trades.csv", params={"zone": "Mars/Olympus"})
        assert wrong.status_code == 422


async def test_a_limit_over_http_says_which_what_and_how_much(app: FastAPI, client_for: Clients) -> None:
    async with client_for("trader") as trader:
        answer = await trader.post(f"{BASE}/orders", json=order(qty=1_000_000))
        assert answer.status_code in (403, 409, 422)
        assert answer.json()["type"].endswith("limit-exceeded")
        assert "max_order_value" in json.dumps(answer.json())
        assert (await trader.get(f"{BASE}/orders")).json() == []
