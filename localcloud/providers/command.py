"""The provider `command`: programs that really run on this machine, as a part of `up` and `destroy`.

As in pulumi-command 1.2: `create` runs at creation, `update` (or `create` again) at a change, `delete` at
deletion; later ones find the earlier output in PULUMI_COMMAND_STDOUT and PULUMI_COMMAND_STDERR; every
output is secret as soon as one input is. Unlike it, what is secret never gets into messages or logs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.caller import find_caller
from localcloud.providers.provider import Provider
from localcloud.providers.resource import Call, Handler, without_chosen
from localcloud.providers.schema import Failure
from localcloud.providers.values import ARCHIVE, ASSET, SIGNATURE, Properties, is_secret
from localcloud.providers.values import Path as PropertyPath
from localcloud.state import Resource

INTERPRETER = ["/bin/sh", "-c"]
REDACTED = "[secret]"
# Shorter secrets would take half of every message with them.
SHORTEST_REDACTED = 3
GRACE_SECONDS = 5.0
LINE_LIMIT_BYTES = 16 * 1024 * 1024


class LocalCommand(Handler):
    """`command:local:Command`. Its state is the engine's alone: nothing of it is stored here."""

    token = "command:local:Command"  # noqa: S105 - a type's name
    noun = "command"
    spreads_secrets = True
    outlives_the_engine = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.engine_address = ""
        self.port = 0
        self._running: set[asyncio.subprocess.Process] = set()
        self._starting = asyncio.Lock()  # held while a process exists that isn't in the set yet

    def preview_update(
        self, resource_id: str, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> dict[str, Any]:
        # An update runs a command: what that will print isn't known.
        return self.outputs(inputs, None)

    async def create_for(self, call: Call) -> Resource:
        name = call.urn.rsplit("::", 1)[-1]
        return await self._run(call, f"{name}{secrets.token_hex(4)}", "create", {})

    async def update_for(self, call: Call) -> Resource:
        which = "update" if call.inputs.values.get("update") is not None else "create"
        return await self._run(call, call.resource_id, which, call.state.values)

    async def delete_for(self, call: Call) -> None:
        # The command to delete with is the one in the state: the program may be gone.
        inputs = call.inputs if call.inputs.values else call.state
        await self._run(
            Call(call.urn, call.resource_id, inputs, call.state, call.peer),
            call.resource_id,
            "delete",
            call.state.values,
        )

    async def read_for(self, call: Call) -> Resource | None:
        return Resource(self.token, call.resource_id, call.inputs.values, call.state.values)

    async def _run(self, call: Call, resource_id: str, which: str, before: dict[str, Any]) -> Resource:
        inputs = without_chosen(call.inputs.values)
        found: dict[str, str] = {n: before[n] for n in ("stdout", "stderr") if n in before}
        caller = find_caller(call.peer, self.port)
        folder = caller.folder / inputs["dir"] if inputs.get("dir") else caller.folder
        if inputs.get(which) is not None:
            environment = _environment(caller.environment, inputs, before)
            found = await self._execute(call, inputs, which, folder, environment)
        outputs = {**inputs, "stdout": found.get("stdout", ""), "stderr": found.get("stderr", "")}
        assets = {name: _asset(folder / name) for name in _files(folder, inputs.get("assetPaths"))}
        archived = {name: _asset(folder / name) for name in _files(folder, inputs.get("archivePaths"))}
        if inputs.get("assetPaths") is not None:
            outputs["assets"] = assets
        if inputs.get("archivePaths") is not None:
            outputs["archive"] = {
                SIGNATURE: ARCHIVE,
                "assets": archived,
                "hash": _hash(repr(archived).encode()),
            }
        return Resource(self.token, resource_id, call.inputs.values, outputs)

    async def _execute(
        self, call: Call, inputs: dict[str, Any], which: str, folder: Path, environment: dict[str, str]
    ) -> dict[str, str]:
        argv = [*(inputs.get("interpreter") or INTERPRETER), inputs[which]]
        try:
            async with self._starting:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    cwd=folder,
                    env=environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                    limit=LINE_LIMIT_BYTES,
                )
                self._running.add(process)
        except OSError as error:
            raise CloudError(500, f"{error.strerror}: starting {argv[0]} in {folder}") from None
        try:
            printed = await self._talk(call, process, inputs)
        finally:
            self._running.discard(process)
            if process.returncode is None:
                _signal(process, signal.SIGKILL)
        if process.returncode != 0:
            raise self._failure(call, which, inputs, process.returncode, printed)
        return {name: text.removesuffix("\n") for name, text in printed.items()}

    async def _talk(
        self, call: Call, process: asyncio.subprocess.Process, inputs: dict[str, Any]
    ) -> dict[str, str]:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        logged = self._logged(call, inputs)
        hidden = list(_secret_texts(call.inputs)) + list(_secret_texts(call.state))
        async with _EngineLog(self.engine_address if logged else "", call.urn) as log:
            out, err, _ = await asyncio.gather(
                _read(process.stdout, log if "stdout" in logged else None, hidden),
                _read(process.stderr, log if "stderr" in logged else None, hidden),
                _write(process.stdin, inputs.get("stdin")),
            )
            await process.wait()
        return {"stdout": out, "stderr": err}

    def _logged(self, call: Call, inputs: dict[str, Any]) -> set[str]:
        choice = inputs.get("logging")
        if choice is None:
            # What a command with secrets prints may hold them, in any form.
            choice = "none" if call.inputs.secrets or call.state.secrets else "stdoutAndStderr"
        return {"stdoutAndStderr": {"stdout", "stderr"}, "none": set()}.get(choice, {choice})

    def _failure(
        self, call: Call, which: str, inputs: dict[str, Any], status: int | None, printed: dict[str, str]
    ) -> CloudError:
        hidden = list(_secret_texts(call.inputs)) + list(_secret_texts(call.state))
        text = f"exit status {status}: running {inputs[which]!r}:\n{printed['stdout']}{printed['stderr']}"
        if is_secret((which,), call.inputs.secrets | call.state.secrets):
            text = f"exit status {status}: running the {which} command, which is secret:\n{printed['stderr']}"
        return CloudError(500, redacted(text, hidden).rstrip("\n"))

    async def cancel(self) -> None:
        """Ask what runs to end; insist after a while."""
        async with self._starting:
            running = list(self._running)
        for process in running:
            # Not SIGINT, which whoever runs in the background ignores.
            _signal(process, signal.SIGTERM)
        if running:
            await asyncio.wait([asyncio.ensure_future(p.wait()) for p in running], timeout=GRACE_SECONDS)
        for process in running:
            if process.returncode is None:
                _signal(process, signal.SIGKILL)


