"""BROKER_TYPE=ibeam in the service: the first certificate is pinned, and an operator accepts another one."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI

from broker.pins import PinnedCertificates, gateway_of
from broker.service.app import create_app
from broker.service.settings import Settings
from tests.broker.portal_gateway import ACCOUNT, Portal, portal_gateway, write_certificate
from tests.service.conftest import Issuer
from tests.service.user_gateways import client, until

__all__ = ["client"]

HERE = "/connections/default/certificate"


@pytest.fixture
def portal() -> Iterator[Portal]:
    with portal_gateway() as made:
        yield made


@pytest.fixture
def ibeam(environment: dict[str, str], portal: Portal) -> dict[str, str]:
    own = {"BROKER_TYPE": "ibeam", "IBEAM_URL": portal.url, "IBEAM_TOKEN": "a-token", "LEASE_SECONDS": "3"}
    return environment | own | {"IBKR_TRADING_MODE": "paper"}


async def test_another_certificate_is_refused_until_an_operator_accepts_it(
    ibeam: dict[str, str], portal: Portal, client: Callable[..., httpx.AsyncClient], issuer: Issuer
) -> None:
    app: FastAPI = create_app(Settings.from_environment(ibeam))
    async with app.router.lifespan_context(app):
        pins = PinnedCertificates(app.state.engine)
        ada, boss = client(app), client(app, "boss", "operator")
        await until(lambda: pins.find(gateway_of(portal.url)))
        first = (await boss.get(HERE)).json()
        assert (first["pinned"], first["pinned_by"]) == (first["shown"], "first seen")
        while (answer := await ada.get("/connections/default/account")).status_code != 200:
            assert answer.status_code == 503
        assert answer.json()["id"] == ACCOUNT

    other, _ = write_certificate(portal.folder, "other")
    app = create_app(Settings.from_environment(ibeam))
    async with app.router.lifespan_context(app):
        pins = PinnedCertificates(app.state.engine)
        pins.accept(gateway_of(portal.url), ssl.PEM_cert_to_DER_cert(other.read_text()), "a test")
        broker = app.state.connections["default"]._broker
        broker.disconnect()
        broker.start()
        ada, boss = client(app), client(app, "boss", "operator")
        await until(lambda: broker.health().state == "certificate_changed")
        seen = len(portal.tap.seen)
        refused = await ada.get("/connections/default/account")
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (
            503,
            "certificate-mismatch",
        )
        assert (await ada.put(HERE, json={"sha256": first["shown"]})).status_code == 403
        wrong = await boss.put(HERE, json={"sha256": "f" * 64})
        assert (wrong.status_code, "nothing was changed" in wrong.text) == (422, True)
        assert (await boss.put(HERE, json={"sha256": "short"})).status_code == 422
        assert len(portal.tap.seen) == seen
        accepted = (await boss.put(HERE, json={"sha256": first["shown"]})).json()
        assert (accepted["pinned"], accepted["pinned_by"]) == (first["shown"], "boss")
        await until(lambda: broker.health().ok)


async def test_a_broker_without_a_pin_says_so(app: FastAPI, client: Callable[..., httpx.AsyncClient]) -> None:
    answer = await client(app, "boss", "operator").get(HERE)
    assert (answer.status_code, "BROKER_TYPE=ibeam" in answer.text) == (503, True)
