"""The GitHub workflows: that what they name exists, what is pinned, and who may become whom.

What GitHub makes of them can't be run here; actionlint knows their form, zizmor what an attacker could use.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.ci_identity import admitted, deploy_attribute
from tests.stacks.plan import settings_of
from tools.environments import CHECKOUT
from tools.lint import WORKFLOWS, of_workflows

FILES = sorted(WORKFLOWS.glob("*.yml"))
TEXTS = {file.name: file.read_text() for file in FILES}
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def workflow(name: str) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(TEXTS[name])
    return content


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(name)["jobs"]
    return found


def steps() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every step with its file's name and its job."""
    for name in TEXTS:
        for job in jobs(name).values():
            for step in job.get("steps", []):
                yield name, job, step


def commands() -> Iterator[tuple[str, str]]:
    for name, _, step in steps():
        for line in str(step.get("run", "")).splitlines():
            if not line.strip().startswith("#"):
                yield name, line


def targets() -> set[str]:
    """The targets of the Makefile, as make itself knows them."""
    database = subprocess.run(["make", "-pnq", "-C", str(CHECKOUT)], capture_output=True, text=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", database, re.MULTILINE)
    assert phony is not None
    rules = set(re.findall(r"^([\w-]+):(?!=)", database, re.MULTILINE))
    return set(phony[1].split()) & rules


def test_every_make_target_that_a_workflow_names_exists() -> None:
    named = {
        (name, target) for name, line in commands() for target in re.findall(r"\bmake (?:-s )?([\w-]+)", line)
    }
    assert {target for _, target in named} >= {
        "up",
        "verify",
        "preview",
        "drift",
        "destroy",
        "cost",
        "rollback",
    }
    known = targets()
    assert not [where for where in named if where[1] not in known]


def test_every_variable_that_a_workflow_gives_make_is_one_of_the_makefile() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    given = {
        (name, variable)
        for name, line in commands()
        if "make " in line
        for variable in re.findall(r'[\s"]([A-Z]+)=', line.partition("make ")[2])
    }
    assert given
    for name, variable in given:
        assert f"$({variable})" in makefile, f"{name} gives make {variable}, which it doesn't know"


def test_every_file_that_a_workflow_names_exists() -> None:
    local = [
        (name, path)
        for name, text in TEXTS.items()
        for path in re.findall(r"(?<![\w/])(\.?/?(?:\.ci|\.github|docs|components|tools)/[\w./-]+\w)", text)
    ]
    assert local
    assert not [where for where in local if not (CHECKOUT / where[1]).exists()]


def test_every_stack_that_a_workflow_names_exists() -> None:
    named = set()
    for name, text in TEXTS.items():
        named |= {(name, stack) for stack in re.findall(r"STACK(?:=|: )([a-z][\w-]*)", text)}
        named |= {(name, stack) for stack in re.findall(r"(?:^|\s)stack: ([a-z][\w-]*)$", text, re.MULTILINE)}
        for listed in re.findall(r"(?:stack|options): \[([\w, ]+)\]", text):
            named |= {(name, stack.strip()) for stack in listed.split(",")}
    assert {stack for _, stack in named} == {"staging", "prod"}
    assert all((CHECKOUT / f"Pulumi.{stack}.yaml").exists() for _, stack in named)


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_by_commit_with_the_version_beside(name: str) -> None:
    for line in TEXTS[name].splitlines():
        if "uses:" in line and "uses: ./" not in line:
            assert PINNED.search(line), f"a tag can be moved to other code: {line.strip()}"


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_granted_but_what_a_job_asks_for(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    for job in jobs(name).values():
        assert set(job["permissions"]) <= {"contents", "id-token", "pull-requests"}
        assert job["permissions"]["contents"] == "read"
    assert "pull_request_target" not in TEXTS[name], "it runs a fork's code with our rights"


@pytest.mark.parametrize("name", TEXTS)
def test_a_command_that_fails_in_a_pipe_fails_the_step(name: str) -> None:
    assert workflow(name)["defaults"]["run"]["shell"] == "bash", "GitHub's own default is without pipefail"


def test_forks_are_tested_and_never_previewed() -> None:
    assert "id-token" not in TEXTS["checks.yml"]
    assert "secrets." not in TEXTS["checks.yml"]
    condition = jobs("preview.yml")["preview"]["if"]
    assert condition == "github.event.pull_request.head.repo.full_name == github.repository"


def test_who_only_looks_becomes_the_account_that_only_reads() -> None:
    for name, job, step in steps():
        if "google-github-actions/auth" in str(step.get("uses")):
            account = step["with"]["service_account"]
            looks = name in ("preview.yml", "drift.yml")
            assert ("PREVIEW_ACCOUNT" in account) == looks, f"{name}: {account}"
            assert job["permissions"]["id-token"] == "write"


def test_production_gets_the_digest_that_staging_has_verified() -> None:
    deploy = jobs("deploy.yml")
    assert deploy["staging"]["with"]["image"] == deploy["prod"]["with"]["image"]
    assert "staging" in deploy["prod"]["needs"]
    assert deploy["image"]["needs"] == "checks"
    up = " ".join(str(step.get("run")) for step in jobs("up.yml")["up"]["steps"])
    assert up.index("make up") < up.index("make verify")
    assert '"IMAGE=${IMAGE:?' in up, "without one, the configured image would be deployed"
    builds = [line for _, line in commands() if "make -s image" in line]
    assert len(builds) == 1, "built once"


def test_what_changes_a_stack_waits_for_its_turn_and_is_never_cut_off() -> None:
    for name in ("up.yml", "destroy.yml", "rollback.yml"):
        (job,) = jobs(name).values()
        assert job["concurrency"]["group"] == "stack-${{ inputs.stack }}", name
        assert job["concurrency"]["cancel-in-progress"] is False, name
        assert job["environment"] == "${{ inputs.stack }}", f"{name}: the environment's reviewers are asked"


@pytest.mark.parametrize(("name", "words"), [("destroy.yml", "destroy"), ("rollback.yml", "roll back")])
def test_by_hand_and_only_confirmed(name: str, words: str) -> None:
    """The step's own script, run as GitHub runs it."""
    assert set(workflow(name)[True]) == {"workflow_dispatch"}, "`on` is a boolean to YAML 1.1"
    (job,) = jobs(name).values()
    step = job["steps"][0]
    assert step["name"] == "Confirmed?"

    def code(confirm: str, decisions: str = "") -> int:
        given = {"STACK": "staging", "CONFIRM": confirm, "IMAGE": "", "DECISIONS": decisions}
        return subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], env=given).returncode

    assert code(f"{words} staging") == 0
    assert code(f"{words} prod") != 0
    assert code("yes") != 0
    if name == "rollback.yml":
        assert code(f"{words} staging", "0f-1=cancel, BRK.B=keep") == 0
        assert code(f"{words} staging", "$(shell id)=keep") != 0, "make would run it"
        assert code(f"{words} staging", "a'; id; '") != 0


