"""Users' gateways: connected, watched as they come up, stopped, deleted; to each, their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.dashboard.conftest import PATIENCE, Site
from tests.service.fleet_agents import Agents

Picture = Callable[[Page, str], Awaitable[None]]
SECRET = "pa\\ss\"w'ord&$<b>"


async def connect(page: Page, username: str = "ib-user", password: str = SECRET) -> None:
    await page.get_by_role("button", name="Connect an account").click()
    await page.get_by_label("IBKR user name").fill(username)
    await page.get_by_label("IBKR password").fill(password)
    await page.locator("dialog").get_by_role("button", name="Connect").click()


async def test_a_gateway_is_connected_watched_and_deleted(
    site: Site, agents: Agents, context: BrowserContext, browser: Browser, picture: Picture
) -> None:
    page = await site.log_in(context, page="/gateways")
    await expect(page.locator("#gateways")).to_contain_text("No account is connected yet")
    await connect(page)
    await expect(page.locator("dialog")).to_contain_text("Its server is being made")
    await page.locator("dialog").get_by_role("button", name="Close").last.click()
    card = page.locator(".card")
    await expect(card.locator(".order-status")).to_have_text("running", timeout=2 * PATIENCE)
    await expect(card).to_contain_text("4.00 USD a month")
    for said in ("Cost this month", "Cost since connected"):
        await expect(card.locator("div", has_text=said).last).to_contain_text("0.01 USD")
    await picture(page, "gateways")
    account = await card.locator("h3").inner_text()
    assert agents.of(account).pushed["password"] == SECRET

    await card.get_by_role("button", name="History").click()
    await expect(page.locator("dialog .timeline")).to_contain_text("running")
    await expect(page.locator("dialog .timeline")).to_contain_text("connect by ada")
    await picture(page, "gateway-history")
    seen = await page.content()
    assert "pa\\ss" not in seen, "a password is never shown again"
    await page.locator("dialog").get_by_role("button", name="Close").last.click()

    # Somebody else sees nothing of it.
    theirs = await browser.new_context()
    eve = await site.log_in(theirs, "user", "trader", user="eve", page="/gateways")
    await expect(eve.locator("#gateways")).to_contain_text("No account is connected yet")
    for path in (
        f"/gateways/{account}",
        f"/gateways/{account}/delete",
        f"/live/{account}?parts=tiles",
        f"/?via={account}",
    ):
        found = await eve.evaluate("path => fetch(path).then(a => a.status)", path)
        assert found == 404, path
    for action in ("stop", "delete", "credentials"):
        sent = await eve.evaluate(
            "path => fetch(path, {method: 'POST'}).then(a => a.text())", f"/gateways/{account}/{action}"
        )
        assert "no account of this id" in sent or "empty" in sent, action
    await theirs.close()
    site.complaints.clear()  # the browser's own lines about those refusals

    await card.get_by_role("button", name="Stop").click()
    await page.locator("dialog").get_by_role("button", name="Stop").click()
    await expect(card.locator(".order-status")).to_have_text("stopped")
    await expect(page.locator("dialog")).not_to_be_visible()
    await card.get_by_role("button", name="Delete").click()
    await page.locator("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator("#gateways")).to_contain_text("No account is connected yet")


async def test_a_refused_login_keeps_the_name_and_not_the_password(
    site: Site, context: BrowserContext
) -> None:
    page = await site.log_in(context, page="/gateways")
    await connect(page, username="ib user\\", password="hunter2" * 60)
    await expect(page.locator("dialog [role=alert]")).to_contain_text("256")
    await expect(page.get_by_label("IBKR user name")).to_have_value("ib user\\")
    await expect(page.get_by_label("IBKR password")).to_have_value("")
    assert "hunter2" not in await page.content()
