"""The kill switch, the limits and the export of trades."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.alerts import Kind
from broker.cli import tables
from broker.cli.desk import Desk
from broker.cli.exits import Exit
from broker.cli.looking import moment
from broker.cli.program import command
from broker.errors import FieldProblem, InvalidRequest
from broker.export import check_zone, fees_csv, orders_csv, trades_csv
from broker.risk.switch import KillSwitch
from broker.risk.verification import verify
from broker.risk.wiring import declared, gateway

#: rows of one export at most
MOST_ROWS = 100_000

By = Annotated[str, typer.Option("--by", help="Who says so; your login name unless given.")]
Reason = Annotated[str, typer.Argument(help="Why, for those who find it halted.")]


@command("halt")
def halt(desk: Desk, reason: Reason, by: By = "") -> None:
    """Stop all orders of everything that shares the journal, until `resume`. Cancels still go out.

    Needs no connection to the broker. Working orders stay: see `cancel-all`.
    """
    who = by or _person()
    done = _switch(desk).halt(who, reason)
    desk.alerts.notify(Kind.KILL_SWITCH, f"halted by {who}: {reason}")
    left = done.under_way
    desk.show(
        {"halt": done}, tables.switch_table(done.state), *([f"under way: {', '.join(left)}"] if left else [])
    )


@command("resume")
def resume(desk: Desk, reason: Reason, by: By = "") -> None:
    """Let orders leave again."""
    who = by or _person()
    state = _switch(desk).resume(who, reason)
    desk.alerts.notify(Kind.KILL_SWITCH, f"resumed by {who}: {reason}")
    desk.show({"switch": state}, tables.switch_table(state))


@command("switch")
def switch(desk: Desk) -> None:
    """Whether trading is halted: since when, by whom and why."""
    state = _switch(desk).state()
    desk.show({"switch": state}, tables.switch_table(state))


def _switch(desk: Desk) -> KillSwitch:
    return KillSwitch(desk.journal().engine, environment=desk.settings_environment())


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return "command line"


@command("verify")
def verify_gateway(
    desk: Desk,
    symbol: Annotated[str, typer.Option("--symbol", help="Quoted, and previewed or ordered.")] = "SPY",
    by: By = "",
) -> Exit:
    """Try this gateway, and enter the result: live orders leave only through one that has passed.

    Through a paper account an order is placed below the market and cancelled; through a live one nothing
    is sent. The result holds for everything that shares the journal; for a deployed service run
    `make verify STACK=...`, which asks the service itself.
    """
    settings = desk.settings
    found = verify(
        desk.broker(), desk.journal(), gateway(settings), declared(settings), by or _person(), symbol
    )
    desk.show({"verification": found}, tables.verification_table(found))
    return Exit.OK if found.passed else Exit.NOT_ALLOWED


@command("accept-certificate")
def accept_certificate(
    desk: Desk,
    sha256: Annotated[
        str, typer.Argument(help="The new certificate's SHA-256, as the machine itself says it.")
    ] = "",
    by: By = "",
) -> Exit:
    """Show which certificate is pinned for the IBeam gateway, and which it shows; or accept the new one.

    A gateway whose certificate changed gets nothing any more, its token included. If the machine was made
    anew, read the SHA-256 on it (its console says "listening with the certificate ..."), and give it here.
    Everything that shares the journal takes it from then on; a deployed service has
    PUT /api/v1/connections/default/certificate for it.
    """
    # Loads what only this broker needs.
    from broker.brokers.client_portal.acceptance import accept, look

    settings, journal = desk.settings, desk.journal()
    if sha256:
        who = by or _person()
        found = accept(settings, journal, sha256, who)
        desk.alerts.notify(Kind.CERTIFICATE_CHANGED, f"{who} accepted {found.shown} for {found.gateway}")
    else:
        found = look(settings, journal)
    desk.show({"certificate": found}, tables.certificate_table(found))
    if found.pinned and found.pinned != found.shown:
        desk.note("compare with what the machine itself says; if it is the same, give it to this command")
        return Exit.NOT_CONFIRMED
    return Exit.OK


@command("limits")
def limits(desk: Desk) -> None:
    """What every order has to keep to, as RISK_... variables and the mode decide."""
    found = desk.settings.limits
    desk.show({"limits": found}, tables.limits_table(found))


@command("export")
def export(
    desk: Desk,
    file: Annotated[str, typer.Argument(help="Where to; standard output without it.")] = "",
    orders: Annotated[bool, typer.Option("--orders", help="Orders instead of trades.")] = False,
    fees: Annotated[bool, typer.Option("--fees", help="Fees that are booked beside trades.")] = False,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="ISO 8601; not for orders.")] = "",
    zone: Annotated[str, typer.Option("--zone", help="Of the local times, such as Europe/Berlin.")] = "UTC",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Trades with their commissions, or orders, or fees, as CSV, oldest first."""
    check_zone(zone)
    if orders and fees:
        raise InvalidRequest([FieldProblem("orders", "can't be in one file with fees: give one", "--fees")])
    path = Path(file) if file else None
    if path is not None and path.exists() and not force:
        raise InvalidRequest([FieldProblem("file", "is there already: --force overwrites it", file[:80])])
    broker = desk.broker()
    rows: list[Any]
    if orders:
        rows = broker.get_orders_history(MOST_ROWS)
        text = orders_csv(rows, zone)
    elif fees:
        rows = broker.get_fees(moment("since", since), MOST_ROWS)
        text = fees_csv(rows)
    else:
        rows = broker.get_fills(moment("since", since), MOST_ROWS)
        text = trades_csv(rows, zone)
        if broker.capabilities.fees:
            desk.note("commissions only: export --fees has what is booked for the account beside them")
    if len(rows) == MOST_ROWS:
        desk.note(f"only the newest {MOST_ROWS}: narrow it with --since")
    if path is not None:
        _write(path, text)
    if desk.json:
        desk.print_json({"rows": len(rows), "file": file} if file else {"rows": len(rows), "csv": text})
    elif path is None:
        sys.stdout.write(text)
    else:
        desk.note(f"{len(rows)} rows in {file}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as failure:
        said = f"can't be written: {failure.strerror}"
        raise InvalidRequest([FieldProblem("file", said, str(path)[:80])]) from None
