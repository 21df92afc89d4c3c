"""What Pulumi's engine does, as a person wants it told: by its event log (`--event-log`, JSON lines).

Event types: github.com/pulumi/pulumi/blob/master/sdk/go/common/apitype/events.go
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import pulumi_process
from tools.steps import Progress

#: seconds between two looks at the log
LOOK_SECONDS = 0.2
#: what is told of a change; the parts of a replacement have events of their own beside the replacement's
DONE = {"create": "made", "update": "changed", "replace": "replaced", "delete": "deleted"}
#: changes that are told one by one; more of a kind are counted only
MOST_NAMED = 12


@dataclass
class Engine:
    """A run of the engine as far as its log goes."""

    #: "instance ibkr-gateway", the resource whose turn it is
    now: str = ""
    finished: int = 0
    #: by what was done: which resources
    changes: dict[str, list[str]] = field(default_factory=dict)
    #: resources as they were
    same: int = 0
    #: (resource, what went wrong), each once
    errors: list[tuple[str, str]] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> None:
        """One event of the log."""
        if "resourcePreEvent" in event:
            metadata = event["resourcePreEvent"]["metadata"]
            if metadata["op"] in DONE or "-" in metadata["op"]:
                self.now = named(metadata["urn"])
        elif "resOutputsEvent" in event:
            self._finished(event["resOutputsEvent"]["metadata"])
        elif "diagnosticEvent" in event:
            self._said(event["diagnosticEvent"])
        elif "summaryEvent" in event:
            self.same = event["summaryEvent"].get("resourceChanges", {}).get("same", 0)

    def summary(self) -> str:
        """What became of the resources: "3 made, 1 changed, 81 as they were"."""
        told = [f"{len(names)} {done}" for done, names in self.changes.items()]
        told += [f"{self.same} as they were"] if self.same else []
        return ", ".join(told) or "nothing to do"

    def named_changes(self) -> list[str]:
        """A line for each change, unless there are many of a kind; none where all was made or all deleted."""
        if len(self.changes) == 1 and not self.same:
            return []
        lines = []
        for done, names in self.changes.items():
            rest = len(names) - MOST_NAMED
            lines += [f"{done}: {name}" for name in names[:MOST_NAMED]]
            lines += [f"{done}: and {rest} more"] if rest > 0 else []
        return lines

    def _finished(self, metadata: dict[str, Any]) -> None:
        self.finished += 1
        done = DONE.get(metadata["op"])
        if done and not metadata["type"].startswith(("pulumi:pulumi:", "pulumi:providers:")):
            self.changes.setdefault(done, []).append(named(metadata["urn"]))

    def _said(self, diagnostic: dict[str, Any]) -> None:
        text = diagnostic["message"].strip()
        if diagnostic.get("ephemeral") or not text:
            return
        if diagnostic["severity"] == "error":
            # Beside each resource's own error stands one of the whole, which says less.
            error = (named(diagnostic["urn"]) if diagnostic.get("urn") else "", text)
            if error not in self.errors and text != "update failed":
                self.errors.append(error)


def named(urn: str) -> str:
    """A resource as people call it: its type's last part and its name."""
    _, _, kind, name = urn.split("::", 3)
    return f"{kind.rpartition(':')[2]} {name}"


class Follower:
    """Reads an event log while it is written, in a thread of its own; `changed` is called after each look."""

    def __init__(self, log: Path, changed: Callable[[Engine], None]) -> None:
        self.engine = Engine()
        self._log, self._changed = log, changed
        self._position = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._read()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._read()
            self._changed(self.engine)

    def _read(self) -> None:
        try:
            with self._log.open("rb") as log:
                log.seek(self._position)
                new = log.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be half written
        self._position += len(whole)
        for line in whole.splitlines():
            self.engine.take(json.loads(line))


def run(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, title: str, log: Path, lock: int
) -> tuple[int, Engine]:
    """Run a command of the CLI with its progress shown; its exit code, and what its engine did.

    All that it prints goes to `log`. Raises KeyboardInterrupt.
    """
    events = log.with_suffix(".events")  # secrets are masked in it
    for former in (events, log):
        former.unlink(missing_ok=True)
    argv = [*argv, "--event-log", str(events)]
    env = {**env, "PULUMI_DEBUG_COMMANDS": "true"}  # else there is no such option
    try:
        with Progress(title) as progress:
            follower = Follower(events, lambda engine: progress.detail(f"{engine.finished}  {engine.now}"))
            with follower:
                code = pulumi_process.watched(argv, env, cwd, quiet=log, lock=lock)
            progress.result(follower.engine.summary(), failed=code != 0)
    finally:
        events.unlink(missing_ok=True)
    return code, follower.engine
