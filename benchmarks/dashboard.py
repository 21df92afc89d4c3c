"""The dashboard over the whole local stack: first paint, from a fill to the page, what many who look cost.

Chromium is a real one, and so is everything behind it: the service as `make up` starts it, IB Gateway's API,
PostgreSQL. The paper exchange, the gateway, the service and the browser share one machine and so one clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from benchmarks.up import new_stack
from broker.service.auth import COOKIE
from broker.service.dashboard.pages import PAGES
from broker.service.dashboard.pushed import LINGER
from localcloud.control import Daemon
from localcloud.exchange.admin import Admin
from localcloud.warden import MARK
from tools import service_check
from tools.browser import FLAGS, chromium
from tools.local_stack import LocalStack

PAINTS, FIRST_PAINTS, FILLS = 9, 5, 30
DASHBOARDS, SECONDS, TRADE_SECONDS = 50, 20.0, 2.0
HELD = ("AAPL", "MSFT", "NVDA", "AMZN", "SPY")
API = "/api/v1/connections/default"
#: remembers when the page first says of an order that it is filled, in ms since the epoch
_NOTES_FILLS = """
window.filled = {};
new MutationObserver(() => {
  for (const status of document.querySelectorAll("#orders .order-status.filled")) {
    const row = status.closest("tr").id;
    window.filled[row] ??= performance.timeOrigin + performance.now();
  }
}).observe(document, { childList: true, subtree: true, attributes: true, characterData: true });
"""
_FIRST_PAINT = """
new Promise(tell => new PerformanceObserver(list => {
  const found = list.getEntriesByName("first-contentful-paint");
  if (found.length) tell(found[0].startTime);
}).observe({ type: "paint", buffered: true }))
"""


class Site:
    """The running stack as browsers and other clients reach it."""

    def __init__(self, stack: LocalStack, browser: Browser) -> None:
        self._daemon = Daemon(stack.cloud.home)
        self._browser = browser
        self.url = str(stack.outputs()["service_url"])
        # A connection for each request: a kept one is closed by the server just when it is used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=60, headers=self._bearer(), limits=limits)
        self.exchange = str(self._daemon.call("status")["exchange"]["admin_socket"])
        self.service = _service_of(stack)

    def token(self, user: str) -> str:
        """A trader's token."""
        return str(self._daemon.call("token", user=user, roles=["user", "trader"])["token"])

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token('demo')}"}

    @contextlib.asynccontextmanager
    async def window(self) -> AsyncIterator[BrowserContext]:
        """A browser that has nothing in its cache, logged in."""
        context = await self._browser.new_context(viewport={"width": 1200, "height": 900})
        await context.add_cookies([{"name": COOKIE, "value": self.token("demo"), "url": self.url}])
        yield context
        await context.close()

    @contextlib.asynccontextmanager
    async def page(self, path: str) -> AsyncIterator[Page]:
        """A page that is kept up to date."""
        async with self.window() as context:
            page = await context.new_page()
            await page.add_init_script(_NOTES_FILLS)
            await page.goto(self.url + path)
            await page.wait_for_selector("body[data-link=live]", timeout=60_000)
            yield page

    async def order(self, **fields: Any) -> dict[str, Any]:
        """An order through the API."""
        body = {"client_order_id": uuid.uuid4().hex, "side": "buy", "qty": 1} | fields
        answer = await self.client.post(f"{API}/orders", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def used(self) -> float:
        """Processor seconds that the service's process has used."""
        times = self.service.cpu_times()
        return float(times.user + times.system)


def _service_of(stack: LocalStack) -> psutil.Process:
    """The service's process, of this stack and no other."""
    home = str(stack.cloud.home)
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environ, line = process.info["environ"] or {}, process.info["cmdline"] or []
        if environ.get(MARK) == home and "broker.service" in line and "serve" in line:
            found.append(process)
    (service,) = found
    return service


async def first_paint(site: Site) -> AsyncIterator[str]:
    """Until the overview shows something, with nothing in the browser's cache."""
    for what, count, pause in (
        ("somebody else looks already", PAINTS, 0.0),
        ("nobody has looked for a while", FIRST_PAINTS, LINGER + 2),
    ):
        painted = []
        async with contextlib.AsyncExitStack() as stack:
            if not pause:
                await stack.enter_async_context(site.page("/"))
            for _ in range(count):
                await asyncio.sleep(pause)
                async with site.window() as context:
                    page = await context.new_page()
                    await page.goto(site.url + "/")
                    painted.append(float(await page.evaluate(_FIRST_PAINT)))
        yield (
            f"first contentful paint of the overview, {what}: {statistics.median(painted):.0f} ms "
            f"({min(painted):.0f} to {max(painted):.0f}, {count} loads); wanted: under 1,000 ms"
        )


async def fills(site: Site, count: int) -> AsyncIterator[str]:
    """From a fill at the exchange to the page that says so."""
    account = (await site.client.get(f"{API}/account")).json()["id"]
    taken, server = [], []
    async with Admin(site.exchange) as exchange, site.page("/orders") as page:
        for _ in range(count):
            await exchange.set_price("AMZN", 200.0)
            order = await site.order(symbol="AMZN", order_type="limit", limit_price=199.0)
            await page.wait_for_selector(f"#order-{order['id']}", timeout=60_000)
            await asyncio.sleep(0.5)  # whatever the order itself has brought about is over
            await exchange.set_price("AMZN", 198.5)
            seen = await _seen(page, f"order-{order['id']}")
            at = next(
                one["time"]
                for one in await exchange.executions(account)
                if str(one["perm_id"]) == str(order["permanent_id"])
            )
            taken.append(seen - at * 1000)
            told = (await site.client.get(f"{API}/orders/{order['id']}")).json()
            server.append(told["status"])
        await exchange.set_price("AMZN", 200.0, hold=False)
    assert set(server) == {"filled"}
    taken.sort()
    yield (
        f"from a fill at the exchange to the page: median {statistics.median(taken):.0f} ms, "
        f"95 of 100 {taken[math.ceil(0.95 * count) - 1]:.0f} ms, at most {taken[-1]:.0f} ms "
        f"({count} fills); wanted: within 300 ms"
    )


async def _seen(page: Page, row: str) -> float:
    """When the page said that the order is filled, in ms since the epoch."""
    async with asyncio.timeout(60):
        while True:
            at = await page.evaluate("row => window.filled[row]", row)
            if at is not None:
                return float(at)
            await asyncio.sleep(0.05)


class _Dashboard:
    """A page's requests without the page: its stream, and its plot once a minute."""

    def __init__(self, site: Site, number: int, name: str) -> None:
        self._site, self._number = site, number
        self._parts = ",".join(PAGES[name][2])
        self._plots = name == "overview"
        self.heard = 0
        self.bytes = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        headers = {
            "Cookie": f"{COOKIE}={self._site.token(f'viewer{self._number}')}",
            "Sec-Fetch-Site": "same-origin",
        }
        async with (
            httpx.AsyncClient(base_url=self._site.url, headers=headers, timeout=60) as client,
            asyncio.TaskGroup() as both,
        ):
            both.create_task(self._follow(client))
            if self._plots:
                both.create_task(self._plot(client))

    async def _follow(self, client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/live/default", params={"parts": self._parts}) as answer:
            answer.raise_for_status()
            async for data in answer.aiter_bytes():
                self.bytes += len(data)
                self.heard += data.count(b"\n\n")

    async def _plot(self, client: httpx.AsyncClient) -> None:
        await asyncio.sleep(60 * (self._number / DASHBOARDS))
        while True:
            (await client.get("/values/default", params={"span": "day"})).raise_for_status()
            await asyncio.sleep(60)


@contextlib.asynccontextmanager
async def _trading(site: Site) -> AsyncIterator[None]:
    """An account in which something happens: TWS tells prices of positions every three minutes only."""

    async def trade() -> None:
        for number in itertools.count():
            began = time.perf_counter()
            side = "sell" if number % 2 else "buy"
            await site.order(symbol=HELD[number // 2 % len(HELD)], side=side, order_type="market")
            await asyncio.sleep(max(0.0, TRADE_SECONDS - (time.perf_counter() - began)))

    trading = asyncio.create_task(trade())
    try:
        yield
        if trading.done():
            trading.result()
    finally:
        trading.cancel()
        await asyncio.gather(trading, return_exceptions=True)


async def many(site: Site, names: list[str], what: str) -> AsyncIterator[str]:
    """What so many who look cost the service: one of them is a browser."""
    others = [_Dashboard(site, n, names[n % len(names)]) for n in range(DASHBOARDS - 1)]
    async with site.page(PAGES[names[0]][0]), _trading(site):
        running = [asyncio.create_task(one.run()) for one in others]
        try:
            while not all(one.heard > 1 for one in others):
                for task in running:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.1)
            await asyncio.sleep(3)
            before, began = site.used(), time.perf_counter()
            heard, sent = [one.heard for one in others], sum(one.bytes for one in others)
            await asyncio.sleep(SECONDS)
            used, took = site.used() - before, time.perf_counter() - began
            news = [one.heard - was for one, was in zip(others, heard, strict=True)]
            sent = sum(one.bytes for one in others) - sent
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    yield (
        f"{DASHBOARDS} open dashboards, {what}: {used / took:.2f} of a core in {took:.0f} s, "
        f"{sum(news) / took:.0f} pushes a second of {sent / max(sum(news), 1) / 1024:.1f} KiB, "
        f"{min(news)} to {max(news)} to each; "
        "wanted: under 0.50"
    )


async def nobody(site: Site) -> AsyncIterator[str]:
    """What the service costs by itself."""
    await asyncio.sleep(LINGER + 2)
    async with _trading(site):
        before, began = site.used(), time.perf_counter()
        await asyncio.sleep(SECONDS)
        used, took = site.used() - before, time.perf_counter() - began
    yield f"nobody looks, an order every {TRADE_SECONDS:g} s: {used / took:.2f} of a core"


async def _measure(stack: LocalStack) -> AsyncIterator[str]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(chromium()), args=list(FLAGS))
        site = Site(stack, browser)
        for symbol in HELD:
            await site.order(symbol=symbol, qty=10, order_type="market")
        async for line in first_paint(site):
            yield line
        async for line in fills(site, FILLS):
            yield line
        async for line in nobody(site):
            yield line
        mix = ["overview", "overview", "orders", "gateways"]
        async for line in many(site, mix, "half on the overview, the rest on orders and gateways, as before"):
            yield line
        async for line in many(site, ["orders"], "all on the orders, as before"):
            yield line
        async for line in many(site, ["gateways"], "each user on a gateways' page of their own, as before"):
            yield line
        await site.client.aclose()
        await browser.close()


def measure() -> Iterator[str]:
    """All figures, a line each, as they come."""
    with tempfile.TemporaryDirectory(prefix="ibkr-bench-") as name:
        stack = new_stack(Path(name) / "stack")
        try:
            stack.up()
            service_check.wait(str(stack.outputs()["service_url"]), stack.token())
            lines = _measure(stack)
            with asyncio.Runner() as runner:
                while True:
                    try:
                        yield runner.run(anext(lines))  # type: ignore[arg-type]
                    except StopAsyncIteration:
                        break
        finally:
            stack.destroy()
