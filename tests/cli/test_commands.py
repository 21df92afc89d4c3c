"""Every command over the simulated broker: what people read, what programs read, how it exits."""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker import errors
from broker.cli import desk as desk_module
from broker.cli.exits import MEANINGS, Exit, as_json, error_document, exit_of
from broker.cli.program import app, main
from broker.cli.trading import order_request
from broker.export import read_trades
from broker.market.yahoo import YahooQuotes
from broker.models import Order, Quote
from tests.broker.alert_receiver import Receiver
from tests.cli.conftest import Run

main([])  # adds the commands
COMMANDS = sorted(str(command.name) for command in app.registered_commands)
PLANS_ORDER = {"id", "symbol", "side", "qty", "order_type", "status", "limit_price"}
PLANS_ORDER |= {"filled_qty", "filled_price", "created_at"}
ROOT = Path(__file__).parents[2]


def test_the_commands_are_those_that_the_documentation_promises() -> None:
    promised = {"account", "accounts", "positions", "orders", "fills", "buy", "sell", "cancel", "cancel-all"}
    promised |= {"close", "quote", "watch", "health", "preview", "halt", "resume", "export", "limits"}
    assert promised <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    for option in ("--json", "--broker", "--account", "--client-id"):
        assert option in done.out, f"{command} lacks {option}"


def test_the_help_lists_every_exit_code_with_its_meaning(run: Run) -> None:
    done = run("--help")
    for code, meaning in MEANINGS.items():
        assert f"{code.value:<3} {meaning}" in done.out
    assert set(MEANINGS) == set(Exit)
    assert "client id, and the service's is 1" in done.out


