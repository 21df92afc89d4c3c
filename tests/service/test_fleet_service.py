"""The fleet as a part of the service: settings, switched off, opened late, enrolments."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from broker.errors import ConfigurationError
from broker.service.app import create_app
from broker.service.settings import Settings
from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.conftest import Issuer
from tests.service.fleet_agents import settings_of
from tests.service.fleet_fixtures import (
    BASE,
    ada,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    login,
    until,
    user_for,
)

__all__ = ["ada", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


async def test_a_service_without_a_fleet_says_how_to_have_one(app: FastAPI, issuer: Issuer) -> None:
    headers = {"authorization": f"Bearer {issuer.token('user')}"}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
        for answer in (
            await client.get(f"{BASE}/accounts"),
            await client.post(f"{BASE}/connect", json=login()),
            await client.post("/api/v1/enrolments", json={"account_id": "", "token": "", "certificate": ""}),
        ):
            assert (answer.status_code, kind(answer)) == (404, "fleet-off")
            assert "FLEET_ENABLED=true" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"FLEET_ENABLED": "maybe"}, "FLEET_ENABLED: write true or false"),
        ({"DIGITAL_OCEAN_API_KEY": ""}, "DIGITAL_OCEAN_API_KEY: is required where FLEET_ENABLED is true"),
        ({"DIGITAL_OCEAN_IMAGE_ID": ""}, "DIGITAL_OCEAN_IMAGE_ID: 182556282 is a private snapshot"),
        ({"DIGITAL_OCEAN_IMAGE_ID": "7"}, "DIGITAL_OCEAN_IMAGE_ID: 7 is a private snapshot"),
        ({"FLEET_SERVICE_URL": "http://service.example"}, "FLEET_SERVICE_URL: must be an https:// address"),
        ({"DIGITAL_OCEAN_API_URL": "ftp://x"}, "DIGITAL_OCEAN_API_URL: must be an https:// address"),
        ({"FLEET_CLIENT_ADDRESS": "10.0.0.0/8"}, "FLEET_CLIENT_ADDRESS: must be the one IPv4 address"),
        ({"FLEET_IBEAM_IMAGE": "voyz/ibeam:latest"}, "FLEET_IBEAM_IMAGE: pin the image by its digest"),
        ({"FLEET_KMS_KEY": "projects/p"}, "FLEET_KEY_FILE, FLEET_KMS_KEY: set one of them"),
        ({"SCHEDULER_EMAIL": ""}, "SCHEDULER_AUDIENCE, SCHEDULER_EMAIL: set both"),
        ({"FLEET_ACCOUNTS_PER_USER": "0"}, "FLEET_ACCOUNTS_PER_USER: Input should be greater"),
        ({"STACK": "a b"}, "STACK: write it with letters"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(
    fleet_environment: dict[str, str], change: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        Settings.from_environment(fleet_environment | change)
    assert says in wrong.value.message
    assert fleet_environment["DIGITAL_OCEAN_API_KEY"] not in wrong.value.message


def test_all_wrong_settings_are_named_at_once(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        Settings.from_environment(environment | {"FLEET_ENABLED": "1", "STACK": "?"})
    for name in ("STACK", "API_KEY", "IMAGE_ID", "SERVICE_URL", "CLIENT_ADDRESS", "IBEAM_IMAGE", "KEY_FILE"):
        assert name in wrong.value.message


def test_what_a_fleet_that_is_off_would_need_isnt_asked_for(environment: dict[str, str]) -> None:
    assert Settings.from_environment(environment | {"DIGITAL_OCEAN_IMAGE_ID": "182556282"}).fleet is None


def test_a_key_file_that_cant_be_read_ends_the_start(fleet_environment: dict[str, str]) -> None:
    settings = Settings.from_environment(fleet_environment | {"FLEET_KEY_FILE": "/nowhere/fleet.key"})
    with pytest.raises(ConfigurationError, match="FLEET_KEY_FILE"):
        create_app(settings)


async def test_a_fleet_waits_for_its_tables_and_opens_by_itself(
    fleet_environment: dict[str, str], empty_database: str, issuer: Issuer
) -> None:
    from broker.service.database import make_engine
    from broker.service.migrate import migrate

    made = create_app(Settings.from_environment(fleet_environment | {"DATABASE_URL": empty_database}))
    headers = {"authorization": f"Bearer {issuer.token('user')}"}
    async with (
        made.router.lifespan_context(made),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=made), base_url="http://service" + BASE, headers=headers
        ) as client,
    ):
        away = await client.get("/accounts")
        assert (away.status_code, kind(away)) == (503, "fleet-away")
        assert away.json()["since"]
        engine = make_engine(empty_database, 0)
        migrate(engine, say=lambda _said: None)
        engine.dispose()
        await until(lambda: client.get("/accounts"), None, key="next")


async def test_an_enrolment_with_anothers_token_is_refused_and_alarms(
    fleet_app: FastAPI, ada: httpx.AsyncClient, cloud: LocalDigitalOcean
) -> None:
    made = (await ada.post("/connect", json=login())).json()
    [spec] = cloud.do(lambda: list(cloud.cloud.machines.specs.values()))
    token = settings_of(spec["user_data"])["enrolment_token"]
    from tests.fleet.certificates import make_certificate

    certificate = make_certificate("127.0.0.1")[1].decode()
    good = {"account_id": made["account_id"], "token": token, "certificate": certificate}
    transport = httpx.ASGITransport(app=fleet_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for changed in ({"token": "x" * 43}, {"account_id": "ib-demo-0"}, {"certificate": "none"}):
            answer = await client.post("/api/v1/enrolments", json=good | changed)
            assert (answer.status_code, kind(answer)) == (403, "enrolment-refused")
            assert token not in answer.text
        later = await client.post("/api/v1/enrolments", json=good)
        assert (later.status_code, kind(later)) == (503, "enrolment-later"), "nobody listens there yet"
        odd = await client.post("/api/v1/enrolments", json={"token": "hunter2", "more": "hunter2"})
        assert odd.status_code == 422
        assert "hunter2" not in odd.text
    refused = fleet_app.state.fleet.metrics.enrolments_refused.labels("unknown_token")
    assert refused._value.get() == 3


def test_the_page_for_users_names_all_reasons_routes_and_variables() -> None:
    from broker.fleet import account
    from broker.service.fleet_routes import accounts
    from broker.service.fleet_settings import FleetEnvironment

    page = Path("docs/fleet.md").read_text("utf-8")
    for reason in account._MESSAGES.keys() - {"initializing", "error"}:
        assert f"`{reason}`" in page, reason
    paths = {getattr(route, "path", "").rpartition("interactivebrokers")[2] for route in accounts.routes}
    assert len(paths) > 10
    for path in paths:
        assert path.replace("{account_id}", "{id}") in page, path
    for name in FleetEnvironment.model_fields.keys() - {"stack"}:
        assert f"`{name.upper()}`" in page, name
