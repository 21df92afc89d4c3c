"""What `make verify` makes of answers; with a real stack it is tried in tests/e2e/test_use.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tools import droplet_trip, verify_checks
from tools.deployed import Deployed, read
from tools.local_cloud import CommandFailed
from tools.verify import login_file

OUTPUTS = {
    "gateway_host": "10.10.0.5",
    "gateway_port": 4002,
    "service_environment": {"BROKER_TYPE": "ibkr", "DATABASE_URL": "secret ibkr-database-url, version 1"},
}
SERVICE = {
    "template": {
        "containers": [
            {
                "env": [
                    {"name": "BROKER_TYPE", "value": "ibkr"},
                    {
                        "name": "DATABASE_URL",
                        "valueSource": {
                            "secretKeyRef": {
                                "secret": "projects/p/secrets/ibkr-database-url",
                                "version": "1",
                            }
                        },
                    },
                ]
            }
        ],
        "vpcAccess": {
            "connector": "projects/p/locations/us-west1/connectors/ibkr-connector",
            "egress": "ALL_TRAFFIC",
        },
    }
}
TRIED = {"gateway": "ibkr at 10.10.0.5:4002", "checks": [{"name": "link", "passed": True}]}


def with_environment(**changes: str | None) -> Deployed:
    found = read(SERVICE)
    values = {**found.environment, **changes}
    return Deployed(
        {name: value for name, value in values.items() if value is not None},
        found.connector,
        found.egress,
    )


def test_what_is_deployed_as_declared_passes() -> None:
    found = read(SERVICE)
    row = verify_checks.environment(found, OUTPUTS)
    assert (row.state, row.found) == (
        "pass",
        "2 variables as declared, 1 of them secrets by reference",
    )
    assert verify_checks.connector(found, OUTPUTS, TRIED).state == "pass"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"DATABASE_URL": "postgresql://me:hunter2@db/x"}, "in plain text: DATABASE_URL"),
        ({"DATABASE_URL": "secret ibkr-database-url, version 2"}, "different: DATABASE_URL"),
        ({"BROKER_TYPE": "alpaca"}, "different: BROKER_TYPE"),
        ({"BROKER_TYPE": None}, "missing: BROKER_TYPE"),
        ({"DEBUG": "hunter2"}, "not declared: DEBUG"),
    ],
)
def test_what_somebody_changed_by_hand_is_named_without_its_value(
    changes: dict[str, str | None], said: str
) -> None:
    row = verify_checks.environment(with_environment(**changes), OUTPUTS)
    assert (row.state, row.found) == ("FAIL", said)
    assert "hunter2" not in str(row)


@pytest.mark.parametrize(
    ("found", "outputs", "tried", "said"),
    [
        (Deployed({}, "", ""), OUTPUTS, TRIED, "no VPC connector"),
        (Deployed({}, "c", "PRIVATE_RANGES_ONLY"), OUTPUTS, TRIED, "egress is PRIVATE_RANGES_ONLY"),
        (read(SERVICE), {**OUTPUTS, "gateway_host": "8.8.8.8"}, TRIED, "a public one"),
        (read(SERVICE), OUTPUTS, None, "no link to 10.10.0.5"),
        (read(SERVICE), OUTPUTS, {**TRIED, "gateway": "ibkr at 10.10.0.6:4002"}, "not 10.10.0.5"),
    ],
)
def test_a_gateway_that_is_reached_in_another_way_or_not_at_all_fails(
    found: Deployed, outputs: dict[str, Any], tried: dict[str, Any] | None, said: str
) -> None:
    row = verify_checks.connector(found, outputs, tried)
    assert row.state == "FAIL"
    assert said in row.found


def test_a_stack_without_a_gateway_has_no_way_to_check() -> None:
    assert verify_checks.connector(read(SERVICE), {}, None).state == "skipped"


PAGE = (
    '<dl><div><dt>Account value</dt><dd class="big">1,000.50 <small>USD</small></dd></div></dl> account DU1'
)


@pytest.mark.parametrize(
    ("page", "value", "said"),
    [
        (PAGE, 1004.0, ""),
        (PAGE, 1100.0, "shows 1,000.50, and the API gives 1,100.00"),
        (PAGE.replace("DU1", "DU2"), 1000.5, "doesn't name the account DU1"),
        ("account DU1", 1000.5, "shows no account value"),
        (PAGE.replace("1,000.50", "−1,000.50"), -1000.5, ""),
    ],
)
def test_the_page_must_show_what_the_api_gives(page: str, value: float, said: str) -> None:
    account = {"id": "DU1", "portfolio_value": value}
    missing = verify_checks._missing(page, account, account)
    assert said in missing
    assert bool(said) == bool(missing)


@pytest.mark.parametrize("text", ["hunter2", '{"credentials": {"username": "hunter2"}}', "[]"])
def test_a_login_that_is_none_is_refused_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = tmp_path / "login.json"
    file.write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    for source in (str(file), "-"):
        with pytest.raises(CommandFailed, match="make -s login") as raised:
            droplet_trip.read_login(source)
        assert "hunter2" not in str(raised.value)


def test_a_login_comes_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"credentials": {"username": "ann", "password": "x"}, "environment": "demo"}
    file = tmp_path / "login.json"
    file.write_text(json.dumps(login))
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(login)))
    assert droplet_trip.read_login(str(file)) == droplet_trip.read_login("-") == login
    assert login_file(str(file)) == str(file)
    with pytest.raises(CommandFailed, match="is no file"):
        login_file(str(tmp_path / "missing"))
