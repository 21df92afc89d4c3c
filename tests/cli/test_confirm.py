"""Before a live order a person at a terminal is asked, and nobody else can be.

The terminal is a real pseudo terminal, the account one that is named as IBKR names live ones (at the
paper exchange, so no money is in it).
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cli.desk import CLIENT_ID
from broker.cli.exits import Exit
from broker.factory import journal_from_environment, settings_from_environment
from broker.risk.live import record_verification
from broker.risk.wiring import gateway
from tests.broker.paper_gateway import Paper, paper_gateway
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
ORDER = ("buy", "AAPL", "5", "--limit", "150")


@pytest.fixture(scope="module")
def live() -> Iterator[Paper]:
    """A gateway that is logged in to an account named like a live one."""
    with paper_gateway("live") as made:
        yield made


@pytest.fixture(autouse=True)
def settings(live: Paper, environment: pytest.MonkeyPatch) -> None:
    """The settings lead to the live gateway."""
    environment.setenv("BROKER_TYPE", "ibkr")
    environment.setenv("IBKR_GATEWAY_PORT", str(live.port))
    environment.setenv("IBKR_TRADING_MODE", "live")


@pytest.fixture
def verified(live: Paper, settings: None) -> None:
    """This gateway has passed a verification: the live lock is off."""
    found = gateway(settings_from_environment(os.environ | {"IBKR_CLIENT_ID": CLIENT_ID}))
    record_verification(journal_from_environment(os.environ), live.account, found, "a test", {"all": True})


def at_a_terminal(typed: str, *arguments: str) -> tuple[int, str]:
    """Run a command at a pseudo terminal and type when it asks; its exit code and all that was shown."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "broker", *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        close_fds=True,
    )
    os.close(terminal)
    shown = b""
    try:
        while True:
            try:
                part = os.read(controller, 4096)
            except OSError:  # the last of those who had it open has gone
                break
            if not part:
                break
            asked_before = b"characters to go on:" in shown
            shown += part
            if b"characters to go on:" in shown and not asked_before:
                os.write(controller, typed.encode() + b"\n")
        return process.wait(60), shown.decode()
    finally:
        os.close(controller)
        process.kill()


def sent(live: Paper) -> list[str]:
    """The client order ids in the exchange's own book."""
    return [str(order["order_ref"]) for order in live.book()]


def test_what_is_confirmed_shows_account_mode_order_and_value(live: Paper) -> None:
    code, shown = at_a_terminal("nope", *ORDER, "--client-order-id", "mistyped")
    assert code == Exit.NOT_CONFIRMED
    for told in (live.account, "LIVE", "buy 5 AAPL limit 150.00 day", "750.00"):
        assert told in shown
    assert "Traceback" not in shown
    assert "mistyped" not in sent(live)


def test_a_market_orders_value_is_of_the_newest_price_and_says_its_age(live: Paper) -> None:
    _, shown = at_a_terminal("", "buy", "AAPL", "5")
    assert "1,000." in shown, shown
    assert " old)" in shown


@pytest.mark.usefixtures("verified")
def test_the_accounts_last_four_characters_let_it_pass(live: Paper) -> None:
    code, shown = at_a_terminal(live.account[-4:], *ORDER, "--client-order-id", "typed")
    assert (code, "typed" in sent(live)) == (0, True), shown


def test_a_gateway_that_was_never_verified_stays_locked_whatever_is_confirmed(run: Run, live: Paper) -> None:
    done = run(*ORDER, "--client-order-id", "locked", "--yes", "--json")
    assert (done.code, done.error["kind"]) == (Exit.NOT_ALLOWED, "live-locked")
    assert "locked" not in sent(live)


def test_a_verification_unlocks_the_gateway_and_sends_nothing(run: Run, live: Paper) -> None:
    before = sent(live)
    assert run(*ORDER, "--client-order-id", "before", "--yes", "--json").error["kind"] == "live-locked"
    done = run("verify", "--symbol", "AAPL", "--json")
    found = done.document["verification"]
    assert (done.code, found["passed"], found["mode"]) == (Exit.OK, True, "live"), done.out
    names = [check["name"] for check in found["checks"]]
    assert "preview" in names
    assert "order" not in names
    assert sent(live) == before
    assert run(*ORDER, "--client-order-id", "after", "--yes", "--json").code == Exit.OK
    assert "after" in sent(live)


@pytest.mark.usefixtures("verified")
def test_a_verification_that_fails_locks_the_gateway_again(run: Run, live: Paper) -> None:
    done = run("verify", "--symbol", "NOSUCH", "--json")
    failed = [check for check in done.document["verification"]["checks"] if not check["passed"]]
    assert done.code == Exit.NOT_ALLOWED
    assert [check["name"] for check in failed] == ["quote", "preview"]
    assert all(check["found"] and check["remedy"] for check in failed)
    assert "FAIL" in run("verify", "--symbol", "NOSUCH").out
    assert run(*ORDER, "--client-order-id", "again", "--yes", "--json").error["kind"] == "live-locked"
    assert "again" not in sent(live)


@pytest.mark.usefixtures("verified")
def test_without_a_terminal_it_is_refused_unless_yes_is_given(run: Run, live: Paper) -> None:
    done = run(*ORDER, "--client-order-id", "piped", "--json")
    assert (done.code, done.error["kind"]) == (Exit.NOT_CONFIRMED, "not-confirmed")
    assert "no terminal" in done.error["message"]
    assert "piped" not in sent(live)
    agreed = run(*ORDER, "--client-order-id", "agreed", "--yes", "--json")
    assert (agreed.code, "agreed" in sent(live)) == (0, True), agreed.out


def test_cancelling_all_and_changing_ask_too_and_a_single_cancel_does_not(run: Run) -> None:
    assert run("cancel-all", "--json").code == Exit.NOT_CONFIRMED
    assert run("replace", "0" * 32, "--limit", "5", "--json").code == Exit.NOT_CONFIRMED
    assert run("cancel", "0" * 32, "--json").code == Exit.NOT_FOUND


def test_a_wrong_order_is_refused_before_anybody_is_asked(run: Run) -> None:
    assert run("buy", "AAPL", "0", "--json").code == Exit.USAGE


def test_watch_shows_tables_at_a_terminal_until_its_time_is_over() -> None:
    code, shown = at_a_terminal("", "watch", "--for", "0.5")
    assert code == 0
    for title in ("Positions", "Orders", "Fills"):
        assert title in shown


def test_looking_never_asks(run: Run, live: Paper) -> None:
    found = run("account", "--json")
    assert (found.code, found.document["mode"]) == (0, "live")
