"""Outlives the daemon by a moment: when the daemon is gone, ends what it had started.

The kernel's parent-death signal reaches only direct children; a script's own children would stay.
Standard input is a pipe from the daemon: `+SESSION` and `-SESSION` lines say which sessions are
alive, `folder PATH` which run-time folder to remove. End of file is the daemon's death, orderly or not.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

MARK = "LOCALCLOUD_CHILD_OF"  # in the environment of everything that a daemon starts


def processes_of_sessions(sessions: set[int]) -> list[int]:
    """Ids of all processes that belong to one of these sessions."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 -- called often; paths would be made in vain
        if entry.isdigit():
            try:
                if os.getsid(int(entry)) in sessions:
                    found.append(int(entry))
            except (ProcessLookupError, PermissionError):
                continue
    return found


def end_sessions(sessions: set[int]) -> None:
    """Kill every process of these sessions, until none is left (one may fork while we look)."""
    while found := processes_of_sessions(sessions):
        alive = False
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
                state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
                alive = alive or state != "Z"
            except (OSError, IndexError):
                continue
        if not alive:
            return


def end_children_of(home: Path) -> None:
    """Kill what a former daemon of this home left behind, when its warden could not."""
    wanted = f"{MARK}={home}\0".encode()
    sessions = set()
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            try:
                if wanted in Path(f"/proc/{entry}/environ").read_bytes() + b"\0":
                    sessions.add(os.getsid(int(entry)))
            except OSError:  # gone, or somebody else's
                continue
    end_sessions(sessions - {os.getsid(0)})


def main() -> None:
    """Follow the daemon's word until its end."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    sessions: set[int] = set()
    folder = ""
    for line in sys.stdin:
        if line.startswith("folder "):
            folder = line[7:].rstrip("\n")
        elif line.startswith("+"):
            sessions.add(int(line))
        elif line.startswith("-"):
            sessions.discard(-int(line))
    end_sessions(sessions)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
