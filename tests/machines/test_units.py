"""The units of a machine: order, failures, restarts and limits by systemd's rules.

Programs are played (a real one is in test_programs), time is an argument: nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from localcloud.machines.paths import MachinePaths
from localcloud.machines.service import ProgramMissing, Time
from localcloud.machines.systemctl import systemctl
from localcloud.machines.units import UnitNotFound, Units


class PlayedProgram:
    """A program that ends when the test says so, or when it is asked to."""

    pid = 1

    def __init__(self, stubborn: bool = False) -> None:
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._stubborn = stubborn

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def terminate(self) -> None:
        if not self._stubborn:
            self.end(-15)

    def kill(self) -> None:
        self.end(-9)


class Machine:
    """Units over played programs. `ends` says with what status a program ends at once; others stay."""

    def __init__(self, root: Path, run: Path) -> None:
        self.paths = MachinePaths(root, run)
        self.paths.prepare()
        self.folder = root / "etc/systemd/system"
        self.folder.mkdir(parents=True)
        self.now = 0.0
        self.sleeps: list[tuple[float, asyncio.Future[None]]] = []
        self.calls: list[str] = []
        self.environments: list[dict[str, str]] = []
        self.programs: dict[str, PlayedProgram] = {}
        self.ends: dict[str, int] = {}
        self.missing: set[str] = set()
        self.stubborn: set[str] = set()
        self.console: list[str] = []
        self.ports: list[tuple[int, bool]] = []
        self.units = Units(
            self.paths,
            self,
            self.console.append,
            Time(lambda: self.now, self._sleep),
            lambda port, up: self.ports.append((port, up)),
        )

    async def start(self, argv: list[str], env: Mapping[str, str], cwd: str, log: str) -> PlayedProgram:
        if argv[0] in self.missing:
            raise ProgramMissing(f"{argv[0]}: No such file or directory")
        self.calls.append(" ".join(argv))
        self.environments.append(dict(env))
        program = self.programs[argv[0]] = PlayedProgram(argv[0] in self.stubborn)
        if argv[0] in self.ends:
            program.end(self.ends[argv[0]])
        return program

    def unit(self, name: str, text: str) -> None:
        (self.folder / f"{name}.service").write_text(text)

    def service(self, name: str, unit: str = "", service: str = "", start: str = "") -> None:
        start = start or f"/{name}"
        self.unit(
            name,
            f"[Unit]\n{unit}\n[Service]\nExecStart={start}\n{service}\n[Install]\nWantedBy=multi-user.target\n",
        )

    def oneshot(self, name: str, unit: str = "", service: str = "RemainAfterExit=yes") -> None:
        self.ends[f"/{name}"] = self.ends.get(f"/{name}", 0)
        self.service(name, unit, f"Type=oneshot\n{service}")

    def state(self, name: str) -> tuple[object, object, object]:
        described = self.units.status()[f"{name}.service"]
        return described["state"], described["sub"], described["result"]

    async def settle(self) -> None:
        """Lets everything that is ready happen."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self, program: str, code: int) -> None:
        self.programs[program].end(code)
        await self.settle()

    async def pass_time(self) -> float:
        """Lets the one restart that is waited for come; its delay in seconds."""
        ((delay, waiting),) = self.sleeps
        self.sleeps.clear()
        self.now += delay
        waiting.set_result(None)
        await self.settle()
        return delay

    async def _sleep(self, delay: float) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleeps.append((delay, waiting))
        await waiting


@pytest.fixture
async def machine(tmp_path: Path, run_folder: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path, run_folder)
    yield machine
    await machine.units.shutdown()


async def test_a_unit_starts_after_what_it_requires(machine: Machine) -> None:
    machine.service("a", "Requires=b.service\nAfter=b.service c.service\nWants=c.service")
    machine.oneshot("b", "After=c.service")
    machine.oneshot("c")
    assert await machine.units.start(["a"])
    assert machine.calls == ["/c", "/b", "/a"]


async def test_order_without_need_starts_nothing(machine: Machine) -> None:
    machine.service("a", "After=b.service")
    machine.service("b")
    assert await machine.units.start(["a"])
    assert machine.calls == ["/a"]


async def test_before_orders_too(machine: Machine) -> None:
    machine.service("a")
    machine.oneshot("b", "Before=a.service")
    assert await machine.units.start(["a", "b"])
    assert machine.calls == ["/b", "/a"]


