"""The distribution of latencies as an SVG: what share of calls took at most so long."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 860, 420, 70, 48, 62, 250
_COLOURS = ("#444444", "#1f77b4", "#2ca02c", "#d62728", "#9467bd")
#: calls beyond this share aren't drawn: the slowest few would take half of the axis
_SHOWN = 0.99

Scale = Callable[[float], float]


def write_plot(path: Path, title: str, runs: dict[str, list[float]]) -> None:
    """Write cumulative distributions of seconds, on a logarithmic axis in milliseconds."""
    drawn = {name: sorted(max(s * 1000, 1e-3) for s in run) for name, run in runs.items()}
    ticks = _ticks(min(run[0] for run in drawn.values()), max(_at(run, _SHOWN) for run in drawn.values()))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])

    def x(milliseconds: float) -> float:
        return LEFT + (math.log10(milliseconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [*_frame(title, ticks, x, y)]
    for index, (name, run) in enumerate(drawn.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        shown = [(ms, (n + 1) / len(run)) for n, ms in enumerate(run) if (n + 1) / len(run) <= _SHOWN]
        points = " ".join(f"{x(ms):.1f},{y(share):.1f}" for ms, share in shown)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = TOP + 12 + 44 * index
        parts.append(_text(WIDTH - RIGHT + 16, at, name, colour=colour, size=13))
        told = f"median {_at(run, 0.5):.2f} ms, 95% {_at(run, 0.95):.2f} ms"
        parts.append(_text(WIDTH - RIGHT + 16, at + 17, told, size=12))
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _ticks(lowest: float, highest: float) -> list[float]:
    """1, 2, 5, 10 ... around all values."""
    steps = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
    first = max(n for n, step in enumerate(steps) if step <= lowest)
    last = min(n for n, step in enumerate(steps) if step >= highest and n > first)
    return steps[first : last + 1]


def _frame(title: str, ticks: list[float], x: Scale, y: Scale) -> Iterator[str]:
    yield _text(LEFT, 26, title, size=16)
    for tick in ticks:
        at = x(tick)
        yield f'<line x1="{at:.1f}" y1="{y(0):.1f}" x2="{at:.1f}" y2="{y(1):.1f}" stroke="#dddddd"/>'
        yield _text(at, HEIGHT - BOTTOM + 18, f"{tick:g}", size=12, anchor="middle")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = y(share)
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{x(ticks[-1]):.1f}" y2="{at:.1f}" stroke="#dddddd"/>'
        yield _text(LEFT - 8, at + 4, f"{share:.0%}", size=12, anchor="end")
    told = f"milliseconds (logarithmic); share of calls that took at most so long, up to {_SHOWN:.0%}"
    yield _text(LEFT, HEIGHT - 16, told, size=12)


def _text(
    x: float, y: float, words: str, *, size: int, colour: str = "#222222", anchor: str = "start"
) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} font-size="{size}" fill="{colour}">{escape(words)}</text>'