def test_google_admits_the_environments_that_the_workflows_run_in() -> None:
    ci = settings_of("foundation-prod").ci
    condition = admitted("owner/name", ci.environment)
    assert "':environment:prod'" in condition
    assert "':environment:prod-drift'" in condition
    assert "':environment:prod'" in deploy_attribute(ci.deploy_branch, ci.environment)
    assert jobs("drift.yml")["drift"]["environment"] == "${{ matrix.stack }}-drift"


def test_every_variable_and_secret_is_documented() -> None:
    named = {found for text in TEXTS.values() for found in re.findall(r"(?:vars|secrets)\.([A-Z_]+)", text)}
    documented = (CHECKOUT / "docs" / "github.md").read_text()
    assert not [name for name in sorted(named) if f"`{name}`" not in documented]


@pytest.mark.timeout(600)  # actionlint is built first, where it hasn't been yet
def test_actionlint_and_zizmor_find_nothing() -> None:
    for argv in of_workflows():
        found = subprocess.run([str(part) for part in argv], cwd=CHECKOUT, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


def test_the_linters_would_find_something(tmp_path: Path) -> None:
    """That the run above has teeth: an input that goes into a script, and a key that nobody knows."""
    bad = workflow("destroy.yml")
    bad["jobs"]["destroy"]["steps"].append({"run": "echo ${{ inputs.confirm }}", "wiht": {}})
    (tmp_path / "bad.yml").write_text(yaml.safe_dump(bad))
    for argv in of_workflows(tmp_path):
        found = subprocess.run([str(part) for part in argv], cwd=CHECKOUT, capture_output=True)
        assert found.returncode != 0, argv[0]