async def test_a_unit_is_not_started_without_what_it_requires(machine: Machine) -> None:
    machine.ends["/b"] = 1
    machine.oneshot("b")
    machine.service("a", "Requires=b.service\nAfter=b.service")
    assert not await machine.units.start(["a"])
    assert machine.state("a") == ("inactive", "dead", "dependency")
    assert machine.state("b") == ("failed", "failed", "exit-code")
    assert "a.service: not started, since b.service wasn't" in machine.console


async def test_a_unit_is_started_without_what_it_only_wants(machine: Machine) -> None:
    machine.ends["/b"] = 1
    machine.oneshot("b")
    machine.service("a", "Wants=b.service none.service\nAfter=b.service")
    assert await machine.units.start(["a"])


async def test_a_requirement_that_does_not_exist_fails_the_unit(machine: Machine) -> None:
    machine.service("a", "Requires=none.service")
    assert not await machine.units.start(["a"])
    assert "a.service: Unit none.service not found" in machine.console


async def test_a_service_of_the_image_is_waited_for(machine: Machine) -> None:
    ready = machine.units.provide("docker.service", ready=False)
    machine.service("a", "Requires=docker.service\nAfter=docker.service")
    starting = asyncio.create_task(machine.units.start(["a"]))
    await machine.settle()
    assert machine.calls == []
    ready.set()
    assert await starting


async def test_an_ordering_cycle_is_broken_and_said(machine: Machine) -> None:
    machine.oneshot("a", "Wants=b.service\nAfter=b.service")
    machine.oneshot("b", "After=a.service")
    async with asyncio.timeout(5):
        assert await machine.units.start(["a"])
    assert any("ordering cycle" in line for line in machine.console)


async def test_a_step_before_the_start_that_fails_keeps_the_program_from_starting(machine: Machine) -> None:
    machine.ends["/pre"] = 3
    machine.service("a", service="ExecStartPre=/pre")
    assert not await machine.units.start(["a"])
    assert machine.calls == ["/pre"]
    assert machine.units.status()["a.service"]["exit_code"] == 3
    assert "[FAILED] a.service didn't start: /pre ended with status 3" in machine.console


async def test_a_step_whose_failure_is_fine_does_not_stop_it(machine: Machine) -> None:
    machine.ends["/pre"] = 3
    machine.missing.add("/gone")
    machine.service("a", service="ExecStartPre=-/pre\nExecStartPre=-/gone")
    assert await machine.units.start(["a"])


async def test_a_program_that_is_not_there_is_said(machine: Machine) -> None:
    machine.missing.add("/a")
    machine.service("a")
    assert not await machine.units.start(["a"])
    assert machine.units.status()["a.service"]["exit_code"] == 203
    assert "a.service: /a: No such file or directory" in machine.console


async def test_variables_come_from_unit_and_file(machine: Machine) -> None:
    (machine.folder.parent.parent / "env").write_text('PORT="4002"\n')
    machine.service("a", service="Environment=A=b\nEnvironmentFile=/etc/env\nEnvironmentFile=-/etc/none",
                    start="/a --port=${PORT}")  # fmt: skip
    assert await machine.units.start(["a"])
    assert machine.calls == ["/a --port=4002"]
    assert machine.environments[0] == {"A": "b", "PORT": "4002"}


async def test_an_environment_file_that_is_not_there_fails_the_unit(machine: Machine) -> None:
    machine.service("a", service="EnvironmentFile=/etc/none")
    assert not await machine.units.start(["a"])
    assert machine.state("a") == ("failed", "failed", "resources")


