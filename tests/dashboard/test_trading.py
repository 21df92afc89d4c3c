"""Orders from the dashboard: previewed, confirmed, seen as they change, cancelled; and the kill switch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import BrowserContext, Page, expect

from tests.dashboard.conftest import Site

Picture = Callable[[Page, str], Awaitable[None]]


async def fill_in(page: Page, **values: str) -> None:
    """The open order form."""
    for name, value in values.items():
        field = page.locator(f"#order-{name}")
        if await field.evaluate("e => e.tagName") == "SELECT":
            await field.select_option(value)
        else:
            await field.fill(value)


async def test_an_order_is_previewed_confirmed_and_seen_without_a_reload(
    site: Site, context: BrowserContext, picture: Picture
) -> None:
    page = await site.log_in(context, page="/orders")
    await expect(page.locator("#orders")).to_contain_text("No order yet")
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="3")
    await page.get_by_role("button", name="Preview").click()
    await expect(page.locator("dialog")).to_contain_text("BUY 3 AAPL")
    await expect(page.locator("dialog")).to_contain_text("Buying power after it")
    await picture(page, "order-preview")
    await page.get_by_role("button", name="Place the order").click()
    await expect(page.locator("dialog")).to_contain_text("The order is placed")
    await page.locator("dialog").get_by_role("button", name="Close").last.click()
    await expect(page.locator("#orders tbody tr")).to_have_count(1)
    await expect(page.locator("#orders tbody tr")).to_contain_text("filled")
    await expect(page.locator("#position-AAPL")).to_contain_text("3")
    await picture(page, "orders")

    await page.get_by_role("button", name="Details of buy AAPL").click()
    await expect(page.locator("dialog .timeline")).to_contain_text("executed 3 at")
    await expect(page.locator("dialog .timeline")).to_contain_text("in the journal, then sent, by ada")
    await picture(page, "order-life")


async def test_what_is_wrong_with_an_order_is_said_beside_the_field_and_nothing_is_lost(
    site: Site, context: BrowserContext
) -> None:
    page = await site.log_in(context, page="/orders")
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="three", order_type="limit")
    await page.get_by_role("button", name="Preview").click()
    await expect(page.locator("#error-qty")).to_be_visible()
    await expect(page.locator("#order-qty")).to_have_value("three")
    await expect(page.locator("#order-symbol")).to_have_value("AAPL")
    await expect(page.locator("#order-limit_price")).to_be_visible()
    await fill_in(page, qty="3")
    await page.get_by_role("button", name="Preview").click()
    await expect(page.locator("#error-limit_price")).to_be_visible()


async def test_a_working_order_is_changed_and_cancelled(site: Site, context: BrowserContext) -> None:
    page = await site.log_in(context, page="/orders")
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="5", order_type="limit", limit_price="150")
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_role("button", name="Place the order").click()
    await expect(page.locator("dialog")).to_contain_text("The order is placed")
    await page.locator("dialog").get_by_role("button", name="Close").last.click()
    row = page.locator("#orders tbody tr")
    await expect(row).to_contain_text("submitted")
    await row.get_by_role("button", name="Details").click()
    await page.get_by_role("button", name="Change …").click()
    await page.locator("#change-limit_price").fill("151")
    await page.get_by_role("button", name="Change it").click()
    await expect(page.locator("dialog")).to_contain_text("The order is changed")
    await page.locator("dialog").get_by_role("button", name="Close").last.click()
    await expect(page.locator("#orders tbody")).to_contain_text("151.00")
    await page.get_by_role("button", name="Cancel buy AAPL").first.click()
    await expect(page.locator("#said")).to_contain_text("being cancelled")
    await expect(page.locator("#orders tbody")).to_contain_text("cancelled")


async def test_the_kill_switch_is_on_every_page_and_says_what_it_is(
    site: Site, context: BrowserContext, picture: Picture
) -> None:
    page = await site.log_in(context)
    other = await context.new_page()
    await other.goto(f"{site.url}/gateways")
    await page.get_by_role("button", name="Stop trading").click()
    await page.get_by_label("Reason").fill("<b>a strange market</b>")
    await page.get_by_role("button", name="Stop trading now").click()
    await expect(page.locator("dialog")).to_contain_text("Trading is halted")
    await page.locator("dialog").get_by_role("button", name="Close").last.click()
    for seen in (page, other):
        await expect(seen.locator("#switch")).to_contain_text("Trading is halted")
        await expect(seen.locator("#notices")).to_contain_text("<b>a strange market</b>")
    await picture(page, "halted")

    await page.goto(f"{site.url}/orders")
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="1")
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_role("button", name="Place the order").click()
    await expect(page.locator("dialog")).to_contain_text("The order wasn't placed")
    await page.get_by_role("button", name="Back to the order").click()
    await expect(page.locator("#order-symbol")).to_have_value("AAPL")
    await page.locator("dialog").get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Resume …").click()
    await page.get_by_label("Reason").fill("it is quiet again")
    await page.get_by_role("button", name="Resume trading").click()
    await expect(other.locator("#switch")).to_contain_text("Stop trading")


async def test_who_may_only_look_sees_no_button_and_is_refused(site: Site, context: BrowserContext) -> None:
    page = await site.log_in(context, "user", page="/orders")
    await expect(page.locator("#orders")).to_contain_text("No order yet")
    for name in ("New order", "Stop trading"):
        await expect(page.get_by_role("button", name=name)).to_have_count(0)
    status = await page.evaluate("fetch('/orders/default/new').then(a => a.status)")
    assert status == 403
    site.complaints.clear()  # the browser's own line about that 403
