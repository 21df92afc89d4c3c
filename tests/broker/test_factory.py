"""get_broker(): the migration plan's entry, and what it says when settings are wrong."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import broker
from broker.base import BaseBroker
from broker.errors import ConfigurationError, NotConnected
from broker.factory import second_gateway, settings_from_environment
from tests.broker.paper_gateway import ROOT, free_port


def test_a_caller_written_against_the_plan_finds_its_names_fields_and_signatures() -> None:
    fields = {
        broker.AccountInfo: "id cash buying_power portfolio_value equity last_equity",
        broker.Position: "symbol qty avg_entry_price current_price market_value unrealized_pl"
        " unrealized_plpc",
        broker.Order: "id symbol side qty order_type status limit_price filled_qty filled_price created_at",
    }
    for kind, names in fields.items():
        found = dataclasses.fields(kind)
        assert [f.name for f in found][: len(names.split())] == names.split()
        added = found[len(names.split()) :]
        missing = dataclasses.MISSING
        assert all(f.default is not missing or f.default_factory is not missing for f in added)
    signatures = {
        "connect": "self",
        "disconnect": "self",
        "get_account": "self",
        "get_positions": "self",
        "get_position": "self symbol",
        "place_market_order": "self symbol qty side",
        "place_limit_order": "self symbol qty side limit_price",
        "get_order": "self order_id",
        "get_orders_history": "self limit",
        "cancel_order": "self order_id",
        "is_market_open": "self",
    }
    for name, parameters in signatures.items():
        declared = inspect.signature(getattr(BaseBroker, name)).parameters
        positional = [p.name for p in declared.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == parameters.split(), name


def test_get_broker_gives_the_configured_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_TYPE", "Simulated")
    monkeypatch.setenv("BROKER_JOURNAL", str(tmp_path / "state" / "orders.sqlite"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    found = broker.get_broker()
    assert found.name == "simulated"
    assert found.place_market_order("AAPL", 1, "buy").status == "filled"
    assert (tmp_path / "state" / "orders.sqlite").stat().st_mode & 0o077 == 0, (
        "orders are nobody else's business"
    )


def test_get_broker_returns_an_ibkr_broker_whose_gateway_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BROKER_TYPE", "ibkr")
    monkeypatch.setenv("IBKR_GATEWAY_PORT", str(free_port()))
    monkeypatch.setenv("BROKER_JOURNAL", str(tmp_path / "orders.sqlite"))
    found = broker.get_broker()
    try:
        with pytest.raises(NotConnected):
            found.get_positions()
    finally:
        found.disconnect()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"BROKER_TYPE": "etrade"},
            r"BROKER_TYPE must be one of alpaca, ibeam, ibkr, simulated, not 'etrade'",
        ),
        ({"IBKR_GATEWAY_PORT": "4001x"}, "IBKR_GATEWAY_PORT"),
        ({"IBKR_GATEWAY_PORT": "70000"}, "IBKR_GATEWAY_PORT"),
        ({"IBKR_CLIENT_ID": "-1"}, "IBKR_CLIENT_ID"),
        ({"IBKR_TRADING_MODE": "papr"}, "IBKR_TRADING_MODE"),
        ({"IBKR_TRADING_MODE": "paper", "IBKR_GATEWAY_PORT": "4001"}, "4001 is live"),
        ({"ALPACA_PAPER": "maybe"}, "ALPACA_PAPER"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_with_its_value_and_what_would_be_right(
    environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        settings_from_environment(environment)


def test_all_wrong_settings_are_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as wrong:
        settings_from_environment({"BROKER_TYPE": "x", "IBKR_CLIENT_ID": "y", "IBKR_TRADING_MODE": "z"})
    assert wrong.value.message.count(";") == 2


@pytest.mark.parametrize("kind", ["alpaca", "ibeam"])
def test_a_broker_without_its_credentials_says_that_it_is_not_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    for name in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BROKER_TYPE", kind)
    monkeypatch.setenv("BROKER_JOURNAL", str(tmp_path / "orders.sqlite"))
    with pytest.raises(ConfigurationError, match="not configured"):
        broker.get_broker()


def test_secrets_are_not_in_the_settings_text() -> None:
    settings = settings_from_environment({"ALPACA_API_KEY": "key-1", "ALPACA_SECRET_KEY": "secret-1"})
    assert "key-1" not in repr(settings)
    assert "secret-1" not in repr(settings)


def test_importing_the_package_loads_no_broker_library() -> None:
    code = "import broker, broker.fleet, sys; print([m for m in sys.modules if m.split('.')[0] in (%s)])"
    heavy = "'sqlalchemy', 'ib_insync', 'ib_async', 'alpaca', 'pandas', 'fastapi'"
    found = subprocess.run(
        [sys.executable, "-c", code % heavy], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]", (
        "the infrastructure program imports broker.fleet and mustn't pay for them"
    )


def test_the_second_gateway_is_the_other_modes_with_that_modes_limits() -> None:
    given = {
        "BROKER_TYPE": "ibkr",
        "IBKR_TRADING_MODE": "paper",
        "IBKR_GATEWAY_PORT": "4002",
        "IBKR_ACCOUNT": "DU1",
        "IBKR_SECOND_GATEWAY_PORT": "4001",
        "RISK_MAX_ORDER_QTY": "7",
    }
    first = settings_from_environment(given)
    second = second_gateway(first)
    assert second is not None
    assert (second.trading_mode, second.gateway_port, second.account) == ("live", 4001, "")
    assert second.limits == first.user_limits["live"] != first.limits
    assert second_gateway(second) is None
    assert second_gateway(settings_from_environment({**given, "IBKR_SECOND_GATEWAY_PORT": ""})) is None


@pytest.mark.parametrize(
    "wrong", [{"BROKER_TYPE": "alpaca"}, {"IBKR_TRADING_MODE": ""}, {"IBKR_SECOND_GATEWAY_PORT": "4002"}]
)
def test_a_second_gateway_that_is_not_the_other_modes_is_refused(wrong: dict[str, str]) -> None:
    given = {"BROKER_TYPE": "ibkr", "IBKR_TRADING_MODE": "paper", "IBKR_SECOND_GATEWAY_PORT": "4001"}
    with pytest.raises(ConfigurationError, match="IBKR_SECOND_GATEWAY_PORT"):
        settings_from_environment({**given, **wrong})
