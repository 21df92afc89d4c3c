"""The gateway VM's probe, its reading of IBC's log, and its watchdog: the files that cloud-init writes."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from broker.fleet.cloud_init import template_directory
from tests.machines.exchange import Exchange

FOLDER = template_directory() / "files" / "gateway"
EASTERN = ZoneInfo("America/New_York")
SETTINGS = {"time_zone": "America/New_York", "auto_restart_time": "11:45 PM", "cold_restart_time": "13:00"}
NOON = datetime(2026, 11, 18, 12, 0, tzinfo=EASTERN)  # a Wednesday
MODULES = ("local_port", "google_access", "tws_probe", "ibc_log", "watchdog", "health")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """The gateway's programs, by name, imported from their files."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(name: str) -> ModuleType:
        path = FOLDER / (name if name == "health" else f"{name}.py")
        loader = SourceFileLoader(name, str(path))
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loader.exec_module(module)
        return module

    yield load
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def probe(programs: Callable[[str], Any], tmp_path: Path) -> Any:
    """`look`, whose ports are sockets in a folder."""
    programs("local_port").PORT_SOCKETS = str(tmp_path)
    return programs("tws_probe")


# -- the probe -------------------------------------------------------------------------------------


@pytest.fixture
async def gateway(run_folder: Path, tmp_path: Path) -> AsyncIterator[tuple[Exchange, Path]]:
    """The local cloud's gateway, logged in, on the socket that stands for port 14002."""
    from localcloud.gateways.tws.gateway import Gateway, on_unix_socket
    from localcloud.gateways.tws.ibc import IbcSettings

    async with Exchange(tmp_path / "exchange", run_folder) as exchange:
        await exchange.add_user("demo", "secret")
        serving = Gateway(IbcSettings("demo", "secret", "paper", False, 4002), exchange.address)
        socket = run_folder / "port-14002"
        task = asyncio.create_task(serving.serve(on_unix_socket(socket)))
        await serving.ready.wait()
        yield exchange, run_folder
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_look_at_a_healthy_gateway_crosses_to_ibkr(
    probe: Any, gateway: tuple[Exchange, Path]
) -> None:
    sys.modules["local_port"].PORT_SOCKETS = str(gateway[1])  # type: ignore[attr-defined]
    for turn in range(3):
        look = await asyncio.to_thread(probe.look, 14002, 10.0, turn)
        assert look == (True, True, True, False, "answered")


async def test_a_lost_link_is_told_apart_from_a_gateway_that_hangs(
    probe: Any, gateway: tuple[Exchange, Path]
) -> None:
    exchange, folder = gateway
    sys.modules["local_port"].PORT_SOCKETS = str(folder)  # type: ignore[attr-defined]
    async with exchange.admin() as admin:
        await admin.set_fault("link_down", True)
    async with asyncio.timeout(30):
        while True:
            look = await asyncio.to_thread(probe.look, 14002, 2.0)
            if not look.answered:
                break
    assert (look.handshake, look.link_lost) == (True, True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "before the handshake: the gateway closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "before the handshake: not a message of the TWS API"),
        (struct.pack("!I", 4) + b"176\0", "before the handshake: "),
    ],
)
def test_what_is_no_gateway_is_no_handshake(
    probe: Any, run_folder: Path, answer: bytes, expected: str
) -> None:
    import socket

    sys.modules["local_port"].PORT_SOCKETS = str(run_folder)  # type: ignore[attr-defined]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(run_folder / "port-4002"))
    listening.listen()

    def serve() -> None:
        client, _ = listening.accept()
        client.recv(100)
        client.sendall(answer)
        if answer.startswith(b"\0"):
            client.recv(100)
            client.recv(100)  # hangs, until the probe has had enough
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    look = probe.look(4002, 1.0)
    thread.join()
    listening.close()
    assert (look.listening, look.handshake, look.answered) == (True, False, False)
    assert look.detail.startswith(expected)


def test_a_closed_port_is_said_to_be_closed(probe: Any) -> None:
    look = probe.look(4002, 1.0)
    assert (look.listening, look.handshake) == (False, False)


# -- IBC's log -------------------------------------------------------------------------------------


