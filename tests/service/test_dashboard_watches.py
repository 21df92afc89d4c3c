"""What the dashboard keeps while people look, and lets go when they don't."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from broker.service.auth import Principal
from broker.service.dashboard import pushed
from broker.service.dashboard.pages import Dashboard, Maker
from broker.service.dashboard.pushed import Pushed
from broker.service.dashboard.wording import words


class Clock(Pushed):
    """Pieces that change when told."""

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        return [asyncio.sleep(3600)]


def somebody(user: str, *roles: str) -> Principal:
    return Principal(user, frozenset(roles), 0.0)


async def test_who_looks_no_more_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed, "LINGER", 0)
    dashboard: Any = Dashboard("test")
    dashboard.makers |= dict.fromkeys(("clock", "hands"), Maker(lambda _request, _who: Clock()))
    first = dashboard.of_user("clock", None, somebody("ada"))
    with first.followed(asyncio.Event()):
        dashboard.of_user("clock", None, somebody("bob"))
        assert dashboard.of_user("hands", None, somebody("ada")) is first, "parts of one source"
        assert dashboard.of_user("clock", None, somebody("ada", "operator")) is not first
    await asyncio.sleep(0.01)
    assert first.idle
    dashboard.of_user("clock", None, somebody("eve"))
    assert [user for _, user, _ in dashboard._others] == ["eve"]


def test_words_are_escaped_once_by_the_template() -> None:
    dashboard = Dashboard("test")
    template = dashboard.templates.from_string("{{ said | words }}")
    assert words("partially_filled") == "partially filled"
    assert template.render(said="a & <b>") == "a &amp; &lt;b&gt;"
