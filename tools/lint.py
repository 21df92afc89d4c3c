"""`make lint`: Python, the Dockerfile, and the workflows (their form, and what an attacker could use).

ruff, mypy, hadolint and zizmor come as wheels. No wheel carries actionlint: it is built from its Go module,
verified against `actionlint-build/go.sum`, once, and kept in the cache folder.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools import cache, machine, pulumi_cli
from tools.environments import CHECKOUT, MAIN
from tools.steps import SetupFailed, run

ACTIONLINT = "1.7.12"  # as in actionlint-build/go.mod
_PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"
_MODULE = Path(__file__).resolve().parent / "actionlint-build"
WORKFLOWS = CHECKOUT / ".github" / "workflows"


def actionlint() -> Path:
    """The program; built if it isn't there yet. Raises SetupFailed."""
    home = machine.cache_folder() / "actionlint" / ACTIONLINT
    program = home / "actionlint"
    with cache.exclusive(home.parent / "lock", "another build of actionlint") as lock:
        if not program.exists():
            work = home.parent / "build"
            work.mkdir(parents=True, exist_ok=True)
            go = pulumi_cli.go_tool(work, pulumi_cli.Attempts())
            with cache.made_complete(home) as draft:
                run(
                    [go, "build", "-trimpath", "-ldflags=-s -w", "-o", draft / "actionlint", _PACKAGE],
                    f"Building actionlint {ACTIONLINT} from Go modules (about half a minute, once)",
                    env=pulumi_cli.go_settings(work),
                    cwd=_MODULE,
                    timeout=600,
                    keep_open=[lock],
                )
            pulumi_cli.remove_tree(work)
    return program


def commands(workflows: Path = WORKFLOWS) -> Iterator[Sequence[str | Path]]:
    """Each check as it is run, in the checkout. Raises SetupFailed."""
    python, tools = MAIN.python, MAIN.python.parent
    yield [python, "-m", "ruff", "check", "."]
    yield [python, "-m", "mypy"]
    yield [tools / "hadolint", "Dockerfile"]
    yield from of_workflows(workflows)


def of_workflows(workflows: Path = WORKFLOWS) -> Iterator[Sequence[str | Path]]:
    """The checks of workflows. Raises SetupFailed."""
    # Offline, zizmor can't say whether a pinned commit is the one that its comment names.
    yield [MAIN.python.parent / "zizmor", "--offline", "--no-progress", "--quiet", workflows]
    yield [actionlint(), "-no-color", *sorted(workflows.glob("*.yml"))]


def main() -> int:
    """Returns the exit code: the worst of all."""
    worst = 0
    try:
        for argv in commands():
            worst = max(worst, abs(subprocess.run([str(part) for part in argv], cwd=CHECKOUT).returncode))
    except SetupFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return worst


if __name__ == "__main__":
    sys.exit(main())
