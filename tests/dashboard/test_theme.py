"""Light and dark: what somebody chose is there before anything is painted, on every page."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from tests.dashboard.conftest import Site

# What the root says at the moment when the body begins: a page without a body has nothing to paint.
_AT_THE_BODY = """
new MutationObserver((_, watcher) => {
  if (!document.body) return;
  window.themeAtTheBody = document.documentElement.dataset.theme ?? "none";
  watcher.disconnect();
}).observe(document, { childList: true, subtree: true });
"""
DARK, LIGHT = "rgb(16, 21, 27)", "rgb(246, 247, 249)"


async def background(page: Page) -> str:
    found: str = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


@pytest.mark.parametrize(("system", "chosen", "colour"), [("light", "dark", DARK), ("dark", "light", LIGHT)])
async def test_the_chosen_theme_is_there_before_the_first_paint(
    site: Site, browser: Browser, system: str, chosen: str, colour: str
) -> None:
    context = await browser.new_context(color_scheme=system)  # type: ignore[arg-type]
    page = await site.log_in(context)
    assert await background(page) != colour, "without a choice it is the system's"
    await page.get_by_role("button", name="Light or dark").click()
    assert await background(page) == colour
    await context.add_init_script(_AT_THE_BODY)

    async def late(route: Route) -> None:
        await route.abort()

    # Whatever comes at the end of the page may be late, and it changes nothing.
    await page.route("**/static/dashboard.js*", late)
    for path in ("/", "/gateways", "/login"):
        await page.goto(site.url + path)
        assert await page.evaluate("window.themeAtTheBody") == chosen, path
        assert await background(page) == colour, path
    site.complaints.clear()  # the browser's own lines about the script that didn't come
    await context.close()


async def test_the_theme_can_be_changed_back_and_forth(site: Site, context: BrowserContext) -> None:
    page = await site.log_in(context)
    before = await background(page)
    button = page.get_by_role("button", name="Light or dark")
    await button.click()
    assert await background(page) != before
    await button.click()
    assert await background(page) == before
    await page.reload()
    await expect(page.locator("body")).to_have_attribute("data-link", "live")
    assert await background(page) == before
