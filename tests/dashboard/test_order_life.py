"""An order's dialog: its whole life, live while it is open; and how much louder a live account is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, Page, expect

from broker.errors import NotConnected, OrderOutcomeUnknown
from broker.journal_rows import FOREIGN
from broker.models import Order, OrderReport
from broker.service.connections import DefaultConnection
from tests.broker.ordering import request
from tests.dashboard.conftest import Site
from tests.dashboard.test_trading import fill_in

Picture = Callable[[Page, str], Awaitable[None]]
ORDERS = "/api/v1/connections/default/orders"


def served(fleet_app: FastAPI) -> DefaultConnection:
    """The service's own connection, to the simulated broker."""
    found: DefaultConnection = fleet_app.state.connections["default"]
    return found


def place(fleet_app: FastAPI, **changes: object) -> Order:
    """An order that rests, placed past the dashboard."""
    values = {"order_type": "limit", "limit_price": 150.0, "time_in_force": "gtc", "placed_by": "a strategy"}
    return served(fleet_app).broker.place_order(request(**(values | changes)))


async def open_life(page: Page, order: Order) -> None:
    await page.locator(f"#order-{order.id}").get_by_role("button", name="Details").click()
    await expect(page.locator("dialog .timeline")).to_be_visible()


async def test_an_open_orders_life_goes_on_without_a_reload(
    site: Site, context: BrowserContext, fleet_app: FastAPI, picture: Picture
) -> None:
    broker = served(fleet_app).broker
    order = place(fleet_app, client_order_id="life")
    page = await site.log_in(context, page="/orders")
    await open_life(page, order)
    timeline = page.locator("dialog .timeline")
    await expect(timeline.locator("li")).to_have_count(2)
    await expect(timeline).to_contain_text("by a strategy")
    broker.replace_order(order.id, limit_price=151.0)
    await expect(timeline).to_contain_text("limit price 150.00 → 151.00")
    await page.get_by_role("button", name="Close").last.focus()
    broker.set_price("AAPL", 140.0)  # type: ignore[attr-defined]
    await expect(timeline).to_contain_text("filled: 5 at")
    await expect(timeline).to_contain_text("commission 0.00 USD")
    await expect(page.get_by_role("button", name="Close").last).to_be_focused()
    await expect(page.get_by_role("button", name="Cancel the order")).to_have_count(0)
    times = await timeline.locator("time").evaluate_all("all => all.map(one => one.dateTime)")
    assert times == sorted(times)
    await picture(page, "order-life-filled")


async def test_cancelling_in_the_dialog_shows_what_becomes_of_it_there(
    site: Site, context: BrowserContext, fleet_app: FastAPI
) -> None:
    order = place(fleet_app)
    page = await site.log_in(context, page="/orders")
    await open_life(page, order)
    await page.get_by_role("button", name="Cancel the order").click()
    await expect(page.locator("dialog .timeline")).to_contain_text("cancel requested")
    await expect(page.locator("dialog .timeline")).to_contain_text("cancelled")
    await expect(page.locator("#said")).to_contain_text("being cancelled")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).not_to_be_visible()


async def test_what_others_placed_says_that_its_beginning_is_not_known(
    site: Site, context: BrowserContext, fleet_app: FastAPI, picture: Picture
) -> None:
    via = served(fleet_app)
    asked = request(client_order_id="tws-9", placed_by=FOREIGN)
    seen = OrderReport(
        "submitted", "Submitted", permanent_id="9", warnings=("399: <b>not</b> before it opens",)
    )
    order = via._journal.adopt("SIM-1", asked, seen)
    via._journal.update(order.id, OrderReport("rejected", reason="no room", reason_code="201"))
    page = await site.log_in(context, page="/orders")
    await open_life(page, order)
    lines = page.locator("dialog .timeline li")
    await expect(lines).to_have_count(4)
    await expect(lines.nth(0)).to_contain_text("wasn't placed from here")
    await expect(lines.nth(1)).to_contain_text("submitted")
    await expect(lines.nth(2)).to_contain_text("<b>not</b> before it opens (399)")
    await expect(lines.nth(3)).to_contain_text("no room (201)")
    await picture(page, "order-life-foreign")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_dialogs_are_for_everybody_and_fit_a_phone(
    site: Site, browser: Browser, fleet_app: FastAPI, picture: Picture, scheme: str
) -> None:
    order = place(fleet_app, qty=5)
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 360, "height": 740})  # type: ignore[arg-type]
    page = await site.log_in(context, page="/orders")

    async def check(name: str) -> None:
        found = await Axe().run(page)
        serious = [v["id"] for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
        assert serious == [], name
        assert await page.evaluate("document.querySelector('dialog').scrollWidth") <= 360, name
        await picture(page, f"{name}-phone-{scheme}")

    await open_life(page, order)
    await check("order-life")
    await page.get_by_role("button", name="Change …").click()
    await expect(page.locator("#change-qty")).to_be_visible()
    await check("order-change")
    await page.get_by_role("button", name="Leave it").click()
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="1")
    await check("order-new")
    await page.get_by_role("button", name="Preview").click()
    await expect(page.locator("dialog")).to_contain_text("SIM-1")
    await check("order-preview")
    await context.close()


