"""Every state of every page is readable, in light, dark and on a phone; each leaves a picture."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from axe_playwright_python.async_playwright import Axe
from fastapi import FastAPI
from playwright.async_api import Browser, Page, expect

from tests.dashboard.conftest import Site
from tests.dashboard.states import STATES

Picture = Callable[[Page, str], Awaitable[None]]
LOOKS = {
    "light": {"viewport": {"width": 1200, "height": 900}},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2},
}


async def test_every_state_is_readable_in_light_and_dark_and_on_a_phone(
    site: Site, fleet_app: FastAPI, browser: Browser, picture: Picture
) -> None:
    pages = {}
    for look, settings in LOOKS.items():
        context = await browser.new_context(locale="en-US", timezone_id="UTC", **settings)  # type: ignore[arg-type]
        pages[look] = await site.log_in(context, "user", "trader", "operator")
    for state in STATES:
        if state.happens is not None:
            state.happens(fleet_app.state.engine)
        for look, page in pages.items():
            await page.goto(site.url + state.page)
            await expect(page.locator("body")).to_have_attribute("data-link", "live")
            if state.does is not None:
                await state.does(page)
            where = page.locator("body") if state.does is None else page.locator("dialog")
            for words in state.says:
                text = await where.inner_text()
                values = await where.locator("input").evaluate_all("all => all.map(one => one.value).join()")
                if words not in text + values:
                    await expect(where).to_contain_text(words)
            await picture(page, f"{state.name}-{look}")
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{state.name} is wider than a screen, {look}"
            found = (await Axe().run(page)).response["violations"]
            serious = [
                f"{one['id']}: {[node['html'][:120] for node in one['nodes']]}"
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{state.name}, {look}"
