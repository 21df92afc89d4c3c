"""The program: commands, the options that all of them have, and how every command ends."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from broker.cli.desk import Desk
from broker.cli.exits import MEANINGS, Exit, UsageError, advice, error_document, exit_of
from broker.errors import BrokerError

HELP = """Trade and look: one command line over Alpaca, Interactive Brokers and a simulated broker.

BROKER_TYPE (alpaca, ibkr, ibeam, simulated) and the other variables of the service decide what it
talks to; nothing is remembered between commands but the journal of orders (DATABASE_URL, or the
SQLite file BROKER_JOURNAL).

Over IB Gateway every connection has a client id, and the service's is 1: this program uses 2 unless
IBKR_CLIENT_ID or --client-id says otherwise, and two programs can't share one at once. TWS lets a
client id cancel its own orders only. From a laptop, `make tunnel STACK=staging` opens the VM's
gateway at 127.0.0.1:4002:

\b
    BROKER_TYPE=ibkr IBKR_GATEWAY_PORT=4002 IBKR_TRADING_MODE=paper \\
        python -m broker account

\b
Exit codes:
""" + "\n".join(f"    {code.value:<3} {text}" for code, text in MEANINGS.items())

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, errors too.")]
BrokerOption = Annotated[str, typer.Option("--broker", metavar="NAME", help="Instead of BROKER_TYPE.")]
AccountOption = Annotated[
    str, typer.Option("--account", metavar="ID", help="Instead of IBKR_ACCOUNT and IBEAM_ACCOUNT_ID.")
]
ClientIdOption = Annotated[
    int | None,
    typer.Option("--client-id", min=0, max=2**31 - 1, help="Instead of IBKR_CLIENT_ID; 2 if neither is set."),
]
_COMMON = {
    "as_json": (JsonFlag, False),
    "broker_type": (BrokerOption, ""),
    "account": (AccountOption, ""),
    "client_id": (ClientIdOption, None),
}

app = typer.Typer(
    name="python -m broker",
    help=HELP,
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def command(name: str) -> Callable[[Callable[..., Exit | None]], Callable[..., Exit]]:
    """Make a function of a `Desk` a command with the common options."""

    def add(function: Callable[..., Exit | None]) -> Callable[..., Exit]:
        @functools.wraps(function)
        def run(**given: Any) -> Exit:
            common = {key: given.pop(key) for key in _COMMON}
            desk = Desk(common["as_json"], common["broker_type"], common["account"], common["client_id"])
            try:
                return function(desk, **given) or Exit.OK
            finally:
                desk.close()

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        extra = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, (kind, default) in _COMMON.items()
        ]
        # typer reads a command's options from its signature and its annotations.
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        run.__signature__ = inspect.Signature([*keyword_only, *extra])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}
        del run.__wrapped__
        app.command(name)(run)
        return run

    return add


def main(arguments: Sequence[str]) -> int:
    """Run a command; its exit code. Whatever happens, people see words and programs a document."""
    from broker.cli import control, looking, trading, watching  # noqa: F401 - they add their commands

    as_json = "--json" in arguments
    # Libraries report on their own what the command reports as its result.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("ib_insync").setLevel(logging.CRITICAL + 1)
    logging.getLogger("ib_async").setLevel(logging.CRITICAL + 1)
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="python -m broker")
        return int(code or Exit.OK)
    except BrokerError as failure:
        return _failed(failure, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:  # `python -m broker orders | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as failure:
        usage = getattr(failure, "format_message", None)
        if usage is not None:  # typer's own: an unknown command, a missing argument
            return _failed(UsageError(usage()), as_json)
        return _failed(BrokerError(f"this shouldn't have happened: {_where(failure)}"), as_json)


def _where(failure: Exception) -> str:
    """The kind of a failure and the line it came from; not its words, which may hold a secret."""
    last = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__} at {Path(last.filename).name}:{last.lineno}"


def _failed(failure: BrokerError, as_json: bool) -> int:
    desk = Desk(json=as_json)
    if as_json:
        desk.print_json(error_document(failure))
    else:
        desk.err.print(f"[bold red]{escape(failure.kind)}[/]: {escape(failure.message)}")
        order = getattr(failure, "order", None) or getattr(failure, "existing", None)
        if order is not None:
            desk.err.print(f"  order {order.id}, client order id {order.client_order_id}", markup=False)
        desk.err.print(f"  {advice(failure)}", markup=False)
    return exit_of(failure)
