"""How tools are kept in the cache folder, by version, so that an interruption leaves nothing half-made.

What stands there under its final name is complete: it is made under another name and renamed.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(lock: Path, waiting_for: str) -> Iterator[int]:
    """Hold a lock file; one process at a time does what is inside. Gives the lock's file descriptor.

    A child that inherits the descriptor keeps the lock until it ends, even if this process is
    killed: so whoever comes next doesn't meddle with work that is still going on.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for {waiting_for} to end ...", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def made_complete(final: Path) -> Iterator[Path]:
    """A new folder to fill; it gets its final name when the block ends well, and is removed otherwise.

    Leftovers of interrupted attempts are removed first: call it while holding the lock.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{final.name}."
    for leftover in final.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    try:
        yield draft
        if final.exists():
            shutil.rmtree(final)
        draft.chmod(0o755)
        draft.rename(final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
