"""Our language host under the real engine: what it must hand to programs, and how it says what went wrong."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tools import pulumi_cli, pulumi_process
from tools.environments import MAIN


class Project:
    """A Pulumi project in a folder of its own, with our language host on PATH before any other."""

    def __init__(self, folder: Path) -> None:
        cli = pulumi_cli.locate()
        assert cli is not None, "`make test` sets the CLI up"
        self.folder, host = folder / "project", folder / "host"
        (folder / "state").mkdir()
        self.folder.mkdir()
        host.mkdir()
        pulumi_cli.install_language_host(host)
        (host / "pulumi").symlink_to((cli / "pulumi").resolve())
        (self.folder / "Pulumi.yaml").write_text("name: trial\nruntime: python\n")
        self.env = os.environ | pulumi_process.search_path(host, MAIN.python) | {
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }  # fmt: skip
        self.pulumi = str(host / "pulumi")
        self.run("stack", "init", "dev")

    def program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(text)

    def run(self, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        argv = [self.pulumi, *arguments, "--non-interactive"]
        return subprocess.run(argv, cwd=self.folder, env=self.env, input=text, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_program_gets_its_project_stack_config_and_secrets(project: Project) -> None:
    project.program(
        "import os, pulumi\n"
        "config = pulumi.Config()\n"
        "pulumi.export('who', [pulumi.get_project(), pulumi.get_stack(), config.get('who'), os.getcwd()])\n"
        "pulumi.export('key', config.require_secret('key'))\n"
    )
    project.run("config", "set", "who", "ann")
    project.run("config", "set", "--secret", "key", text="hunter2")
    up = project.run("up", "--yes", "--skip-preview")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "hunter2" not in up.stdout
    outputs = json.loads(project.run("stack", "output", "--json").stdout)
    assert outputs == {"who": ["trial", "dev", "ann", str(project.folder)], "key": "[secret]"}


def test_a_broken_program_shows_its_own_traceback_once(project: Project) -> None:
    project.program("def inner():\n    raise ValueError('no such thing')\n\ninner()\n")
    preview = project.run("preview")
    assert preview.returncode != 0
    assert preview.stdout.count("ValueError: no such thing") == 1
    assert "in inner" in preview.stdout
    assert "runpy" not in preview.stdout, "how the program was started is of no use to a person"


def test_a_run_error_is_shown_without_a_traceback(project: Project) -> None:
    project.program("import pulumi\nraise pulumi.RunError('region is missing')\n")
    preview = project.run("preview")
    assert preview.returncode != 0
    assert "region is missing" in preview.stdout
    assert "Traceback" not in preview.stdout


def test_a_program_that_ends_by_a_signal_is_said_to(project: Project) -> None:
    project.program("import os\nos.kill(os.getpid(), 9)\n")
    preview = project.run("preview")
    assert preview.returncode != 0
    assert "signal 9" in preview.stdout + preview.stderr


def test_an_interrupted_run_leaves_no_process(project: Project) -> None:
    project.program(
        "import os, pathlib, time\n"
        "pathlib.Path('pids').write_text(f'{os.getpid()} {os.getppid()}')\n"
        "os.mkfifo('go')\n"
        "print('here', flush=True)\n"
        "open('go').read()\n"
    )
    argv = [project.pulumi, "preview", "--non-interactive"]
    with subprocess.Popen(
        argv, cwd=project.folder, env=project.env, stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            if "here" in line:
                break
        engine.send_signal(signal.SIGINT)
        said = engine.stdout.read()
    assert "unhandled error" not in said, "the person knows that they interrupted it"
    for pid in (project.folder / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_a_policy_pack_can_forbid_what_a_program_declares(project: Project, tmp_path: Path) -> None:
    """The engine runs a policy pack by RunPlugin; the analyzer here speaks the protocol itself."""
    project.program("import pulumi\npulumi.ComponentResource('a:b:C', 'unwanted')\n")
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\nname: house\n")
    (pack / "__main__.py").write_text(ANALYZER)
    preview = project.run("preview", "--policy-pack", str(pack))
    assert preview.returncode != 0
    assert "nobody wants this" in preview.stdout


ANALYZER = """
import threading
from concurrent.futures import ThreadPoolExecutor
import grpc
from pulumi.runtime.proto import analyzer_pb2 as rpc, analyzer_pb2_grpc, plugin_pb2
from google.protobuf import empty_pb2

MANDATORY = 1

class House(analyzer_pb2_grpc.AnalyzerServicer):
    def Handshake(self, request, context):
        return rpc.AnalyzerHandshakeResponse()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version="0.0.1")

    def GetAnalyzerInfo(self, request, context):
        policy = rpc.PolicyInfo(name="none", description="d", enforcementLevel=MANDATORY)
        return rpc.AnalyzerInfo(name="house", version="0.0.1", policies=[policy])

    def Configure(self, request, context):
        return empty_pb2.Empty()

    def ConfigureStack(self, request, context):
        return rpc.AnalyzerStackConfigureResponse()

    def Analyze(self, request, context):
        if request.name != "unwanted":
            return rpc.AnalyzeResponse()
        found = rpc.AnalyzeDiagnostic(
            policyName="none", policyPackName="house", policyPackVersion="0.0.1", description="d",
            message="nobody wants this", enforcementLevel=MANDATORY, urn=request.urn)
        return rpc.AnalyzeResponse(diagnostics=[found])

    def AnalyzeStack(self, request, context):
        return rpc.AnalyzeResponse()

    def Remediate(self, request, context):
        return rpc.RemediateResponse()

server = grpc.server(ThreadPoolExecutor())
analyzer_pb2_grpc.add_AnalyzerServicer_to_server(House(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""
