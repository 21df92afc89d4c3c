"""Commands that change nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from broker.cli import tables
from broker.cli.confirm import mode_of
from broker.cli.desk import Desk
from broker.cli.exits import Exit
from broker.cli.program import command
from broker.errors import FieldProblem, InvalidRequest
from broker.models import FINAL_STATUSES

Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many, newest first.")]


@command("account")
def account(desk: Desk) -> None:
    """Cash, buying power and equity."""
    found = desk.broker().get_account()
    mode = mode_of(desk, found.id)
    desk.show({"account": found, "mode": mode}, tables.account_table(found, mode))


@command("accounts")
def accounts(desk: Desk) -> None:
    """The accounts of this login; the first is the one that is traded."""
    found = desk.broker().get_accounts()
    desk.show({"accounts": found}, "\n".join(found))


@command("positions")
def positions(desk: Desk) -> None:
    """What is held."""
    found = desk.broker().get_positions()
    desk.show({"positions": found}, tables.positions_table(found) if found else "no positions")


@command("orders")
def orders(
    desk: Desk,
    limit: Limit = 50,
    working: Annotated[bool, typer.Option("--working", help="Only those that may still fill.")] = False,
) -> None:
    """Recent orders, newest first."""
    found = desk.broker().get_orders_history(limit)
    if working:
        found = [order for order in found if order.status not in FINAL_STATUSES]
    desk.show({"orders": found}, tables.orders_table(found) if found else "no orders")


@command("order")
def order(
    desk: Desk,
    order_id: Annotated[str, typer.Argument(help="Our id of the order, or a client order id with --client.")],
    client: Annotated[bool, typer.Option("--client", help="The id is a client order id.")] = False,
) -> None:
    """One order with its whole life: statuses, changes, executions and the broker's messages."""
    broker = desk.broker()
    life = broker.get_order_timeline(broker.get_order_by_client_id(order_id).id if client else order_id)
    document = {"order": life.order, "timeline": life.entries, "complete": life.complete}
    desk.show(document, tables.orders_table([life.order]), tables.timeline_table(life))


@command("fills")
def fills(
    desk: Desk,
    limit: Limit = 50,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="ISO 8601; UTC without a zone.")] = "",
) -> None:
    """Executions with their commissions, newest first."""
    found = desk.broker().get_fills(moment("since", since), limit)
    desk.show({"fills": found}, tables.fills_table(found) if found else "no fills")


@command("quote")
def quote(desk: Desk, symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL...")]) -> None:
    """Prices with their age and kind, from where MARKET_DATA_SOURCE says."""
    source = desk.quotes()
    found = [source.quote(symbol) for symbol in symbols]
    desk.show({"quotes": found}, tables.quotes_table(found))


@command("clock")
def clock(desk: Desk) -> None:
    """Whether the market is open, and when that changes."""
    found = desk.broker().clock()
    desk.show({"clock": found}, tables.clock_table(found))


@command("health")
def health(desk: Desk) -> Exit:
    """The link to the broker, proved by a round trip. Exit code 3 when it isn't there."""
    from broker.errors import NotConnected

    broker = desk.made()
    try:
        broker.connect()
    except NotConnected:
        pass  # health says why
    found = broker.health()
    desk.show({"health": found}, tables.health_table(found))
    return Exit.OK if found.ok else Exit.NOT_CONNECTED


def moment(name: str, text: str) -> datetime | None:
    """A time as a person writes it, in UTC. Raises `InvalidRequest` naming the option."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        said = "must be a time such as 2026-01-31 or 2026-01-31T14:30+00:00"
        raise InvalidRequest([FieldProblem(name, said, text[:40])]) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
