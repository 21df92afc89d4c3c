"""What a rollback asks before it changes anything. The whole is tested in tests/e2e/test_rollback.py."""

from __future__ import annotations

from typing import Any

import pytest

from tools.environments import CHECKOUT
from tools.local_cloud import CommandFailed
from tools.real_stack import RealStack
from tools.rollback import UNSEEN, Holding, changes, check, decide, describe, given, where_to

ORDER = Holding(
    "a1", "GOOD TILL CANCELLED buy 1 AAPL limit at 1, gtc, submitted, filled 0", ("cancel", "keep")
)
POSITION = Holding("AAPL", "position of 3 AAPL", ("keep",))


def order(**fields: Any) -> dict[str, Any]:
    return {
        "id": "a1",
        "symbol": "AAPL",
        "side": "buy",
        "qty": 2.0,
        "order_type": "limit",
        "limit_price": 150.5,
        "time_in_force": "day",
        "status": "submitted",
        "filled_qty": 1.0,
    } | fields


def test_an_order_is_described_with_what_matters() -> None:
    assert describe(order()) == "buy 2 AAPL limit at 150.5, day, submitted, filled 1"
    assert describe(order(time_in_force="gtc")).startswith("GOOD TILL CANCELLED buy 2 AAPL")


def test_without_a_decision_for_each_nothing_goes_on_and_all_are_named() -> None:
    with pytest.raises(CommandFailed) as failure:
        decide([ORDER, POSITION], {}, None)
    said = str(failure.value)
    assert "The stack is unchanged" in said
    assert "a1=cancel|keep   # GOOD TILL CANCELLED buy 1 AAPL" in said
    assert "AAPL=keep   # position of 3 AAPL" in said


def test_a_decision_that_does_not_fit_is_none() -> None:
    with pytest.raises(CommandFailed, match="AAPL=keep"):
        decide([POSITION], {"AAPL": "cancel"}, None)


def test_decisions_are_taken_as_given() -> None:
    assert decide([ORDER, POSITION], given("a1=cancel, AAPL=keep"), None) == {"a1": "cancel", "AAPL": "keep"}


def test_a_person_is_asked_until_the_answer_fits() -> None:
    answers = iter(["", "yes", "Keep", "keep"])
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return next(answers)

    assert decide([ORDER, POSITION], {}, ask) == {"a1": "keep", "AAPL": "keep"}
    assert len(asked) == 4
    assert "cancel or keep?" in asked[0]


@pytest.mark.parametrize("text", ["a1", "a1=sell", "=keep"])
def test_decisions_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="DECISIONS has"):
        given(text)


def test_what_cannot_be_seen_must_be_accepted_knowingly() -> None:
    unseen = Holding(UNSEEN, "IBKR can't be reached", ("accept",))
    with pytest.raises(CommandFailed, match="unseen=accept"):
        decide([unseen], {}, None)
    assert decide([unseen], given("unseen=accept"), None) == {UNSEEN: "accept"}


def test_the_settings_of_a_rollback_leave_a_protected_gateway_alone() -> None:
    assert changes({"ibkr:marketDataSource": "ibkr"}) == {
        "ibkr:brokerType": "alpaca",
        "ibkr:marketDataSource": "alpaca",
        "ibkr:gateway.enabled": False,
    }
    protected = {"ibkr:gateway": {"protectSettings": True}, "ibkr:marketDataSource": "yfinance"}
    assert changes(protected) == {"ibkr:brokerType": "alpaca"}


def test_it_says_whether_alpaca_is_paper_or_live() -> None:
    assert "paper" in where_to(RealStack("staging").configuration())
    assert "LIVE" in where_to(RealStack("prod").configuration())


def test_without_alpacas_keys_nothing_begins() -> None:
    stack = RealStack("staging")
    with pytest.raises(
        CommandFailed, match=r"config set --stack staging --secret --path 'ibkr:alpaca.secretKey'"
    ):
        check(stack, {"ibkr:alpaca": {"apiKey": {"secure": "v1:x"}}})
    check(stack, {"ibkr:alpaca": {"apiKey": {"secure": "v1:x"}, "secretKey": {"secure": "v1:y"}}})


def test_the_pages_name_the_command() -> None:
    for file in ("docs/production.md", "docs/runbooks.md"):
        assert "make rollback STACK=" in (CHECKOUT / file).read_text(), file
