"""The distribution of latencies as an SVG: what share of calls took at most so long."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 760, 360, 60, 40, 50, 230
_COLOURS = ("#555555", "#1f77b4", "#2ca02c", "#d62728", "#9467bd")


def write_plot(path: Path, title: str, runs: dict[str, list[float]]) -> None:
    """Write cumulative distributions of seconds, on a logarithmic axis in milliseconds."""
    values = [max(seconds * 1000, 1e-3) for run in runs.values() for seconds in run]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x(milliseconds: float) -> float:
        share = (math.log10(max(milliseconds, 1e-3)) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [*_frame(title, range(low, high + 1), x, y)]
    for index, (name, run) in enumerate(runs.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        ordered = sorted(seconds * 1000 for seconds in run)
        points = " ".join(f"{x(v):.1f},{y((n + 1) / len(ordered)):.1f}" for n, v in enumerate(ordered))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f"{name}, median {ordered[len(ordered) // 2]:.2f} ms"
        parts.append(_text(WIDTH - RIGHT + 8, TOP + 14 + 18 * index, label, colour=colour, size=11))
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _frame(title: str, decades: Iterable[int], x: object, y: object) -> Iterable[str]:
    assert callable(x)
    assert callable(y)
    yield _text(LEFT, 24, title, size=15)
    for decade in decades:
        at = x(10.0**decade)
        yield f'<line x1="{at:.1f}" y1="{y(0):.1f}" x2="{at:.1f}" y2="{y(1):.1f}" stroke="#dddddd"/>'
        yield _text(at - 10, HEIGHT - BOTTOM + 18, f"{10.0**decade:g}", size=11)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = y(share)
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#dddddd"/>'
        yield _text(18, y(share) + 4, f"{share:.0%}", size=11)
    yield _text(
        LEFT, HEIGHT - 14, "milliseconds, logarithmic; share of calls that took at most so long", size=11
    )


def _text(x: float, y: float, words: str, *, size: int, colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escape(words)}</text>'
