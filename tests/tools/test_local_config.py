"""The local stack's configuration: completed in a folder of its own, the tracked file untouched."""

import stat
from pathlib import Path

import pytest
import yaml

from tools.local_cloud import CommandFailed
from tools.local_config import ALPACA, GATEWAY, IBEAM, SALT, LocalConfig, carry_secrets, load, merged

TRACKED = """\
config:
  ibkr:network:
    subnetRange: 127.20.0.0/24
    allowConnector: true
  ibkr:api:
    image: registry/local/api:127.20x
  ibkr:ibeam:
    users:
      - name: ann
        environment: paper
      - name: ben
        environment: live
"""
SEALED = {"secure": "v1:abc"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: ibkr\nruntime: python\n")
    (folder / "Pulumi.local.yaml").write_text(TRACKED)
    return folder


@pytest.fixture
def config(tmp_path: Path, checkout: Path) -> LocalConfig:
    return LocalConfig(tmp_path / "project", checkout, tmp_path / "overrides.yaml")


def test_addresses_move_to_the_networks_prefix_and_nothing_else_does(config: LocalConfig) -> None:
    tree = config.write("127.31", None)["config"]
    assert tree["ibkr:network"]["subnetRange"] == "127.31.0.0/24"
    assert tree["ibkr:api"]["image"].endswith("127.20x")


def test_the_tracked_file_is_never_written(config: LocalConfig, checkout: Path) -> None:
    config.write("127.31", "v1:salt")
    config.set("ibkr:network.allowConnector", False)
    config.write("127.31", "v1:salt")
    assert (checkout / "Pulumi.local.yaml").read_text() == TRACKED


def test_the_program_is_the_checkouts(config: LocalConfig, checkout: Path) -> None:
    config.write("127.20", None)
    project = yaml.safe_load((config.folder / "Pulumi.yaml").read_text())
    assert project["main"] == str(checkout)
    assert project["name"] == "ibkr"


def test_only_the_owner_can_read_it(config: LocalConfig) -> None:
    config.write("127.20", None)
    assert stat.S_IMODE(config.file.stat().st_mode) == 0o600


def test_secrets_and_salt_outlive_a_change_of_the_tracked_file(config: LocalConfig, checkout: Path) -> None:
    tree = config.write("127.20", "v1:salt")
    tree["config"][GATEWAY] = {"username": SEALED, "password": SEALED}
    tree["config"][IBEAM]["users"][1] |= {"username": SEALED, "password": SEALED}
    config.file.write_text(yaml.safe_dump(tree))
    turned = TRACKED.replace("- name: ann\n        environment: paper\n      ", "")
    (checkout / "Pulumi.local.yaml").write_text(turned)
    again = config.write("127.20", None)
    assert again[SALT] == "v1:salt"
    assert again["config"][GATEWAY] == {"username": SEALED, "password": SEALED}
    assert again["config"][IBEAM]["users"] == [
        {"name": "ben", "environment": "live", "username": SEALED, "password": SEALED}
    ]


def test_a_user_who_was_gone_for_a_while_gets_the_same_login_back(
    config: LocalConfig, checkout: Path
) -> None:
    tree = config.write("127.31", None)
    tree["config"][IBEAM]["users"][0] |= {"username": SEALED, "password": SEALED}
    config.file.write_text(yaml.safe_dump(tree))
    (checkout / "Pulumi.local.yaml").write_text(TRACKED.replace("name: ann", "name: an n"))
    assert "password" not in config.write("127.31", None)["config"][IBEAM]["users"][0], "another user"
    (checkout / "Pulumi.local.yaml").write_text(TRACKED)
    back = config.write("127.31", None)["config"][IBEAM]["users"][0]
    assert back["password"] == SEALED, "another password would replace the droplet"


def test_a_user_of_another_environment_is_another_user() -> None:
    kept = {IBEAM: {"users": [{"name": "ann", "environment": "paper", "password": SEALED}]}}
    wanted = {IBEAM: {"users": [{"name": "ann", "environment": "live"}]}}
    carry_secrets(kept, wanted)
    assert "password" not in wanted[IBEAM]["users"][0], "a paper login must never get into a live droplet"


def test_what_the_tracked_file_says_of_a_secret_counts(config: LocalConfig) -> None:
    kept, wanted = {GATEWAY: "kept"}, {GATEWAY: "tracked"}
    carry_secrets(kept, wanted)
    assert wanted[GATEWAY] == "tracked"


def test_alpacas_keys_are_kept_as_long_as_alpaca_is_used(config: LocalConfig) -> None:
    config.set("ibkr:brokerType", "alpaca")
    tree = config.write("127.31", None)
    tree["config"][ALPACA] = {"apiKey": SEALED, "secretKey": SEALED}
    config.file.write_text(yaml.safe_dump(tree))
    assert config.write("127.31", None)["config"][ALPACA] == {"apiKey": SEALED, "secretKey": SEALED}
    config.set("ibkr:brokerType", "ibkr")
    assert ALPACA not in config.write("127.31", None)["config"], (
        "the service has no secret that it doesn't need"
    )


def test_keys_that_a_person_set_count(config: LocalConfig) -> None:
    config.set("ibkr:marketDataSource", "alpaca")
    config.set("ibkr:alpaca.apiKey", "PK-OWN")
    kept = {ALPACA: {"apiKey": SEALED, "secretKey": SEALED}}
    wanted = config.wanted("127.31")["config"]
    carry_secrets(kept, wanted)
    assert wanted[ALPACA] == {"apiKey": "PK-OWN", "secretKey": SEALED}


def test_a_value_that_was_set_can_be_taken_off_again(config: LocalConfig) -> None:
    config.set("ibkr:network.allowConnector", False)
    assert config.write("127.20", None)["config"]["ibkr:network"]["allowConnector"] is False
    config.unset("ibkr:network.allowConnector")
    assert config.write("127.20", None)["config"]["ibkr:network"]["allowConnector"] is True
    config.unset("ibkr:network.neverThere")


def test_maps_are_merged_and_lists_replaced() -> None:
    assert merged({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


@pytest.mark.parametrize(("text", "part"), [("ibkr:gateway: [\n", "line 2"), ("- a\n", "holds list")])
def test_a_file_that_is_not_yaml_is_named(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "overrides.yaml"
    file.write_text(text)
    with pytest.raises(CommandFailed, match=part) as refused:
        load(file)
    assert str(file) in str(refused.value)
