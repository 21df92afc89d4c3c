"""What the comments at a class's fields say, for documents that are made from the code.

class Position:
    #: a fraction of the cost, so 0.05 is five per cent
    unrealized_plpc: float
    port: int | None = None  # default: the port of the trading mode
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize


def field_comments(model: type) -> dict[str, str]:
    """By the field's name: the comment lines right above it, or the comment behind it. Bases' too."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # a built-in class
            continue
        found |= _in_source(source)
    return found


def _in_source(source: str) -> dict[str, str]:
    above: dict[int, str] = {}
    behind: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line[: token.start[1]].strip() == ""
            (above if alone else behind)[token.start[0]] = token.string.lstrip("#:").strip()
    [top] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    found = {}
    for field in top.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            lines: list[str] = []
            line = field.lineno - 1
            while line in above:
                lines.insert(0, above[line])
                line -= 1
            text = " ".join(lines) or behind.get(field.end_lineno or field.lineno, "")
            if text and not text.startswith(("noqa", "type:")):
                found[field.target.id] = text
    return found
