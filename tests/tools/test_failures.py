"""What a failed command says: cause and remedy first, the log's place last."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import failures, machine, stack
from tools.engine_log import Engine
from tools.environments import CHECKOUT
from tools.local_cloud import CommandFailed, LocalCloud
from tools.real_stack import RealStack
from tools.service_check import Health

# As the local cloud words it, after Cloud Run.
NOT_READY = (
    "Error creating Service: googleapi: Error 400: Revision 'ibkr-api-00002' is not ready and cannot"
    " serve traffic. The user-provided container failed to start and listen on the port defined "
    "provided by the PORT=8080 environment variable within the allocated timeout. This can happen "
    "when the container port is misconfigured or if the timeout is too short. The health check "
    "timeout can be extended. Logs for this revision might contain more information. (Here: "
    "localcloud logs run/ibkr-api/ibkr-api-00002), FAILED_PRECONDITION"
)
CONSOLE = (
    "2026-11-21T20:16:31.523Z console: instance-0: restarting\n"
    "2026-11-21T20:16:31.523Z instance-0: Traceback (most recent call last):\n"
    "2026-11-21T20:16:31.523Z instance-0: RuntimeError: boom at start"
).splitlines()


def told(engine: Engine, log: Path = Path("engine.log"), cloud_runs: bool = True) -> list[str]:
    return failures.of_engine("up", engine, log, lambda name: CONSOLE, cloud_runs).splitlines()


def test_a_service_that_crashes_at_its_start_is_told_with_its_last_words() -> None:
    lines = told(Engine(errors=[("Service ibkr-api-service", NOT_READY)]))
    assert "Revision 'ibkr-api-00002' is not ready" in lines[1]
    assert "can be extended" not in lines[1], "Google's advice says nothing of this container"
    assert "    RuntimeError: boom at start" in lines
    assert lines[-2].endswith("make logs NAME=run/ibkr-api/ibkr-api-00002")
    assert lines[-1] == "Log: engine.log"


def test_an_engine_that_says_nothing_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("error: getting stack configuration: get stack secrets manager: incorrect passphrase\n")
    lines = told(Engine(), log)
    assert "incorrect passphrase" in lines[1]
    assert ".local/passphrase" in lines[2]


def test_a_local_cloud_that_was_killed_is_named_as_the_cause() -> None:
    errors = [("gcp default_10_2_0", "plugin [gcp] did not begin responding to RPC connections")]
    lines = told(Engine(errors=errors), cloud_runs=False)
    assert "local cloud ended" in lines[1]
    assert "RPC" not in "".join(lines), "what follows from it helps nobody"


def test_a_gateway_whose_cloud_init_made_nothing_is_told_with_its_console() -> None:
    console = [
        "2026-11-21T20:12:22.247Z console: cloud-init: runcmdx skipped: the local cloud doesn't have this"
    ]
    vm = {
        "name": "gce/ibkr-gateway",
        "kind": "gce",
        "status": "RUNNING",
        "software": {"cloud_init": "done", "failed": [], "units": {}},
    }
    said = failures.of_broker(Health(False, "4002 refuses connections"), [vm], lambda name: console)
    assert said.splitlines()[0].endswith("4002 refuses connections.")
    assert "cloud-init made no services" in said
    assert "runcmdx" in said


def test_an_engines_stamp_is_not_taken_for_a_message() -> None:
    assert failures.said_last(["2026-11-21T20:16:31.523Z instance-0: a: b"]) == ["a: b"]


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "can't be written by this user"),
        (errno.EEXIST, "a folder is needed"),
    ],
)
def test_what_cannot_be_written_is_named_with_a_remedy(number: int, part: str) -> None:
    said = machine.unwritable(OSError(number, "no", "/work/.local"))
    assert said is not None
    assert part in said
    assert "/work/.local" in said


def test_another_problem_keeps_its_traceback() -> None:
    assert machine.unwritable(OSError(errno.ECONNREFUSED, "no")) is None


def test_a_file_where_a_folder_belongs_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    home = f"Path({str(tmp_path / 'home')!r})"
    program = (
        "import sys; from pathlib import Path; from tools import stack, local_stack\n"
        f"stack.LocalStack = lambda **given: local_stack.LocalStack({home}, '127.249')\n"
        "sys.exit(stack.main(['up']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "a folder is needed there" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_local_cloud_that_was_killed_is_not_running(tmp_path: Path) -> None:
    """It leaves its announcement behind; `make token` said that it "does not answer"."""
    (tmp_path / "daemon.json").write_text(json.dumps({"network": "127.249", "admin_socket": "/nowhere"}))
    with pytest.raises(CommandFailed, match="`make up` starts it"):
        LocalCloud(tmp_path).token()


def test_a_service_at_another_address_than_droplets_know_is_refused() -> None:
    fleet = {"ibkr:fleet": {"enabled": True, "serviceUrl": "http://127.20.191.2:8080"}}
    stack.check_address("http://127.20.191.2:8080", fleet)
    with pytest.raises(CommandFailed, match="sport = :8080"):
        stack.check_address("http://127.20.191.2:8081", fleet)


def test_pulumi_without_a_login_or_a_passphrase_is_told_what_to_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.staging.yaml").write_text("encryptionsalt: v1:abc\n")
    for name in ("BACKEND_URL", "ACCESS_TOKEN", "CONFIG_PASSPHRASE", "CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(f"PULUMI_{name}", raising=False)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    real = RealStack("staging", tmp_path)
    with pytest.raises(CommandFailed, match="PULUMI_BACKEND_URL=gs://"):
        real.preview()
    monkeypatch.setenv("PULUMI_BACKEND_URL", "gs://state")
    with pytest.raises(CommandFailed, match="PULUMI_CONFIG_PASSPHRASE"):
        real.preview()
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    with pytest.raises(CommandFailed, match="YES=1"):
        real.up()
