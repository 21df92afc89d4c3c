"""The gateway VM's probe, loaded from its cloud-init file: which metrics it publishes."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from types import ModuleType, SimpleNamespace

from tests.stacks.plan import ROOT

FOLDER = ROOT / "cloud-init/files/gateway"


def program(name: str) -> ModuleType:
    """One of the machine's programs, as a module; it finds the others beside itself."""
    sys.path.insert(0, str(FOLDER))
    try:
        file = next(found for found in (FOLDER / name, FOLDER / f"{name}.py") if found.is_file())
        loader = importlib.machinery.SourceFileLoader(f"gateway_{name}", str(file))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def published() -> set[str]:
    """The names of its metrics, as PromQL has them with `_` for every separator."""
    health = program("health")
    log = SimpleNamespace(phase="", since=0.0, session_taken_at=None)
    points = health.points_of(0.0, log, SimpleNamespace(answered=True, handshake=True), [], True)
    return {re.sub(r"[./]", "_", health.METRIC + name) for name in points}
