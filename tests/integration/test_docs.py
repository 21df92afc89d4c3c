"""Every code block of docs/broker.md is run as it stands; only a gateway's port is the test's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.exits import MEANINGS
from tests.broker.paper_gateway import paper_gateway

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "broker.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "sh"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A reader's shell: nothing set but the simulated broker and a journal of the test's."""
    prefixes = ("BROKER_", "IBKR_", "ALPACA_", "MARKET_", "RISK_")
    found = {k: v for k, v in os.environ.items() if not k.startswith(prefixes) and k != "DATABASE_URL"}
    found |= {"BROKER_TYPE": "simulated", "BROKER_JOURNAL": str(tmp_path / "orders.sqlite")}
    # `python` is the one of this environment, and the package what this checkout holds.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return found | {"PATH": path, "PYTHONPATH": str(ROOT)}


def test_every_block_is_of_a_language_that_is_run_here() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert len(PYTHON) >= 7
    assert len(SHELL) >= 5


def test_the_python_blocks_run_one_after_the_other(environment: dict[str, str]) -> None:
    program = "\n".join(PYTHON)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "the same call will fail again" in done.stdout


@pytest.mark.parametrize("block", [b for b in SHELL if "python" in b and "export BROKER_TYPE" not in b])
def test_the_commands_run(environment: dict[str, str], block: str) -> None:
    for line in block.splitlines():
        done = subprocess.run(
            ["sh", "-ec", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_commands_through_a_tunnel_run_against_a_paper_gateway(environment: dict[str, str]) -> None:
    [block] = [block for block in SHELL if "export BROKER_TYPE" in block]
    with paper_gateway() as paper:
        script = block.replace("IBKR_GATEWAY_PORT=4002", f"IBKR_GATEWAY_PORT={paper.port}")
        assert script != block
        done = subprocess.run(
            ["sh", "-ec", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert paper.account in done.stdout


def test_the_other_commands_are_there() -> None:
    others = [b.strip() for b in SHELL if "python" not in b]
    assert sorted(others) == ["make tunnel STACK=staging", "pip install ."]
    assert re.search(r"^tunnel:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert 'name = "ibkr-broker"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_table_of_exit_codes_is_the_programs() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == {int(c): m for c, m in MEANINGS.items()}
