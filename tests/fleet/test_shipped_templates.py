"""The user data that the shipped templates make, in every variant: what can be decided by reading it.

That it does its work is shown in tests/machines; `cloud-init schema` needs cloud-init and runs elsewhere.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import sys
from typing import Any

import pytest
import yaml

from broker.fleet.cloud_init import DROPLET_USER_DATA_LIMIT, render, template_directory
from broker.fleet.spec import Credentials, DropletSettings, Enrolment, droplet_spec
from tests.fleet.values import BOTH_GATEWAYS, GATEWAY, LIVE_GATEWAY, NASTY_PASSWORDS

ADDRESS = "203.0.113.7"
IMAGES = ["ubuntu-24-04-x64", "182556282"]


def droplet(image: str, password: str = "secret-password", environment: Any = "paper") -> str:
    settings = DropletSettings(client_address=ADDRESS, image=image)
    login = Credentials("ib user", password, "a-gateway-token-of-256-random-bits-in-base64")
    return droplet_spec("local", "alice", environment, 1, settings, login, "pulumi").user_data


def enrolling(environment: Any = "paper") -> str:
    enrolment = Enrolment(
        "https://api.example",
        "an-enrolment-token-of-256-random-bits-base64",
        "ib-paper-a1b2c3d4",
        base64.b64encode(b"k" * 32).decode(),
    )
    settings = DropletSettings(client_address=ADDRESS)
    return droplet_spec("local", "alice", environment, 1, settings, enrolment, "service").user_data


VARIANTS = [
    pytest.param(render("ib-gateway.yaml", GATEWAY), id="gateway-paper"),
    pytest.param(render("ib-gateway.yaml", LIVE_GATEWAY), id="gateway-live"),
    pytest.param(render("ib-gateway.yaml", BOTH_GATEWAYS), id="gateway-both"),
    *(
        pytest.param(droplet(image, environment=environment), id=f"droplet-{image}-{environment}")
        for image in IMAGES
        for environment in ("live", "paper", "demo")
    ),
    pytest.param(enrolling(), id="droplet-enrolling"),
]


def files(user_data: str) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in yaml.safe_load(user_data)["write_files"]}


def content(entry: dict[str, Any]) -> str:
    if entry.get("encoding") == "b64":
        return base64.b64decode(entry["content"]).decode()
    return str(entry["content"])


@pytest.mark.parametrize("user_data", VARIANTS)
def test_it_fits_every_cloud(user_data: str) -> None:
    assert user_data.isascii()
    assert len(user_data) < DROPLET_USER_DATA_LIMIT, "the droplet's limit is the smaller one"


@pytest.mark.parametrize("user_data", VARIANTS)
def test_every_file_says_who_may_read_it(user_data: str) -> None:
    for path, entry in files(user_data).items():
        assert isinstance(entry["permissions"], str), f"{path}: an unquoted 0644 is a number in YAML 1.1"


def named_in(commands: list[list[str]], verb: str) -> set[str]:
    """The units of such commands by their files' names, that of an instance being its template's."""
    words = {word for command in commands if command[1] == verb for word in command[2:]}
    return {re.sub("@[a-z]+", "@", word) for word in words if not word.startswith("--")}


@pytest.mark.parametrize("user_data", VARIANTS)
def test_every_unit_that_is_started_was_written_and_is_enabled(user_data: str) -> None:
    document = yaml.safe_load(user_data)
    written = {path.rsplit("/", 1)[1] for path in files(user_data) if path.endswith(".service")}
    commands = [command for command in document["runcmd"] if command[0] == "systemctl"]
    for verb in ("enable", "start"):
        assert named_in(commands, verb) <= written
    enabled = named_in(commands, "enable")
    installable = {
        path.rsplit("/", 1)[1]
        for path, entry in files(user_data).items()
        if path.endswith(".service") and "[Install]" in content(entry)
    }
    assert enabled == installable, "a unit that isn't enabled is gone after the first reboot"
    assert written - installable <= {"ibeam.service"}, "the agent starts it, and nothing else does"


@pytest.mark.parametrize("user_data", VARIANTS)
def test_no_start_waits_inside_cloud_init(user_data: str) -> None:
    for command in yaml.safe_load(user_data)["runcmd"]:
        if command[:2] == ["systemctl", "start"]:
            assert "--no-block" in command, "a unit ordered after cloud-final would wait for itself"


@pytest.mark.parametrize("user_data", VARIANTS)
def test_a_script_may_be_run_and_a_unit_may_not(user_data: str) -> None:
    for path, entry in files(user_data).items():
        script = content(entry).startswith("#!")
        assert (entry["permissions"] == "0755") == script, path


@pytest.mark.parametrize("values", [GATEWAY, LIVE_GATEWAY, BOTH_GATEWAYS])
def test_the_gateways_metadata_names_its_secret_and_holds_none(values: dict[str, Any]) -> None:
    written = files(render("ib-gateway.yaml", values))
    assert {path for path in written if path.startswith("/etc/ibkr-gateway/") and path.endswith(".json")} == {
        f"/etc/ibkr-gateway/{gateway['mode']}.json" for gateway in values["gateways"]
    }
    for gateway in values["gateways"]:
        settings = json.loads(written[f"/etc/ibkr-gateway/{gateway['mode']}.json"]["content"])
        assert settings["credentials_version"] == gateway["credentials_version"]
        assert settings["trading_mode"] == gateway["mode"]
        assert "username" not in settings
        assert "password" not in settings


OPS_AGENT = "/etc/google-cloud-ops-agent/config.yaml"


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("IbPassword=hunter2", True),
        ('{"username": "demo", "password": "hunter2"}', True),
        ("Authorization: Bearer ya29.c.b0AXv0zTPnzpmZ", True),
        ("token ya29.c.b0AXv0zTPnzpmZ_abc", True),
        ("2026-11-18 12:00:00:000 IBC: Login has completed", False),
        ("login failed: projects/p/secrets/ibkr/versions/1 can't be read: 403 Permission denied", False),
        ('{"severity": "ERROR", "event": "state", "state": "second_factor"}', False),
    ],
)
def test_the_ops_agent_keeps_secrets_on_the_machine(line: str, stays: bool) -> None:
    logging = yaml.safe_load(files(render("ib-gateway.yaml", BOTH_GATEWAYS))[OPS_AGENT]["content"])["logging"]
    rules = logging["processors"]["secrets"]["match_any"]
    patterns = [re.fullmatch(r'jsonPayload\.MESSAGE =~ "(.*)"', rule) for rule in rules]
    assert any(re.search(found.group(1).replace('\\"', '"'), line) for found in patterns if found) is stays
    pipelines = logging["service"]["pipelines"]
    for name, pipeline in pipelines.items():
        assert not pipeline["receivers"] or "secrets" in pipeline["processors"], name


def test_the_gateway_is_not_restarted_into_a_locked_account() -> None:
    unit = files(render("ib-gateway.yaml", GATEWAY))["/etc/systemd/system/ibkr-gateway@.service"]["content"]
    for line in ("StartLimitIntervalSec=6h", "StartLimitBurst=5", "RestartPreventExitStatus=87"):
        assert line in unit, "every start is a login attempt; 87 is a second factor that nobody answered"
    assert "--on2fatimeout=exit" in unit, "IBC's own restarts know no limit"


def test_no_command_line_of_the_gateway_holds_a_login() -> None:
    for path, entry in files(render("ib-gateway.yaml", GATEWAY)).items():
        if path.endswith(".service"):
            assert "--user" not in entry["content"]
            assert "--pw" not in entry["content"]


@pytest.mark.parametrize("password", NASTY_PASSWORDS)
def test_a_stock_droplet_gets_the_login_in_one_file_that_only_root_reads(password: str) -> None:
    written = files(droplet(IMAGES[0], password))
    entry = written["/etc/ibeam/agent.json"]
    settings = json.loads(content(entry))
    assert (settings["username"], settings["password"]) == ("ib user", password)
    assert entry["permissions"] == "0400"
    escaped = json.dumps(password)[1:-1]
    holding = [
        path for path, entry in written.items() if password in content(entry) or escaped in content(entry)
    ]
    assert holding == ["/etc/ibeam/agent.json"]


@pytest.mark.parametrize("password", [word for word in NASTY_PASSWORDS if word.isprintable()])
def test_a_snapshot_droplet_gets_the_login_in_one_file_that_only_root_reads(password: str) -> None:
    entry = files(droplet(IMAGES[1], password))["/opt/ibeam/credentials.json"]
    assert json.loads(entry["content"])["IBEAM_PASSWORD"] == password
    assert entry["permissions"] == "0600"


@pytest.mark.parametrize(("environment", "paper"), [("live", "False"), ("paper", "True"), ("demo", "True")])
def test_only_live_logs_in_to_the_live_account(environment: str, paper: str) -> None:
    stock = files(droplet(IMAGES[0], environment=environment))["/etc/ibeam/container.env"]["content"]
    assert f"IBEAM_USE_PAPER_ACCOUNT={paper}\n" in stock
    snapshot = files(droplet(IMAGES[1], environment=environment))["/opt/ibeam/credentials.json"]["content"]
    assert json.loads(snapshot)["IBEAM_USE_PAPER_ACCOUNT"] == paper


def test_nothing_but_the_agent_can_be_reached() -> None:
    written = files(droplet(IMAGES[0]))
    started = written["/etc/systemd/system/ibeam.service"]["content"].split("ExecStart=")[1]
    assert re.findall(r"--publish (\S+)", started) == ["127.0.0.1:5010:5000"]
    agent = written["/etc/systemd/system/ibeam-agent.service"]["content"]
    assert re.findall(r"SocketBind\w+=(\S+)", agent) == ["any", "tcp:5000"]


def test_the_gateways_own_list_admits_the_droplet_and_denies_something() -> None:
    ips = yaml.safe_load(files(droplet(IMAGES[0]))["/etc/ibeam/inputs/conf.yaml"]["content"])["ips"]
    assert ips["allow"] == ["127.0.0.1", "172.17.0.1"]
    assert ips["deny"], "without any deny, the gateway lets everyone in"
    assert "*" not in ips["allow"], "the gateway throws on it"


def test_ibeam_gives_up_before_ibkr_locks_the_account() -> None:
    for image, path in zip(IMAGES, ("/etc/ibeam/container.env", "/opt/ibeam/credentials.json"), strict=True):
        text = files(droplet(image))[path]["content"].replace('": "', "=")
        assert "IBEAM_MAX_FAILED_AUTH=3" in text
        assert "IBEAM_COUNT_TIMEOUT_AS_FAILED=True" in text
    for name in ("ibeam.service", "ibeam-starter.service"):
        unit = (template_directory() / "files" / "ibeam" / name).read_text()
        assert "Restart=no" in unit, "a restart begins the count of failed logins anew"
    assert "--restart no " in (template_directory() / "files" / "ibeam" / "ibeam.service").read_text()


def test_what_the_agent_imports_is_installed() -> None:
    packages = set(yaml.safe_load(enrolling())["packages"])
    source = (template_directory() / "files" / "ibeam" / "agent").read_text()
    modules = {match.split(".")[0] for match in re.findall(r"^(?:import|from) (\S+)", source, re.MULTILINE)}
    foreign = modules - set(sys.stdlib_module_names)
    # Ubuntu's python3-aiohttp brings yarl.
    assert {f"python3-{name}" for name in foreign - {"yarl"}} <= packages


def test_the_agent_is_written_for_the_python_of_ubuntu_22_04() -> None:
    source = (template_directory() / "files" / "ibeam" / "agent").read_text()
    ast.parse(source, feature_version=(3, 10))


def test_no_script_reads_a_value_with_sed() -> None:
    scripts = (template_directory() / "files" / "ibeam").iterdir()
    assert not any(re.search(r"\bsed\b", script.read_text()) for script in scripts), "/ and & break it"
