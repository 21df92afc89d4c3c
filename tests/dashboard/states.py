"""The states of pages that the running stack doesn't come to by itself: a list to be looked at.

A new page or state is one more line of `STATES`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from playwright.async_api import Page
from sqlalchemy import Engine, text

from broker.fleet.account import State as Status
from broker.fleet.account import Wanted
from broker.fleet.models import account_droplets, broker_accounts
from broker.risk.switch import KillSwitch


@dataclass(frozen=True)
class State:
    """What a page shows after something has happened.

    `happens` is done in the database, `does` on the page; `says` is what somebody then reads.
    """

    name: str
    page: str
    says: tuple[str, ...]
    happens: Callable[[Engine], None] | None = None
    does: Callable[[Page], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Gateway:
    """An account as the reconciler has left it."""

    id: str
    environment: str
    wanted: Wanted
    status: Status
    reason: str = ""
    droplet: bool = True


#: for how long they have been connected
DAYS = timedelta(days=9)
GATEWAYS = (
    Gateway("ib-paper-0000a001", "paper", Wanted.RUNNING, Status.PROVISIONING, "creating"),
    Gateway("ib-paper-0000a002", "paper", Wanted.RUNNING, Status.INITIALIZING, "gateway_starting"),
    Gateway("ib-live-0000a003", "live", Wanted.RUNNING, Status.INITIALIZING, "second_factor"),
    Gateway("ib-live-0000a004", "live", Wanted.RUNNING, Status.RUNNING),
    Gateway("ib-demo-0000a005", "demo", Wanted.STOPPED, Status.STOPPED, "powered_off"),
    Gateway("ib-demo-0000a006", "demo", Wanted.HIBERNATED, Status.STOPPED, "hibernated", droplet=False),
    Gateway("ib-paper-0000a007", "paper", Wanted.RUNNING, Status.ERROR, "login_failed"),
)


def gateways(engine: Engine) -> None:
    """One account in each status. They stay so: another instance holds the reconciler's lease."""
    KillSwitch(engine).resume("ada", "it was nothing")
    with engine.begin() as db:
        db.execute(text("update fleet_lease set holder = 'another', expires_at = now() + interval '1 hour'"))
        now = db.execute(text("select clock_timestamp()")).scalar_one()
        for number, one in enumerate(GATEWAYS):
            row = {
                "id": one.id,
                "user_id": "ada",
                "username": f"ada{number}",
                "username_index": 1,
                "environment": one.environment,
                "ib_username_hash": f"{number:064x}",
                "wanted": one.wanted,
                "status": one.status,
                "status_reason": one.reason,
                "status_since": now,
                "created_at": now - DAYS,
                "updated_at": now,
            }
            if one.droplet:
                row |= {
                    "do_droplet_id": 512000100 + number,
                    "do_droplet_name": f"ada{number}-ib-{one.environment}-1",
                    "do_region": "nyc1",
                    "do_last_status_check": now,
                }
            db.execute(broker_accounts.insert(), row)
            db.execute(
                account_droplets.insert(),
                {
                    "account_id": one.id,
                    "droplet_id": 512000100 + number,
                    "size": "s-1vcpu-1gb",
                    "price_monthly": 6.0,
                    "began_at": now - DAYS,
                    "ended_at": None if one.droplet else now - DAYS / 2,
                },
            )


def halt(engine: Engine) -> None:
    """Somebody stops all trading."""
    KillSwitch(engine).halt("ada", "a strange market")


async def wrong_order(page: Page) -> None:
    """An order with mistakes in it."""
    await page.get_by_role("button", name="New order").click()
    await page.locator("#order-symbol").fill("AAPL")
    await page.locator("#order-qty").fill("three")
    await page.locator("#order-order_type").select_option("limit")
    await page.get_by_role("button", name="Preview").click()
    await page.locator("#error-qty").wait_for()


async def pull_the_switch(page: Page) -> None:
    """The question before all trading is stopped."""
    await page.get_by_role("button", name="Stop trading").click()
    await page.locator("dialog [name=reason]").wait_for()


async def delete_a_gateway(page: Page) -> None:
    """The question before an account is deleted."""
    await page.locator("#gateway-ib-live-0000a004").get_by_role("button", name="Delete").click()
    await page.locator("dialog form").wait_for()


#: in the order in which they come: what has happened stays
STATES = (
    State("empty-overview", "/", ("Nothing is held", "No values yet")),
    State("empty-orders", "/orders", ("No order yet",)),
    State("empty-gateways", "/gateways", ("No account is connected yet",)),
    State("order-with-mistakes", "/orders", ("valid number",), does=wrong_order),
    State("kill-switch-question", "/", ("Stop all trading?",), does=pull_the_switch),
    State("empty-fleet", "/fleet", ("No account fits",)),
    State("health-of-little", "/health-page", ("All is well",)),
    State("kill-switch-on", "/", ("No order leaves", "a strange market"), happens=halt),
    State(
        "gateways-in-each-status",
        "/gateways",
        (*(one.id for one in GATEWAYS), "approve the login on your phone", "Hibernated"),
        happens=gateways,
    ),
    State("fleet", "/fleet", tuple(one.id for one in GATEWAYS)),
    State("fleet-of-an-error", "/fleet?status=error", ("ib-paper-0000a007",)),
    State("health", "/health-page", ("IBKR waits for the second factor", "Reconciler", "Database")),
    State("gateway-deletion-question", "/gateways", ("Delete ib-live-0000a004?",), does=delete_a_gateway),
)
