"""Users alerted of their own accounts: which channels are taken, who is told what, and who isn't."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import requests

from broker.alerts import Alerts
from broker.fleet.user_alerts import AlertUrlError, check_alert_url
from tests.broker.alert_receiver import Receiver, listening
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    Clients,
    ada,
    agents,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    happens,
    login,
    until,
    user_for,
)
from tests.service.test_bad_requests import assert_problem

__all__ = ["ada", "agents", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]
TELEGRAM = "tgram://123456789:AbcdefghijklmnopqrstuvwxyzAbcdefghi/12345678"
TOKEN = "AbcdefghijklmnopqrstuvwxyzAbcdefghi"


class Internet:
    """What would leave for services on the internet. Whoever it is for takes everything."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.lock = threading.Lock()

    def send(self, _session: Any, request: requests.PreparedRequest, **_more: Any) -> requests.Response:
        body = request.body or ""
        with self.lock:
            text = body.decode() if isinstance(body, bytes) else str(body)
            self.sent.append((str(urlsplit(request.url or "").hostname), text))
        answer = requests.Response()
        answer.status_code, answer._content = 200, b'{"ok": true, "result": []}'
        return answer

    def said(self, words: str) -> bool:
        return any(words in text for _, text in self.sent)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    found, real = Internet(), requests.Session.send

    def send(session: Any, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        local = (urlsplit(request.url or "").hostname or "").startswith("127.")
        return real(session, request, **more) if local else found.send(session, request, **more)

    monkeypatch.setattr(requests.Session, "send", send)
    return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """The operators' channel."""
    with listening() as made:
        yield made


@pytest.fixture
def environment(environment: dict[str, str], receiver: Receiver) -> dict[str, str]:
    return environment | {"ALERT_URLS": receiver.url}


async def running(client: httpx.AsyncClient, name: str, environment: str) -> str:
    account: str = (await client.post("/connect", json=login(name, environment))).json()["account_id"]
    await until(lambda: client.get(f"/accounts/{account}/status"), "running")
    return account


async def test_a_user_with_a_channel_is_alerted_there_and_operators_of_the_others(
    internet: Internet,
    ada: httpx.AsyncClient,
    agents: Agents,
    receiver: Receiver,
    database_url: str,
) -> None:
    mine = await running(ada, "ib-one", "live")
    other = await running(ada, "ib-two", "live")
    path = f"/accounts/{mine}/alerts"
    assert (await ada.get(path)).json() == {"service": None}
    answer = await ada.put(path, json={"url": TELEGRAM})
    assert (answer.status_code, answer.json()) == (200, {"service": "tgram"})
    assert (await ada.get(path)).json() == {"service": "tgram"}
    await happens(lambda: internet.said("Alerts of your account arrive here"))
    for account in (mine, other):
        agents.of(account).session["authenticated"] = False
        agents.of(account).lines = ["waiting for two-factor authentication"]
    await happens(lambda: internet.said("approve the login on your phone"))
    await happens(lambda: any(other in alert["message"] for alert in receiver.received))
    assert not any(mine in alert["message"] for alert in receiver.received), "their user was told"
    assert {host for host, _ in internet.sent} == {"api.telegram.org"}
    with psycopg.connect(database_url.replace("+psycopg", "")) as db:
        row = db.execute("select * from account_alerts").fetchone()
    assert TOKEN not in str(row)
    assert TOKEN.encode() not in b"".join(bytes(v) for v in row or () if isinstance(v, bytes))
    assert (await ada.delete(path)).status_code == 204
    assert (await ada.get(path)).json() == {"service": None}


async def test_a_channel_that_could_reach_elsewhere_is_refused_and_not_repeated(
    ada: httpx.AsyncClient, internet: Internet
) -> None:
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    for url in (
        "http://169.254.169.254/computeMetadata/v1/",
        "json://127.0.0.1:5432/",
        "mailto://user:pass@gmail.com?smtp=10.0.0.5",
        "ntfy://10.0.0.5/topic",
        "discord://id/token?template=/etc/passwd",
        f"{TELEGRAM}%3Ftopic=1",
        "tgram://",
        "tgram://no-token-1",
        TELEGRAM.upper(),
        "slack://a b/c",
        f"pbul://{'x' * 500}",
        "",
    ):
        answer = await ada.put(f"/accounts/{account}/alerts", json={"url": url})
        found = assert_problem(answer, 422)
        assert [e["field"] for e in found["errors"]] == ["url"]
        assert url in ("", "tgram://") or url not in answer.text
    assert (await ada.get(f"/accounts/{account}/alerts")).json() == {"service": None}
    assert internet.sent == []


@pytest.mark.parametrize(
    "url",
    [
        TELEGRAM,
        f"tgram://123456789:{TOKEN}/@169.254.169.254:80",
        f"tgram://root:x@10.0.0.5:123456789:{TOKEN}/1",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "discord://10.0.0.5:80/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7/general",
        "pover://uQiRzpo4DXghDmr9QzzfQu27cmVRsG@azGDORePK8gMaC0QOYAMyEEuzJnyUi",
        "pbul://10.0.0.5:8080/device",
    ],
)
def test_what_is_taken_reaches_the_service_itself_and_nothing_else(internet: Internet, url: str) -> None:
    twisted = "10.0.0.5" in url or "169.254" in url
    try:
        check_alert_url(url)
    except AlertUrlError:
        assert twisted, "a good one is taken"
        return
    alerts = Alerts()
    alerts.tell(url, "ib-demo-1", "second_factor", "approve it")
    alerts.wait()
    assert internet.sent or twisted
    assert {host for host, _ in internet.sent} <= {
        "api.telegram.org", "discord.com", "hooks.slack.com", "api.pushover.net", "api.pushbullet.com",
    }  # fmt: skip


async def test_a_channel_is_kept_by_its_accounts_user_only(ada: httpx.AsyncClient, user_for: Clients) -> None:
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    async with user_for("eve") as eve:
        for ask in (eve.get, eve.delete, _put(eve)):
            assert_problem(await ask(f"/accounts/{account}/alerts"), 404)


def _put(client: httpx.AsyncClient) -> Callable[[str], Any]:
    return lambda path: client.put(path, json={"url": TELEGRAM})