@pytest.mark.parametrize(
    ("policy", "code", "restarted"),
    [
        ("no", 1, False),
        ("always", 0, True),
        ("always", 1, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("on-failure", -15, False),
        ("on-failure", -9, True),
        ("on-success", 0, True),
        ("on-success", 1, False),
        ("on-abnormal", 1, False),
        ("on-abnormal", -11, True),
    ],
)
async def test_restart_goes_by_how_it_ended(
    machine: Machine, policy: str, code: int, restarted: bool
) -> None:
    machine.service("a", service=f"Restart={policy}\nRestartSec=5")
    await machine.units.start(["a"])
    await machine.end("/a", code)
    assert (machine.state("a")[1] == "auto-restart") is restarted
    assert [delay for delay, _ in machine.sleeps] == ([5.0] if restarted else [])


async def test_a_restart_starts_it_again(machine: Machine) -> None:
    machine.service("a", service="Restart=always\nRestartSec=5")
    await machine.units.start(["a"])
    await machine.end("/a", 1)
    await machine.pass_time()
    assert machine.calls == ["/a", "/a"]
    assert machine.units.status()["a.service"]["restarts"] == 1
    assert machine.state("a") == ("active", "running", "success")


async def test_an_exit_status_that_prevents_restarts_leaves_it_down(machine: Machine) -> None:
    machine.service("a", service="Restart=always\nRestartPreventExitStatus=87 88\nSuccessExitStatus=143")
    await machine.units.start(["a"])
    await machine.end("/a", 87)
    assert machine.state("a") == ("failed", "dead", "exit-code")
    assert not machine.sleeps


async def test_the_pause_grows_in_steps_to_its_limit(machine: Machine) -> None:
    machine.service(
        "a",
        unit="StartLimitIntervalSec=0",
        service="Restart=always\nRestartSec=30\nRestartSteps=4\nRestartMaxDelaySec=15min",
    )
    await machine.units.start(["a"])
    delays = []
    for _ in range(6):
        await machine.end("/a", 1)
        delays.append(await machine.pass_time())
    assert delays[0] == 30
    assert delays == sorted(delays)
    assert delays[4:] == [900, 900]


async def test_it_is_not_started_more_often_than_the_limit_allows(machine: Machine) -> None:
    machine.service("a", unit="StartLimitIntervalSec=6h\nStartLimitBurst=3", service="Restart=always")
    await machine.units.start(["a"])
    for _ in range(2):
        await machine.end("/a", 1)
        await machine.pass_time()
    await machine.end("/a", 1)
    await machine.pass_time()
    assert machine.calls == ["/a"] * 3, "every start of the gateway is an attempt to log in"
    assert machine.state("a") == ("failed", "failed", "start-limit-hit")
    assert not machine.sleeps


async def test_the_limit_forgets_with_time_and_by_command(machine: Machine) -> None:
    machine.oneshot("a", unit="StartLimitIntervalSec=100\nStartLimitBurst=1", service="")
    assert await machine.units.start(["a"])
    assert not await machine.units.start(["a"])
    machine.now = 101
    assert await machine.units.start(["a"])
    assert not await machine.units.start(["a"])
    machine.units.reset_failed(["a"])
    assert await machine.units.start(["a"])


async def test_a_start_that_fails_is_tried_again(machine: Machine) -> None:
    machine.ends["/pre"] = 1
    machine.service("a", service="ExecStartPre=/pre\nRestart=on-failure\nRestartSec=7")
    assert not await machine.units.start(["a"])
    machine.ends["/pre"] = 0
    assert await machine.pass_time() == 7
    assert machine.state("a") == ("active", "running", "success")


async def test_a_start_that_takes_too_long_is_ended(machine: Machine) -> None:
    machine.service("a", service="ExecStartPre=/pre\nTimeoutStartSec=10ms")
    assert not await machine.units.start(["a"])
    assert machine.state("a") == ("failed", "failed", "timeout")
    assert await machine.programs["/pre"].wait() == -15


async def test_stopping_asks_first_and_is_not_followed_by_a_restart(machine: Machine) -> None:
    machine.ends["/quit"] = 0
    machine.service("a", service="Restart=always\nExecStop=/quit $MAINPID")
    await machine.units.start(["a"])
    await machine.units.stop(["a"])
    assert machine.calls == ["/a", "/quit 1"]
    assert machine.state("a") == ("inactive", "dead", "success")
    assert not machine.sleeps


async def test_a_program_that_does_not_listen_is_killed(machine: Machine) -> None:
    machine.stubborn.add("/a")
    machine.service("a", service="TimeoutStopSec=10ms")
    await machine.units.start(["a"])
    await machine.units.stop(["a"])
    assert await machine.programs["/a"].wait() == -9


async def test_stopping_calls_off_a_restart(machine: Machine) -> None:
    machine.service("a", service="Restart=always")
    await machine.units.start(["a"])
    await machine.end("/a", 1)
    await machine.units.stop(["a"])
    assert machine.state("a") == ("inactive", "dead", "success")


async def test_stopping_cuts_a_start_short(machine: Machine) -> None:
    machine.service("a", service="ExecStartPre=/pre")
    starting = asyncio.create_task(machine.units.start(["a"]))
    await machine.settle()
    await machine.units.stop(["a"])
    assert await machine.programs["/pre"].wait() == -15
    assert (await asyncio.gather(starting, return_exceptions=True))[0] is not True


async def test_what_requires_a_unit_stops_with_it(machine: Machine) -> None:
    machine.service("a", "Requires=b.service\nAfter=b.service")
    machine.service("b")
    machine.service("c", "PartOf=b.service")
    await machine.units.start(["a", "c"])
    await machine.units.stop(["b"])
    assert [machine.units.state(name) for name in "abc"] == ["inactive"] * 3


async def test_what_is_bound_to_a_unit_goes_down_with_it(machine: Machine) -> None:
    machine.service("a", "BindsTo=b.service\nAfter=b.service")
    machine.service("b")
    await machine.units.start(["a"])
    await machine.end("/b", 0)
    assert machine.units.state("a") == "inactive"


async def test_shutdown_stops_the_last_started_first(machine: Machine) -> None:
    for name in "abc":
        machine.ends[f"/stop-{name}"] = 0
        machine.service(name, service=f"ExecStop=/stop-{name}")
        await machine.units.start([name])
    await machine.units.shutdown()
    assert machine.calls[3:] == ["/stop-c", "/stop-b", "/stop-a"]


async def test_what_is_enabled_starts_at_boot(machine: Machine) -> None:
    machine.service("a")
    machine.service("b")
    machine.units.enable(["a.service"])
    machine.units.boot()
    await machine.settle()
    assert machine.calls == ["/a"]
    machine.units.disable(["a"])
    assert machine.units.enabled() == []


async def test_a_oneshot_that_does_not_remain_is_done_and_dead(machine: Machine) -> None:
    machine.oneshot("a", service="")
    assert await machine.units.start(["a"])
    assert machine.state("a") == ("inactive", "dead", "success")


async def test_a_condition_that_does_not_hold_skips_the_unit(machine: Machine) -> None:
    machine.service("a", "ConditionPathExists=/etc/none")
    machine.service("b", "ConditionPathExists=!/etc/none")
    assert await machine.units.start(["a", "b"])
    assert machine.calls == ["/b"]


async def test_a_changed_file_counts_after_a_reload(machine: Machine) -> None:
    machine.service("a")
    await machine.units.start(["a"])
    machine.service("a", start="/other")
    await machine.units.restart(["a"])
    assert machine.calls == ["/a", "/a"]
    machine.units.reload()
    await machine.units.restart(["a"])
    assert machine.calls[-1] == "/other"


async def test_a_timer_is_refused_and_not_passed_over(machine: Machine) -> None:
    (machine.folder / "a.timer").write_text("[Timer]\nOnBootSec=1\n")
    with pytest.raises(UnitNotFound, match="services only"):
        await machine.units.start(["a.timer"])


async def test_systemctl_answers_as_scripts_expect(machine: Machine) -> None:
    machine.service("a")
    assert await systemctl(machine.units, ["is-active", "a"]) == (3, "inactive")
    assert await systemctl(machine.units, ["enable", "--now", "a.service"]) == (0, "")
    assert await systemctl(machine.units, ["is-active", "a"]) == (0, "active")
    assert await systemctl(machine.units, ["is-enabled", "a"]) == (0, "enabled")
    assert await systemctl(machine.units, ["start", "none"]) == (5, "Unit none.service not found")
    assert (await systemctl(machine.units, ["edit", "a"]))[0] == 1
    machine.missing.add("/b")
    machine.service("b")
    assert (await systemctl(machine.units, ["start", "b"]))[0] == 1
    assert await systemctl(machine.units, ["start", "--no-block", "b"]) == (0, "")


async def test_the_ports_that_a_service_may_listen_on_open_and_close_with_it(machine: Machine) -> None:
    machine.service("a", service="Type=exec\nSocketBindDeny=any\nSocketBindAllow=tcp:5000")
    await machine.units.start(["a"])
    assert machine.ports == [(5000, True)]
    await machine.end("/a", 1)
    assert machine.ports == [(5000, True), (5000, False)]
