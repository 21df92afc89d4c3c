"""Puts the local stack's state right after a run that was killed, so that the same command goes on.

A killed engine leaves a lock, and in the state the operations that it had begun. Whether a begun
creation took place only the cloud knows: what it made is taken into the state, as `pulumi import`
would by hand; what it didn't make is forgotten and made again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.local_cloud import LocalCloud

Ask = Callable[..., str]


def stack_file(state: Path) -> Path:
    """Where the file backend keeps the stack."""
    return state / ".pulumi" / "stacks" / "ibkr" / "local.json"


def checkpoint(state: Path) -> dict[str, Any]:
    """The latest state as the engine wrote it; an empty map if there is none."""
    try:
        content = json.loads(stack_file(state).read_text())
    except FileNotFoundError:
        return {}
    latest: dict[str, Any] = content.get("checkpoint", {}).get("latest") or {}
    return latest


def repair(state: Path, cloud: LocalCloud, ask: Ask) -> None:
    """Remove stale locks and settle begun operations. Call it while holding the stack's own lock."""
    # Whoever runs the CLI holds the stack's lock, so a lock of the engine's is a dead one's.
    if any((state / ".pulumi" / "locks").rglob("*.json")):
        ask("cancel", "--yes", "--stack", "local")
    begun = checkpoint(state).get("pending_operations") or []
    if not begun:
        return
    options = []
    for operation in begun:
        resource = operation["resource"]
        made = cloud.find(resource) if operation["type"] == "creating" else None
        if made:
            options += ["--import-pending-creates", f"{resource['urn']} {made}"]
    ask("refresh", "--yes", "--skip-preview", "--stack", "local", "--clear-pending-creates", *options)
