"""What every page keeps to: a login, no foreign script, small screens, the keyboard, and honest ages."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.dashboard.conftest import PATIENCE, Site, serious

Picture = Callable[[Page, str], Awaitable[None]]
PAGES = ("/", "/orders", "/gateways", "/health-page", "/fleet")


async def test_without_a_session_every_page_leads_to_the_login(site: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    for path in PAGES:
        await page.goto(site.url + path)
        assert "/login?next=" in page.url
    await page.goto(f"{site.url}/login?next=//evil.example/")
    await page.get_by_label("Bearer token").fill("nonsense")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await page.get_by_label("Bearer token").fill(site.issuer.token("user"))
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(f"{site.url}/**")
    await expect(page.locator("h1")).to_have_text("Overview")


async def test_a_login_link_leaves_no_token_behind(site: Site, context: BrowserContext) -> None:
    page = await site.log_in(context)
    assert "#" not in page.url
    assert "eyJ" not in await page.content()
    assert await page.evaluate("document.cookie") == "", "no script can read the session"
    assert await page.evaluate("Object.values(localStorage).join('')") == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(site: Site, browser: Browser, picture: Picture, scheme: str) -> None:
    context = await browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    page = await site.log_in(context)
    for path in PAGES:
        await page.goto(site.url + path)
        await expect(page.locator("body")).to_have_attribute("data-link", "live")
        await picture(page, f"{path.strip('/') or 'overview'}-{scheme}")
        assert await serious(page) == [], path
    await context.close()


async def test_a_phone_shows_everything_without_scrolling_sideways(
    site: Site, browser: Browser, picture: Picture
) -> None:
    context = await browser.new_context(viewport={"width": 360, "height": 740})
    page = await site.log_in(context)
    for path in PAGES:
        await page.goto(site.url + path)
        await expect(page.locator("body")).to_have_attribute("data-link", "live")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, path
        await picture(page, f"{path.strip('/') or 'overview'}-phone")
    await expect(page.get_by_role("button", name="Stop trading")).to_be_in_viewport()
    await context.close()


async def test_the_keyboard_alone_is_enough(site: Site, context: BrowserContext) -> None:
    page = await site.log_in(context, page="/orders")
    await expect(page.locator("body")).to_have_attribute("data-link", "live")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="New order")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#order-symbol")).to_be_focused()
    await page.keyboard.type("AAPL")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.type("1")
    await page.keyboard.press("Enter")
    await expect(page.locator("dialog")).to_contain_text("BUY 1 AAPL")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).not_to_be_visible()


async def test_nothing_but_our_own_may_run(site: Site, context: BrowserContext) -> None:
    page = await site.log_in(context)
    answer = await page.goto(site.url + "/")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", await answer.text())


async def test_a_lost_stream_is_said_and_old_numbers_are_not_shown_as_current(
    site: Site, context: BrowserContext, picture: Picture
) -> None:
    page = await site.log_in(context)
    await expect(page.locator("body")).to_have_attribute("data-link", "live")
    await expect(page.locator(".asof").first).to_contain_text("As of")
    await context.set_offline(True)
    await page.evaluate(
        "htmx.findAll('[hx-sse\\\\:connect]').forEach(e => e._htmx?.sse?.abortController?.abort())"
    )
    await expect(page.locator("#lost")).to_be_visible(timeout=PATIENCE)
    await expect(page.locator("#lost")).to_contain_text("isn't kept up to date")
    await expect(page.locator(".asof.old").first).to_contain_text("Not current")
    await expect(page.locator("#tiles")).to_have_class(re.compile("stale"))
    await picture(page, "disconnected")
    await context.set_offline(False)
    await expect(page.locator("#lost")).to_be_hidden(timeout=2 * PATIENCE)
    site.complaints.clear()  # the browser's own lines about the network


async def test_a_page_beyond_the_limit_is_brought_up_to_date_by_asking(
    site: Site, context: BrowserContext, fleet_app: FastAPI
) -> None:
    with contextlib.ExitStack() as others:
        for number in range(150):
            others.enter_context(fleet_app.state.streams.held(f"user{number}"))
        page = await site.log_in(context)
        await expect(page.locator("#crowded")).to_contain_text("every 5 seconds only")
        first = await page.locator("#pulse").get_attribute("data-now")
        await expect(page.locator("#pulse")).not_to_have_attribute("data-now", first or "")
        await expect(page.locator("#lost")).to_be_hidden()
    await expect(page.locator("#crowded")).to_be_hidden()
