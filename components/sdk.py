"""Loads of Pulumi's generated SDKs only what a program uses.

`pulumi_gcp.compute` alone defines some ten thousand classes and takes 2.5 s and 200 MB to import, whatever
is used of it; a preview without changes would spend most of its time there. The generated packages have a
fixed form, which makes it easy to do better: a package's `__init__` star-imports one module a resource, and
`_inputs` and `outputs` are long lists of independent classes. So here a package imports the module of a
resource when its name is first asked for, and those two modules make a class when it is. What was compiled
so is kept for the next run in one file beside this module's bytecode, as Python keeps whole modules.

Nothing else changes: names, types and behaviour are the SDK's own. Where a file doesn't have the expected
form, it is imported in the ordinary way.

And it keeps the SDK's debug messages here: it tells the engine of each property that it translates, in a
blocking call each, thousands for one of our stacks and half of the program's time. The engine drops them
unless it runs with --debug; then set SDK_DEBUG=1 too.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import marshal
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
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


class Notes:
    """What earlier runs found out about the SDKs' sources: names, and compiled code.

    As with Python's own bytecode, a source with another time or size is read anew, and so is everything for
    another interpreter or another version of this module. A missing or damaged file only costs time.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, dict[str, Any]] = {}
        self._changed = False
        try:
            version, kept = marshal.loads(file.read_bytes())  # noqa: S302 - as trusted as bytecode
            self._kept = kept if version == _version() else {}
        except (OSError, ValueError, EOFError, TypeError):
            pass

    def recall(self, path: str) -> Callable[[str, Callable[[], Any]], Any]:
        """A function that gives what is noted of a source under a key, or finds it out and notes it."""
        stamp = _stamp(path)
        notes = self._kept.get(path, {})
        if notes.get("") != stamp:
            notes = self._kept[path] = {"": stamp}

        def recalled(key: str, find: Callable[[], Any]) -> Any:
            if key not in notes:
                notes[key] = find()
                self._changed = True
            return notes[key]

        return recalled

    def save(self) -> None:
        """Keeps what is new for the next run, where the interpreter keeps bytecode at all."""
        if not self._changed or sys.dont_write_bytecode:
            return
        draft = self._file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
            draft.write_bytes(marshal.dumps((_version(), self._kept)))
            draft.replace(self._file)


def _version() -> list[Any]:
    return [importlib.util.MAGIC_NUMBER, *_stamp(__file__)]


def _stamp(path: str) -> list[int]:
    status = Path(path).stat()
    return [status.st_mtime_ns, status.st_size]


_NOTES = Notes(Path(importlib.util.cache_from_source(__file__)).with_suffix(".notes"))


class LazyPackage(SourceFileLoader):
    """An SDK package that imports its modules when their names are asked for."""

    def get_code(self, fullname: str) -> CodeType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        modules, code = _NOTES.recall(self.path)("package", self._parts)
        exec(code, module.__dict__)  # noqa: S102

        def find(name: str) -> Any:
            if name.startswith("_"):  # a star-import brings none, and test tools ask for some
                raise AttributeError(name)
            for part in _likely_modules(name, modules):
                imported = importlib.import_module(f"{module.__name__}.{part}")
                # Python has just set the module as an attribute; a function of its name goes before.
                module.__dict__[part] = vars(imported).get(part, imported)
                found = vars_of(imported, name)
                if found is not None:
                    module.__dict__[name] = found
                    return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find

    def _parts(self) -> tuple[list[str], CodeType]:
        """The modules that the package star-imports, and the code of all the rest."""
        source = Path(self.path).read_text(encoding="utf-8")
        rest = compile(_STAR_IMPORT.sub("", source), self.path, "exec")
        return _STAR_IMPORT.findall(source), rest


class LazyClasses(SourceFileLoader):
    """An SDK's `_inputs` or `outputs`: each class is made, with those that it names, when it is asked for."""

    def get_code(self, fullname: str) -> CodeType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        recall, classes = _NOTES.recall(self.path), Classes(self.path)
        exec(recall("head", classes.head), module.__dict__)  # noqa: S102

        def make(name: str) -> Any:
            wanted = [name]
            while wanted:
                current = wanted.pop()
                if current not in module.__dict__:
                    code, needed = recall(f"class {current}", partial(classes.compiled, current))
                    if code is not None:
                        exec(code, module.__dict__)  # noqa: S102
                    wanted += needed
            if name not in module.__dict__:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return module.__dict__[name]

        module.__dict__["__getattr__"] = make


class Classes:
    """The source of an SDK's `_inputs` or `outputs`. It has megabytes, so it is read only if need be."""

    def __init__(self, path: str) -> None:
        self._path = path

    @cached_property
    def _source(self) -> bytes:
        return Path(self._path).read_bytes()

    @cached_property
    def _breaks(self) -> dict[str, int]:
        return {found[1].decode(): found.start() for found in _CLASS.finditer(self._source)}

    def head(self) -> CodeType:
        """What comes before the first class, without the list of all names."""
        first = min(self._breaks.values(), default=-1)
        text = _ALL.sub(b"", self._source[: _class_start(self._source, first)], count=1)
        return compile(text, self._path, "exec")

    def compiled(self, name: str) -> tuple[CodeType | None, list[str]]:
        """A class's code with its decorator, and the classes that it names; no code for an unknown one."""
        start = self._breaks.get(name)
        if start is None:
            return None, []
        following = self._source.find(b"\nclass ", start + 1)
        text = self._source[_class_start(self._source, start) : _class_start(self._source, following)]
        return compile(text, self._path, "exec"), [found.decode() for found in _INPUT_NAME.findall(text)]


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
        for name in _NOTES.recall(self.path)("inputs", self._input_names):
            found = vars_of(inputs, name)
            if found is not None:
                module.__dict__.setdefault(name, found)

    def _input_names(self) -> list[str]:
        """The input classes that the module names in quotes."""
        return sorted({found.decode() for found in _INPUT_NAME.findall(Path(self.path).read_bytes())})


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
    base = re.sub(r"(Args(Dict)?|_output)$", "", name)
    own = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", base).lower()
    first = [part for part in (own, "_inputs", "_enums") if part in modules]
    return first + [part for part in modules if part not in first]


def install() -> None:
    """Makes the SDKs load lazily from now on. Harmless when called again, or after one was imported."""
    if not os.environ.get("SDK_DEBUG"):
        pulumi.log.debug = _keep
    if not any(isinstance(finder, LazySdk) for finder in sys.meta_path):
        sys.meta_path.insert(0, LazySdk())
        atexit.register(_NOTES.save)
