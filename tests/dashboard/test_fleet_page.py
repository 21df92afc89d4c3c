"""The operators' page of the whole fleet: sought by its address, live, and there for nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, Page, expect

from broker.fleet.digitalocean import Droplet
from broker.service.dashboard import fleet_page
from tests.dashboard.conftest import Site, is_for_everybody

Picture = Callable[[Page, str], Awaitable[None]]


@pytest.fixture
async def fleet(fleet_app: FastAPI) -> Any:
    """A fleet without passes, so that its accounts stay as the test puts them."""
    found = fleet_app.state.fleet
    assert await found.call(found.runner.stop)
    return found


def put(fleet: Any, user: str, environment: str, status: str, reason: str = "", region: str = "nyc1") -> str:
    made = fleet.repository.connect(user, environment, f"{user}-{status}-{reason}-{region}", "secret", user)
    values = {"status": status, "status_reason": reason, "do_region": region}
    return str(fleet.repository.change(made, **values).id)


async def test_an_operator_finds_accounts_by_what_is_in_the_address(
    site: Site, fleet: Any, context: BrowserContext, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_page, "PER_PAGE", 2)
    locked = put(fleet, "ada", "live", "error", "login_locked")
    away = put(fleet, "ada", "paper", "error", "unreachable", "fra1")
    runs = [put(fleet, user, "demo", "running") for user in ("ada", "eve", "x_%<b>")]
    fleet.repository.quarantine([Droplet(77, "odd", "active", False, "", "nyc1", "s", ("account:q",), "")])

    page = await site.log_in(context, "operator", user="olga", page="/fleet")
    await expect(page.locator("#fleet-counts")).to_contain_text("5 accounts fit")
    await expect(page.locator("#fleet-passes")).to_contain_text("77 odd")
    shown = await page.locator("#fleet-accounts tbody tr").evaluate_all("rows => rows.map(r => r.id)")
    while await page.get_by_role("link", name="Next page").count():
        before = page.url
        await page.get_by_role("link", name="Next page").click()
        await page.wait_for_url(lambda url, before=before: url != before)
        await expect(page.locator("#fleet-accounts tbody tr").first).to_be_visible()
        shown += await page.locator("#fleet-accounts tbody tr").evaluate_all("rows => rows.map(r => r.id)")
    assert sorted(shown) == sorted(f"account-{a}" for a in (locked, away, *runs))
    await page.get_by_role("link", name="First page").click()
    await expect(page.get_by_role("link", name="First page")).to_have_count(0)

    # By keyboard alone: the fields in their order, Enter to ask.
    await page.get_by_label("Environment").focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.type("X_%<b>")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**search=X_%25%3Cb%3E*")
    await expect(page.locator("#fleet-accounts tbody tr")).to_have_count(1)
    await expect(page.locator("#fleet-accounts")).to_contain_text("x_%<b>")

    await page.goto(f"{site.url}/fleet?status=error&region=fra1")
    await expect(page.locator("#fleet-accounts tbody")).to_contain_text(away)
    await expect(page.locator("#fleet-accounts tbody tr")).to_have_count(1)
    await expect(page.get_by_label("Region")).to_have_value("fra1")
    await page.goto(f"{site.url}/fleet?status=error")
    await page.get_by_role("link", name="1 login locked").click()
    await page.wait_for_url("**status=error&reason=login_locked")
    await expect(page.locator("#fleet-accounts tbody tr")).to_have_count(1)
    await picture(page, "fleet")
    await is_for_everybody(page)

    # Live: what changes is seen without a reload.
    fleet.repository.change(fleet.repository.get(locked), status="running", status_reason="")
    await expect(page.locator("#fleet-accounts")).to_contain_text("No account fits")
    await expect(page.locator("#fleet-counts")).to_contain_text("4 running")
    await expect(page.locator("#fleet-counts")).to_contain_text("0 accounts fit")


async def test_for_others_it_is_a_page_that_there_isnt(site: Site, fleet: Any, browser: Browser) -> None:
    put(fleet, "ada", "demo", "running")
    context = await browser.new_context()
    page = await site.log_in(context, "user", "trader", user="ada")
    await expect(page.get_by_role("link", name="Health")).to_be_visible()
    await expect(page.get_by_role("link", name="Fleet")).to_have_count(0)
    answers = await page.evaluate(
        """async () => {
          const told = async (path) => {
            const answer = await fetch(path);
            const {request_id, ...rest} = await answer.json();
            return [answer.status, JSON.stringify(rest), [...answer.headers.keys()].join()];
          };
          return [await told('/fleet'), await told('/no-such-page')];
        }"""
    )
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    stream = await page.evaluate(
        """async () => {
          const stop = new AbortController();
          const answer = await fetch('/live/default?parts=fleet-accounts,fleet-counts,problems',
                                     {signal: stop.signal});
          const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
          let text = '';
          while (!text.includes('problems')) text += (await reader.read()).value;
          stop.abort();
          return text;
        }"""
    )
    assert "fleet" not in stream
    await context.close()
    site.complaints.clear()  # the browser's own lines about the 404s
