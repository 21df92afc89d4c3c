"""The Health page: what needs somebody, counted on every page; and what pages say when something is away."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from broker.alert_kinds import Kind
from tests.dashboard.conftest import Site, is_for_everybody
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import happens

Picture = Callable[[Page, str], Awaitable[None]]


def item(page: Page, name: str) -> Locator:
    return page.locator(".item", has=page.get_by_role("heading", name=name, exact=True))


@pytest.fixture
async def account(fleet_app: FastAPI, agents: Agents) -> str:
    """The id of a live account of ada's whose gateway runs."""
    fleet = fleet_app.state.fleet
    made: str = fleet.repository.connect("ada", "live", "ib-user", "secret", "ada").id
    fleet.changed(made)
    await happens(lambda: fleet.repository.get(made).status == "running")
    return made


@contextmanager
def without_accounts(database_url: str) -> Iterator[None]:
    """The database as it is in the middle of something that went wrong: a table isn't there."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as db:
        db.execute("set lock_timeout = '20s'")
        db.execute("alter table broker_accounts rename to broker_accounts_away")
        db.execute("update alembic_version set version_num = '0001'")
        try:
            yield
        finally:
            db.execute("alter table broker_accounts_away rename to broker_accounts")
            db.execute("update alembic_version set version_num = %s", [newest()])


def newest() -> str:
    from broker.service.database import SCHEMA_REVISION

    return SCHEMA_REVISION


async def test_what_needs_somebody_is_counted_on_every_page_until_it_is_well(
    site: Site, fleet_app: FastAPI, account: str, agents: Agents, context: BrowserContext, picture: Picture
) -> None:
    page = await site.log_in(context, page="/health-page")
    other = await context.new_page()
    await other.goto(f"{site.url}/orders")
    await expect(page.locator(".verdict")).to_contain_text("All is well")
    for name, said in (
        ("Simulated broker", "Connected"),
        ("Database", "Answers"),
        (account, "Running since"),
    ):
        await expect(item(page, name).locator(".mark")).to_contain_text(f"✓ {said}")
    await expect(item(page, "Reconciler")).to_contain_text("Run by this instance")
    await expect(item(page, "DigitalOcean")).to_contain_text("calls are left")
    await expect(other.locator("#problems")).to_have_text("")

    agents.of(account).session["authenticated"] = False
    fleet_app.state.fleet.runner.wake()
    # Once as ada's own, once as one of all users'.
    await expect(other.get_by_role("link", name="Health 2 problems")).to_be_visible()
    await expect(item(page, account).locator(".mark")).to_contain_text("▲ Initializing: second factor since")
    await expect(item(page, account)).to_contain_text("What to do: Approve the login on the phone")
    await expect(item(page, "second factor")).to_contain_text("1 account")
    await expect(page.locator(".alarm").first).to_contain_text("waits for the second factor")
    await picture(page, "health-second-factor")
    await is_for_everybody(page)

    agents.of(account).session["authenticated"] = True
    fleet_app.state.fleet.runner.wake()
    await expect(other.locator("#problems")).to_have_text("")
    await expect(page.locator(".verdict")).to_contain_text("All is well")


async def test_to_each_user_their_own(
    site: Site, fleet_app: FastAPI, account: str, agents: Agents, browser: Browser
) -> None:
    alerts = fleet_app.state.alerts
    alerts.notify(Kind.LIMIT, "max_order_value allows <b>5</b>", symbol="AAPL")
    agents.of(account).session["authenticated"] = False
    fleet_app.state.fleet.runner.wake()
    seen = {}
    for user, roles in (("olga", ["operator"]), ("ada", ["user"]), ("eve", ["user", "trader"])):
        context = await browser.new_context()
        page = await site.log_in(context, *roles, user=user, page="/health-page")
        await expect(page.locator(".alarm, .empty").last).to_be_visible()
        if user != "eve":
            await expect(page.locator(".alarm").first).to_contain_text("second factor")
        seen[user] = await page.locator("#health").inner_text()
        has = await page.get_by_role("navigation").inner_text()
        assert ("Fleet" in has) == (user == "olga")
        await context.close()
    assert "max_order_value allows <b>5</b>" in seen["olga"]
    assert "raise the limit" in seen["olga"]
    for user in ("ada", "eve"):
        assert not {w for w in ("max_order", "Reconciler", "Database", "DigitalOcean") if w in seen[user]}
    assert account in seen["ada"]
    assert account not in seen["eve"]
    assert "There was none" in seen["eve"]


async def test_what_cant_be_read_is_said_and_comes_back(
    site: Site, account: str, database_url: str, context: BrowserContext, picture: Picture
) -> None:
    page = await site.log_in(context, page="/health-page")
    own = await context.new_page()
    await own.goto(f"{site.url}/gateways")
    await expect(own.locator(".card")).to_contain_text(account)
    await expect(item(page, account)).to_contain_text("Running")
    with without_accounts(database_url):
        await expect(item(page, "Database").locator(".mark")).to_contain_text("✕ Away")
        await expect(item(page, "Your gateways").locator(".mark")).to_contain_text("? Can't be read")
        await expect(item(page, account)).to_be_visible()
        await expect(own.locator("#gateways > .notice")).to_contain_text(re.compile(r"is of .*\d s ago"))
        await expect(own.locator(".card")).to_contain_text(account)
        await picture(page, "health-database-away")
        await picture(own, "gateways-database-away")
        await is_for_everybody(own)
        # A page that is opened now has nothing to show, and says that too.
        await own.goto(f"{site.url}/fleet")
        await expect(own.locator("#fleet-accounts")).to_contain_text("can't be read now")
    await expect(item(page, "Database").locator(".mark")).to_contain_text("✓ Answers since")
    await expect(own.locator("#fleet-accounts")).to_contain_text(account)
    await expect(item(page, "Your gateways")).to_have_count(0)


async def test_refusals_are_pages_and_dialogs_that_say_what_to_do(
    site: Site, fleet_app: FastAPI, account: str, context: BrowserContext, picture: Picture
) -> None:
    page = await site.log_in(context, page="/gateways")
    for path, said in (
        ("/nowhere", "Nothing is here"),
        ("/?via=ib-demo-00000000", "No connection has the id"),
        ("/orders?via=" + "x" * 70, "at most 64 characters"),
    ):
        await page.goto(site.url + path)
        await expect(page.locator("main")).to_contain_text(said)
        await expect(page.get_by_role("link", name="Overview")).to_be_visible()
        await picture(page, f"error-{len(path)}")
    await is_for_everybody(page)

    await page.goto(f"{site.url}/gateways")
    card = page.locator(".card")
    await context.set_offline(True)
    await card.get_by_role("button", name="History").click()
    await expect(page.locator("#unanswered")).to_be_visible()
    await context.set_offline(False)
    await card.get_by_role("button", name="Credentials").click()
    await expect(page.locator("#unanswered")).to_be_hidden()
    await expect(page.locator("dialog")).to_contain_text("Other credentials")
    await page.keyboard.press("Escape")

    # Another user's now: what the page shows of it is old, and so is its button.
    await page.evaluate("document.getElementById('stream').remove()")
    await page.evaluate(
        "document.querySelector('.card button[hx-get$=credentials]').setAttribute('hx-get', '/gateways/x')"
    )
    await page.evaluate("htmx.process(document.querySelector('.card'))")
    await card.get_by_role("button", name="Credentials").click()
    await expect(page.locator("dialog [role=alert]")).to_contain_text("You have no account of this id")
    await expect(page.locator("dialog")).to_contain_text("It may have been deleted")
    await picture(page, "dialog-refused")
    await is_for_everybody(page)
    await page.keyboard.press("Escape")

    await context.clear_cookies()
    await card.get_by_role("button", name="History").click()
    await page.wait_for_url(f"{site.url}/login?next=/gateways")
    site.complaints.clear()  # the browser's own lines about these answers
