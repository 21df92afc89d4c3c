"""Locks the requirements anew: every version and its hashes, for every supported Python, no index addresses.

The development lock comes before the service's, which keeps to its versions: what is deployed is what
was tested. The tests over ib_async need versions of their own (ib_async 2.1.0 wants a tzdata of 2025).
"""

import subprocess
import sys

from tools.environments import CHECKOUT, installed_uv, uv_settings
from tools.steps import SetupFailed

PLAIN = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-header"]
AS_TESTED = ["--constraint", "requirements/dev.lock"]
LOCKS = {
    "tool-uv": [],
    "tool-go": [],
    "dev": ["--overrides", "requirements/dev.overrides"],
    "service": AS_TESTED,
    "ib-async": ["--excludes", "requirements/ib-async.excludes"],
}


def main() -> int:
    """Returns the exit code. Arguments are passed on: `--upgrade` takes the newest versions."""
    try:
        uv = str(installed_uv())
    except SetupFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    for name, options in LOCKS.items():
        files = [f"requirements/{name}.in", "--output-file", f"requirements/{name}.lock"]
        argv = [uv, "pip", "compile", "--quiet", *PLAIN, *options, *files, *sys.argv[1:]]
        if subprocess.run(argv, cwd=CHECKOUT, env=uv_settings()).returncode != 0:
            return 1
        print(f"requirements/{name}.lock")
    return 0


if __name__ == "__main__":
    sys.exit(main())
