"""A live order asks a person first: account, mode, order and what it is worth."""

from __future__ import annotations

import sys

from rich.panel import Panel
from rich.text import Text

from broker.base import BaseBroker
from broker.cli import tables
from broker.cli.desk import Desk
from broker.cli.exits import NotConfirmed
from broker.errors import BrokerError
from broker.models import OrderRequest
from broker.risk.modes import account_mode

#: how many of the account's last characters a person types
TYPED = 4


def mode_of(desk: Desk, account: str) -> str:
    """live, paper or simulated. Whatever isn't certainly paper counts as live."""
    kind = desk.settings.broker_type
    if kind == "simulated":
        return "simulated"
    if kind == "alpaca":
        return "paper" if desk.settings.alpaca_paper else "live"
    return "paper" if account_mode(kind, account) == "paper" else "live"


def confirm_order(desk: Desk, broker: BaseBroker, request: OrderRequest, yes: bool) -> None:
    """Return if the order may go out. Raises `NotConfirmed`."""
    account = broker.get_accounts()[0]
    if mode_of(desk, account) != "live" or yes:
        return
    _ask(desk, account, [("order", tables.words(request)), ("worth", _worth(desk, request))])


def confirm_action(desk: Desk, broker: BaseBroker, what: str, yes: bool) -> None:
    """The same for what is no single order, such as cancelling all. Raises `NotConfirmed`."""
    account = broker.get_accounts()[0]
    if mode_of(desk, account) == "live" and not yes:
        _ask(desk, account, [("action", what)])


def _ask(desk: Desk, account: str, rows: list[tuple[str, str]]) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmed(f"{rows[0][1]} on the live account {account}: there is no terminal to ask at")
    text = Text()
    for name, value in [("account", account), ("mode", "LIVE: real money"), *rows]:
        text.append(f"{name:<9}", style="bold").append(f"{value}\n")
    desk.err.print(Panel(text, title="Confirm", style="red", expand=False))
    desk.err.print(f"Type the account's last {TYPED} characters to go on: ", end="", markup=False)
    try:
        typed = input()
    except EOFError:
        typed = ""
    if typed.strip() != account[-TYPED:]:
        raise NotConfirmed("what was typed isn't the end of the account's number")


def _worth(desk: Desk, request: OrderRequest) -> str:
    """The order's value in the account's currency, and of which price; "not known" if there is none."""
    if request.notional is not None:
        return tables.money(request.notional)
    price = request.limit_price or request.stop_price
    told = f"at {tables.price(price)}"
    if price is None:
        try:
            quote = desk.quotes().quote(request.symbol)
        except BrokerError as failure:
            return f"not known: {failure.message}"
        beside = quote.ask if request.side == "buy" else quote.bid
        price = beside or quote.last or quote.close
        told = f"at {tables.price(price)}, {quote.kind}, {tables.age(quote.age_seconds)} old"
    return "not known: no price" if price is None else f"{tables.money(price * request.qty)} ({told})"
