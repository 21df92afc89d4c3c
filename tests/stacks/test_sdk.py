"""The lazy loading of Pulumi's SDKs: the same names and the same plans, in a fraction of the time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    ordinary = json.loads(run(PLAN.format(root=str(ROOT), ordinary=True)))
    assert lazy == ordinary


def test_a_program_loads_the_modules_of_its_resources_only() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import components
import pulumi_gcp as gcp
gcp.compute.Network
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