def lines(*said: str, start: int = 1000) -> str:
    """What journalctl prints of IBC's words, a second apart."""
    stamp = "2026-11-18 12:00:00:000"
    return "".join(f"{start + n}.5 vm ibcstart.sh[7]: {stamp} {text}\n" for n, text in enumerate(said))


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        (
            ["IBC: Starting session: will exit if login dialog is not displayed within 180 seconds"],
            "starting",
        ),
        (["IBC: Starting session: x", "IBC: Login has completed"], "logged_in"),
        (["IBC: Starting session: x", "IBC: Second Factor Authentication initiated"], "second_factor"),
        (["IBC: detected dialog entitled: Second Factor Authentication; event=Opened"], "second_factor"),
        (
            [
                "IBC: Second Factor Authentication initiated",
                "IBC: Re-login after second factor authentication timeout not required",
            ],
            "second_factor_unanswered",
        ),
        (["IBC returned exit status 87"], "second_factor_unanswered"),
        (["IBC returned exit status 88", "IBC will restart shortly"], "starting"),
        (["IBC: detected dialog entitled: Unrecognized Username or Password; event=Opened"], "login_failed"),
        (["IBC: Login failed: Unrecognized Username or Password"], "login_failed"),
        (["IBC: Login has completed", "IBC: CommandServer received command: PAUSE"], "pausing"),
        (["IBC: Login has completed", "IBC: Re-starting session", "IBC: Login has completed"], "logged_in"),
        (["IBC: ControlFrom setting = "], None),
    ],
)
def test_ibcs_log_tells_who_is_waited_for(
    programs: Callable[[str], Any], said: list[str], phase: str | None
) -> None:
    log = programs("ibc_log").IbcLog()
    log.read(lines(*said))
    assert log.phase == phase
    assert log.session_taken_at is None


def test_a_session_that_somebody_else_took_is_noticed(programs: Callable[[str], Any]) -> None:
    log = programs("ibc_log").IbcLog()
    dialog = "IBC: detected dialog entitled: Existing session detected; event=Opened"
    log.read(lines("IBC: Login has completed", dialog))
    assert (log.phase, log.session_taken_at) == ("logged_in", 1001.5)


# -- the watchdog ----------------------------------------------------------------------------------


class Days:
    """A watchdog that is shown the same look every minute."""

    def __init__(
        self, programs: Callable[[str], Any], now: datetime = NOON, phase: str = "logged_in"
    ) -> None:
        self.look = programs("tws_probe").Look
        self.log = programs("ibc_log").IbcLog()
        self.log.phase, self.log.since = phase, now.timestamp() - 86400
        self.dog = programs("watchdog").Watchdog(SETTINGS)
        self.now = now

    def minutes(
        self, count: int, *, handshake: bool = False, link_lost: bool = False, runs: bool = True
    ) -> int:
        """How many restarts there were in some minutes."""
        seen = self.look(True, handshake, False, link_lost, "timed out")
        restarts = 0
        for _ in range(count):
            self.now += timedelta(minutes=1)
            restarts += self.dog.consider(self.now.astimezone(UTC), runs, self.log, seen) is not None
        return restarts


def test_a_gateway_that_hangs_for_five_minutes_is_restarted(programs: Callable[[str], Any]) -> None:
    days = Days(programs)
    assert days.minutes(5) == 0
    assert days.minutes(1) == 1


def test_five_looks_in_quick_succession_are_not_enough(programs: Callable[[str], Any]) -> None:
    days = Days(programs)
    seen = days.look(True, False, False, False, "timed out")
    for _ in range(12):  # 15 s apart: 2 min 45 s
        days.now += timedelta(seconds=15)
        assert days.dog.consider(days.now.astimezone(UTC), True, days.log, seen) is None


def test_it_is_restarted_once_an_hour_and_thrice_a_day_at_most(programs: Callable[[str], Any]) -> None:
    days = Days(programs)
    assert days.minutes(60) == 1
    assert days.minutes(8 * 60) == 2
    assert days.minutes(60, handshake=True) == 0


@pytest.mark.parametrize(
    "phase", ["starting", "second_factor", "second_factor_unanswered", "login_failed", "pausing"]
)
def test_a_gateway_that_waits_for_a_person_is_never_restarted(
    programs: Callable[[str], Any], phase: str
) -> None:
    assert Days(programs, phase=phase).minutes(600) == 0


def test_one_that_lost_its_link_or_is_stopped_is_never_restarted(programs: Callable[[str], Any]) -> None:
    days = Days(programs)
    assert days.minutes(600, handshake=True, link_lost=True) == 0
    assert days.minutes(120) == 0, "it hung after it had said that IBKR is out of reach"
    days = Days(programs)
    assert days.minutes(600, runs=False) == 0


def test_a_failure_in_between_begins_the_count_anew(programs: Callable[[str], Any]) -> None:
    days = Days(programs)
    assert sum(days.minutes(4) + days.minutes(1, handshake=True) for _ in range(10)) == 0


def test_one_that_has_just_logged_in_is_given_time(programs: Callable[[str], Any]) -> None:
    days = Days(programs)
    days.log.since = days.now.timestamp()
    assert days.minutes(14) == 0
    assert days.minutes(1) == 1


