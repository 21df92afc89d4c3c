"""Commands really run: with which shell, where, with what in the environment, and what gets out."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path
from typing import Any

import pytest

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.caller import find_caller, project_folder
from localcloud.providers.command import Command, LocalCommand, redacted
from localcloud.providers.resource import Call
from localcloud.providers.values import UNKNOWN, Properties

URN = "urn:pulumi:s::p::command:local:Command::migrate"


@pytest.fixture
def command(cloud: Cloud) -> LocalCommand:
    handler = Command(cloud).handlers[LocalCommand.token]
    assert isinstance(handler, LocalCommand)
    return handler


def call(state: dict[str, Any] | None = None, secrets: set[Any] | None = None, **inputs: Any) -> Call:
    return Call(URN, "id", Properties(inputs, secrets or set()), Properties(state or {}))


async def test_create_runs_in_the_shell_and_its_output_is_kept(command: LocalCommand, tmp_path: Path) -> None:
    made = await command.create_for(
        call(
            create="pwd; echo $GREETING >&2; cat",
            dir=str(tmp_path),
            environment={"GREETING": "hi"},
            stdin="in",
        )
    )
    assert made.outputs["stdout"] == f"{tmp_path}\nin"
    assert made.outputs["stderr"] == "hi"
    assert made.id.startswith("migrate")
    assert not command.cloud.store.all(LocalCommand.token), "a command's state is the engine's alone"


async def test_another_interpreter_may_be_given(command: LocalCommand) -> None:
    made = await command.create_for(call(create="import sys; print(sys.argv)", interpreter=["python3", "-c"]))
    assert made.outputs["stdout"] == "['-c']"


async def test_an_update_runs_update_or_create_again_and_finds_the_output_before(
    command: LocalCommand,
) -> None:
    shows = 'echo "$PULUMI_COMMAND_STDOUT+"'
    again = await command.update_for(call({"stdout": "one"}, create=shows))
    assert again.outputs["stdout"] == "one+"
    other = await command.update_for(call({"stdout": "one"}, create="false", update=shows))
    assert other.outputs["stdout"] == "one+"
    bare = await command.update_for(call({"stdout": "one"}, create=shows, addPreviousOutputInEnv=False))
    assert bare.outputs["stdout"] == "+"


async def test_a_delete_runs_the_command_that_the_state_remembers(
    command: LocalCommand, tmp_path: Path
) -> None:
    state = {"delete": 'echo "$PULUMI_COMMAND_STDOUT" > gone', "dir": str(tmp_path), "stdout": "made"}
    await command.delete_for(Call(URN, "id", Properties(), Properties(state)))
    assert (tmp_path / "gone").read_text() == "made\n"


async def test_without_a_command_nothing_runs(command: LocalCommand) -> None:
    made = await command.create_for(call(delete="exit 1"))
    assert made.outputs["stdout"] == ""


async def test_a_failure_says_the_status_the_command_and_what_it_printed(command: LocalCommand) -> None:
    with pytest.raises(CloudError) as failed:
        await command.create_for(call(create="echo out; echo why >&2; exit 3"))
    assert failed.value.message == "exit status 3: running 'echo out; echo why >&2; exit 3':\nout\nwhy"


async def test_a_folder_that_is_not_there_is_named(command: LocalCommand) -> None:
    with pytest.raises(CloudError, match="No such file or directory"):
        await command.create_for(call(create="true", dir="/nowhere/at/all"))


async def test_a_secret_never_gets_into_a_message(command: LocalCommand) -> None:
    with pytest.raises(CloudError) as failed:
        await command.create_for(
            call(
                create="echo login with $PASSWORD >&2; exit 1",
                environment={"PASSWORD": "hunter2 hunter3"},
                secrets={("environment", "PASSWORD")},
            )
        )
    assert "hunter" not in failed.value.message
    assert "[secret]" in failed.value.message
    with pytest.raises(CloudError) as failed:
        await command.create_for(call(create="exit 7 # hunter2", secrets={("create",)}))
    assert "hunter2" not in failed.value.message
    assert "exit status 7" in failed.value.message


def test_longer_secrets_are_taken_out_first() -> None:
    assert redacted("abcdef abc", ["abc", "abcdef"]) == "[secret] [secret]"


async def test_files_that_a_command_wrote_become_assets(command: LocalCommand, tmp_path: Path) -> None:
    made = await command.create_for(
        call(
            create="mkdir -p out; echo a > out/a.txt; echo b > out/b.log",
            dir=str(tmp_path),
            assetPaths=["out/*", "!out/*.log"],
            archivePaths=["out/*"],
        )
    )
    assert list(made.outputs["assets"]) == ["out/a.txt"]
    assert sorted(made.outputs["archive"]["assets"]) == ["out/a.txt", "out/b.log"]


async def test_an_interrupt_ends_what_runs(command: LocalCommand, tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    running = asyncio.create_task(command.create_for(call(create=f"echo x > {started}; exec sleep 600")))
    await asyncio.to_thread(started.read_text)
    await command.cancel()
    with pytest.raises(CloudError, match="exit status -15"):
        await running


async def test_a_call_that_is_cut_off_takes_its_command_along(command: LocalCommand, tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    running = asyncio.create_task(command.create_for(call(create=f"echo $$ > {started}; exec sleep 600")))
    pid = int(await asyncio.to_thread(started.read_text))
    ended = os.pidfd_open(pid)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.to_thread(select.select, [ended], [], [])  # the test's time limit watches
    os.close(ended)


async def test_a_preview_does_not_know_what_an_update_will_print(command: LocalCommand) -> None:
    assert command.preview_update("id", {"create": "date"}, {"stdout": "old"})["stdout"] is UNKNOWN


def test_remote_commands_are_refused_with_the_reason(cloud: Cloud) -> None:
    handlers = Command(cloud).handlers
    for token in ("command:remote:Command", "command:remote:CopyToRemote"):
        (failure,) = handlers[token].check({})
        assert "take no SSH" in failure.reason


def test_who_calls_from_nowhere_is_this_process() -> None:
    found = find_caller("unix:", 0)
    assert found.environment == dict(os.environ)


def test_commands_run_where_the_projects_program_is(tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: p\nruntime: python\n")
    (tmp_path / "below").mkdir()
    assert project_folder(tmp_path / "below") == tmp_path
    (tmp_path / "Pulumi.yaml").write_text("name: p\nruntime: python\nmain: program\n")
    assert project_folder(tmp_path) == tmp_path / "program"
    assert project_folder(Path("/")) == Path("/")
