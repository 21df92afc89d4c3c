"""The dashboard in a real Chromium, before the stack as `make up` brings it up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from broker.service.dashboard.pages import PAGES
from tests.e2e.browsing import EVERYTHING, Person, a_browser
from tests.e2e.conftest import Service, ask, eventually
from tests.e2e.users import ACCOUNTS, User
from tools import stack as commands
from tools.local_stack import LocalStack

People = Callable[..., Person]
LIMIT = "ibkr:limits.ordersPerMinute"
RESTING = {"symbol": "AAPL", "qty": "2", "order_type": "limit", "limit_price": "1.25"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as found:
        yield found


@pytest.fixture
def person(browser: Browser, stack: LocalStack, service: Service) -> Iterator[People]:
    """Makes people; whoever is left at the end leaves, and had nothing to complain of."""
    there: list[Person] = []

    def make(name: str = "demo", **looks: object) -> Person:
        there.append(Person(browser, stack, name, **looks))
        return there[-1]

    yield make
    for one in there:
        one.leave()


def fill_in(page: Page, **values: str) -> None:
    for name, value in values.items():
        field = page.locator(f"#order-{name}")
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def test_the_link_that_make_up_prints_opens_the_account(
    stack: LocalStack, service: Service, person: People, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.up(stack)
    link = next(word for word in capsys.readouterr().out.split() if "/login#" in word)
    somebody = person()
    somebody.page.goto(link)
    somebody.page.wait_for_url(f"{somebody.url}/")
    page = somebody.page
    account = service.get("account").json()
    expect(page.locator("#clock")).to_contain_text(account["id"])
    expect(page.locator("#tiles")).to_contain_text(f"{account['cash']:,.2f}".replace("-", "−"))
    expect(page.locator("#status")).to_contain_text("Connected")
    expect(page.locator(".mode")).to_have_text("Paper")
    expect(page.locator("#clock")).to_contain_text("open until")
    expect(page.get_by_role("button", name="Stop trading")).to_be_visible()
    token = link.partition("#")[2]
    assert token not in page.content() + page.url
    assert page.evaluate("document.cookie + Object.values(localStorage).join()") == ""


def test_an_order_is_placed_filled_and_cancelled_before_the_eyes_of_all(
    service: Service, person: People
) -> None:
    trader = person()
    watcher = person(color_scheme="dark", viewport={"width": 390, "height": 844})
    page = trader.log_in(page="/orders")
    other = watcher.log_in("user", page="/orders")

    page.get_by_role("button", name="New order").click()
    fill_in(page, **RESTING)
    trader.picture("order-form")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("dialog")).to_contain_text("BUY 2 AAPL")
    expect(page.locator("dialog")).to_contain_text("Buying power after it")
    trader.picture("order-preview")
    page.get_by_role("button", name="Place the order").click()
    expect(page.locator("dialog")).to_contain_text("The order is placed")
    trader.picture("order-placed")
    trader.close_dialog()
    number = service.get("orders").json()[0]["id"]
    for looked_at in (page, other):
        expect(looked_at.locator(f"#order-{number}")).to_contain_text("submitted")
    assert (
        other.get_by_role("button", name="Cancel").count() == 0
        or not other.get_by_role("button", name="Cancel").first.is_visible()
    ), "who is no trader isn't offered it"

    # Somebody fills an order elsewhere, through the API: everybody sees it, and what it does.
    held = {p["symbol"]: p["qty"] for p in service.get("positions").json()}.get("NVDA", 0)
    bought = service.order(symbol="NVDA", side="buy", qty=3, order_type="market").json()["id"]
    for looked_at in (page, other):
        expect(looked_at.locator(f"#order-{bought}")).to_contain_text("filled")
        expect(looked_at.locator("#position-NVDA td").first).to_have_text(f"{held + 3:g}")
    trader.picture("orders")
    watcher.picture("orders-dark-phone")

    page.locator(f"#order-{bought}").get_by_role("button", name="Details").click()
    expect(page.locator("dialog .timeline")).to_contain_text("executed 3 at")
    trader.picture("order-life")
    trader.close_dialog()

    page.locator(f"#order-{number}").get_by_role("button", name="Cancel").click()
    for looked_at in (page, other):
        expect(looked_at.locator(f"#order-{number}")).to_contain_text("cancelled")
    assert trader.never_reloaded()
    assert watcher.never_reloaded()
    assert service.get(f"orders/{number}").json()["status"] == "cancelled"
    sold = service.order(symbol="NVDA", side="sell", qty=3, order_type="market").json()["id"]
    expect(page.locator(f"#order-{sold}")).to_contain_text("filled")


def test_the_keyboard_alone_logs_in_places_an_order_and_cancels_it(service: Service, person: People) -> None:
    somebody = person()
    page, keys = somebody.page, somebody.page.keyboard
    page.goto(f"{somebody.url}/login?next=/orders")
    expect(page.get_by_label("Bearer token")).to_be_focused()
    keys.insert_text(somebody.link().partition("#")[2])
    keys.press("Enter")
    page.wait_for_url(f"{somebody.url}/orders")
    somebody.is_live()
    somebody.tab_to(page.get_by_text("Skip to the content"))
    keys.press("Enter")
    somebody.tab_to(page.get_by_role("button", name="New order"))
    keys.press("Enter")
    expect(page.locator("#order-symbol")).to_be_focused()
    keys.type("MSFT")
    somebody.tab_to(page.locator("#order-qty"))
    keys.type("1")
    somebody.tab_to(page.locator("#order-order_type"))
    keys.type("limit")
    somebody.tab_to(page.locator("#order-limit_price"))
    keys.type("1.5")
    keys.press("Enter")
    place = page.get_by_role("button", name="Place the order")
    expect(place).to_be_visible()
    somebody.tab_to(place)
    keys.press("Enter")
    expect(page.locator("dialog")).to_contain_text("The order is placed")
    keys.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    number = service.get("orders").json()[0]["id"]
    cancel = page.locator(f"#order-{number}").get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible()
    somebody.tab_to(cancel)
    keys.press("Enter")
    expect(page.locator(f"#order-{number}")).to_contain_text("cancelled")


def connect(somebody: Person, username: str, password: str, environment: str = "demo") -> str:
    """Connect an account by the form; its id."""
    page = somebody.page
    page.get_by_role("button", name="Connect an account").click()
    page.get_by_label("IBKR user name").fill(username)
    page.get_by_label("IBKR password").fill(password)
    page.get_by_label("Environment").select_option(environment)
    somebody.picture(f"connect-{environment}")
    page.locator("dialog").get_by_role("button", name="Connect").click()
    expect(page.locator("dialog")).to_contain_text("Its server is being made")
    account = page.locator("#dialog-title").inner_text()
    somebody.close_dialog()
    return account


def delete(somebody: Person, account: str) -> None:
    page = somebody.page
    page.locator(f"#gateway-{account}").get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(f"#gateway-{account}")).to_have_count(0)


def test_a_droplet_is_watched_until_it_runs_killed_and_back_and_nobody_else_sees_it(
    stack: LocalStack, person: People
) -> None:
    login = User(stack, "ann")
    ann, eve = person("ann"), person("eve")
    page = ann.log_in(page="/gateways")
    theirs = eve.log_in(page="/gateways")
    account = connect(ann, login.username, login.password)
    card = page.locator(f"#gateway-{account}")
    status = card.locator(".order-status")
    expect(status).to_have_text(re.compile("provisioning|initializing"))
    expect(card.locator(".steps [aria-current=step]")).to_be_visible()
    ann.picture("gateway-on-its-way")
    expect(status).to_have_text("running")
    ann.picture("gateway-running")

    # A second user: neither on the page nor by address.
    expect(theirs.locator("#gateways")).to_contain_text("No account is connected yet")
    assert account not in theirs.content()
    for path in (f"/gateways/{account}", f"/?via={account}", f"/live/{account}?parts=tiles"):
        assert theirs.evaluate("path => fetch(path).then(answer => answer.status)", path) == 404, path
    assert login.password not in page.content()

    # Somebody pulls the plug: the credentials were in memory alone, so they have to be given to it again.
    number = login.do("GET", account).json()["service_id"]
    ask(stack, "reset_machine", name=f"droplet/{number}")
    expect(status).not_to_have_text("running")
    ann.picture("gateway-killed")
    expect(status).to_have_text("running")
    assert ann.never_reloaded()
    card.get_by_role("button", name="History").click()
    timeline = page.locator("dialog .timeline")
    expect(timeline).to_contain_text("running")
    ann.picture("gateway-history")
    ann.close_dialog()

    # The account's own pages, through its own gateway.
    card.get_by_role("link", name="Account").click()
    expect(page.locator("#clock")).to_contain_text("account DU")
    expect(page.locator("#tiles .big").first).not_to_contain_text("…")
    ann.picture("overview-of-an-own-gateway")
    page = ann.look("/gateways")
    delete(ann, account)
    eventually(lambda: login.status(account), lambda now: now == "deleted")
    left = login.client.get(f"{ACCOUNTS}/accounts").json()["accounts"]
    assert left == []


def test_a_live_account_looks_like_one(stack: LocalStack, person: People) -> None:
    login = User(stack, "liv", mode="live")
    liv = person("liv")
    page = liv.log_in(page="/gateways")
    account = connect(liv, login.username, login.password, "live")
    expect(page.locator(f"#gateway-{account} .order-status")).to_have_text("running")
    expect(page.locator(f"#gateway-{account} .mode-tag")).to_have_text("LIVE")
    page = liv.look(f"/?via={account}")
    expect(page.locator(".mode")).to_have_text("LIVE – real money")
    expect(page.locator("#clock")).to_contain_text("account U")
    liv.picture("live-overview")
    page = liv.look(f"/orders?via={account}")
    page.get_by_role("button", name="New order").click()
    fill_in(page, **RESTING)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#dialog-title")).to_have_text("Place a LIVE order?")
    liv.picture("live-order-preview")
    page.get_by_role("button", name="Place the live order").click()
    expect(page.locator("dialog")).to_contain_text("Place a LIVE order?")  # the box isn't ticked
    page.get_by_label("This trades real money").check()
    page.get_by_role("button", name="Place the live order").click()
    expect(page.locator("dialog")).to_contain_text("The order wasn't placed")  # the gateway wasn't verified
    liv.picture("live-order-refused")
    liv.close_dialog()
    liv.look("/gateways")
    delete(liv, account)
    eventually(lambda: login.status(account), lambda now: now == "deleted")


def test_a_gateway_vm_that_is_gone_is_said_and_pages_find_the_next_revision_by_themselves(
    stack: LocalStack, service: Service, person: People
) -> None:
    somebody, trader, operator = person(), person(), person()
    page = somebody.log_in()
    health = operator.log_in(*EVERYTHING, page="/health-page")
    orders = trader.log_in(page="/orders")
    value = page.locator("#tiles .big").first
    expect(value).not_to_contain_text("…")
    ask(stack, "delete_machine", name="gce/ibkr-gateway")
    expect(page.locator("#status")).not_to_contain_text("Connected")
    expect(page.locator("#notices .bad")).to_contain_text("What is done about it")
    # Numbers grow old, and say so.
    expect(page.locator("[data-asof=account]")).to_contain_text("Not current")
    expect(page.locator("#tiles")).to_have_class(re.compile("stale"))
    assert re.search(r"\d", value.inner_text()), "the last value is still there"
    somebody.picture("gateway-vm-gone")
    expect(health.locator("#health")).to_contain_text("refuses connections")
    operator.picture("health-gateway-vm-gone")
    try:
        # The VM comes back, and with another limit a new revision of the service, in one `up`.
        stack.config.set(LIMIT, "77")
        stack.refresh()
        stack.up()
        _recovered(stack, somebody)
        placed = Service(stack).order(symbol="AAPL", side="buy", qty=1, order_type="limit", limit_price=1.25)
        row = orders.locator(f"#order-{placed.json()['id']}")
        expect(row).to_contain_text("submitted")
        row.get_by_role("button", name="Cancel").click()
        expect(row).to_contain_text("cancelled")
    finally:
        stack.config.unset(LIMIT)
        stack.up()
    # A rollout alone, without anything that was broken before.
    _recovered(stack, somebody)
    expect(page.locator("#lost")).to_be_hidden()
    assert somebody.never_reloaded()
    assert trader.never_reloaded()


def _recovered(stack: LocalStack, somebody: Person) -> None:
    """The page follows the only revision that is left, and is current again."""
    page = somebody.page
    eventually(
        lambda: [m["name"] for m in stack.cloud.machines() if m["name"].startswith("run/")],
        lambda revisions: len(revisions) == 1,
    )
    before = page.locator("#pulse").get_attribute("data-account")
    expect(page.locator("#pulse")).not_to_have_attribute("data-account", str(before))
    expect(page.locator("#status")).to_contain_text("Connected")
    expect(page.locator("#notices .bad")).to_have_count(0)
    expect(page.locator("[data-asof=account]")).to_contain_text("As of")
    expect(page.locator("#tiles")).not_to_have_class(re.compile("stale"))


@pytest.fixture
def something_to_see(service: Service) -> Iterator[None]:
    """A position of some value and an order that rests: tables with little in them fit any screen."""
    bought = service.order(symbol="SPY", side="buy", qty=250, order_type="market").json()["id"]
    eventually(lambda: service.get(f"orders/{bought}").json()["status"], lambda status: status == "filled")
    resting = service.order(symbol="AAPL", side="buy", qty=1000, order_type="limit", limit_price=101.25)
    yield
    service.client.delete(f"/api/v1/connections/default/orders/{resting.json()['id']}")
    service.order(symbol="SPY", side="sell", qty=250, order_type="market")


@pytest.mark.parametrize(
    ("look", "settings"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "has_touch": True}),
    ],
)
def test_every_page_in_light_dark_and_on_a_phone(
    something_to_see: None, person: People, look: str, settings: dict[str, object]
) -> None:
    somebody = person(**settings)
    somebody.log_in(*EVERYTHING)
    for name, (address, title, _) in PAGES.items():
        page = somebody.look(address)
        expect(page.locator("h1")).to_have_text(title)
        expect(page.locator("#status")).to_contain_text("Connected")
        if name == "orders":
            expect(page.locator("#position-SPY")).to_contain_text("250")
            expect(page.locator("#orders")).to_contain_text("submitted")
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, f"{name} is wider than the screen"
        expect(page.get_by_role("button", name="Stop trading")).to_be_in_viewport()
        somebody.picture(f"{name}-{look}")
        assert somebody.serious() == [], name
