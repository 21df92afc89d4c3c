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
