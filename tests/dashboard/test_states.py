"""Every state of every page is readable, in light, dark and on a phone; each leaves a picture."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, Page, expect

from tests.dashboard.conftest import Site, serious
from tests.dashboard.states import STATES

Picture = Callable[[Page, str], Awaitable[None]]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1200, "height": 900}},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_every_state_is_readable(
    site: Site, fleet_app: FastAPI, browser: Browser, picture: Picture, look: str
) -> None:
    context = await browser.new_context(locale="en-US", timezone_id="UTC", **LOOKS[look])
    page = await site.log_in(context, "user", "trader", "operator")
    for state in STATES:
        if state.happens is not None:
            state.happens(fleet_app.state.engine)
        await page.goto(site.url + state.page)
        await expect(page.locator("body")).to_have_attribute("data-link", "live")
        if state.does is not None:
            await state.does(page)
        where = page.locator("main" if state.does is None else "dialog")
        for words in state.says:
            await expect(where).to_contain_text(words)
        await picture(page, f"{state.name}-{look}")
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{state.name} is wider than a screen"
        assert await serious(page) == [], state.name
    await context.close()


@pytest.mark.parametrize(
    "fleet_changes",
    [{"BROKER_TYPE": "ibkr", "IBKR_GATEWAY_HOST": "127.0.0.9", "IBKR_GATEWAY_PORT": "4002"}],
)
async def test_a_broker_that_was_never_there_is_not_known_rather_than_zero(
    site: Site, browser: Browser, picture: Picture
) -> None:
    context = await browser.new_context(locale="en-US", timezone_id="UTC", **LOOKS["light"])
    page = await site.log_in(context)
    await expect(page.locator("#status")).to_contain_text("Disconnected")
    await expect(page.locator("#notices .bad")).to_contain_text("refuses connections")
    await expect(page.locator("#tiles .big")).to_have_text(["not known"] * 4)
    await expect(page.locator("#positions")).not_to_contain_text("Nothing is held")
    await expect(page.locator("#plot")).to_contain_text("No values can be shown")
    await picture(page, "never-connected-overview")
    assert await serious(page) == []
    await page.goto(f"{site.url}/orders")
    await expect(page.locator("#orders")).not_to_contain_text("No order yet")
    await picture(page, "never-connected-orders")
    site.complaints.clear()  # the browser's own line about the plot that can't be had
    await context.close()
