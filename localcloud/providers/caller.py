"""Who calls: the process of the Pulumi CLI at the other end of a provider's connection.

A real provider is a child of the CLI: it has its environment and works in the project's folder. The
local cloud's are in a daemon, so what a command needs of either is asked of the kernel.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from localcloud import sockets

PROJECT_FILES = ("Pulumi.yaml", "Pulumi.yml")


@dataclass(frozen=True)
class Caller:
    """The CLI's environment, and the folder of its project."""

    environment: dict[str, str]
    folder: Path


def find_caller(peer: str, port: int) -> Caller:
    """The process behind gRPC's `peer` ("ipv4:127.0.0.1:40312") of a connection to our `port`.

    What can't be found out (another user's process, for instance) is taken from this process.
    """
    scheme, _, rest = peer.partition(":")
    host, _, remote = rest.rpartition(":")
    if scheme == "ipv4" and remote.isdigit():
        inode = sockets.inode((host, int(remote)), (host, port))
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        pid = sockets.owner(inode, pids) if inode else None
        if pid is not None and pid != os.getpid():
            try:
                return Caller(_environment(pid), project_folder(Path(f"/proc/{pid}/cwd").resolve()))
            except OSError:  # it went away, or belongs to somebody else
                pass
    return Caller(dict(os.environ), project_folder(Path.cwd()))


def _environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def project_folder(start: Path) -> Path:
    """Where the providers of the Pulumi project that `start` lies in work; `start` if it lies in none.

    That is the project's folder, or the folder that its `main` names (engine/project.go, getPwdMain).
    """
    for folder in (start, *start.parents):
        for name in PROJECT_FILES:
            if (folder / name).exists():
                project = yaml.safe_load((folder / name).read_text()) or {}
                main = folder / str(project.get("main", "."))
                return main.resolve() if main.is_dir() else main.resolve().parent
    return start
