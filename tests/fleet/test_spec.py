"""What a droplet is, from plain values. What a machine makes of its user data is tested in tests/machines."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml

from broker.fleet.spec import (
    Credentials,
    DropletSettings,
    Enrolment,
    SpecError,
    account_of,
    check_credentials,
    droplet_name,
    droplet_spec,
    droplet_tags,
    gateway_token,
    is_snapshot,
)
from tests.fleet.values import NASTY_PASSWORDS

STOCK = DropletSettings(client_address="203.0.113.7")
SNAPSHOT = DropletSettings(client_address="203.0.113.7", image="182556282")
TOKEN = "a-gateway-token-of-256-random-bits-in-base64"
LOGIN = Credentials("ibuser", "secret-password", TOKEN)
ENROLMENT = Enrolment(
    service_url="https://ibkr-api-abc.a.run.app",
    token="an-enrolment-token-of-256-random-bits-base64",
    account_id="ib-demo-a1b2c3d4",
    push_key=base64.b64encode(b"k" * 32).decode(),
)


def test_the_name_follows_the_integration_document() -> None:
    assert droplet_name("alice", "demo", 1) == "alice-ib-demo-1"


@pytest.mark.parametrize(
    ("user", "part"),
    [
        ("Alice", "alice"),
        ("a.b", "a-b"),
        ("a_b", "a-b"),
        ("a@b.org", "a-b-org"),
        ("-x-", "x"),
        ("a  b", "a-b"),
    ],
)
def test_a_user_name_is_written_as_a_host_name_can(user: str, part: str) -> None:
    assert droplet_name(user, "live", 2) == f"{part}-ib-live-2"


@pytest.mark.parametrize("user", ["", "日本", "a/b", "a'b", 'a"b', "a$b", "a\nb", "../x", "...", "__"])
def test_what_no_host_name_can_hold_is_refused_by_its_name(user: str) -> None:
    with pytest.raises(SpecError) as refused:
        droplet_name(user, "paper", 1)
    assert repr(user) in str(refused.value)


def test_a_name_that_is_too_long_says_by_how_much() -> None:
    assert len(droplet_name("x" * 51, "paper", 1)) == 62
    with pytest.raises(SpecError, match=r"shorten user name .* by 3"):
        droplet_name("x" * 55, "paper", 1)


def test_users_who_are_written_alike_do_not_share_their_ownership() -> None:
    assert droplet_name("a.b", "paper", 1) == droplet_name("a_b", "paper", 1)
    tags = {droplet_tags("s", user, "paper", 1, "service") for user in ("a.b", "a_b", "A.b")}
    assert len(tags) == 3, "who is adopted or deleted goes by tags, so these users' tags must differ"


def test_the_account_id_is_the_same_at_every_run_and_spells_nothing_out() -> None:
    assert account_of("local", "alice", "paper", 1) == account_of("local", "alice", "paper", 1)
    assert "alice" not in " ".join(droplet_tags("local", "alice", "paper", 1, "pulumi"))


def test_the_service_gives_an_account_id_of_its_own() -> None:
    tags = droplet_tags("prod", "alice", "demo", 1, "service", account="ib-demo-a1b2c3d4")
    assert tags == ("ibeam", "stack:prod", "manager:service", "account:ib-demo-a1b2c3d4")


def test_a_stack_that_cannot_be_a_tag_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'stack:a\.b' can't be a DigitalOcean tag"):
        droplet_tags("a.b", "alice", "paper", 1, "pulumi")


def test_a_demo_gets_the_smaller_size() -> None:
    sizes = {
        environment: droplet_spec("s", "a", environment, 1, STOCK, LOGIN, "pulumi").size
        for environment in ("live", "paper", "demo")
    }
    assert sizes == {"live": STOCK.size, "paper": STOCK.size, "demo": STOCK.demo_size}


def test_only_a_number_is_a_snapshot() -> None:
    assert is_snapshot("182556282")
    assert not is_snapshot("ubuntu-24-04-x64")
    assert not is_snapshot("١٢٣"), "digits of other scripts are no image ids"


def test_a_snapshot_is_asked_for_by_its_integer_id() -> None:
    assert droplet_spec("s", "a", "paper", 1, SNAPSHOT, LOGIN, "pulumi").api_image == 182556282
    assert droplet_spec("s", "a", "paper", 1, STOCK, LOGIN, "pulumi").api_image == "ubuntu-24-04-x64"


def test_nothing_shows_the_password() -> None:
    spec = droplet_spec("s", "a", "paper", 1, SNAPSHOT, LOGIN, "pulumi")
    assert LOGIN.password in spec.user_data, "the snapshot's user data carries it, or this test shows nothing"
    for shown in (repr(LOGIN), str(LOGIN), f"{LOGIN}", repr(spec), str(spec)):
        assert LOGIN.password not in shown


@pytest.mark.parametrize("password", NASTY_PASSWORDS)
def test_a_stock_image_takes_every_password(password: str) -> None:
    assert droplet_spec(
        "s", "a", "paper", 1, STOCK, Credentials("u", password, TOKEN), "pulumi"
    ).user_data.isascii()


@pytest.mark.parametrize("password", ["", "x\r\n", "x\n", "a\rb", "a\x00b", "\ud800"])
@pytest.mark.parametrize("settings", [STOCK, SNAPSHOT])
def test_what_ibeam_would_change_is_refused_without_showing_it(
    password: str, settings: DropletSettings
) -> None:
    with pytest.raises(SpecError, match="the IBKR password") as refused:
        droplet_spec("s", "a", "paper", 1, settings, Credentials("u", password, TOKEN), "pulumi")
    assert refused.value.__cause__ is None


def test_a_snapshot_refuses_what_an_env_file_cannot_carry() -> None:
    with pytest.raises(SpecError, match="docker's env file"):
        check_credentials(Credentials("u", "two\nlines"), for_snapshot=True)
    with pytest.raises(SpecError, match="the IBKR username"):
        check_credentials(Credentials("u\nIBEAM_USE_PAPER_ACCOUNT=False", "p"), for_snapshot=True)


@pytest.mark.parametrize(("environment", "manager"), [("prod", "pulumi"), ("live", "terraform")])
def test_an_unknown_environment_or_manager_is_refused(environment: str, manager: str) -> None:
    with pytest.raises(SpecError, match="is unknown"):
        droplet_spec("s", "a", environment, 1, STOCK, LOGIN, manager)  # type: ignore[arg-type]


def agent_settings(user_data: str) -> dict[str, Any]:
    files = {entry["path"]: entry for entry in yaml.safe_load(user_data)["write_files"]}
    found = json.loads(base64.b64decode(files["/etc/ibeam/agent.json"]["content"]))
    assert isinstance(found, dict)
    return found


def test_a_run_time_droplet_holds_what_it_enrols_with_and_no_credentials() -> None:
    spec = droplet_spec("prod", "alice", "demo", 1, STOCK, ENROLMENT, "service")
    assert "account:ib-demo-a1b2c3d4" in spec.tags
    assert agent_settings(spec.user_data) == {
        "account_id": ENROLMENT.account_id,
        "service_url": ENROLMENT.service_url,
        "enrolment_token": ENROLMENT.token,
        "push_key": ENROLMENT.push_key,
        "paper": True,
    }
    assert ENROLMENT.token not in f"{ENROLMENT!r} {spec!r}"


def test_only_a_live_droplet_takes_a_live_login() -> None:
    for environment, paper in (("live", False), ("paper", True), ("demo", True)):
        spec = droplet_spec("s", "a", environment, 1, STOCK, ENROLMENT, "service")  # type: ignore[arg-type]
        assert agent_settings(spec.user_data)["paper"] is paper


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service_url": "http://api.example"}, "https:// address"),
        ({"service_url": ""}, "https:// address"),
        ({"token": "short"}, "enrolment token"),
        ({"token": "x" * 42 + "\n"}, "enrolment token"),
        ({"push_key": base64.b64encode(b"k" * 31).decode()}, "push key"),
        ({"push_key": "not base64"}, "push key"),
    ],
)
def test_what_no_droplet_could_enrol_with_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        droplet_spec("s", "a", "paper", 1, STOCK, replace(ENROLMENT, **changes), "service")


def test_an_enrolment_is_of_the_droplets_account() -> None:
    with pytest.raises(SpecError, match="enrols as"):
        droplet_spec("s", "a", "paper", 1, STOCK, ENROLMENT, "service", account="another")


def test_a_snapshot_cannot_enrol() -> None:
    with pytest.raises(SpecError, match="use a stock image"):
        droplet_spec("s", "a", "paper", 1, SNAPSHOT, ENROLMENT, "service")


def test_a_declared_stock_droplet_needs_a_gateway_token() -> None:
    with pytest.raises(SpecError, match="gateway token"):
        droplet_spec("s", "a", "paper", 1, STOCK, Credentials("u", "p"), "pulumi")


def test_gateway_tokens_differ_by_droplet_and_by_key() -> None:
    tokens = {gateway_token(key, name) for key in ("k", "l") for name in ("a-ib-paper-1", "b-ib-paper-1")}
    assert len(tokens) == 4
    assert {len(token) for token in tokens} == {64}
    assert gateway_token("k\n", "a") == gateway_token("k", "a"), "a command's output ends its line"


def test_importing_it_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, broker.fleet.spec; heavy = {'pulumi', 'fastapi', 'pydantic', 'sqlalchemy', 'pandas', "
        "'ib_insync', 'alpaca', 'httpx'} & set(sys.modules); print(sorted(heavy)); sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the Pulumi program imports it at each run; it imported {done.stdout}"
