"""Loads of Pulumi's generated SDKs only what a program uses.

`pulumi_gcp.compute` alone defines some ten thousand classes and takes 2.5 s and 200 MB to import, whatever
is used of it; a preview without changes would spend most of its time there. The generated packages have a
fixed form, which makes it easy to do better: a package's `__init__` star-imports one module a resource, and
`_inputs` and `outputs` are long lists of independent classes. So here a package imports the module of a
resource when its name is first asked for, and those two modules make a class when it is.

Nothing else changes: names, types and behaviour are the SDK's own. Where a file doesn't have the expected
form, it is imported in the ordinary way.

And it keeps the SDK's debug messages here: it tells the engine of each property that it translates, in a
blocking call each, thousands for one of our stacks and half of the program's time. The engine drops them
unless it runs with --debug; then set SDK_DEBUG=1 too.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pulumi

_ROOTS = ("pulumi_gcp", "pulumi_digitalocean")
_STAR_IMPORT = re.compile(r"^from \.(\w+) import \*\n", re.MULTILINE)
# It begins with fixed text, so a search in megabytes takes milliseconds.
_CLASS = re.compile(rb"\nclass (\w+)")
_ALL = re.compile(rb"^__all__ = \[.*?^\]\n", re.MULTILINE | re.DOTALL)
_INPUT_NAME = re.compile(rb"'(\w+Args)'")


class LazyPackage(SourceFileLoader):
    """An SDK package that imports its modules when their names are asked for."""

    def get_code(self, fullname: str) -> CodeType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = Path(self.path).read_text(encoding="utf-8")
        modules = _STAR_IMPORT.findall(source)
        exec(compile(_STAR_IMPORT.sub("", source), self.path, "exec"), module.__dict__)  # noqa: S102

        def find(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            for part in _likely_modules(name, modules):
                found = vars_of(importlib.import_module(f"{module.__name__}.{part}"), name)
                if found is not None:
                    module.__dict__[name] = found
                    return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find


class LazyClasses(SourceFileLoader):
    """An SDK's `_inputs` or `outputs`: each class is made, with those that it names, when it is asked for."""

    def get_code(self, fullname: str) -> CodeType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = Path(self.path).read_bytes()  # megabytes: only what is used of it is decoded
        breaks = {found[1].decode(): found.start() for found in _CLASS.finditer(source)}
        first = min(breaks.values(), default=-1)
        head = _ALL.sub(b"", source[: _class_start(source, first)], count=1)
        exec(compile(head, self.path, "exec"), module.__dict__)  # noqa: S102

        def make(name: str) -> Any:
            if name not in breaks:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            wanted = [name]
            while wanted:
                current = wanted.pop()
                if current in module.__dict__ or current not in breaks:
                    continue
                text = _class_text(source, breaks[current])
                exec(compile(text, self.path, "exec"), module.__dict__)  # noqa: S102
                wanted += [found.decode() for found in _INPUT_NAME.findall(text)]
            return module.__dict__[name]

        module.__dict__["__getattr__"] = make


def _class_text(source: bytes, line_break: int) -> bytes:
    """The class that follows this line break, with its decorator."""
    following = source.find(b"\nclass ", line_break + 1)
    return source[_class_start(source, line_break) : _class_start(source, following)]


def _class_start(source: bytes, line_break: int) -> int:
    """Where the class that follows this line break begins, with its decorator; the file's end for -1."""
    if line_break < 0:
        return len(source)
    above = source.rfind(b"\n", 0, line_break) + 1
    return above if source.startswith(b"@pulumi.", above) else line_break + 1


class ResourceModule(SourceFileLoader):
    """A resource's module. Its annotations name input classes in quotes, which are read as its globals."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        inputs = sys.modules.get(f"{module.__name__.rpartition('.')[0]}._inputs")
        if inputs is None:
            return
        for name in {found.decode() for found in _INPUT_NAME.findall(Path(self.path).read_bytes())}:
            found = vars_of(inputs, name)
            if found is not None:
                module.__dict__.setdefault(name, found)


class LazySdk(MetaPathFinder):
    """Finds the SDKs' modules, and gives them the loaders above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, rest = fullname.partition(".")
        if root not in _ROOTS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return spec
        loader = _loader(spec, rest)
        if loader is not None:
            spec.loader = loader
        return spec


def _loader(spec: ModuleSpec, rest: str) -> Loader | None:
    """The loader for a module of an SDK; None for the ordinary one."""
    assert spec.origin is not None
    name = rest.rpartition(".")[2]
    if spec.submodule_search_locations is not None:
        # The root of pulumi_gcp is small, and imports its packages lazily by itself.
        return None if rest == "" and spec.name == "pulumi_gcp" else LazyPackage(spec.name, spec.origin)
    if name in ("_inputs", "outputs"):
        return LazyClasses(spec.name, spec.origin)
    if name.startswith("_") or (rest == name and spec.name.startswith("pulumi_gcp.")):
        return None
    return ResourceModule(spec.name, spec.origin)


def _keep(*_: object, **__: object) -> None:
    """Takes a debug message and tells nobody."""


def vars_of(module: ModuleType, name: str) -> Any:
    """A module's own attribute, or None."""
    return getattr(module, name, None) if name in vars(module) or _is_lazy(module) else None


def _is_lazy(module: ModuleType) -> bool:
    return isinstance(module.__loader__, LazyClasses)


def _likely_modules(name: str, modules: list[str]) -> list[str]:
    """Where a name may be defined, the likeliest first: its own module, the inputs, then all the others."""
    base = re.sub(r"Args(Dict)?$", "", name)
    own = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", base).lower()
    first = [part for part in (own, "_inputs", "_enums") if part in modules]
    return first + [part for part in modules if part not in first]


def install() -> None:
    """Makes the SDKs load lazily from now on. Harmless when called again, or after one was imported."""
    if not os.environ.get("SDK_DEBUG"):
        pulumi.log.debug = _keep
    if not any(isinstance(finder, LazySdk) for finder in sys.meta_path):
        sys.meta_path.insert(0, LazySdk())
