"""The daemon's life: started, used, restarted, killed. It is the real one, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import psutil
import pytest

from localcloud.control import Daemon, DaemonError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def daemon(tmp_path: Path, prefix: str) -> Iterator[Daemon]:
    """A started daemon; stopped afterwards whatever the test did to it."""
    found = Daemon(tmp_path / "home")
    assert found.start(prefix)
    yield found
    found.stop()


def eventually(true: Callable[[], bool]) -> None:
    """Wait for something outside of this process; the test's time limit ends the wait."""
    while not true():
        time.sleep(0.01)


def children_of(daemon: Daemon) -> list[psutil.Process]:
    """Everything that the daemon started, and what that started."""
    return psutil.Process(daemon.about()["pid"]).children(recursive=True)


def stable(settings: dict[str, str]) -> dict[str, str]:
    """Without the access token, which is issued anew each time and lives for an hour."""
    return {name: value for name, value in settings.items() if name != "GOOGLE_OAUTH_ACCESS_TOKEN"}


def exchange_runs(daemon: Daemon) -> bool:
    """Whether the paper exchange's process is there."""
    return bool(daemon.call("status")["exchange"]["running"])


def test_starting_it_twice_starts_it_once(daemon: Daemon) -> None:
    pid = daemon.about()["pid"]
    assert daemon.start() is False
    assert daemon.about()["pid"] == pid


def test_two_starts_at_once_leave_one_daemon(tmp_path: Path, prefix: str) -> None:
    argv = [
        sys.executable,
        "-m",
        "localcloud",
        "--home",
        str(tmp_path / "home"),
        "--network",
        prefix,
        "start",
    ]
    both = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(one.communicate()[0].split(":")[0] for one in both)
    daemon = Daemon(tmp_path / "home")
    assert said == ["local cloud already running", "local cloud started"]
    daemon.stop()


def test_it_says_where_it_is_to_its_owner_only(daemon: Daemon, prefix: str) -> None:
    about = daemon.about()
    assert about["network"] == prefix
    assert about["api_url"] == f"http://{prefix}.255.1:8400"
    assert set(about["providers"]) == {"gcp", "digitalocean", "command"}
    for path in (daemon.home / "daemon.json", Path(about["admin_socket"])):
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} gives away the cloud"


def test_a_restart_keeps_network_token_and_keys(daemon: Daemon, prefix: str) -> None:
    before = stable(daemon.call("env"))
    assert daemon.stop()
    assert daemon.start()
    assert daemon.about()["network"] == prefix, "the network is remembered"
    assert stable(daemon.call("env")) == before


def test_a_second_cloud_in_the_same_network_is_told_so(daemon: Daemon, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(DaemonError, match="choose another network"):
        Daemon(tmp_path / "other").start(prefix)


def test_a_malformed_network_is_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"two octets such as 127\.20"):
        Daemon(tmp_path / "home").start("10.0")


def test_a_killed_daemon_leaves_nothing_and_starts_again(daemon: Daemon) -> None:
    eventually(lambda: exchange_runs(daemon))
    children, run, pid = children_of(daemon), Path(daemon.about()["run"]), daemon.about()["pid"]
    assert children
    os.kill(pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, f"still there: {alive}"
    eventually(lambda: not run.exists())
    assert not daemon.running()
    assert daemon.start()


def test_a_daemon_killed_with_its_warden_is_cleared_up_by_the_next(daemon: Daemon) -> None:
    eventually(lambda: exchange_runs(daemon))
    children, run = children_of(daemon), Path(daemon.about()["run"])
    warden = next(child for child in children if "warden.py" in " ".join(child.cmdline()))
    warden.kill()
    os.kill(daemon.about()["pid"], signal.SIGKILL)
    psutil.wait_procs(children, timeout=30)
    assert daemon.start()
    assert not run.exists()


def test_the_exchange_is_started_again_when_it_dies(daemon: Daemon) -> None:
    eventually(lambda: exchange_runs(daemon))
    exchange = next(one for one in children_of(daemon) if "localcloud.exchange" in one.cmdline())
    exchange.kill()
    exchange.wait(30)
    eventually(lambda: exchange_runs(daemon))
    daemon.call("user_add", name="demo", password="pass word", mode="paper")


def test_stop_ends_everything_and_can_be_repeated(daemon: Daemon) -> None:
    eventually(lambda: exchange_runs(daemon))
    children = children_of(daemon)
    assert daemon.stop()
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert not (daemon.home / "daemon.json").exists()
    assert daemon.stop() is False
    with pytest.raises(DaemonError, match="not running"):
        daemon.call("status")


def test_a_token_is_checked_with_the_issuers_published_key(daemon: Daemon) -> None:
    settings = daemon.call("env")
    token = daemon.call("token", user="ada", roles=["trader"], seconds=60)["token"]
    key = jwt.PyJWKClient(settings["OIDC_JWKS_URL"]).get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token, key, ["ES256"], audience=settings["OIDC_AUDIENCE"], issuer=settings["OIDC_ISSUER"]
    )
    assert (claims["sub"], claims["roles"], claims["exp"] - claims["iat"]) == ("ada", ["trader"], 60)
    with pytest.raises(DaemonError, match="unknown role boss"):
        daemon.call("token", user="ada", roles=["boss"])


def test_the_log_holds_no_token_and_no_password(daemon: Daemon) -> None:
    settings = daemon.call("env")
    daemon.call("user_add", name="demo", password="tell nobody", mode="paper")
    token = daemon.call("token", user="ada")["token"]
    logs = "".join(path.read_text() for path in (daemon.home / "logs").iterdir())
    for secret in (settings["DIGITALOCEAN_TOKEN"], "tell nobody", token):
        assert secret not in logs


def test_a_request_that_makes_no_sense_is_an_error_and_no_crash(daemon: Daemon) -> None:
    for method, params in (("nonsense", {}), ("why", {}), ("tunnel", {"name": "x", "port": "y"})):
        with pytest.raises(DaemonError):
            daemon.call(method, **params)
    with pytest.raises(DaemonError, match="there is no machine 'gateway'"):
        daemon.call("delete_machine", name="gateway")
    assert daemon.call("status")["pid"] == daemon.about()["pid"]


def test_the_command_line_speaks_for_scripts_and_for_people(daemon: Daemon, prefix: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "localcloud", "--home", str(daemon.home), *arguments]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    assert json.loads(run("status", "--json").stdout)["network"] == prefix
    assert "export DIGITALOCEAN_TOKEN=" in run("env").stdout
    assert run("token").stdout.count(".") == 2
    why = run("why", "internet", "ibkr", "4000")
    assert (why.returncode, "reaches internet/ibkr:4000" in why.stdout) == (0, True)
    missing = run("tunnel", "ibkr-gateway", "4002")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no machine 'ibkr-gateway'" in missing.stderr
    run("stop")
    assert run("status").returncode == 3
    assert "not running" in run("env").stderr
