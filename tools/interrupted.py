"""Puts the local stack's state right after a run that was killed, so that the same command goes on.

A killed engine leaves a lock, and in the state the operations that it had begun. Whether a begun
creation took place only the cloud knows: what it made is taken into the state, as one would with
`pulumi import` by hand; what it didn't make is forgotten and made again. A refresh of what was in
hand then brings the state up to date.
"""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

# How the engine marks a secret in exported state, and the only kind of mark that is of interest here.
MARK, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
State = dict[str, Any]
Find = Callable[[str, Mapping[str, Any]], list[str]]


class Ask(Protocol):
    """Runs the CLI on the stack, with this text as its input, and gives what it prints."""

    def __call__(self, *arguments: str, text: str = "") -> str: ...


def stack_file(state: Path) -> Path:
    """Where the file backend keeps the stack."""
    return state / ".pulumi" / "stacks" / "ibkr" / "local.json"


def checkpoint(state: Path) -> State:
    """The latest state as the engine wrote it; an empty map if there is none."""
    try:
        content = json.loads(stack_file(state).read_text())
    except FileNotFoundError:
        return {}
    latest: State = content.get("checkpoint", {}).get("latest") or {}
    return latest


def needs_repair(state: Path) -> bool:
    """Whether an engine was killed while it worked on the stack."""
    return is_locked(state) or bool(checkpoint(state).get("pending_operations"))


def is_locked(state: Path) -> bool:
    """Whether the engine's lock is there: a dead one's, since whoever runs the CLI holds the stack's own."""
    return any((state / ".pulumi" / "locks").rglob("*.json"))


def repair(state: Path, find: Find, ask: Ask) -> None:
    """Remove stale locks and settle begun operations. Call it while holding the stack's own lock.

    `find` gives the ids of the cloud's resources of a type that were made with these inputs.
    """
    remove_half_written(state)
    if is_locked(state):
        ask("cancel", "--yes", "--stack", "local")
    if not checkpoint(state).get("pending_operations"):
        return
    sealed = json.loads(ask("stack", "export", "--stack", "local"))
    opened = json.loads(ask("stack", "export", "--stack", "local", "--show-secrets"))
    settled, in_hand = settle(sealed["deployment"], opened["deployment"], find)
    ask("stack", "import", "--stack", "local", text=json.dumps(sealed | {"deployment": settled}))
    known = {resource["urn"] for resource in settled["resources"]}
    targets = [part for urn in in_hand if urn in known for part in ("--target", urn)]
    if targets:
        ask("refresh", "--yes", "--skip-preview", "--stack", "local", *targets)


def remove_half_written(state: Path) -> None:
    """Remove what a killed engine had not finished writing.

    The file backend replaces the state itself in one step, but not the attributes beside it, and an
    empty file of those makes every later command fail with "failed to load checkpoint: EOF".
    """
    for attributes in state.rglob("*.attrs"):
        if attributes.stat().st_size == 0:
            attributes.unlink()
    for draft in state.rglob("*.json.*.tmp"):
        draft.unlink()


def settle(sealed: State, opened: State, find: Find) -> tuple[State, list[str]]:
    """The state without begun operations, and the URNs that these were about.

    Both arguments are the same state, in `opened` with readable secrets, which don't get into the result.
    """
    result = copy.deepcopy(sealed)
    resources = result["resources"] = result.get("resources") or []
    known = {resource["id"] for resource in resources if resource.get("id")}
    in_hand = []
    operations = zip(result.pop("pending_operations", []), opened["pending_operations"], strict=True)
    for operation, readable in operations:
        resource = operation["resource"]
        in_hand.append(resource["urn"])
        if operation["type"] != "creating" or not resource.get("custom"):
            continue
        made = [
            found
            for found in find(resource["type"], plain(readable["resource"]["inputs"]))
            if found not in known
        ]
        if not made:
            continue
        for older in resources:
            # Created to replace this one: which still is to be deleted.
            if older["urn"] == resource["urn"]:
                older["delete"] = True
        resources.append(resource | {"id": made[0], "outputs": resource.get("outputs") or resource["inputs"]})
        known.add(made[0])
    return result, in_hand


def plain(value: Any) -> Any:
    """A value of exported state as the program gave it."""
    if isinstance(value, dict):
        if value.get(MARK) == SECRET:
            return plain(json.loads(value["plaintext"]))
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value
