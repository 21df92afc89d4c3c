"""The programs that the engine runs: the migration job and the sweep, against APIs on loopback."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from components.scripts import fleet_sweep, run_job
from components.scripts.fleet_sweep import DigitalOcean, SweepFailed, sweep
from components.scripts.run_job import CloudRun, JobFailed

JOB = "projects/local/locations/us-west1/jobs/ibkr-migrate"
FAILED = {"state": "CONDITION_FAILED", "message": "no such table"}
SERVICE = ["stack:staging", "manager:service", "ibeam"]


class Api(ABC):
    """A loopback HTTP server whose answers a test gives; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                api.asked.append(f"{self.command} {self.path}")
                api.headers.append(dict(self.headers.items()))
                status, body = api.answer(self.command, self.path)
                content = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _do  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @abstractmethod
    def answer(self, method: str, path: str) -> tuple[int, Any]:
        """What a request gets: a status and a body."""

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Jobs(Api):
    """Cloud Run with one job. `steps` are the operation's states, in order."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.busy = 0
        super().__init__()

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if self.busy:
            self.busy -= 1
            return 503, {"error": {"message": "try again"}}
        if method == "POST" and path != f"/v2/{JOB}:run":
            return 404, {"error": {"message": "no such job"}}
        return 200, {"name": "projects/local/locations/us-west1/operations/1", **self.steps.pop(0)}


class Droplets(Api):
    """DigitalOcean with some droplets, and lists that may lag creations."""

    def __init__(self) -> None:
        self.droplets: dict[int, list[str]] = {}
        self.unlisted: set[int] = set()
        self.locked = 0
        self.page = 2
        super().__init__()

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if method == "DELETE" and self.locked:
            self.locked -= 1
            return 422, {"id": "unprocessable_entity", "message": "the droplet is locked"}
        parts = urlsplit(path)
        if parts.path != "/v2/droplets":
            number = int(parts.path.rpartition("/")[2])
            if number not in self.droplets:
                return 404, {"id": "not_found"}
            if method == "DELETE":
                del self.droplets[number]
                return 204, None
            return 200, {"droplet": self._shown(number)}
        query = parse_qs(parts.query)
        found = [n for n, tags in sorted(self.droplets.items()) if query["tag_name"][0] in tags]
        listed = [n for n in found if n not in self.unlisted]
        self.unlisted.clear()
        start = (int(query["page"][0]) - 1) * self.page
        pages = {"next": "x"} if start + self.page < len(listed) else {}
        shown = [self._shown(n) for n in listed[start : start + self.page]]
        return 200, {"droplets": shown, "links": {"pages": pages}}

    def _shown(self, number: int) -> dict[str, Any]:
        return {"id": number, "name": f"droplet-{number}", "tags": self.droplets[number]}


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    api = Jobs()
    yield api
    api.close()


@pytest.fixture
def droplets() -> Iterator[Droplets]:
    api = Droplets()
    yield api
    api.close()


def swept(api: Droplets) -> tuple[int, list[str]]:
    said: list[str] = []
    client = DigitalOcean(api.url, "dop_v1_x", sleep=lambda _: None)
    return sweep(client, "staging", said.append, lambda: None), said


def test_a_job_that_succeeds_is_waited_for(jobs: Jobs) -> None:
    execution = {"name": f"{JOB}/executions/ibkr-migrate-x", "succeededCount": 1}
    jobs.steps = [{}, {}, {"done": True, "response": execution}]
    assert run_job.run(CloudRun(jobs.url, "token"), JOB, poll_s=0) == execution["name"]
    assert jobs.headers[0]["Authorization"] == "Bearer token"


@pytest.mark.parametrize(
    "end",
    [
        {"error": {"code": 9, "message": "exit status 1: no such table"}},
        {"response": {"failedCount": 1, "conditions": [FAILED]}},
        {"response": {"failedCount": 1, "name": "x"}},
    ],
)  # fmt: skip
def test_a_job_that_fails_says_why(jobs: Jobs, end: dict[str, Any]) -> None:
    jobs.steps = [{}, {"done": True, **end}]
    with pytest.raises(JobFailed, match=r"no such table|executions describe x"):
        run_job.run(CloudRun(jobs.url, None), JOB, poll_s=0)


def test_a_job_that_does_not_end_is_given_up(jobs: Jobs) -> None:
    jobs.steps = [{}]
    with pytest.raises(JobFailed, match="still runs"):
        run_job.run(CloudRun(jobs.url, None), JOB, longest_s=-1, poll_s=0)


def test_a_busy_api_is_asked_again(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_job.time, "sleep", lambda _: None)
    jobs.busy = 2
    jobs.steps = [{"done": True, "response": {"name": "e", "succeededCount": 1}}]
    assert run_job.run(CloudRun(jobs.url, None), JOB) == "e"


def test_the_command_reports_a_missing_job(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"JOB_PROJECT": "p", "JOB_LOCATION": "l", "JOB_NAME": "n", "CLOUD_RUN_ENDPOINT": jobs.url}
    assert run_job.main(environment) == 1
    assert "404 no such job" in capsys.readouterr().err


def test_the_sweep_deletes_what_the_service_made_and_nothing_else(droplets: Droplets) -> None:
    droplets.droplets = {
        1: SERVICE,
        2: ["stack:staging", "manager:pulumi"],
        3: ["stack:prod", "manager:service"],
        4: SERVICE,
        5: SERVICE,
        6: [],
    }
    count, said = swept(droplets)
    assert sorted(droplets.droplets) == [2, 3, 6]
    assert count == 3, "also those of later pages"
    assert said == [f"deleted droplet {n} (droplet-{n})" for n in (1, 4, 5)]


def test_a_droplet_that_the_list_showed_too_late_is_found(droplets: Droplets) -> None:
    droplets.droplets = {1: SERVICE}
    droplets.unlisted = {1}
    assert swept(droplets)[0] == 1


def test_tags_are_read_again_before_a_droplet_is_deleted(droplets: Droplets) -> None:
    class Stale(DigitalOcean):
        def droplets(self, tag: str) -> Iterator[dict[str, Any]]:
            if droplets.droplets[1] is SERVICE:
                yield {"id": 1, "tags": SERVICE}
                return
            yield from ()

        def droplet(self, number: int) -> dict[str, Any] | None:
            droplets.droplets[1] = ["stack:staging", "manager:pulumi"]
            return super().droplet(number)

    droplets.droplets = {1: SERVICE}
    count = sweep(Stale(droplets.url, "t", sleep=lambda _: None), "staging", print, lambda: None)
    assert (count, list(droplets.droplets)) == (0, [1])


def test_a_locked_droplet_is_deleted_when_it_is_free(droplets: Droplets) -> None:
    droplets.droplets = {1: SERVICE}
    droplets.locked = 3
    assert swept(droplets)[0] == 1


def test_a_droplet_that_stays_locked_fails_the_sweep(droplets: Droplets) -> None:
    droplets.droplets = {1: SERVICE}
    droplets.locked = 100
    with pytest.raises(SweepFailed, match="422"):
        swept(droplets)


def test_the_check_asks_for_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet_sweep.main(["check"], {"SWEEP_STACK": "staging"}) == 1
    assert "DIGITALOCEAN_TOKEN" in capsys.readouterr().err
    assert fleet_sweep.main(["check"], {"SWEEP_STACK": "staging", "DIGITALOCEAN_TOKEN": "x"}) == 0


def test_the_token_is_never_printed(droplets: Droplets, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {
        "SWEEP_STACK": "staging",
        "DIGITALOCEAN_TOKEN": "dop_v1_secret",
        "DIGITALOCEAN_API_URL": f"{droplets.url}/nowhere",
    }
    droplets.answer = lambda *_: (401, {"id": "Unauthorized"})  # type: ignore[method-assign]
    assert fleet_sweep.main(["sweep"], environment) == 1
    printed = capsys.readouterr()
    assert "401" in printed.err
    assert "dop_v1_secret" not in printed.out + printed.err
