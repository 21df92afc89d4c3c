"""Processes of machines: nothing they start outlives them, nothing they say is lost, logs stay small."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil

from localcloud.cloud import Cloud
from localcloud.processes import LogFile, Process


async def start(cloud: Cloud, *argv: str, said: list[str] | None = None) -> Process:
    """Start a program for the machine gce/x; what it prints is appended to `said`."""
    lines = said if said is not None else []
    return await cloud.processes.spawn(argv, owner="gce/x", log=lines.append)


async def test_the_last_words_are_there_when_the_end_is_known(cloud: Cloud) -> None:
    said: list[str] = []
    code = "print('x' * 200_000); print('last words', end='')"
    process = await start(cloud, sys.executable, "-c", code, said=said)
    assert await process.wait() == 0
    assert "".join(said).endswith("last words")


async def test_a_program_that_is_not_there_ends_with_127_and_says_so(cloud: Cloud) -> None:
    said: list[str] = []
    process = await start(cloud, "/no/such/program", said=said)
    assert await process.wait() == 127
    assert said == ["/no/such/program: No such file or directory"]


async def test_the_persons_environment_does_not_reach_a_machine(cloud: Cloud) -> None:
    said: list[str] = []
    await (await start(cloud, "env", said=said)).wait()
    names = {line.partition("=")[0] for line in "\n".join(said).splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "PYTHONUNBUFFERED", "LOCALCLOUD_CHILD_OF"}


async def test_what_a_program_leaves_behind_ends_with_it(cloud: Cloud) -> None:
    said: list[str] = []
    process = await start(cloud, "sh", "-c", "sleep 1000 & echo $!", said=said)
    await process.wait()
    assert not psutil.pid_exists(int(said[0])) or psutil.Process(int(said[0])).status() == "zombie"


async def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(cloud: Cloud) -> None:
    said: list[str] = []
    process = await start(cloud, "sh", "-c", "trap '' TERM; echo ready; sleep 1000 & wait; wait", said=said)
    while not said:  # noqa: ASYNC110 -- the trap has to be set
        await asyncio.sleep(0.01)
    assert await process.stop(grace_seconds=0.1) == -9
    assert cloud.processes.pids() == []


async def test_a_process_is_known_as_its_machines_and_others_are_not(cloud: Cloud) -> None:
    process = await start(cloud, "sleep", "1000")
    assert cloud.processes.owner_of(process.pid) == "gce/x"
    assert cloud.processes.owner_of(os.getpid()) is None
    assert cloud.processes.all_pids() == [process.pid]
    ended: list[int] = []
    process.on_exit(ended.append)
    process.kill()
    await process.wait()
    await asyncio.sleep(0)
    assert ended == [-9]
    assert cloud.processes.owner_of(process.pid) is None


def test_a_full_log_is_turned_over(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "machine.log", limit=200)
    for number in range(10):
        log.write("app", f"line {number}")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 200
    assert "line 9" in log.path.read_text()
    assert log.path.stat().st_mode & 0o077 == 0
