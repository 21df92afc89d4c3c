"""What becomes of a program that mustn't run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "localcloud" / "launch.py"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's identity is given up")
def test_it_may_run_what_lies_in_a_folder_that_only_root_enters(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    asking = f"import os; print(os.getuid(), os.access({str(program)!r}, os.R_OK | os.X_OK))"
    command = [
        sys.executable,
        "-I",
        "-S",
        str(LAUNCH),
        str(os.getpid()),
        "nobody",
        sys.executable,
        "-c",
        asking,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["65534", "True"], done.stderr
