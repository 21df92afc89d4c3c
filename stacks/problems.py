"""Everything that is wrong with a stack's configuration, said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pulumi


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong key: its full path, the value as a person may see it, and what to do.

    `because` names other keys whose values led to it: if one of those is wrong itself, this problem is
    left out, since it may go away with that one.
    """

    key: str
    value: str
    remedy: str
    because: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        return f"{self.key}{shown}: {self.remedy}"


class SettingsError(pulumi.RunError):
    """The configuration can't be used. Correct the keys that the message names and run again.

    Raised before anything is registered with the engine, so nothing has been changed. Pulumi prints a
    RunError as it stands, without a traceback.
    """

    def __init__(self, stack: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"The configuration of stack '{stack}' has {count}; nothing was changed.\n{lines}")


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a sentence, with its semicolon: the nearest known names, or the few there are."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    if 0 < len(names) <= 12:
        return "; known are " + ", ".join(f"'{name}'" for name in names)
    return ""


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
