"""What the Makefile's commands say. What they do to a stack is shown by the end-to-end tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import pulumi_cli, stack, summary
from tools.environments import CHECKOUT, MAIN
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack
from tools.real_stack import RealStack
from tools.run_tests import Counts, counts_in
from tools.service_check import Health

IMAGE = f"us-west1-docker.pkg.dev/p/ibkr/api@sha256:{64 * 'a'}"
OUTPUTS = {
    "service_url": "http://127.20.128.4:8080",
    "gateway_host": "127.20.0.2",
    "gateway_port": 4002.0,
    "droplets": {"demo-ib-paper-1": "127.20.128.3"},
}


def test_up_ends_by_saying_what_runs() -> None:
    said = summary.running(OUTPUTS, Health(True, "connected, DU1"))
    for part in (
        "http://127.20.128.4:8080",
        "127.20.0.2:4002",
        "demo-ib-paper-1, 127.20.128.3",
        "make -s token",
    ):
        assert part in said


def test_a_broker_that_is_away_is_not_called_connected() -> None:
    assert "NOT connected: not logged in" in summary.running(OUTPUTS, Health(False, "not logged in"))


def test_a_stack_without_a_gateway_has_no_line_for_one() -> None:
    outputs = {"service_url": "http://127.20.128.4:8080", "gateway_host": None, "droplets": {}}
    assert "Gateway" not in summary.running(outputs, Health(True, "connected"))


def test_the_order_to_try_is_valid_as_a_shell_reads_it(tmp_path: Path) -> None:
    """A stand-in for curl shows what it is given; the token's command is left out."""
    order = summary.tries("http://localhost")[2].replace("$(make -s token)", "t")
    shown = subprocess.run(
        ["sh", "-c", f'curl() {{ for part; do echo "$part"; done; }}\n{order}'],
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    body = json.loads(shown[shown.index("-d") + 1])
    assert body.keys() == {"symbol", "side", "qty", "order_type", "client_order_id"}
    assert body["client_order_id"].isdigit(), "typed again, it must be a new order"
    assert shown[-1] == "http://localhost/api/v1/connections/default/orders"


def test_up_shows_how_to_connect_an_account_where_the_service_makes_droplets() -> None:
    accounts = "http://localhost/api/v1/brokers/interactivebrokers"
    said = summary.running({**OUTPUTS, "accounts_url": accounts}, Health(True, "connected"))
    [line] = [one for one in said.splitlines() if one.endswith("/connect")]
    shown = subprocess.run(
        ["sh", "-c", f'make() {{ echo "$2-$2"; }}; curl() {{ for part; do echo "$part"; done; }}\n{line}'],
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert shown[shown.index("-d") + 1] == "login-login"
    assert shown[-1] == f"{accounts}/connect"
    assert "/connect\n" not in summary.running(OUTPUTS, Health(True, "connected"))


def test_up_ends_with_a_link_that_opens_the_dashboard() -> None:
    said = summary.running(OUTPUTS, Health(True, "connected"), "a.b.c")
    assert "http://127.20.128.4:8080/login#a.b.c" in said.split()
    assert "/login#" not in summary.running({**OUTPUTS, "service_url": None}, Health(False, "none"), "a.b.c")
    with pytest.raises(CommandFailed, match="make up"):
        stack.service_url({})


def test_an_output_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(CommandFailed, match="droplets, gateway_host, gateway_port, service_url"):
        stack.show_output(dict(OUTPUTS), "nat")


PRINTED = {
    "gateway_port": "4002",
    "service_url": "http://127.20.128.4:8080",
    "droplets": '{"demo-ib-paper-1": "127.20.128.3"}',
}


@pytest.mark.parametrize(("name", "printed"), PRINTED.items())
def test_outputs_are_printed_for_scripts(capsys: pytest.CaptureFixture[str], name: str, printed: str) -> None:
    stack.show_output(dict(OUTPUTS), name)
    assert capsys.readouterr().out == printed + "\n"


def test_destroying_what_never_was_is_fine(tmp_path: Path) -> None:
    LocalStack(tmp_path / "home", network="127.249").destroy()


def test_a_stack_that_never_was_has_no_outputs(tmp_path: Path) -> None:
    assert LocalStack(tmp_path / "home").outputs() == {}


def test_the_local_engine_gets_nothing_of_a_persons_real_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "real")
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "real")
    monkeypatch.setenv("GOOGLE_CREDENTIALS", "real")
    local = LocalStack(tmp_path / "home")
    monkeypatch.setattr(local.cloud, "service_environment", lambda: {"DIGITALOCEAN_TOKEN": "local"})
    monkeypatch.setattr(local.cloud, "providers", lambda: "gcp:1")
    local.home.mkdir()
    env = local.pulumi_environment()
    assert "real" not in env.values()
    assert env["PULUMI_DEBUG_PROVIDERS"] == "gcp:1"
    assert Path(env["PULUMI_CONFIG_PASSPHRASE_FILE"]).stat().st_mode & 0o777 == 0o600