class RemoteCommand(Handler):
    """`command:remote:Command`: there is nothing remote in a local cloud."""

    token = "command:remote:Command"  # noqa: S105 - a type's name
    noun = "command"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield Failure(
            "connection",
            f"the local cloud doesn't have {self.token}: its machines take no SSH; use command:local:Command",
        )


class CopyToRemote(RemoteCommand):
    """`command:remote:CopyToRemote`."""

    token = "command:remote:CopyToRemote"  # noqa: S105 - a type's name


class Command(Provider):
    """The provider for commands."""

    package = "command"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud, (LocalCommand, RemoteCommand, CopyToRemote))

    def attached(self, engine_address: str) -> None:
        self._local.engine_address = engine_address

    def serving(self, port: int) -> None:
        self._local.port = port

    @property
    def _local(self) -> LocalCommand:
        handler = self.handlers[LocalCommand.token]
        assert isinstance(handler, LocalCommand)
        return handler


class _EngineLog:
    """Shows lines to the person at the CLI. Without an address, nobody is shown anything."""

    def __init__(self, address: str, urn: str) -> None:
        self._address = address
        self._urn = urn
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> _EngineLog:
        if self._address:
            self._channel = grpc.aio.insecure_channel(self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel:
            await self._channel.close()

    async def line(self, text: str) -> None:
        """Show one line."""
        if self._channel is None:
            return
        request = engine_pb2.LogRequest(severity=engine_pb2.INFO, message=text, urn=self._urn)
        try:
            await engine_pb2_grpc.EngineStub(self._channel).Log(request)
        except grpc.aio.AioRpcError:  # an engine that is gone reads no log
            self._address = ""


def _environment(callers: dict[str, str], inputs: dict[str, Any], before: dict[str, Any]) -> dict[str, str]:
    environment = {**callers, **(inputs.get("environment") or {})}
    if before and inputs.get("addPreviousOutputInEnv", True):
        environment["PULUMI_COMMAND_STDOUT"] = str(before.get("stdout", ""))
        environment["PULUMI_COMMAND_STDERR"] = str(before.get("stderr", ""))
    return environment


async def _read(stream: asyncio.StreamReader, log: _EngineLog | None, hidden: list[str]) -> str:
    text = []
    while line := await stream.readline():
        text.append(line.decode(errors="replace"))
        if log:
            await log.line(redacted(text[-1].rstrip("\n"), hidden))
    return "".join(text)


async def _write(stream: asyncio.StreamWriter, text: str | None) -> None:
    try:
        if text:
            stream.write(text.encode())
            await stream.drain()
        stream.close()
    except (BrokenPipeError, ConnectionResetError):  # the command didn't want to read it
        pass


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def redacted(text: str, hidden: list[str]) -> str:
    """A text without the secrets in it."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return text


def _secret_texts(properties: Properties) -> Iterator[str]:
    """Every text that is secret, and each of its lines."""

    def walk(value: Any, path: PropertyPath) -> Iterator[str]:
        if isinstance(value, dict):
            for name, item in value.items():
                yield from walk(item, (*path, name))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                yield from walk(item, (*path, i))
        elif isinstance(value, str) and is_secret(path, properties.secrets):
            yield from (part for part in {value, *value.splitlines()} if len(part) >= SHORTEST_REDACTED)

    yield from walk(properties.values, ())


def _files(folder: Path, patterns: list[str] | None) -> list[str]:
    """Files below a folder by pattern; a pattern that begins with `!` leaves out."""
    found: list[str] = []
    for pattern in patterns or []:
        names = {str(p.relative_to(folder)) for p in folder.glob(pattern.removeprefix("!")) if p.is_file()}
        if pattern.startswith("!"):
            found = [name for name in found if name not in names]
        else:
            found += sorted(names - set(found))
    return found


def _asset(path: Path) -> dict[str, str]:
    return {SIGNATURE: ASSET, "path": str(path), "hash": _hash(path.read_bytes())}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
