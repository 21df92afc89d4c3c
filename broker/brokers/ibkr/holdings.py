"""Positions of one session's own account: converted once, and again when TWS tells of a change."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from broker.brokers.ibkr.account import position_of
from broker.models import Position

if TYPE_CHECKING:
    from broker.brokers.ibkr.session import Session

#: seconds to wait for the portfolio row of a position that was just opened
PORTFOLIO_WAIT = 2.0
_FIELDS = tuple(field.name for field in dataclasses.fields(Position))


class Holdings:
    """Written on the loop's thread; `kept` may be read from any."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, ...]] | None = None
        #: by contract id: the rows of TWS that a position was made of, and the position
        self._made: dict[int, tuple[Any, Any, Position]] = {}

    def changed(self) -> None:
        """TWS told of a position or of its price."""
        self._kept = None

    def kept(self) -> list[Position] | None:
        """All positions by symbol, new records each time, or None: something has changed since."""
        rows = self._kept
        return None if rows is None else [Position(*row) for row in rows]

    async def read(self, session: Session) -> tuple[list[Position], list[Any]]:
        """The positions as TWS last told of them, and its rows of those that have no price yet."""
        held = [p for p in session.ib.positions(session.account) if p.position]
        items = await _priced(session, {p.contract.conId for p in held}) if held else {}
        found, bare = [], []
        for row in held:
            item = items.get(row.contract.conId)
            if item is None:
                bare.append(row)
            else:
                found.append(self._position(row, item))
        found.sort(key=lambda p: p.symbol)
        if not bare:
            self._kept = [tuple(getattr(p, name) for name in _FIELDS) for p in found]
        return [dataclasses.replace(p) for p in found], bare

    def _position(self, held: Any, item: Any) -> Position:
        number = held.contract.conId
        made = self._made.get(number)
        if made is None or made[0] is not held or made[1] is not item:
            made = self._made[number] = (held, item, position_of(held, item, float(item.marketPrice)))
        return made[2]


async def _priced(session: Session, wanted: set[int]) -> dict[int, Any]:
    """Portfolio rows with a price by contract id; those of new positions are waited for, a moment."""
    deadline = asyncio.get_running_loop().time() + PORTFOLIO_WAIT
    while True:
        rows = session.ib.portfolio(session.account)
        found = {row.contract.conId: row for row in rows if row.marketPrice > 0}
        if wanted <= found.keys() or asyncio.get_running_loop().time() > deadline or session.lost.is_set():
            return found
        updated = asyncio.ensure_future(_next(session.ib.updatePortfolioEvent))
        await asyncio.wait({updated}, timeout=0.1)
        updated.cancel()


async def _next(event: Any) -> None:
    await event