def test_an_unknown_stack_is_told_which_there_are() -> None:
    with pytest.raises(CommandFailed, match="local"):
        RealStack("prodd")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "preview",
            f"--diff --policy-pack {CHECKOUT}/policy --config-path --config ibkr:api.image={IMAGE}",
        ),
        ("up", f"--policy-pack {CHECKOUT}/policy --config-path --config ibkr:api.image={IMAGE} --yes"),
        ("drift", "--preview-only --expect-no-changes --diff"),
        ("destroy", "--yes"),
    ],
)
def test_real_stacks_are_changed_under_the_policies_with_the_image_that_was_asked_for(
    command: str, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CLI is a stand-in that writes down how it is called."""
    (tmp_path / "pulumi").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    (tmp_path / "pulumi").chmod(0o755)
    monkeypatch.setattr(pulumi_cli, "locate", lambda: tmp_path)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "gs://state")
    getattr(RealStack("staging", unattended=True, image=IMAGE), command)()
    done = {"drift": "refresh"}.get(command, command)
    assert (tmp_path / "called").read_text().strip() == f"{done} --stack staging {options}"
    RealStack("staging").configure("ibkr:gateway.enabled", False)
    said = "config set --stack staging --path ibkr:gateway.enabled false"
    assert (tmp_path / "called").read_text().strip() == said


@pytest.mark.parametrize("image", ["r/api:latest", "r/api@sha256:abc", IMAGE + ";id"])
def test_an_image_that_is_not_pinned_is_refused(image: str) -> None:
    with pytest.raises(CommandFailed, match="isn't pinned"):
        RealStack("staging", image=image)


def test_a_refusal_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert stack.main(["up", "--stack", "prodd"]) == 1
    error = capsys.readouterr().err
    assert "prodd" in error
    assert "Traceback" not in error


def test_make_alone_lists_the_commands() -> None:
    said = subprocess.run(["make", "-s"], cwd=CHECKOUT, capture_output=True, text=True).stdout
    for command in (
        "up",
        "demo",
        "test",
        "preview",
        "status",
        "logs",
        "tunnel",
        "token",
        "login",
        "output",
        "refresh",
        "destroy",
    ):
        assert f"make {command}" in said


def junit(tests: int, failures: int = 0, errors: int = 0, skipped: int = 0) -> str:
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    return f"<testsuites><testsuite {counts}/></testsuites>"


def test_runs_are_counted_together(tmp_path: Path) -> None:
    first, second = tmp_path / "1.xml", tmp_path / "2.xml"
    first.write_text(junit(10, failures=1, errors=1, skipped=1))
    second.write_text(junit(5))
    assert str(counts_in(first) + counts_in(second)) == "12 passed, 2 failed, 1 skipped"


def test_a_run_that_left_no_result_has_failed(tmp_path: Path) -> None:
    assert counts_in(tmp_path / "none.xml") == Counts(failed=1)


def test_a_shell_finds_the_cli_after_eval_of_env() -> None:
    script = f'eval "$({sys.executable} -m tools.stack env)" && pulumi version && command -v python'
    said = subprocess.run(
        ["sh", "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    version, python = said.split()
    assert version.startswith("v3."), "the CLI that make uses"
    assert Path(python).parent == MAIN.python.parent, "the environment that the program runs in"


def test_a_tunnel_to_nowhere_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execv", lambda *_argv: pytest.fail("it went ahead"))
    with pytest.raises(CommandFailed, match="`make up` starts it"):
        stack.tunnel(LocalStack(home=tmp_path), "", 4002, "127.0.0.1:4002")