@pytest.mark.parametrize(
    ("arguments", "member", "keys"),
    [
        (["account"], "account", {"id", "cash", "buying_power", "portfolio_value", "equity", "last_equity"}),
        (["health"], "health", {"ok", "state", "since", "next_reset", "second_factor"}),
        (["clock"], "clock", {"is_open", "next_open", "next_close", "source"}),
        (["buy", "AAPL", "3"], "order", PLANS_ORDER),
        (["sell", "AAPL", "3", "--limit", "500"], "order", PLANS_ORDER),
    ],
)
def test_json_is_one_document_with_the_plans_keys(
    run: Run, arguments: list[str], member: str, keys: set[str]
) -> None:
    done = run(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    assert keys <= done.document[member].keys()


@pytest.mark.parametrize(
    ("arguments", "member"),
    [(["accounts"], "accounts"), (["positions"], "positions"), (["orders"], "orders")],
)
def test_a_list_is_a_document_too(run: Run, arguments: list[str], member: str) -> None:
    done = run(*arguments, "--json")
    assert (done.code, isinstance(done.document[member], list)) == (0, True)


def test_people_get_tables(run: Run) -> None:
    assert "100,000.00" in run("account").out
    assert run("positions").out.strip() == "no positions"
    assert run("orders").out.strip() == "no orders"
    placed = run("buy", "AAPL", "3")
    assert "buy 3 AAPL market day" in placed.out
    assert "filled" in placed.out
    assert "client order id" in placed.err, "beside the result, not in it"
    assert "buy 3 AAPL market day" in run("orders").out


def test_brackets_and_trailing_stops_are_options_of_buy_and_sell(run: Run) -> None:
    legs = ("--take-profit", "2", "--stop-loss", "0.5")
    placed = run(
        "buy", "AAPL", "3", "--limit", "1", "--tif", "gtc", *legs, "--client-order-id", "b", "--json"
    )
    entry = placed.document["order"]
    assert (entry["status"], len(entry["legs"])) == ("submitted", 2)
    assert "take profit 2.00 stop loss" in run("orders").out
    half = run("buy", "AAPL", "3", "--take-profit", "2", "--json")
    assert (half.code, "stop_loss_price" in half.out + half.err) == (Exit.USAGE, True)
    for option in ("--trail", "--trail-amount", "--trail-percent"):
        trail = run("sell", "AAPL", "1", option, "2", "--json").document["order"]
        assert trail["order_type"] == "trailing_stop"


def test_quotes_say_their_age_and_kind(run: Run) -> None:
    done = run("quote", "AAPL", "brk.b", "--json")
    assert [q["symbol"] for q in done.document["quotes"]] == ["AAPL", "BRK.B"]
    assert all(q["kind"] == "simulated" and q["age_seconds"] >= 0 for q in done.document["quotes"])
    assert "simulated" in run("quote", "AAPL").out


def test_an_orders_whole_life_is_shown_to_people_and_programs(run: Run) -> None:
    bought = run("buy", "AAPL", "3", "--client-order-id", "life", "--json").document["order"]
    shown = run("order", bought["id"]).out
    for words in (
        "What happened",
        "by command line",
        "filled: 3 at",
        "executed 3 at",
        "commission 0.00",
    ):
        assert words in shown
    found = run("order", "life", "--client", "--json").document
    assert found["order"] == bought
    assert [entry["status"] or entry["kind"] for entry in found["timeline"]] == ["sent", "filled", "fill"]
    assert found["complete"]


def test_the_same_client_order_id_is_the_same_order_in_the_next_process(run: Run) -> None:
    first = run("buy", "AAPL", "3", "--client-order-id", "signal-1", "--json").document["order"]
    again = run("buy", "AAPL", "3", "--client-order-id", "signal-1", "--json").document["order"]
    assert again["id"] == first["id"]
    other = run("buy", "AAPL", "4", "--client-order-id", "signal-1", "--json")
    assert (other.code, other.error["kind"]) == (Exit.USAGE, "duplicate-client-order-id")
    assert len(run("orders", "--json").document["orders"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["buy", "AAPL"], Exit.USAGE, "--notional"),
        (["buy", "AAPL", "0"], Exit.USAGE, "above 0"),
        (["buy", "AAPL", "--", "-1"], Exit.USAGE, "above 0"),
        (["buy", "AAPL", "nan"], Exit.USAGE, "above 0"),
        (["buy", "AAPL", "ten"], Exit.USAGE, "qty"),
        (["buy", "AAPL", "1e12"], Exit.USAGE, "qty"),
        (["buy", "BRK B", "1"], Exit.USAGE, "symbol"),
        (["buy", "NOSUCHX", "1"], Exit.USAGE, "NOSUCHX"),
        (["buy", "AAPL", "1", "--limit", "-5"], Exit.USAGE, "limit_price"),
        (["buy", "AAPL", "1", "--tif", "never"], Exit.USAGE, "time_in_force"),
        (["buy", "AAPL", "1", "--trail", "1", "--stop", "3"], Exit.USAGE, "trail"),
        (["buy", "AAPL", "1", "--client-order-id", "a b"], Exit.USAGE, "client_order_id"),
        (["preview", "hold", "AAPL", "1"], Exit.USAGE, "side"),
        (["buy", "AAPL", "1000"], Exit.REJECTED, "buying power"),
        (["buy", "AAPL", "100000"], Exit.NOT_ALLOWED, "max_order_value"),
        (["export", "--zone", "Mars"], Exit.USAGE, "zone"),
        (["export", "/nowhere/at/all.csv"], Exit.USAGE, "file"),
        (["halt"], Exit.USAGE, "reason"),
        (["cancel", "nothing"], Exit.NOT_FOUND, "nothing"),
        (["order", "nothing"], Exit.NOT_FOUND, "nothing"),
        (["fills", "--since", "yesterday"], Exit.USAGE, "since"),
        (["quote", "NOSUCHX"], Exit.USAGE, "NOSUCHX"),
        (["account", "--broker", "bloomberg"], Exit.USAGE, "simulated"),
        (["account", "--broker", "alpaca"], Exit.USAGE, "ALPACA_API_KEY"),
        (["account", "--account", "SIM-2"], Exit.USAGE, "SIM-1"),
        (["bogus"], Exit.USAGE, "bogus"),
        (["account", "--bogus"], Exit.USAGE, "--bogus"),
    ],
)
def test_a_failure_says_what_is_wrong_to_people_and_programs(
    run: Run, arguments: list[str], code: Exit, named: str
) -> None:
    for_people = run(*arguments)
    assert (for_people.code, for_people.out) == (code, "")
    assert named in for_people.err
    before_dashes = arguments.index("--") if "--" in arguments else len(arguments)
    for_programs = run(*arguments[:before_dashes], "--json", *arguments[before_dashes:])
    assert (for_programs.code, for_programs.err) == (code, "")
    assert named in for_programs.error["message"]
    assert for_programs.error["advice"]


def test_halt_stops_orders_of_every_process_until_resume_and_says_who_and_why(run: Run) -> None:
    halted = run("halt", "odd fills", "--by", "ada", "--json")
    assert halted.document["halt"]["state"]["halted"] is True
    for order in (("buy", "AAPL", "1"), ("close", "AAPL")):
        assert run(*order).code in (Exit.NOT_ALLOWED, Exit.USAGE)
    refused = run("buy", "AAPL", "1", "--json")
    assert (refused.code, refused.error["kind"]) == (Exit.NOT_ALLOWED, "halted")
    assert (refused.error["by"], refused.error["reason"]) == ("ada", "odd fills")
    assert "HALTED" in run("switch").out
    assert run("resume", "it was the feed", "--by", "bob").code == 0
    assert run("buy", "AAPL", "1", "--json").code == 0


