"""A connection's gateway is verified by operators, over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from broker.risk.tables import verifications

VERIFICATION = "/api/v1/connections/default/verification"
Clients = Callable[..., httpx.AsyncClient]


async def test_an_operators_verification_is_shown_and_entered(app: FastAPI, client_for: Clients) -> None:
    async with client_for("operator") as operator:
        answer = await operator.post(VERIFICATION, json={})
    assert answer.status_code == 200
    found = answer.json()
    assert found["passed"]
    assert [check["name"] for check in found["checks"]][-1] == "order"
    with app.state.engine.connect() as db:
        [row] = db.execute(select(verifications)).all()
    assert (row.account, row.verified_by, row.passed) == (found["account"], "ada", True)


async def test_what_fails_is_told_with_its_remedy(app: FastAPI, client_for: Clients) -> None:
    async with client_for("operator") as operator:
        await operator.post("/api/v1/halt", json={"reason": "odd fills"})
        found = (await operator.post(VERIFICATION, json={})).json()
    [failed] = [check for check in found["checks"] if not check["passed"]]
    assert not found["passed"]
    assert "odd fills" in failed["found"]
    assert "halted" in failed["remedy"]


@pytest.mark.parametrize("role", ["user", "trader"])
async def test_only_operators_verify(app: FastAPI, client_for: Clients, role: str) -> None:
    async with client_for(role) as client:
        assert (await client.post(VERIFICATION, json={})).status_code == 403


@pytest.mark.parametrize("body", [{"symbol": ""}, {"symbol": "A" * 33}, {"symbols": "SPY"}], ids=str)
async def test_a_wrong_request_is_refused(app: FastAPI, client_for: Clients, body: dict[str, str]) -> None:
    async with client_for("operator") as operator:
        assert (await operator.post(VERIFICATION, json=body)).status_code == 422
