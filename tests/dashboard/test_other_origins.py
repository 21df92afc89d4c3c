"""A front end of another origin in a real Chromium, with the code that docs/howto/react.md shows."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page

from tests.dashboard.conftest import Site

HOWTO = (Path(__file__).parents[2] / "docs" / "howto" / "react.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"^```js\n(.*?)^```$", HOWTO, re.MULTILINE | re.DOTALL))
ORDER = '{symbol: "AAPL", side: "buy", qty: 1, order_type: "market", client_order_id: crypto.randomUUID()}'


@pytest.fixture
def port() -> Iterator[int]:
    """Where an empty page is: under localhost, which is allowed, and under 127.0.0.1, which isn't."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><link rel=icon href=data:,>")

        def log_message(self, *_said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def fleet_changes(port: int) -> dict[str, str]:
    """The service lets pages of one origin call it."""
    return {"CORS_ORIGINS": f"http://localhost:{port}"}


async def elsewhere(context: BrowserContext, site: Site, host: str, port: int, token: str) -> Page:
    """A page of another origin with the how-to's code in it."""
    page = await context.new_page()
    await page.goto(f"http://{host}:{port}/")
    await page.add_script_tag(content=f'const serviceUrl = "{site.url}"; let token = "{token}";\n{CODE}')
    return page


async def test_an_allowed_page_trades_and_hears_of_it(site: Site, context: BrowserContext, port: int) -> None:
    page = await elsewhere(context, site, "localhost", port, site.issuer.token("trader"))
    await page.evaluate("window.heard = []; follow((event) => heard.push(event)); null")
    placed = await page.evaluate(f"placeOrder({ORDER})")
    assert placed["symbol"] == "AAPL"
    await page.wait_for_function(f"heard.some((event) => event.order?.id === '{placed['id']}')")
    wrong = await page.evaluate(f"placeOrder({{...{ORDER}, qty: 0}}).catch((error) => error.problem)")
    assert [error["field"] for error in wrong["errors"]] == ["qty"], "the page can read why"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_no_page_elsewhere_can_use_the_dashboards_session(
    site: Site, context: BrowserContext, port: int, host: str
) -> None:
    own = await site.log_in(context)
    assert (await own.evaluate("fetch('/api/v1/connections/default/account').then((a) => a.status)")) == 200
    page = await elsewhere(context, site, host, port, "")
    for asked in (
        "{credentials: 'include'}",
        f"{{credentials: 'include', method: 'POST', body: JSON.stringify({ORDER})}}",
    ):
        outcome = f"fetch(`${{connection}}/orders`, {asked}).then((a) => a.status, (error) => error.name)"
        assert await page.evaluate(outcome) == "TypeError"
    assert await own.evaluate("fetch('/api/v1/connections/default/orders').then((a) => a.json())") == []


async def test_a_page_that_isnt_named_reads_nothing_with_a_token(
    site: Site, context: BrowserContext, port: int
) -> None:
    page = await elsewhere(context, site, "127.0.0.1", port, site.issuer.token("trader"))
    assert await page.evaluate(f"placeOrder({ORDER}).catch((error) => error.name)") == "TypeError"
    own = await site.log_in(context)
    assert await own.evaluate("fetch('/api/v1/connections/default/orders').then((a) => a.json())") == []
