"""Makes a checkout ready: `python3 -m tools.setup [--pulumi] [--ib-async]`.

Looks at the machine first and says at once all that it lacks. Then makes, once, what is missing:
the virtual environment, the dashboard's scripts, the Pulumi CLI, and the second environment of the
tests over ib_async. With everything in place it takes a few hundredths of a second.

This module and `machine` run under whatever `python3` is, so they keep to syntax that Python 3.6
reads; the rest is imported once a suitable interpreter runs it.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import List

from tools import machine

CHECKOUT = Path(__file__).resolve().parent.parent


def seems_to_need_cli() -> bool:
    """Whether there is neither a CLI on PATH nor one in the cache folder."""
    kept = (machine.cache_folder() / "pulumi").glob("*/pulumi")
    return shutil.which("pulumi") is None and not any(kept)


def check(wants_cli: bool) -> List[str]:
    """All that the machine lacks for what has to be made and run."""
    is_running = (CHECKOUT / ".local" / "cloud" / "daemon.json").exists()
    needs_environment = not (CHECKOUT / ".venv" / ".complete").exists()
    needs_cli = wants_cli and seems_to_need_cli()
    if is_running and not (needs_environment or needs_cli):
        return []
    return machine.problems(
        machine.look(CHECKOUT / ".local", machine.cache_folder()), needs_environment, needs_cli
    )


def make_ready(wants_cli: bool, wants_ib_async: bool) -> None:
    """Make what is missing. Raises steps.SetupFailed."""
    from tools import environments, pulumi_cli, web_packages

    environments.MAIN.make("Installing the Python packages")
    web_packages.ensure(CHECKOUT, machine.cache_folder())
    if wants_ib_async:
        environments.IB_ASYNC.make("Installing the Python packages of the tests over ib_async")
    if wants_cli:
        pulumi_cli.ensure()


def main() -> int:
    """Returns the exit code."""
    arguments = sys.argv[1:]
    found = check("--pulumi" in arguments)
    if found:
        print("This machine isn't ready:", file=sys.stderr)
        for problem in found:
            print("- " + problem, file=sys.stderr)
        return 1
    suitable = machine.find_python()
    if suitable is not None and suitable != sys.executable:
        os.chdir(str(CHECKOUT))
        os.execv(suitable, [suitable, "-m", "tools.setup", *arguments])
    from tools.steps import SetupFailed

    try:
        make_ready("--pulumi" in arguments, "--ib-async" in arguments)
    except SetupFailed as failure:
        print(str(failure), file=sys.stderr)
        return 1
    except OSError as error:
        said = machine.unwritable(error)
        if said is None:
            raise
        print(said, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
