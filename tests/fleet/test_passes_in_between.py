"""Passes of a large fleet that look only at accounts on the way."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.fleet.model import Fleet


@pytest.fixture
def fleet(engine, vault) -> Fleet:
    return Fleet(engine, vault)


def test_a_pass_in_between_lists_only_accounts_on_the_way(fleet, monkeypatch):
    monkeypatch.setattr("broker.fleet.reconciler.passes_calls", lambda _droplets: 3)
    resting = fleet.connect(name="resting")
    fleet.until(resting, "running")
    fleet.advance(seconds=30)
    assert fleet.pass_().whole
    with fleet.engine.begin() as db:  # nothing was written since that pass
        db.execute(text("update broker_accounts set updated_at = updated_at - interval '1 hour'"))
    new = fleet.connect(name="new")
    stranger = fleet.world.add_foreign("stack:other", "manager:service", f"account:{new}")
    fleet.reconciler.metrics.quarantined.set(7)
    tags = []
    listing = fleet.world.list_by_tag
    monkeypatch.setattr(fleet.world, "list_by_tag", lambda tag, of: tags.append(tag) or listing(tag, of))
    for _ in range(6):
        told = fleet.reconciler.run_pass(whole=False)
        assert (told.whole, told.lists, told.accounts) == (False, 1, 1)
        fleet.world.proceed(fleet.enroller)
    assert fleet.status(new) == ("running", "")
    assert set(tags) == {f"account:{new}"}
    assert stranger in fleet.world.machines
    quarantined = ("fleet_quarantined", {})
    assert fleet.reconciler.metrics.registry.get_sample_value(*quarantined) == 7, "it saw some accounts only"
    assert fleet.reconciler.run_pass().accounts == 2
    assert fleet.reconciler.metrics.registry.get_sample_value(*quarantined) == 0