async def test_a_live_account_is_louder_and_nothing_is_sent_unconfirmed(
    site: Site, context: BrowserContext, fleet_app: FastAPI, monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    monkeypatch.setattr(DefaultConnection, "mode", "live")
    order = place(fleet_app)
    page = await site.log_in(context, page="/orders")
    await expect(page.locator(".mode")).to_contain_text("LIVE")
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="1")
    await page.get_by_role("button", name="Preview").click()
    await expect(page.locator("#dialog-title")).to_have_text("Place a LIVE order?")
    await picture(page, "order-preview-live")
    await page.get_by_role("button", name="Place the live order").click()
    await expect(page.locator("#dialog-title")).to_have_text(
        "Place a LIVE order?"
    )  # the browser wants the tick
    await page.keyboard.press("Escape")
    await open_life(page, order)
    await page.get_by_role("button", name="Change …").click()
    await expect(page.locator("#dialog-title")).to_contain_text("Change the LIVE order")
    await picture(page, "order-change-live")
    async with httpx.AsyncClient(base_url=site.url, headers={"sec-fetch-site": "same-origin"}) as client:
        client.cookies.update({c["name"]: c["value"] for c in await context.cookies()})  # type: ignore[typeddict-item]
        form = {"symbol": "AAPL", "side": "buy", "qty": "1", "order_type": "market", "time_in_force": "day"}
        placed = await client.post("/orders/default", data=form)
        changed = await client.post(f"/orders/default/{order.id}/change", data={"limit_price": "151"})
    assert "wasn't confirmed" in placed.text.replace("&#39;", "'")
    assert "wasn't confirmed" in changed.text.replace("&#39;", "'")
    [only] = served(fleet_app).broker.get_orders_history()
    assert (only.id, only.limit_price) == (order.id, 150.0)


async def test_a_broker_that_is_away_leaves_what_was_known(
    site: Site, context: BrowserContext, fleet_app: FastAPI
) -> None:
    order = place(fleet_app)
    page = await site.log_in(context, page="/orders")
    await open_life(page, order)
    served(fleet_app).broker.disconnect()
    await page.keyboard.press("Escape")
    await open_life(page, order)
    await expect(page.locator("dialog")).to_contain_text("The broker can't be asked now")
    await expect(page.locator("dialog .timeline")).to_contain_text("submitted")
    await page.get_by_role("button", name="Change …").click()
    await expect(page.locator("#dialog-title")).to_have_text("That can't be done now")
    await expect(page.locator("dialog").get_by_role("alert")).to_contain_text("isn't connected")


async def test_an_ended_session_leads_to_the_login(
    site: Site, context: BrowserContext, fleet_app: FastAPI
) -> None:
    order = place(fleet_app)
    page = await site.log_in(context, page="/orders")
    await expect(page.locator(f"#order-{order.id}")).to_be_visible()
    await context.clear_cookies()
    await page.locator(f"#order-{order.id}").get_by_role("button", name="Details").click()
    await page.wait_for_url(f"{site.url}/login*")


async def test_lists_are_sorted_by_their_columns_and_stay_so(
    site: Site, context: BrowserContext, fleet_app: FastAPI
) -> None:
    for symbol, qty in (("MSFT", 10), ("AAPL", 9), ("TSLA", 2)):
        place(fleet_app, symbol=symbol, qty=qty, limit_price=50.0)
        place(fleet_app, symbol=symbol, qty=qty, order_type="market", limit_price=None, time_in_force="day")
    page = await site.log_in(context, page="/orders")
    for table, cell, shares in (("#orders", 4, [2, 2, 9, 9, 10, 10]), ("#positions", 2, [2, 9, 10])):
        column = page.locator(table).get_by_role("button", name="Shares")
        await column.focus()
        await page.keyboard.press("Enter")
        heading = page.locator(f"{table} th[aria-sort]")
        await expect(heading).to_have_attribute("aria-sort", "ascending")
        values = page.locator(f"{table} tbody tr > :nth-child({cell})")
        found = await values.evaluate_all("all => all.map(one => Number(one.dataset.value))")
        assert found == shares
        await column.click()
        await expect(heading).to_have_attribute("aria-sort", "descending")
    newest = place(fleet_app, symbol="NVDA", qty=5, limit_price=50.0)
    await expect(page.locator(f"#order-{newest.id}")).to_be_visible()
    rows = page.locator("#orders tbody tr th")
    await expect(rows).to_have_text(["MSFT", "MSFT", "AAPL", "AAPL", "NVDA", "TSLA", "TSLA"])


async def test_a_change_that_may_have_arrived_is_not_offered_again(
    site: Site, context: BrowserContext, fleet_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = served(fleet_app).broker
    order = place(fleet_app)

    def silent(*_: object, **__: object) -> Order:
        raise OrderOutcomeUnknown("the change may have arrived", order)

    def away(*_: object) -> Order:
        raise NotConnected("the link is down")

    monkeypatch.setattr(broker, "replace_order", silent)
    page = await site.log_in(context, page="/orders")
    await open_life(page, order)
    await page.get_by_role("button", name="Change …").click()
    await page.locator("#change-limit_price").fill("151")
    await page.get_by_role("button", name="Change it").click()
    await expect(page.locator("#dialog-title")).to_contain_text("isn't known")
    await expect(page.get_by_role("button", name="Change it")).to_have_count(0)
    await page.keyboard.press("Escape")
    monkeypatch.setattr(broker, "place_order", away)
    await page.get_by_role("button", name="New order").click()
    await fill_in(page, symbol="AAPL", qty="1")
    name = await page.locator("input[name=client_order_id]").input_value()
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_role("button", name="Place the order").click()
    await page.get_by_role("button", name="Back to the order").click()
    await expect(page.locator("#order-symbol")).to_have_value("AAPL")
    assert await page.locator("input[name=client_order_id]").input_value() == name, (
        "nothing left: the same order"
    )
