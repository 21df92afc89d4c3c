"""C100: any sequence of operations, crashes and faults, over each broker, judged by the exchange's own book.

Hypothesis chooses the sequence. Few and short examples here; `make soak`
runs the same world a thousand times over. What must hold is in `soak.judge`.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from broker.validation import STOP_LOSS, TAKE_PROFIT
from soak.brokers import BUILD
from soak.faults import faults_of
from soak.in_process import venue_for
from soak.process import let_the_dead_rest
from soak.venue import PRICE
from soak.world import SYMBOLS, World, by_money, request
from tests.conformance.conftest import REAL

SIDES, KINDS = st.sampled_from(["buy", "sell"]), st.sampled_from([None, True, False])
PRICES = st.integers(-300, 300).map(lambda points: round(PRICE * (1 + points / 10_000), 2))


class Machine(RuleBasedStateMachine):
    """One account from empty to the reckoning in `teardown`."""

    kind = ""
    placed = Bundle("placed")
    brackets = Bundle("brackets")

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="machine-"))
        venue = self._open.enter_context(venue_for(self.kind))
        self.world = World(self.kind, venue, Path(folder) / "orders.sqlite")
        self._open.callback(self.world.close)

    @rule(target=placed, side=SIDES, qty=st.integers(1, 5), near=KINDS, symbol=st.sampled_from(SYMBOLS))
    def place(self, side: str, qty: int, near: bool | None, symbol: str) -> str:
        reference = f"m-{len(self.world.asked)}"
        self.world.place(request(reference, side=side, qty=qty, near=near, symbol=symbol))
        return reference

    @rule(target=placed, symbol=st.sampled_from(SYMBOLS))
    def close_position(self, symbol: str) -> str:
        reference = f"m-{len(self.world.asked)}"
        self.world.close_position(reference, symbol)
        return reference

    @precondition(lambda self: self.world.process.broker.capabilities.notional)
    @rule(target=placed, dollars=st.integers(50, 900), symbol=st.sampled_from(SYMBOLS))
    def place_by_money(self, dollars: int, symbol: str) -> str:
        reference = f"m-{len(self.world.asked)}"
        self.world.place(by_money(reference, dollars=dollars, symbol=symbol))
        return reference

    @rule(target=brackets, side=SIDES, qty=st.integers(1, 5), near=KINDS, symbol=st.sampled_from(SYMBOLS))
    def place_bracket(self, side: str, qty: int, near: bool | None, symbol: str) -> str:
        reference = f"m-{len(self.world.asked)}"
        self.world.place_bracket(request(reference, side=side, qty=qty, near=near, symbol=symbol))
        return reference

    @rule(reference=brackets, which=st.sampled_from([TAKE_PROFIT, STOP_LOSS]), price=st.none() | PRICES)
    def leg(self, reference: str, which: str, price: float | None) -> None:
        self.world.leg(reference, which, price)

    @rule(reference=brackets)
    def cancel_bracket(self, reference: str) -> None:
        self.world.cancel(reference)

    @rule(reference=placed)
    def repeat(self, reference: str) -> None:
        self.world.repeat(reference)

    @rule(reference=placed)
    def cancel(self, reference: str) -> None:
        self.world.cancel(reference)

    @rule(reference=placed, price=PRICES, qty=st.none() | st.integers(1, 8))
    def replace(self, reference: str, price: float, qty: int | None) -> None:
        self.world.replace(reference, price, qty)

    @rule()
    def cancel_all(self) -> None:
        self.world.cancel_all()

    @rule()
    def read(self) -> None:
        self.world.read()

    @rule(symbol=st.sampled_from(SYMBOLS), price=PRICES)
    def price_moves(self, symbol: str, price: float) -> None:
        self.world.move_price(symbol, price)

    @rule(commits=st.integers(0, 5))
    def die_within(self, commits: int) -> None:
        self.world.kill_after(commits)

    @rule()
    def crash(self) -> None:
        self.world.restart()

    @precondition(lambda self: faults_of(self.kind))
    @rule(data=st.data())
    def fault(self, data: st.DataObject) -> None:
        self.world.begin(data.draw(st.sampled_from(faults_of(self.kind))))

    @rule()
    def heal(self) -> None:
        self.world.heal()

    def teardown(self) -> None:
        try:
            tally = self.world.settle()
            assert not tally.violations, "\n".join(tally.violations)
        finally:
            self._open.close()


@pytest.mark.skipif(bool(REAL), reason="C100 needs the exchange's own book")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker_kind", sorted(BUILD))
def test_c100_no_order_is_lost_doubled_or_misread(broker_kind: str) -> None:
    """C100 guards order safety as a whole: the invariants of the design, under everything that goes wrong."""
    let_the_dead_rest()
    machine = type(f"Machine_{broker_kind}", (Machine,), {"kind": broker_kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=14,
            deadline=None,
            # Time is the machine's: what was seen once may not be seen again, so nothing is stored,
            # and shrinking a sequence costs a reckoning for each attempt.
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
