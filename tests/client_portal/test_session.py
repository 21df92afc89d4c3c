"""Login, brokerage session, IBeam's maintenance and health server, over the real exchange."""

from __future__ import annotations

import asyncio
import string

import httpx
import pytest

from localcloud.exchange.admin import Admin
from localcloud.exchange.link import Link
from localcloud.gateways.client_portal.settings import AddressRules

USER, PASSWORD = "paperuser", "correct horse"
EVERY_PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "


async def test_a_gateway_is_healthy_to_ibind_once_it_is_logged_in(portal):
    assert await portal.ibind(lambda client: client.check_health()) is True
    assert await portal.ibind(lambda client: client.check_auth_status()) is True
    tickle = (await portal.post("/tickle")).json()
    assert tickle["iserver"]["authStatus"]["established"] is True
    assert tickle["ssoExpires"] > 0


@pytest.mark.parametrize("source", ["env", "fs"])
async def test_a_password_of_every_printable_character_logs_in(source, exchange, start, folder):
    exchange.exchange.add_user("quoted", EVERY_PRINTABLE)
    environment = {"IBEAM_ACCOUNT": "quoted", "IBEAM_PASSWORD": EVERY_PRINTABLE}
    if source == "fs":
        (folder / "account").write_text("quoted\n")
        (folder / "password").write_text(EVERY_PRINTABLE + "\n")
        environment = {
            "IBEAM_SECRETS_SOURCE": "fs",
            "IBEAM_ACCOUNT": str(folder / "account"),
            "IBEAM_PASSWORD": str(folder / "password"),
        }
    portal = await start(environment)
    assert portal.gateway.session.authenticated


async def test_credentials_that_arrive_later_are_found_at_the_next_round(start, folder):
    environment = {"IBEAM_SECRETS_SOURCE": "fs", "IBEAM_ACCOUNT": str(folder / "account"),
                   "IBEAM_PASSWORD": str(folder / "password")}  # fmt: skip
    portal = await start(environment)
    assert (await portal.post("/tickle")).status_code == 401
    assert portal.ibeam.failed == 0
    (folder / "account").write_text(USER)
    (folder / "password").write_text(PASSWORD)
    await portal.ibeam.maintain()
    assert portal.gateway.session.authenticated


async def test_with_a_wrong_password_everything_is_401(start):
    portal = await start({"IBEAM_ACCOUNT": USER, "IBEAM_PASSWORD": "wrong"})
    for path in ("/portfolio/accounts", "/iserver/accounts", "/iserver/auth/status", "/nowhere"):
        answer = await portal.get(path)
        assert (answer.status_code, answer.json()["statusCode"]) == (401, 401)
    assert await portal.ibind(lambda client: client.check_health()) is False


async def test_a_paper_login_without_the_paper_flag_is_not_a_login(start):
    portal = await start(mode="live")
    assert not portal.gateway.session.logged_in
    assert portal.ibeam.failed == 1


async def test_after_too_many_failed_logins_nothing_is_tried_and_health_hangs(start, exchange):
    portal = await start({"IBEAM_ACCOUNT": USER, "IBEAM_PASSWORD": "wrong"}, health=True, max_failed_auth=2)
    async with httpx.AsyncClient(base_url=portal.health, timeout=0.2) as health:
        assert (await health.get("/readyz")).status_code == 503
        await portal.ibeam.maintain()
        assert portal.ibeam.gave_up
        with pytest.raises(httpx.ReadTimeout):
            await health.get("/livez")


async def test_a_second_factor_that_nobody_confirms_counts_only_if_timeouts_do(start, exchange):
    exchange.exchange.add_user("careful", PASSWORD, mode="live", second_factor=True)
    environment = {"IBEAM_ACCOUNT": "careful", "IBEAM_PASSWORD": PASSWORD}
    lenient = await start(environment, mode="live", oauth_timeout=0.01)
    assert lenient.ibeam.failed == 0
    strict = await start(environment, mode="live", oauth_timeout=0.01, count_timeout_as_failed=True)
    assert strict.ibeam.failed == 1
    exchange.exchange.users["careful"].approved.set()
    await strict.ibeam.maintain()
    assert strict.gateway.session.authenticated


async def test_a_login_elsewhere_takes_the_session_and_maintenance_takes_it_back(start, folder):
    portal = await start(health=True)
    taken = asyncio.Event()
    portal.gateway.session.listeners.append(lambda event: taken.set())
    other = await Link.connect(f"unix:{folder / 'exchange'}")
    await other.login(USER, PASSWORD)
    await taken.wait()
    status = (await portal.post("/iserver/auth/status")).json()
    assert (status["authenticated"], status["competing"]) == (False, True)
    refused = await portal.get("/iserver/accounts")
    assert (refused.status_code, refused.json()["error"]) == (400, "Bad Request: no bridge")
    assert await portal.ibind(lambda client: client.check_health()) is False
    async with httpx.AsyncClient(base_url=portal.health) as health:
        assert (await health.get("/readyz")).text == "OK", "IBeam's readiness doesn't look at competing"
    polite = await portal.post("/iserver/auth/ssodh/init", {"publish": True, "compete": False})
    assert polite.status_code == 500
    await portal.ibeam.maintain()
    assert portal.gateway.session.authenticated
    await other.close()


