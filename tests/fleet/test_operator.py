"""The operator's commands on a real database."""

from __future__ import annotations

import pytest

from broker.fleet.__main__ import main
from broker.fleet.vault import LocalKeyWrapper, Vault
from tests.fleet.model import Fleet


@pytest.fixture
def environment(tmp_path, migrated, engine):
    path = tmp_path / "fleet.key"
    LocalKeyWrapper.add_key(path)
    return {"DATABASE_URL": migrated, "FLEET_KEY_FILE": str(path)}


@pytest.fixture
def fleet(environment, engine, tmp_path):
    return Fleet(engine, Vault(LocalKeyWrapper.open(tmp_path / "fleet.key")))


def test_a_rotation_by_hand(fleet, environment, engine, tmp_path, capsys):
    account = fleet.connect()
    assert main(["new-key"], environment) == 0
    assert main(["rewrap"], environment) == 0
    assert "wrapped 3 data keys anew" in capsys.readouterr().out
    path = tmp_path / "fleet.key"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    after = Fleet(engine, Vault(LocalKeyWrapper.open(path)))
    assert after.repository.login(after.of(account))[0].password == "secret"


def test_an_unknown_droplet_goes_only_when_an_operator_says_so_twice(fleet, environment, capsys):
    number = fleet.world.add_foreign("stack:test", "manager:service")
    assert main(["condemn", str(number), "--yes"], environment) == 1
    fleet.passes(2)
    assert main(["quarantine"], environment) == 0
    assert f"{number}  x  account ?" in capsys.readouterr().out
    assert main(["condemn", str(number)], environment) == 1
    fleet.passes(2)
    assert number in fleet.world.machines
    assert main(["condemn", str(number), "--yes"], environment) == 0
    fleet.world.foreign.clear()
    fleet.passes(1)
    assert number not in fleet.world.machines
    assert fleet.world.problems == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"FLEET_KEY_FILE": ""}, "FLEET_KEY_FILE"),
        ({"FLEET_KMS_KEY": "k"}, "set one of"),
        ({"FLEET_KEY_FILE": "", "FLEET_KMS_KEY": "k"}, "must look like"),
        ({"FLEET_KEY_FILE": "/nowhere"}, "can't be read"),
        ({"DATABASE_URL": "postgresql+psycopg://user:hunter2@127.0.0.1:9/db"}, "can't be used"),
    ],
)
def test_wrong_settings_are_named_without_secrets(environment, changes, says, capsys):
    assert main(["rewrap"], {**environment, **changes}) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "hunter2" not in said