def test_halt_and_resume_tell_people(run: Run, environment: pytest.MonkeyPatch, receiver: Receiver) -> None:
    environment.setenv("ALERT_URLS", receiver.url)
    environment.setattr("broker.cli.desk.ALERTS_WITHIN", 100.0)  # apprise loads slowly on a busy machine
    environment.setenv("STACK", "staging")
    environment.setenv("BROKER_TYPE", "bloomberg")  # a halt has to work whatever else is wrong
    assert run("halt", "odd fills", "--by", "ada").code == 0
    assert run("resume", "it was the feed", "--by", "bob", "--json").code == 0
    assert [(found["title"], found["message"]) for found in receiver.received] == [
        ("staging: The kill switch was used", "halted by ada: odd fills"),
        ("staging: The kill switch was used", "resumed by bob: it was the feed"),
    ], "sent before the process ends"


def test_a_limit_that_a_command_hits_is_told(
    run: Run, environment: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    environment.setattr("broker.cli.desk.ALERTS_WITHIN", 100.0)
    environment.setenv("ALERT_URLS", receiver.url)
    environment.setenv("RISK_MAX_ORDER_QTY", "3")
    assert run("buy", "AAPL", "4", "--json").code == Exit.NOT_ALLOWED
    [found] = receiver.received
    assert found["title"] == "A limit refused an order"


def test_an_alert_channel_that_hangs_holds_no_halt_up(
    run: Run, environment: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    environment.setattr("broker.cli.desk.ALERTS_WITHIN", 0.2)
    environment.setenv("ALERT_URLS", receiver.url)
    receiver.slow.clear()
    done = run("halt", "odd fills", "--by", "ada")
    assert done.code == 0
    assert "HALTED" in done.out
    assert "an alert wasn't sent within 0.2 s" in done.err


def test_export_writes_trades_as_csv_once_and_never_over_a_file(run: Run, tmp_path: Path) -> None:
    run("buy", "AAPL", "3", "--client-order-id", "exported")
    printed = run("export")
    assert printed.out.splitlines()[0].startswith("time_utc,time_local,account,symbol")
    assert "exported" in printed.out
    assert run("export", "--orders", "--json").document["rows"] == 1
    assert run("export", "--fees", "--json").code == Exit.UNSUPPORTED, "commissions are all there is"
    assert run("export", "--fees", "--orders").code == Exit.USAGE
    file = tmp_path / "trades.csv"
    assert run("export", str(file), "--json").document == {"rows": 1, "file": str(file)}
    assert [fill.client_order_id for fill in read_trades(file.read_text(encoding="utf-8"))] == ["exported"]
    assert run("export", str(file)).code == Exit.USAGE
    assert run("export", str(file), "--force").code == 0


def test_the_limits_are_shown_as_the_settings_decide(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RISK_MAX_ORDER_VALUE", "500")
    assert run("limits", "--json").document["limits"]["max_order_value"] == 500
    refused = run("buy", "AAPL", "3", "--json")
    assert (refused.code, refused.error["limit"]) == (Exit.NOT_ALLOWED, "max_order_value")
    assert "max order value" in run("limits").out


def test_no_gateway_is_not_connected(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BROKER_TYPE", "ibkr")
    environment.setenv("IBKR_GATEWAY_PORT", "1")
    done = run("account", "--json")
    assert (done.code, done.error["kind"]) == (Exit.NOT_CONNECTED, "not-connected")
    assert done.error["retry_after"] > 0
    health = run("health", "--json")
    assert (health.code, health.document["health"]["ok"]) == (Exit.NOT_CONNECTED, False)
    assert health.document["health"]["details"]["client_id"] == 2, "1 is the service's"


@pytest.mark.parametrize(
    "settings",
    [
        {"BROKER_JOURNAL": "/proc/nothing/orders.sqlite"},
        {"DATABASE_URL": "no url, but hunter2"},
        {"DATABASE_URL": "postgresql+psycopg://u:hunter2@127.0.0.1:1/db"},
    ],
)
def test_a_journal_that_is_not_to_be_had_sends_nothing_and_tells_no_password(
    run: Run, environment: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    for name, value in settings.items():
        environment.setenv(name, value)
    for command in (("buy", "AAPL", "1"), ("halt", "now"), ("orders",)):
        done = run(*command, "--json")
        assert done.error["kind"] in ("configuration", "journal-unavailable"), done.out
        assert done.code in (Exit.USAGE, Exit.NOT_CONNECTED)
        assert "hunter2" not in done.out + done.err


def test_quotes_from_elsewhere_need_no_broker(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BROKER_TYPE", "alpaca")  # without keys
    environment.setenv("MARKET_DATA_SOURCE", "yfinance")
    asked: list[str] = []

    def quote(_self: object, symbol: str) -> Quote:
        asked.append(symbol)
        return Quote(symbol, None, None, 5.0, 4.0, datetime.now(UTC).isoformat(), "delayed", "yfinance")

    environment.setattr(YahooQuotes, "quote", quote)
    done = run("quote", "AAPL", "--json")
    assert (done.code, asked) == (0, ["AAPL"])


def test_a_source_that_needs_another_broker_is_refused(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MARKET_DATA_SOURCE", "bloomberg")
    assert "MARKET_DATA_SOURCE" in run("quote", "AAPL", "--json").error["message"]


@pytest.mark.parametrize(
    ("given", "order_type"),
    [
        ({}, "market"),
        ({"limit_price": 5.0}, "limit"),
        ({"stop_price": 5.0}, "stop"),
        ({"stop_price": 5.0, "limit_price": 6.0}, "stop_limit"),
        ({"trail_amount": 1.0}, "trailing_stop"),
        ({"trail_percent": 1.0}, "trailing_stop"),
    ],
)
def test_the_options_decide_the_order_type(given: dict[str, float], order_type: str) -> None:
    names = ("limit_price", "stop_price", "trail_amount", "trail_percent", "notional")
    options: dict[str, object] = dict.fromkeys(names) | given
    assert order_request("buy", symbol="AAPL", qty=1.0, **options).order_type == order_type


def _failures() -> list[errors.BrokerError]:
    order = Order("1" * 32, "AAPL", "buy", 1, "market", "unknown", client_order_id="mine")
    problems = [errors.FieldProblem("qty", "must be above 0", "0")]
    since = datetime(2026, 1, 1, tzinfo=UTC)
    made: dict[str, errors.BrokerError] = {
        "NotConnected": errors.NotConnected("away", since=since),
        "AccountNotRunning": errors.AccountNotRunning("off", "stopped", "idle", since, "start it"),
        "RateLimited": errors.RateLimited("too often", 3.0),
        "InvalidRequest": errors.InvalidRequest(problems),
        "UnknownSymbol": errors.UnknownSymbol("X"),
        "AmbiguousContract": errors.AmbiguousContract("X", ["X NYSE", "X LSE"]),
        "DuplicateClientOrderId": errors.DuplicateClientOrderId("mine", order),
        "OrderOutcomeUnknown": errors.OrderOutcomeUnknown("no answer", order),
        "Halted": errors.Halted(since, "ada", "news"),
        "LimitExceeded": errors.LimitExceeded("max_order_qty", 5, 4),
    }
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, errors.BrokerError)]
    return [made.get(kind.__name__) or kind("words") for kind in kinds]


@pytest.mark.parametrize("failure", _failures(), ids=lambda f: type(f).__name__)
def test_every_error_has_an_exit_code_and_a_document(failure: errors.BrokerError) -> None:
    without_one = (errors.BrokerError, errors.BrokerFailure)
    assert (exit_of(failure) == Exit.FAILED) == (type(failure) in without_one)
    document = json.loads(as_json(error_document(failure)))["error"]
    assert {"kind", "message", "advice", "exit_code"} <= document.keys()
    if isinstance(failure, errors.OrderOutcomeUnknown):
        assert document["order"]["client_order_id"] == "mine", "what must be looked up is named"


def test_an_unknown_outcome_is_told_apart_from_a_rejection() -> None:
    order = Order("1" * 32, "AAPL", "buy", 1, "market", "unknown")
    assert exit_of(errors.OrderOutcomeUnknown("?", order)) == 5
    assert exit_of(errors.OrderRejected("no")) == exit_of(errors.InsufficientFunds("no")) == 4
    assert exit_of(errors.LimitExceeded("x", 1, 2)) == exit_of(errors.Halted()) == 6


def test_what_is_no_number_is_null_in_json() -> None:
    assert json.loads(as_json({"a": math.nan, "b": [math.inf, 1.5]})) == {"a": None, "b": [None, 1.5]}


def test_a_mistake_of_the_program_itself_is_words_and_a_document(
    run: Run, environment: pytest.MonkeyPatch
) -> None:
    def broken(_self: object) -> None:
        raise RuntimeError("words that may hold a password")

    environment.setattr(desk_module.Desk, "broker", broken)
    done = run("account", "--json")
    assert (done.code, "RuntimeError at test_commands.py" in done.error["message"]) == (Exit.FAILED, True)
    assert "password" not in done.out
    assert "RuntimeError" in run("account").err


def test_ctrl_c_ends_it_with_130(run: Run, environment: pytest.MonkeyPatch) -> None:
    def interrupted(_self: object) -> None:
        raise KeyboardInterrupt

    environment.setattr(desk_module.Desk, "broker", interrupted)
    assert run("account").code == 130


def test_python_m_broker_is_the_same_program_and_survives_a_closed_pipe(
    environment: pytest.MonkeyPatch,
) -> None:
    shell = f"{sys.executable} -m broker --help | true; {sys.executable} -m broker quote AAPL --json"
    done = subprocess.run(["sh", "-c", shell], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["quotes"][0]["symbol"] == "AAPL"