async def test_a_lost_line_to_the_servers_is_no_bridge_until_the_session_is_opened_again(portal, exchange):
    lost = asyncio.Event()
    portal.gateway.session.listeners.append(lambda event: event["event"] == "link_lost" and lost.set())
    exchange.administration.answer({"method": "cut_links"})
    await lost.wait()
    status = (await portal.post("/iserver/auth/status")).json()
    assert (status["connected"], status["competing"]) == (False, False)
    assert (await portal.get("/iserver/accounts")).status_code == 400
    again = await portal.ibind(lambda client: client.initialize_brokerage_session().data)
    assert again["authenticated"] is True
    assert (await portal.get("/iserver/accounts")).status_code == 200


async def test_unreachable_servers_are_503(portal, exchange):
    exchange.exchange.faults.link_down = True
    lost = asyncio.Event()
    portal.gateway.session.listeners.append(lambda event: event["event"] == "link_lost" and lost.set())
    exchange.administration.answer({"method": "cut_links"})
    await lost.wait()
    assert (await portal.post("/iserver/auth/ssodh/init", {"compete": True})).status_code == 503


async def test_after_a_logout_there_is_no_login_until_the_next_round(portal):
    assert (await portal.post("/logout")).json() == {"status": True}
    assert (await portal.post("/tickle")).status_code == 401
    await portal.ibeam.maintain()
    assert (await portal.post("/tickle")).status_code == 200


async def test_anybody_who_reaches_the_health_port_can_switch_the_gateway_off(start):
    portal = await start(health=True)
    async with httpx.AsyncClient(base_url=portal.health) as health:
        assert (await health.get("/livez")).status_code == 200
        await health.get("/deactivate")
        assert (await health.get("/livez")).status_code == 500
        assert (await portal.post("/tickle")).status_code == 401


async def test_calls_that_need_accounts_first_say_so(portal):
    for path in ("/portfolio/DU1234567/summary", "/iserver/account/orders", "/iserver/account/trades",
                 "/iserver/marketdata/snapshot?conids=265598"):  # fmt: skip
        answer = await portal.get(path)
        assert (answer.status_code, answer.json()["error"]) == (500, "Please query /accounts first")


async def test_unknown_paths_and_accounts_are_refused(portal):
    assert (await portal.get("/nowhere")).status_code == 404
    await portal.get("/portfolio/accounts")
    assert (await portal.get("/portfolio/DU0000000/summary")).status_code == 500


async def test_pacing_limits_are_kept(start):
    portal = await start(limits=True)
    assert (await portal.get("/portfolio/accounts")).status_code == 200
    assert (await portal.get("/portfolio/accounts")).status_code == 429
    answers = [(await portal.get("/iserver/auth/status")).status_code for _ in range(12)]
    assert answers[:9] == [200] * 9
    assert 429 in answers[9:]


def test_address_rules_have_the_gateways_peculiarities(tmp_path):
    rules = AddressRules(allow=("10.1.2.3", "172.17.*"), deny=("0.0.0.0/0", "172.17.9.9"))
    assert rules.admits("10.1.2.3"), "a range in deny matches nothing"
    assert rules.admits("172.17.0.1")
    assert not rules.admits("172.17.9.9"), "deny is looked at first"
    assert not rules.admits("10.1.2.4")
    assert AddressRules(allow=(), deny=None).admits("8.8.8.8"), "without deny everybody is let in"
    conf = tmp_path / "conf.yaml"
    conf.write_text("ips:\n  allow: [10.0.0.*]\n  deny: [0.0.0.0/0]\n")
    assert AddressRules.read(conf).admits("10.0.0.7")
    assert AddressRules.read(tmp_path / "none").admits("192.168.1.1")


async def test_a_client_outside_the_address_rules_gets_access_denied(start):
    portal = await start(addresses=AddressRules(allow=("10.*",)))
    answer = await portal.get("/iserver/auth/status")
    assert (answer.status_code, answer.text) == (404, "Access Denied")


async def test_the_daily_reset_ends_the_login(portal, folder):
    told = asyncio.Event()
    portal.gateway.session.listeners.append(lambda event: told.set())
    async with Admin(str(folder / "admin")) as admin:
        assert await admin.gateway("daily_reset", USER) == 1
        await told.wait()
    assert (await portal.post("/tickle")).status_code == 401


async def test_authenticated_but_not_established_is_mended_by_a_new_brokerage_session(portal, folder):
    async with Admin(str(folder / "admin")) as admin:
        await admin.gateway("lose_established", USER)
    status = (await portal.post("/iserver/auth/status")).json()
    assert (status["authenticated"], status["established"]) == (True, False)
    again = (await portal.post("/iserver/auth/ssodh/init", {"compete": True})).json()
    assert again["established"] is True


async def test_errors_of_the_api_can_be_switched_on(portal, folder):
    async with Admin(str(folder / "admin")) as admin:
        await admin.gateway("api_errors", USER, status=429, times=2)
    answers = [(await portal.get("/iserver/auth/status")).status_code for _ in range(3)]
    assert answers == [429, 429, 200]
