"""Starts one program so that it can't outlive the daemon; then it is that program.

Run by path with the interpreter's isolated mode (no site packages, so that it costs milliseconds):
    launch.py PARENT_PID RUN_AS PROGRAM ARGUMENT...
RUN_AS is `self`, or `nobody` for programs that refuse to run as root (PostgreSQL does).
"""

import ctypes
import os
import signal
import struct
import sys

_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
# access(2) forgets the capabilities of who isn't root, unless this bit is set (capabilities(7)); initdb asks
# it whether the server beside it may be run.
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 27, 28, 4
_FILE_CAPABILITIES = (1, 2, 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
_CAPABILITY_VERSION_3 = 0x20080522


def _become_nobody(libc: ctypes.CDLL) -> None:
    """Give up root's identity but not root's reach over files.

    The project may lie in a folder that only root can enter, and opening that to everybody would
    be rude: so the right to pass file permissions is kept as an ambient capability instead, as far
    as we have it (a container's root often has only part).
    """
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)
    libc.capget(header, held)
    permitted = struct.unpack("6I", held.raw)[1]
    kept = [one for one in _FILE_CAPABILITIES if permitted & (1 << one)]
    mask = sum(1 << one for one in kept)
    libc.prctl(_PR_SET_SECUREBITS, libc.prctl(_PR_GET_SECUREBITS) | _NO_SETUID_FIXUP, 0, 0, 0)
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.capset(header, struct.pack("6I", mask, mask, mask, 0, 0, 0))
    for one in kept:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, one, 0, 0)


def main() -> None:
    """Tie this process to its parent's life, then become the program."""
    parent, run_as, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    libc = ctypes.CDLL(None)
    if run_as == "nobody" and os.geteuid() == 0:
        _become_nobody(libc)
    # After the change of identity, which clears it.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
