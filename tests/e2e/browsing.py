"""People with a browser of their own before the dashboard of the running stack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.e2e.conftest import ask
from tests.pictures import file_for
from tools import summary
from tools.browser import FLAGS, chromium
from tools.local_stack import LocalStack

#: milliseconds that a page may take on a machine that does much else
PATIENCE = 60_000
EVERYTHING = ("user", "trader", "operator")
#: what a browser says of a service that is away for a while
_AWAY = ("Failed to load resource", "net::ERR_")


@contextlib.contextmanager
def a_browser() -> Iterator[Browser]:
    """The machine's Chromium, without a screen."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(chromium()), args=list(FLAGS))
        yield found
        found.close()


class Person:
    """Somebody who looks at one page."""

    def __init__(self, browser: Browser, stack: LocalStack, name: str = "demo", **looks: Any) -> None:
        """`looks`: what Playwright's `new_context` takes, such as color_scheme."""
        self.name = name
        self._stack = stack
        self.url = str(stack.outputs()["service_url"])
        looks = {"viewport": {"width": 1200, "height": 900}, "locale": "en-US", "timezone_id": "UTC", **looks}
        self.context = browser.new_context(**looks)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))

    def link(self, *roles: str) -> str:
        """A login link with a token of theirs."""
        told = ask(self._stack, "token", user=self.name, roles=list(roles or ("user", "trader")))
        return summary.login_link(self.url, told["token"])

    def log_in(self, *roles: str, page: str = "/") -> Page:
        """Follow a login link, then go to a page; returns once it is live."""
        self.page.goto(self.link(*roles))
        self.page.wait_for_url(f"{self.url}/")
        return self.look(page)

    def look(self, page: str) -> Page:
        """Go to a page; returns once it is live. A page that is loaded anew forgets that it was this one."""
        if self.page.url != self.url + page:
            self.page.goto(self.url + page)
        self.is_live()
        self.page.evaluate("window.neverReloaded = true")
        return self.page

    def is_live(self) -> None:
        """Wait until the page is kept up to date."""
        expect(self.page.locator("body")).to_have_attribute("data-link", "live")

    def never_reloaded(self) -> bool:
        """Whether it still is the page that `look` went to."""
        return self.page.evaluate("window.neverReloaded") is True

    def tab_to(self, wanted: Locator) -> None:
        """Press the tab key until the element has the focus."""
        for _ in range(80):
            if wanted.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the tab key doesn't lead to {wanted}")

    def close_dialog(self) -> None:
        """Close what is open."""
        dialog = self.page.locator("dialog")
        dialog.get_by_role("button", name="Close").last.click()
        expect(dialog).not_to_be_visible()

    def picture(self, name: str) -> None:
        """See `tests.pictures`."""
        self.page.screenshot(path=file_for(name))

    def serious(self) -> list[str]:
        """What axe finds on the page that is serious or worse."""
        return [
            f"{found['id']}: {[node['html'][:120] for node in found['nodes']]}"
            for found in Axe().run(self.page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]

    def leave(self) -> None:
        """Close the browser's window. No page may have broken, or tried what the policy forbids."""
        self.context.close()
        assert [said for said in self.complaints if not any(away in said for away in _AWAY)] == []
