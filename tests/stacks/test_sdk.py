"""The lazy loading of Pulumi's SDKs: the same names and the same plans, in a fraction of the time."""

from __future__ import annotations

import json
import marshal
import subprocess
import sys
from pathlib import Path

import pytest

from components.sdk import Notes

ROOT = Path(__file__).resolve().parents[2]
PLAN = """
import json, sys
sys.path.insert(0, {root!r})
import components.sdk
if {ordinary}:
    components.sdk.install = lambda: None
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, components.sdk.LazySdk)]
from tests.stacks.plan import plan_of, settings_of
plan = plan_of(settings_of("local"))
print(json.dumps([[r.type, r.name, r.inputs, sorted(r.secrets)] for r in plan.resources], sort_keys=True))
"""


def run(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plan_is_the_same_as_with_ordinary_imports() -> None:
    lazy = json.loads(run(PLAN.format(root=str(ROOT), ordinary=False)))
    from_notes = json.loads(run(PLAN.format(root=str(ROOT), ordinary=False)))
    ordinary = json.loads(run(PLAN.format(root=str(ROOT), ordinary=True)))
    assert lazy == ordinary
    assert from_notes == ordinary


def test_a_program_loads_the_modules_of_its_resources_only() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import components
import pulumi_gcp as gcp
gcp.compute.Network
assert not hasattr(gcp.compute, "_mock_name")
print(len([name for name in sys.modules if name.startswith("pulumi_gcp.compute.")]))
"""
    assert int(run(program)) < 10, "the package has over 200 modules"


@pytest.mark.parametrize(
    "name",
    ["compute.Instance", "compute.InstanceArgs", "compute.InstanceBootDiskArgs", "projects.IAMMember",
     "serviceaccount.IAMMember", "compute.InstanceIAMMember", "cloudrunv2.Service", "compute.get_image",
     "config.project", "Provider"],
)  # fmt: skip
def test_every_kind_of_name_is_found(name: str) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import components
import pulumi_gcp as gcp
gcp.{name}
"""
    run(program)


def test_a_function_is_not_hidden_by_its_module_of_the_same_name() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import components
import pulumi_gcp as gcp
print(callable(gcp.organizations.get_project_output), callable(gcp.organizations.get_project))
print(sorted(name for name in sys.modules if name.startswith("pulumi_gcp.organizations.get_")))
"""
    assert run(program).split("\n")[:2] == ["True True", "['pulumi_gcp.organizations.get_project']"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import components
import pulumi_gcp as gcp
try:
    gcp.kms.NoSuchThing
except AttributeError as error:
    print(error)
"""
    assert "NoSuchThing" in run(program)


class Finding:
    """Finds something out, and counts how often it had to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        return f"finding {self.times}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "_inputs.py"
    file.write_text("class A: pass\n")
    return file


def noted(file: Path, source: Path, find: Finding) -> str:
    """What a run that begins with the notes in a file knows of the source; it keeps its own for the next."""
    notes = Notes(file)
    found: str = notes.recall(str(source))("class A", find)
    notes.save()
    return found


def test_a_later_run_knows_what_an_earlier_one_found_out(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    find = Finding()
    file = tmp_path / "cache" / "sdk.notes"
    assert [noted(file, source, find) for _ in range(3)] == ["finding 1"] * 3
    assert [path.name for path in file.parent.iterdir()] == ["sdk.notes"]


def test_a_changed_source_is_read_anew(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    find, file = Finding(), tmp_path / "sdk.notes"
    noted(file, source, find)
    source.write_text("class A: pass  # changed\n")
    assert noted(file, source, find) == "finding 2"
    assert noted(file, source, find) == "finding 2"


@pytest.mark.parametrize(
    "content", [b"", b"no marshal data", marshal.dumps((["another version"], {})), marshal.dumps(7)]
)
def test_damaged_or_foreign_notes_are_made_anew(tmp_path: Path, source: Path, content: bytes) -> None:
    file = tmp_path / "sdk.notes"
    file.write_bytes(content)
    assert noted(file, source, Finding()) == "finding 1"


def test_nothing_is_kept_where_no_bytecode_is(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "sdk.notes"
    noted(file, source, Finding())
    assert not file.exists()


def test_a_folder_that_takes_no_file_is_no_error(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "file").write_text("")
    assert noted(tmp_path / "file" / "sdk.notes", source, Finding()) == "finding 1"
