"""Pulumi's language host for Python: what the engine asks to run a program or a policy pack.

The official one comes with the official installation of the CLI and is used wherever that exists.
This one stands beside a CLI that `pulumi_cli.py` built from source, because no package registry
serves the official host on its own. It is copied there, so it uses nothing of this project.

The engine starts it as `pulumi-language-python [flags] ENGINE_ADDRESS` and reads the port that it
listens on from the first line of its output. The protocol is `pulumirpc.LanguageRuntime`
(pulumi/proto/language.proto); its stubs are in the pip package `pulumi`. Programs run under the
interpreter that runs this host: that of the active virtual environment.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2 as rpc
from pulumi.runtime.proto import language_pb2_grpc, plugin_pb2

VERSION = "3.255.0"
# A program that has shown the person its error ends with this code; the engine then adds nothing.
SHOWN_TO_USER = 32
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Starts programs and policy packs, one process each, and ends them when the engine says so."""

    def __init__(self, engine_address: str) -> None:
        self._engine_address = engine_address
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._cancelled = False

    def Handshake(
        self, request: rpc.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> rpc.LanguageHandshakeResponse:
        self._engine_address = request.engine_address or self._engine_address
        return rpc.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetRequiredPackages(
        self, request: rpc.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> rpc.GetRequiredPackagesResponse:
        """None: a provider that is needed but not attached is asked for by the first resource of its kind."""
        return rpc.GetRequiredPackagesResponse()

    def GetRequiredPlugins(
        self, request: rpc.GetRequiredPluginsRequest, context: grpc.ServicerContext
    ) -> rpc.GetRequiredPluginsResponse:
        return rpc.GetRequiredPluginsResponse()

    def RuntimeOptionsPrompts(
        self, request: rpc.RuntimeOptionsRequest, context: grpc.ServicerContext
    ) -> rpc.RuntimeOptionsResponse:
        return rpc.RuntimeOptionsResponse()

    def About(self, request: rpc.AboutRequest, context: grpc.ServicerContext) -> rpc.AboutResponse:
        return rpc.AboutResponse(executable=sys.executable, version=platform.python_version())

    def Run(self, request: rpc.RunRequest, context: grpc.ServicerContext) -> rpc.RunResponse:
        """Run a stack's program. Its output is this process's output, which the engine shows."""
        settings = {
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "root_directory": request.info.root_directory,
            "monitor": request.monitor_address,
            "engine": self._engine_address,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
        }
        program = str(Path(request.info.program_directory, request.info.entry_point))
        environment = os.environ | {
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        runner = str(Path(__file__).resolve().with_name("program_runner.py"))
        arguments = [json.dumps(settings), program, *request.args]
        argv = [sys.executable, "-u", runner, *arguments]
        process = self._start(argv, cwd=request.pwd, env=environment)
        context.add_callback(lambda: stop(process))
        code = process.wait()
        self._forget(process)
        if code == SHOWN_TO_USER or self._cancelled:
            return rpc.RunResponse(bail=True)
        if code == 0:
            return rpc.RunResponse()
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return rpc.RunResponse(error=f"the program ended with {how}")

    def RunPlugin(
        self, request: rpc.RunPluginRequest, context: grpc.ServicerContext
    ) -> Iterator[rpc.RunPluginResponse]:
        """Run a policy pack or another plugin written in Python until it ends or the call is cancelled.

        A policy pack's program is named by `info`: its working directory is the stack's, so that
        policies can read files beside the stack.
        """
        environment = dict(entry.split("=", 1) for entry in request.env)
        program = request.info.program_directory
        if request.kind == "analyzer":
            engine, *rest = request.args
            argv = [sys.executable, "-u", "-m", "pulumi.policy", engine, program, *rest]
        else:
            argv = [sys.executable, "-u", program, *request.args]
        process = self._start(
            argv, cwd=request.pwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        context.add_callback(lambda: stop(process))
        for name, line in lines_of(process):
            yield (
                rpc.RunPluginResponse(stdout=line) if name == "stdout" else rpc.RunPluginResponse(stderr=line)
            )
        code = process.wait()
        self._forget(process)
        yield rpc.RunPluginResponse(exitcode=code)

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.stop_all()
        return empty_pb2.Empty()

    def stop_all(self) -> None:
        """End everything that was started and still runs."""
        self._cancelled = True
        with self._lock:
            running = list(self._running)
        for process in running:
            stop(process)

    def _start(
        self,
        argv: list[str],
        *,
        cwd: str,
        env: dict[str, str],
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        with self._lock:
            self._running.add(process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end; a no-op for one that has ended."""
    if process.poll() is None:
        process.terminate()


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each line of the process's output as it comes: ("stdout" | "stderr", line)."""
    lines: SimpleQueue[tuple[str, bytes]] = SimpleQueue()

    def pump(name: str, stream: IO[bytes]) -> None:
        for line in stream:
            lines.put((name, line))
        lines.put((name, b""))

    streams = {"stdout": process.stdout, "stderr": process.stderr}
    for name, stream in streams.items():
        assert stream is not None
        threading.Thread(target=pump, args=(name, stream), daemon=True).start()
    still_open = len(streams)
    while still_open:
        name, line = lines.get()
        if line:
            yield name, line
        else:
            still_open -= 1


def main() -> None:
    """Serve until the engine ends this process."""
    flags = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    host = LanguageHost(engine_address=flags[-1] if flags else "")
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=UNLIMITED)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    ended = threading.Event()
    # The engine ends its plugins with SIGINT and waits 5 s before it kills one that doesn't go.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: ended.set())
    # A killed engine ends nobody: then this process gets another parent.
    engine = os.getppid()
    while not ended.wait(1) and os.getppid() == engine:
        pass
    host.stop_all()
    server.stop(grace=None).wait()


if __name__ == "__main__":
    main()
