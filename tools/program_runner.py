"""Runs one Pulumi program for the language host: `program_runner.py SETTINGS_JSON PROGRAM [ARGS]`.

Config arrives in PULUMI_CONFIG and PULUMI_CONFIG_SECRET_KEYS. Exit codes are the engine's
convention: 0 the program ended well, 32 its error has been shown, anything else it broke down.
"""

import asyncio
import json
import logging
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pulumi
import pulumi.runtime

SHOWN_TO_USER = 32


def traceback_from(program: Path) -> str:
    """The current traceback from the program's own first frame on: what led there is of no use."""
    error = sys.exc_info()[1]
    assert error is not None
    frames = traceback.extract_tb(error.__traceback__)
    home = str(program if program.is_dir() else program.parent)
    own = [index for index, frame in enumerate(frames) if frame.filename.startswith(home)]
    return "".join(traceback.format_exception(error, limit=-(len(frames) - own[0]) if own else None))


def run(program: Path, parallel: int) -> int:
    """Run the program inside a stack; returns the exit code."""
    executor = ThreadPoolExecutor(max_workers=4 * max(parallel, 1))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(executor)
    # When a resource fails, futures that waited for it are dropped unobserved; that is expected.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def start() -> None:
        runpy.run_path(str(program), run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(start))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return SHOWN_TO_USER
    except Exception:
        pulumi.log.error("Program failed with an unhandled exception:\n" + traceback_from(program))
        return SHOWN_TO_USER
    finally:
        executor.shutdown(wait=True)
        loop.close()
    return 0


def main() -> int:
    """Configure the SDK as the engine asked, then run the program; returns the exit code."""
    settings, program = json.loads(sys.argv[1]), Path(sys.argv[2])
    # Ctrl-C may reach the whole process group; the engine decides what becomes of the program.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if program.is_dir() and not (program / "__main__.py").exists():
        print(f"there is no __main__.py in {program}", file=sys.stderr)
        return 1
    pulumi.runtime.set_all_config(
        pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env()
    )
    pulumi.runtime.configure(pulumi.runtime.Settings(**settings))
    sys.argv = sys.argv[2:]
    return run(program, settings["parallel"])


if __name__ == "__main__":
    sys.exit(main())
