"""Cloud Run as reality does it, with a small app of the test's own: rollout, refusals, secrets, jobs."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.cloud import Cloud, CloudError
from localcloud.machines import cloudrun
from localcloud.machines.front import Fronts
from localcloud.state import Resource
from tests.localcloud.playground import Network

IMAGE = "us-west1-docker.pkg.dev/local/app/app:1"
ACCOUNT = "app@local.iam.gserviceaccount.com"
DOCKERFILE = """
FROM python:3.12-slim
ENV COLOUR=green
WORKDIR /app
ENTRYPOINT ["python", "app.py"]
CMD ["serve"]
"""
APP = """
import http.server, json, os, signal, socketserver, sys, time
if sys.argv[1] == "job":
    print("attempt", os.environ["CLOUD_RUN_TASK_ATTEMPT"], "colour", os.environ["COLOUR"])
    time.sleep(float(os.environ.get("SECONDS", "0")))
    sys.exit(0 if os.environ["CLOUD_RUN_TASK_ATTEMPT"] == os.environ.get("SUCCEED_AT", "0") else 7)
if sys.argv[1] == "crash":
    sys.exit("no database")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self): return "front"
    def log_message(self, *args): pass
    def do_GET(self):
        sick = self.path == "/healthz" and os.path.exists(os.environ.get("SICK_WHEN", "/nonexistent"))
        body = json.dumps({"env": dict(os.environ), "pid": os.getpid(), "cwd": os.getcwd()}).encode()
        self.send_response(503 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
Server(os.environ["UNIX_SOCKET"], Handler).serve_forever()
"""


@pytest.fixture
def checkout(tmp_path: Path, cloud: Cloud) -> Path:
    """The app's checkout, which the image's name stands for."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "app.py").write_text(APP)
    cloud.store.note("images", IMAGE, str(folder))
    return folder


def declared(
    *, env: dict[str, Any] | None = None, service: dict[str, Any] | None = None, **container: Any
) -> Any:
    """Inputs of a gcp:cloudrunv2/service:Service."""
    envs = [
        {"name": name, **(value if isinstance(value, dict) else {"value": value})}
        for name, value in (env or {}).items()
    ]
    probe = {"httpGet": {"path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 20}
    one = {"image": IMAGE, "envs": envs, "startupProbe": probe, **container}
    template = {"serviceAccount": ACCOUNT, "containers": [one]}
    return {"location": "us-west1", "invokerIamDisabled": True, "template": template, **(service or {})}


async def get(uri: str, path: str = "/") -> Any:
    """What the app says of itself, by a new connection."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"{uri}{path}")
        response.raise_for_status()
        return response.json()


async def status(uri: str) -> int:
    """The status of a request by a new connection."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(uri)).status_code


async def test_the_app_runs_as_its_dockerfile_and_its_declaration_say(
    cloud: Cloud, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONAL", "the laptop's own")
    outputs = await cloudrun.deploy(cloud, "api", declared(env={"WORD": "hello"}))
    said = await get(outputs["uri"])
    env = said["env"]
    assert (env["WORD"], env["COLOUR"], env["PORT"], env["K_SERVICE"]) == ("hello", "green", "8080", "api")
    assert outputs["latestReadyRevision"].endswith(f"/revisions/{env['K_REVISION']}")
    assert said["cwd"] == str(checkout), "the checkout stands for the image's WORKDIR"
    assert "PERSONAL" not in env, "the laptop's environment is not the container's"


async def test_a_new_revision_takes_over_without_a_failed_request(
    cloud: Cloud, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudrun, "DRAIN_SECONDS", 0.05)
    first = await cloudrun.deploy(cloud, "api", declared(env={"WORD": "one"}))
    rollout = asyncio.create_task(cloudrun.deploy(cloud, "api", declared(env={"WORD": "two"})))
    words = []
    while not rollout.done():
        words.append((await get(first["uri"]))["env"]["WORD"])
    second = rollout.result()
    assert second["uri"] == first["uri"], "the address belongs to the service"
    assert set(words) <= {"one", "two"}
    assert (await get(first["uri"]))["env"]["WORD"] == "two"
    while len(cloud.machines.names("run")) > 1:  # noqa: ASYNC110 -- the old revision ends by itself
        await asyncio.sleep(0.01)


async def test_an_unchanged_template_makes_no_new_revision(cloud: Cloud, checkout: Path) -> None:
    first = await cloudrun.deploy(cloud, "api", declared())
    pid = (await get(first["uri"]))["pid"]
    again = await cloudrun.deploy(cloud, "api", declared(service={"labels": {"a": "b"}}))
    assert again["latestReadyRevision"] == first["latestReadyRevision"]
    assert (await get(first["uri"]))["pid"] == pid


async def test_another_annotation_of_the_template_makes_a_new_revision(cloud: Cloud, checkout: Path) -> None:
    first = await cloudrun.deploy(cloud, "api", declared())
    pid = (await get(first["uri"]))["pid"]
    changed = declared()
    changed["template"]["annotations"] = {"source": "2"}
    again = await cloudrun.deploy(cloud, "api", changed)
    assert again["latestReadyRevision"] != first["latestReadyRevision"]
    assert (await get(again["uri"]))["pid"] != pid, "a moved tag's new code would not run"


async def test_a_revision_that_does_not_start_leaves_the_one_before(cloud: Cloud, checkout: Path) -> None:
    outputs = await cloudrun.deploy(cloud, "api", declared(env={"WORD": "good"}))
    with pytest.raises(CloudError, match=r"is not ready .*failed to start and listen"):
        await cloudrun.deploy(cloud, "api", declared(args=["crash"]))
    assert (await get(outputs["uri"]))["env"]["WORD"] == "good"


async def test_a_first_revision_that_fails_leaves_nothing(cloud: Cloud, checkout: Path) -> None:
    with pytest.raises(CloudError, match="failed to start"):
        await cloudrun.deploy(cloud, "api", declared(args=["crash"]))
    assert cloudrun.describe(cloud, "api") is None
    assert cloud.network.listening() == []
    assert cloud.processes.pids() == []


async def test_an_image_that_nobody_pushed_is_not_found(cloud: Cloud) -> None:
    with pytest.raises(CloudError, match="Image 'nowhere/x:1' not found"):
        await cloudrun.deploy(cloud, "api", declared(image="nowhere/x:1"))


async def test_a_secret_reaches_the_app_only_with_the_grant(
    cloud: Cloud, checkout: Path, network: Network
) -> None:
    cloud.store.put(
        Resource(
            "gcp:secretmanager/secretVersion:SecretVersion",
            "projects/local/secrets/key/versions/1",
            {"secret": "projects/local/secrets/key", "secretData": "s3cret $x"},
            {"version": "1"},
        )
    )
    reference = {"valueSource": {"secretKeyRef": {"secret": "key", "version": "1"}}}
    with pytest.raises(CloudError, match=r"Permission denied on secret: .*/secrets/key/versions/1"):
        await cloudrun.deploy(cloud, "api", declared(env={"KEY": reference}))
    network.declare(
        "gcp:secretmanager/secretIamMember:SecretIamMember",
        "grant",
        secretId="key",
        role="roles/secretmanager.secretAccessor",
        member=f"serviceAccount:{ACCOUNT}",
    )
    outputs = await cloudrun.deploy(cloud, "api", declared(env={"KEY": reference}))
    assert (await get(outputs["uri"]))["env"]["KEY"] == "s3cret $x"


async def test_the_front_wants_the_invoker_role_and_respects_ingress(
    cloud: Cloud, checkout: Path, network: Network
) -> None:
    private = {"invokerIamDisabled": False}
    uri = (await cloudrun.deploy(cloud, "api", declared(service=private)))["uri"]
    assert await status(uri) == 403
    network.declare(
        "gcp:cloudrunv2/serviceIamMember:ServiceIamMember",
        "everybody",
        role="roles/run.invoker",
        member="allUsers",
    )
    grant = cloud.store.get("gcp:cloudrunv2/serviceIamMember:ServiceIamMember", "everybody")
    assert grant is not None
    cloud.store.put(Resource(grant.type, grant.id, {**grant.inputs, "name": "api"}))
    assert await status(uri) == 200
    inside = {**private, "ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY"}
    await cloudrun.deploy(cloud, "api", declared(service=inside))
    assert await status(uri) == 404


async def test_an_instance_that_dies_is_started_again(cloud: Cloud, checkout: Path) -> None:
    uri = (await cloudrun.deploy(cloud, "api", declared()))["uri"]
    before = (await get(uri))["pid"]
    os.kill(before, signal.SIGKILL)
    assert await _pid_after(uri, before) != before


async def test_an_instance_that_fails_its_liveness_probe_is_replaced(
    cloud: Cloud, checkout: Path, tmp_path: Path
) -> None:
    sick = tmp_path / "sick"
    probe = {"httpGet": {"path": "/healthz"}, "periodSeconds": 0.05, "failureThreshold": 2}
    inputs = declared(env={"SICK_WHEN": str(sick)}, livenessProbe=probe)
    uri = (await cloudrun.deploy(cloud, "api", inputs))["uri"]
    before = (await get(uri))["pid"]
    sick.touch()
    while os.path.exists(f"/proc/{before}/exe"):  # noqa: ASYNC110, ASYNC240, PTH110
        await asyncio.sleep(0.01)
    sick.unlink()
    assert await _pid_after(uri, before) != before


async def test_removal_leaves_no_process_port_or_address(cloud: Cloud, checkout: Path) -> None:
    await cloudrun.deploy(cloud, "api", declared())
    await cloudrun.remove(cloud, "api")
    await cloudrun.remove(cloud, "api")
    assert (cloud.processes.pids(), cloud.network.listening(), cloud.addresses.taken()) == ([], [], {})


async def test_a_port_in_use_moves_the_front_to_the_next(cloud: Cloud, checkout: Path, prefix: str) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), f"{prefix}.191.2", 8080)
    async with server:
        outputs = await cloudrun.deploy(cloud, "api", declared())
    assert outputs["uri"] == f"http://{prefix}.191.2:8081"
    assert Fronts.of(cloud).target("api", "internet").exists()


def job(env: dict[str, str] | None = None, **template: Any) -> dict[str, Any]:
    """Inputs of a gcp:cloudrunv2/job:Job."""
    envs = [{"name": name, "value": value} for name, value in (env or {}).items()]
    container = {"image": IMAGE, "args": ["job"], "envs": envs}
    return {"template": {"template": {"containers": [container], **template}}}


async def test_a_job_runs_to_its_end_and_tells_what_it_printed(cloud: Cloud, checkout: Path) -> None:
    done = await cloudrun.run_job(cloud, "migrate", job())
    assert (done.succeeded, done.exit_status, done.attempts) == (True, 0, 1)
    assert "attempt 0 colour green" in done.log
    assert cloud.processes.pids() == []


async def test_a_job_is_retried_as_often_as_declared(cloud: Cloud, checkout: Path) -> None:
    done = await cloudrun.run_job(cloud, "migrate", job({"SUCCEED_AT": "2"}, maxRetries=3))
    assert (done.succeeded, done.attempts) == (True, 3)
    failed = await cloudrun.run_job(cloud, "migrate", job({"SUCCEED_AT": "9"}, maxRetries=1))
    assert (failed.succeeded, failed.exit_status, failed.attempts) == (False, 7, 2)


async def test_a_job_that_takes_too_long_is_ended(cloud: Cloud, checkout: Path) -> None:
    late = job({"SECONDS": "3600"}, maxRetries=0, timeout="0.2s")
    done = await cloudrun.run_job(cloud, "migrate", late)
    assert not done.succeeded
    assert "maximum timeout" in done.log


async def _pid_after(uri: str, before: int) -> int:
    while True:
        try:
            found: int = (await get(uri))["pid"]
        except httpx.HTTPError:
            found = before
        if found != before:
            return found
        await asyncio.sleep(0.02)


def with_volume(path: str = "/secrets/key", **secret: Any) -> Any:
    """A service that mounts version 1 of the secret `key`."""
    volume = {
        "name": "files",
        "secret": {"secret": "key", "items": [{"path": "it", "version": "1"}], **secret},
    }
    container = declared(
        env={"KEY_FILE": f"{path}/it", "OTHER": "/secrets/keyring"},
        volumeMounts=[{"name": "files", "mountPath": path}],
    )
    container["template"]["volumes"] = [volume]
    return container


def put_secret(cloud: Cloud, network: Network, *, grant: bool) -> None:
    version = Resource(
        "gcp:secretmanager/secretVersion:SecretVersion",
        "projects/local/secrets/key/versions/1",
        {"secret": "projects/local/secrets/key", "secretData": "s3cret\n$x"},
        {"version": "1"},
    )
    cloud.store.put(version)
    if grant:
        network.declare(
            "gcp:secretmanager/secretIamMember:SecretIamMember",
            "grant",
            secretId="key",
            role="roles/secretmanager.secretAccessor",
            member=f"serviceAccount:{ACCOUNT}",
        )


def content_and_mode(file: Path) -> tuple[str, int]:
    return file.read_text(), file.stat().st_mode & 0o777


async def test_a_secret_volume_is_a_file_that_its_variable_leads_to(
    cloud: Cloud, checkout: Path, network: Network
) -> None:
    put_secret(cloud, network, grant=True)
    outputs = await cloudrun.deploy(cloud, "api", with_volume(defaultMode=0o400))
    env = (await get(outputs["uri"]))["env"]
    file = Path(env["KEY_FILE"])
    assert content_and_mode(file) == ("s3cret\n$x", 0o400)
    assert env["OTHER"] == "/secrets/keyring", "only paths below the mount path lead elsewhere"
    assert cloud.settings.home not in file.parents, "it lies in memory, and not on the disk"
    await cloudrun.remove(cloud, "api")
    with pytest.raises(FileNotFoundError):
        content_and_mode(file)


async def test_an_instance_that_starts_again_finds_its_volume(
    cloud: Cloud, checkout: Path, network: Network
) -> None:
    put_secret(cloud, network, grant=True)
    outputs = await cloudrun.deploy(cloud, "api", with_volume())
    before = await get(outputs["uri"])
    os.kill(before["pid"], signal.SIGKILL)
    await _pid_after(outputs["uri"], before["pid"])
    assert content_and_mode(Path((await get(outputs["uri"]))["env"]["KEY_FILE"]))[0] == "s3cret\n$x"


async def test_a_secret_volume_wants_the_grant(cloud: Cloud, checkout: Path, network: Network) -> None:
    put_secret(cloud, network, grant=False)
    with pytest.raises(
        CloudError, match=r"volumes\[0\].secret: Permission denied on secret: .*/key/versions/1"
    ):
        await cloudrun.deploy(cloud, "api", with_volume())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"volumes": []}, "there is no volume 'files'"),
        ({"volumes": [{"name": "files", "emptyDir": {}}]}, "mounts secrets, and 'files' is something else"),
    ],
)
async def test_a_volume_that_cannot_be_mounted_is_refused(
    cloud: Cloud, checkout: Path, change: dict[str, Any], says: str
) -> None:
    service = with_volume()
    service["template"].update(change)
    with pytest.raises(CloudError, match=says):
        await cloudrun.deploy(cloud, "api", service)


@pytest.mark.parametrize("path", ["/", "secrets", "/proc/x", "/dev", "/a/../b"])
async def test_a_place_that_cannot_be_mounted_at_is_refused(cloud: Cloud, checkout: Path, path: str) -> None:
    with pytest.raises(CloudError, match="mount_path"):
        await cloudrun.deploy(cloud, "api", with_volume(path))


async def test_the_first_services_address_is_known_before_it_is_made(
    cloud: Cloud, checkout: Path, prefix: str
) -> None:
    assert cloud.addresses.allocate_public("droplet/1")
    assert (await cloudrun.deploy(cloud, "api", declared()))["uri"] == f"http://{prefix}.191.2:8080"
