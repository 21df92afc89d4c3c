"""Reads systemd unit files, as far as units of ours go: sections, lists, quoting, variables, times.

Rules: systemd.syntax(7), systemd.unit(5), systemd.service(5), systemd.time(7), systemd.exec(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_UNITS_OF_TIME = {
    "us": 1e-6,
    "ms": 1e-3,
    "": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\.|[^\s"'\\])+""")
_WHOLE_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\$")
_SPECIFIER = re.compile("%([%inp])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "s": " "}
_DIRECTORIES = {
    "RuntimeDirectory": "/run",
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
    "ConfigurationDirectory": "/etc",
}


class UnitError(ValueError):
    """A unit file can't be read; the message names the line or the value."""


@dataclass(frozen=True)
class Command:
    """One Exec line: its words, and whether its failure counts (`-` in front says no)."""

    words: tuple[str, ...]
    failure_counts: bool = True

    def expand(self, environment: Mapping[str, str]) -> list[str]:
        """The arguments with variables replaced: `$WORD` alone is split at blanks, `${PART}` is not."""
        arguments: list[str] = []
        for word in self.words:
            whole = _WHOLE_VARIABLE.fullmatch(word)
            if whole:
                arguments.extend(environment.get(whole.group(1), "").split())
                continue
            arguments.append(
                _VARIABLE.sub(
                    lambda match: environment.get(match.group(1), "") if match.group(1) else "$", word
                )
            )
        return arguments


@dataclass(frozen=True)
class UnitFile:
    """A unit as its file describes it: every assignment in order, by section and key."""

    name: str
    sections: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def all(self, section: str, key: str) -> list[str]:
        """Every value of a key; an empty assignment forgets the ones before it."""
        values: list[str] = []
        for value in self.sections.get(section, {}).get(key, ()):
            values = [*values, value] if value else []
        return values

    def one(self, section: str, key: str, default: str = "") -> str:
        """The last value of a key."""
        values = self.all(section, key)
        return values[-1] if values else default

    def words(self, section: str, key: str) -> list[str]:
        """A key that lists names: After=, Requires=, WantedBy= ..."""
        return [word for value in self.all(section, key) for word in value.split()]

    def seconds(self, section: str, key: str, default: float) -> float:
        """A key that is a time span, in seconds; `infinity` is math.inf. Raises UnitError."""
        value = self.one(section, key)
        return seconds(value) if value else default

    def commands(self, key: str) -> list[Command]:
        """The Exec lines of a key, in order. Raises UnitError."""
        return [command_line(value) for value in self.all("Service", key)]

    def environment(self) -> dict[str, str]:
        """Environment= as it stands. Raises UnitError."""
        pairs = [word for value in self.all("Service", "Environment") for word in split_words(value)]
        return dict(_assignment(pair) for pair in pairs)

    def directories(self) -> list[tuple[str, int]]:
        """RuntimeDirectory= and its kin: absolute paths of the machine with their modes."""
        return [
            (f"{base}/{name}", int(self.one("Service", key + "Mode", "0755"), 8))
            for key, base in _DIRECTORIES.items()
            for name in self.words("Service", key)
        ]


def parse(name: str, text: str) -> UnitFile:
    """Reads a unit file. Raises UnitError."""
    sections: dict[str, dict[str, tuple[str, ...]]] = {}
    current: dict[str, tuple[str, ...]] | None = None
    for number, line in _logical_lines(text):
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], {})
            continue
        key, equals, value = line.partition("=")
        if not equals or current is None:
            raise UnitError(f"{name}:{number}: neither a section nor an assignment: {line[:60]}")
        key = key.strip()
        current[key] = (*current.get(key, ()), _specified(value.strip(), name))
    return UnitFile(name, sections)


def _specified(value: str, unit: str) -> str:
    """A value with what stands for parts of the unit's name: %n, %p before the @, %i after it; %% is %."""
    prefix, _, instance = unit.rpartition(".")[0].partition("@")
    meanings = {"%": "%", "n": unit, "p": prefix, "i": instance}
    return _SPECIFIER.sub(lambda match: meanings[match.group(1)], value)


def parse_environment_file(text: str) -> dict[str, str]:
    """The variables of an EnvironmentFile: NAME=value or NAME="value" lines, # and ; comments."""
    found = {}
    for _, line in _logical_lines(text):
        name, equals, value = line.partition("=")
        if equals:
            value = value.strip()
            words = _WORD.fullmatch(value)
            quoted = words and value[:1] in "\"'"
            found[name.strip()] = _unquoted(value) if quoted else value
    return found


def command_line(text: str) -> Command:
    """Reads an Exec line. `@`, `+`, `!` and `:` in front change nothing that is shown here."""
    stripped = text.lstrip("-+!:@")
    prefix = text[: len(text) - len(stripped)]
    words = split_words(stripped)
    if not words:
        raise UnitError("an Exec line names no program")
    if "@" in prefix:
        words = [words[0], *words[2:]]
    return Command(tuple(words), "-" not in prefix)


def split_words(text: str) -> list[str]:
    """Splits at blanks, with systemd's quotes and escapes. Raises UnitError for a quote left open."""
    words = []
    rest = text
    while rest := rest.lstrip():
        match = _WORD.match(rest)
        if not match:
            raise UnitError(f"a quote isn't closed in: {text[:60]}")
        words.append(_unquoted(match.group(0)))
        rest = rest[match.end() :]
        if rest and not rest[0].isspace():
            raise UnitError(f"a quote isn't closed in: {text[:60]}")
    return words


def seconds(text: str) -> float:
    """A time span ("90", "5min 20s", "infinity") in seconds. Raises UnitError."""
    if text.strip() == "infinity":
        return float("inf")
    total, position = 0.0, 0
    while position < len(text.rstrip()):
        match = _TIME.match(text, position)
        if not match or match.group(2) not in _UNITS_OF_TIME:
            raise UnitError(f"{text!r} isn't a time span")
        total += float(match.group(1)) * _UNITS_OF_TIME[match.group(2)]
        position = match.end()
    return total


def _assignment(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise UnitError(f"Environment={pair[:40]} isn't NAME=value")
    return name, value


def _unquoted(word: str) -> str:
    out, quote, position = [], "", 0
    while position < len(word):
        character = word[position]
        if character == "\\" and position + 1 < len(word):
            position += 1
            out.append(_ESCAPES.get(word[position], word[position]))
        elif character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        else:
            out.append(character)
        position += 1
    return "".join(out)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines without comments and blanks, continued ones joined, with the number of their first."""
    lines: list[tuple[int, str]] = []
    pending = ""
    start = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line and not pending:
            continue
        if line.startswith(("#", ";")):
            continue
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        lines.append((start, pending + line))
        pending = ""
    if pending:
        lines.append((start, pending.rstrip()))
    return lines
