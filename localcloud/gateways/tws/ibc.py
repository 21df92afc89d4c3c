"""IBC's config.ini: Java properties, as IBC reads them, and the settings in it that the paper gateway knows.

Source: java.util.Properties.load(InputStream): ISO-8859-1, `#` and `!` comments, `=`, `:` or white space
between key and value, a backslash at a line's end continues it, `\\t \\n \\r \\f \\uXXXX`, and a backslash
before any other character is dropped. So an unescaped backslash in a password is lost, and a UTF-8 umlaut
arrives as two letters: then the login fails, as in life.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
DEFAULT_PORTS = {"live": 4001, "paper": 4002}
TRUE_WORDS = frozenset({"yes", "true"})


def parse_properties(text: str) -> dict[str, str]:
    """Keys and values of a Java properties text. Raises ValueError for a malformed \\uXXXX."""
    found: dict[str, str] = {}
    for line in _logical_lines(text):
        key, value = _split(line)
        found[_unescape(key)] = _unescape(value)
    return found


def _logical_lines(text: str) -> list[str]:
    lines: list[str] = []
    continued = ""
    for natural in re.split(r"\r\n|\r|\n", text):
        line = natural.lstrip(" \t\f")
        if not continued and (not line or line[0] in "#!"):
            continue
        line = continued + line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            continued = line[:-1]
            continue
        continued = ""
        lines.append(line)
    if continued:
        lines.append(continued)
    return lines


def _split(line: str) -> tuple[str, str]:
    """Key and value, still escaped: the key ends at the first unescaped separator."""
    end = 0
    while end < len(line) and line[end] not in "=: \t\f":
        end += 2 if line[end] == "\\" else 1
    rest = line[end:].lstrip(" \t\f")
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(" \t\f")
    return line[:end], rest


def _unescape(text: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character != "\\" or position == len(text):
            out.append(character if character != "\\" else "")
            continue
        escaped = text[position]
        position += 1
        if escaped == "u":
            digits = text[position : position + 4]
            if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
                raise ValueError("Malformed \\uxxxx encoding.")
            out.append(chr(int(digits, 16)))
            position += 4
        else:
            out.append(ESCAPES.get(escaped, escaped))
    return "".join(out)


@dataclass(frozen=True)
class IbcSettings:
    """What the paper gateway takes from config.ini. The password is never shown."""

    username: str
    password: str
    mode: str
    read_only: bool
    port: int

    def __repr__(self) -> str:
        return f"IbcSettings(username={self.username!r}, mode={self.mode!r}, port={self.port})"


def read_settings(path: Path, mode: str | None = None) -> IbcSettings:
    """Reads config.ini; `mode` (ibcstart.sh --mode) wins over TradingMode. Raises OSError and ValueError."""
    values = parse_properties(path.read_text("iso-8859-1"))
    chosen = mode or values.get("TradingMode", "").strip().lower() or "live"
    if chosen not in DEFAULT_PORTS:
        raise ValueError(f"TradingMode is live or paper, not {chosen!r}")
    port = values.get("OverrideTwsApiPort", "").strip()
    if port and not port.isdigit():
        raise ValueError(f"OverrideTwsApiPort is a port number, not {port!r}")
    return IbcSettings(
        username=values.get("IbLoginId", ""),
        password=values.get("IbPassword", ""),
        mode=chosen,
        read_only=values.get("ReadOnlyApi", "").strip().lower() in TRUE_WORDS,
        port=int(port) if port else DEFAULT_PORTS[chosen],
    )
