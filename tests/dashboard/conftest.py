"""A real Chromium before the service, which has its fleet on: the dashboard as people use it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvicorn
from axe_playwright_python.async_playwright import Axe
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.pictures import file_for
from tests.service.conftest import (
    Issuer,
    app,
    client_for,
    database_url,
    environment,
    issuer,
    migrated,
    postgres,
)
from tests.service.fleet_fixtures import agents, cloud, fleet_app, fleet_changes, fleet_environment
from tools.browser import FLAGS, chromium

__all__ = [
    "agents",
    "app",
    "client_for",
    "cloud",
    "database_url",
    "environment",
    "fleet_app",
    "fleet_changes",
    "fleet_environment",
    "issuer",
    "migrated",
    "postgres",
]

#: milliseconds that a page may take on a machine that does much else
PATIENCE = 45_000
expect.set_options(timeout=PATIENCE)


@dataclass
class Site:
    """The service over real HTTP, and how a user logs in."""

    url: str
    issuer: Issuer
    server: uvicorn.Server
    #: what a page said or broke, other than what the test expects
    complaints: list[str] = field(default_factory=list)

    async def log_in(self, context: BrowserContext, *roles: str, user: str = "ada", page: str = "/") -> Page:
        """A page of somebody who has followed a login link."""
        opened = await context.new_page()
        opened.set_default_timeout(PATIENCE)
        opened.on("pageerror", lambda error: self.complaints.append(str(error)))
        opened.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        token = self.issuer.token(*(roles or ("trader", "operator")), sub=user, exp=int(time.time()) + 3600)
        await opened.goto(f"{self.url}/login?next={page}#{token}")
        await opened.wait_for_url(f"{self.url}{page}")
        return opened


async def serious(page: Page) -> list[str]:
    """What axe finds on a page that keeps somebody from using it."""
    found = await Axe().run(page)
    return [
        f"{v['id']}: {[node['html'][:120] for node in v['nodes']]}"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


async def is_for_everybody(page: Page) -> None:
    """As it is now, a page can be read on a phone, in the dark and by a screen reader."""
    before = page.viewport_size
    assert before is not None
    await page.set_viewport_size({"width": 360, "height": 740})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await serious(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await serious(page) == []
    await page.emulate_media(color_scheme=None)
    await page.set_viewport_size(before)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium."""
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=str(chromium()), args=list(FLAGS))
        yield found
        await found.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """One person's browser."""
    made = await browser.new_context(
        viewport={"width": 1200, "height": 900}, locale="en-US", timezone_id="UTC"
    )
    yield made
    await made.close()


@pytest.fixture
async def site(fleet_app: FastAPI, issuer: Issuer) -> AsyncIterator[Site]:
    """The service, listening."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(fleet_app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    found = Site(f"http://127.0.0.1:{listener.getsockname()[1]}", issuer, server)
    yield found
    fleet_app.state.dashboard.close()
    server.should_exit = True
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    assert found.complaints == []


@pytest.fixture
def picture() -> Callable[[Page, str], Awaitable[None]]:
    """Writes a picture of a page (see `tests.pictures`)."""

    async def take(page: Page, name: str) -> None:
        await page.screenshot(path=file_for(name))

    return take