@pytest.mark.parametrize(
    ("at", "quiet"),
    [
        ("2026-11-18 23:39", False),
        ("2026-11-18 23:43", True),  # IBKR's reset, and our own restart
        ("2026-11-19 00:30", True),
        ("2026-11-19 00:51", False),
        ("2026-11-20 22:56", True),  # Friday's
        ("2026-11-21 02:50", True),
        ("2026-11-21 03:10", False),
        ("2026-11-22 13:05", True),  # the weekly login
        ("2026-11-23 13:05", False),
    ],
)
def test_nights_and_restarts_of_its_own_are_quiet(
    programs: Callable[[str], Any], at: str, quiet: bool
) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=EASTERN)
    assert programs("watchdog").is_quiet(now.astimezone(UTC), SETTINGS) is quiet


def test_a_restart_near_midnight_in_another_zone_is_quiet_on_both_sides(
    programs: Callable[[str], Any],
) -> None:
    settings = {**SETTINGS, "time_zone": "Europe/Berlin", "auto_restart_time": "12:00 AM"}
    berlin = ZoneInfo("Europe/Berlin")
    is_quiet = programs("watchdog").is_quiet
    assert is_quiet(datetime(2026, 11, 18, 23, 59, tzinfo=berlin), settings)
    assert is_quiet(datetime(2026, 11, 19, 0, 10, tzinfo=berlin), settings)
    assert not is_quiet(datetime(2026, 11, 19, 0, 20, tzinfo=berlin), settings)


# -- what is published -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "look", "active", "state"),
    [
        ("logged_in", (True, True, True, False), "active", "healthy"),
        (None, (True, True, True, False), "active", "healthy"),
        ("second_factor", (False, False, False, False), "active", "second_factor"),
        ("second_factor_unanswered", (False, False, False, False), "failed", "second_factor_unanswered"),
        ("login_failed", (False, False, False, False), "active", "login_failed"),
        ("logged_in", (False, False, False, False), "failed", "stopped"),
        ("logged_in", (True, True, False, True), "active", "link_lost"),
        ("logged_in", (True, True, False, False), "active", "no_answer_from_ibkr"),
        ("logged_in", (True, False, False, False), "active", "no_handshake"),
        ("starting", (False, False, False, False), "activating", "starting"),
    ],
)
def test_a_state_says_what_a_person_would_want_to_know(
    programs: Callable[[str], Any], phase: str | None, look: tuple[bool, ...], active: str, state: str
) -> None:
    health, log = programs("health"), programs("ibc_log").IbcLog()
    log.phase, log.since = phase, 1000.0
    seen = sys.modules["tws_probe"].Look(*look, "detail")
    assert health.state_of({"ActiveState": active}, log, seen) == state
    points = health.points_of(1090.0, log, seen, [])
    assert points["second_factor_waiting_seconds"] == (90 if state.startswith("second_factor") else 0)
    assert points["healthy"] == (state == "healthy")


def test_a_stolen_session_is_told_for_an_hour(programs: Callable[[str], Any]) -> None:
    health, log = programs("health"), programs("ibc_log").IbcLog()
    log.session_taken_at = 1000.0
    look = sys.modules["tws_probe"].Look(True, True, True, False, "answered")
    told = [
        health.points_of(1000.0 + minutes * 60, log, look, [])["session_taken"] for minutes in (1, 59, 61)
    ]
    assert told == [1, 1, 0]


def test_a_new_run_of_the_gateway_begins_a_new_log(
    programs: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = programs("health")
    asked: list[tuple[str, ...]] = []
    answers = itertools.chain(
        [lines("IBC: Login has completed"), "", lines("IBC: Second Factor Authentication initiated")]
    )

    def run(*command: str) -> str:
        asked.append(command)
        (tmp_path / "cursor").touch()
        return next(answers)

    monkeypatch.setattr(health, "run", run)
    journal = health.Journal(tmp_path)
    assert journal.read("first").phase == "logged_in"
    assert journal.read("first").phase == "logged_in"
    assert journal.read("second").phase == "second_factor"
    runs = [command[-1].removeprefix("_SYSTEMD_INVOCATION_ID=") for command in asked]
    assert runs == ["first", "first", "second"]
    assert journal.read("").phase is None, "a gateway that doesn't run has said nothing"


def test_what_cannot_be_published_is_said_once(
    programs: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    health = programs("health")
    outcomes = iter([OSError("unreachable"), OSError("unreachable"), None])

    def post(*_: object) -> None:
        outcome = next(outcomes)
        if outcome:
            raise outcome

    metrics = health.Metrics("paper")
    monkeypatch.setattr(metrics, "_post", post)
    for _ in range(3):
        metrics.publish(0.0, "healthy", {})
    said = [json.loads(line)["detail"] for line in capsys.readouterr().out.splitlines()]
    assert said == ["OSError unreachable", "written again"]
