"""Plots as SVG text: no library, no script, colours by class so that the page's style has the last word.

A plot is 400 units wide, which is about what a phone shows, so its letters are never smaller than they look here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from zhiyin.evaluation.look import look

WIDTH = 400.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 10.0, 24.0, 36.0

Point = Sequence[float | None]
"""x, y, and where there is an interval its low and high end."""

Figure = Sequence[float | None]
"""A mean and the ends of its interval; None where there is none."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values low … high onto the plot's start … stop."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1) * (self.stop - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside: at most one more than `most`, and on a logarithmic axis twice as many."""
        if self.log:
            steps = [m * 10**e for e in range(-3, 7) for m in (1, 2, 5)]
            inside = [s for s in steps if self.low <= s <= self.high]
            if len(inside) > 2:
                return inside if len(inside) <= 2 * most else [s for s in inside if str(s).lstrip("0.").startswith("1")]
        step = nice((self.high - self.low) / (most + 1) * (1 + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [at * step for at in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice(step: float) -> float:
    """The next of 1, 2, 5, 10, … × a power of ten."""
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def number(value: float | None) -> str:
    """As everywhere on the page: four digits of what is small, thousands with commas."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) >= 1:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}"


def interval(figure: Figure) -> str:
    mean, low, high = figure
    return number(mean) + ("" if low is None else f" [{number(low)}, {number(high)}]")


def curves(
    series: Mapping[str, Sequence[Point]],
    *,
    x: str,
    y: str,
    log: bool = False,
    classes: Sequence[str] = (),
    from_zero: bool = True,
    marks: bool = False,
    start: float | None = None,
    chosen: Point | None = None,
    told: str = "",
) -> str:
    """A line for each series, with a band where its points have intervals. `start`: where the x axis begins, if not at
    the first point; `chosen`: a point to be ringed, with `told`, or its y, written beside it."""
    points = [p for line in series.values() for p in line]
    if not points:
        return ""
    tops = [v for p in points for v in p[1:] if v is not None]
    low = 0.0 if from_zero else min(tops)
    xs = [_real(p[0]) for p in points] + ([] if start is None else [start])
    across, up = _frame(xs, low, max(tops), log)
    parts = [_grid(across, up, x, y)]
    for at, (name, line) in enumerate(series.items()):
        parts.append(_curve(name, line, across, up, classes[at] if classes else look(at), x, marks))
    if chosen is not None:
        parts.append(_ring(across.at(_real(chosen[0])), up.at(_real(chosen[1])), told or number(chosen[1])))
    return _svg(260, parts, f"{y} by {x}")


def _ring(x: float, y: float, told: str) -> str:
    """A ring with its words above it, where no line is if it is among the highest; else to the right and below."""
    if y < TOP + 40:
        place = f'x="{min(max(x, LEFT + 36), WIDTH - 36):.1f}" y="{y - 11:.1f}" text-anchor="middle"'
    else:
        place = (
            f'x="{x + 9:.1f}" y="{y + 15:.1f}"' if x < WIDTH / 2 else f'x="{x:.1f}" y="{y + 22:.1f}" text-anchor="end"'
        )
    return f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="6"/><text class="label" {place}>{escape(told)}</text>'


def _frame(xs: Sequence[float], low: float, high: float, log: bool) -> tuple[Axis, Axis]:
    room = (high - low) * 0.06 or 0.01
    up = Axis(low if low == 0 else low - room, high + room, 260 - BOTTOM, TOP)
    return Axis(min(xs), max(xs), LEFT + 4, WIDTH - RIGHT, log), up


def _curve(name: str, line: Sequence[Point], across: Axis, up: Axis, classes: str, x: str, marks: bool) -> str:
    path = " ".join(f"{across.at(_real(p[0])):.1f},{up.at(_real(p[1])):.1f}" for p in line)
    parts = []
    if all(len(p) == 4 and p[2] is not None for p in line):
        ends = [f"{across.at(_real(p[0])):.1f},{up.at(_real(p[3])):.1f}" for p in line]
        ends += [f"{across.at(_real(p[0])):.1f},{up.at(_real(p[2])):.1f}" for p in reversed(line)]
        parts.append(f'<polygon class="band {classes}" points="{" ".join(ends)}"/>')
    parts.append(f'<polyline class="line {classes}" points="{path}"/>')
    for p in line:
        told = f"{name}, {x} {number(p[0])}: " + (interval(p[1:]) if len(p) == 4 else number(p[1]))
        radius = 2.6 if marks or len(line) < 30 else 4
        kind = "dot" if marks or len(line) < 30 else "hidden"
        parts.append(
            f'<circle class="{kind} {classes}" cx="{across.at(_real(p[0])):.1f}" cy="{up.at(_real(p[1])):.1f}" '
            f'r="{radius}"><title>{escape(told)}</title></circle>'
        )
    return "".join(parts)


def dots(rows: Sequence[tuple[str, str, Mapping[str, Figure]]], names: Sequence[str], *, x: str) -> str:
    """A row for each (label, note, figure by series): dots with their intervals, one series under the other."""
    label, spread = 132.0, 5.0
    ends = [v for _, _, figures in rows for figure in figures.values() for v in figure if v is not None]
    if not ends:
        return ""
    across = Axis(0.0, max(ends) * 1.04 or 1.0, label, WIDTH - RIGHT)
    height, parts, y = BOTTOM + 4.0, [], 0.0
    sizes = [max(24.0, spread * len(figures) + 12) for _, _, figures in rows]
    height += sum(sizes)
    for tick in across.ticks(4):
        at = across.at(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - BOTTOM:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{height - BOTTOM + 14:.1f}" text-anchor="middle">{tick:g}</text>'
        )
    for (name, note, figures), size in zip(rows, sizes, strict=True):
        middle = y + size / 2
        label_text = f"{escape(short(name, 21))}<title>{escape(name)}</title>"
        parts.append(f'<text class="label" x="0" y="{middle - 1:.1f}">{label_text}</text>')
        parts.append(f'<text class="note" x="0" y="{middle + 10:.1f}">{escape(note)}</text>')
        parts.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y + size:.1f}" y2="{y + size:.1f}"/>')
        for at, (scorer, figure) in enumerate(figures.items()):
            line = middle + (at - (len(figures) - 1) / 2) * spread
            parts.append(_dot(f"{name} · {scorer}", figure, across, line, look(names.index(scorer))))
        y += size
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{height - 4:.1f}" text-anchor="end">{escape(x)}</text>')
    return _svg(height, parts, x)


def _dot(name: str, figure: Figure, across: Axis, y: float, classes: str) -> str:
    mean, low, high = figure
    if mean is None:
        return ""
    whisker = ""
    if low is not None and high is not None:
        ends = f'x1="{across.at(low):.1f}" x2="{across.at(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        whisker = f'<line class="whisker {classes}" {ends}/>'
    told = escape(f"{name}: {interval(figure)}")
    dot = f'<circle class="dot {classes}" cx="{across.at(mean):.1f}" cy="{y:.1f}" r="3"/>'
    return f"<g>{whisker}{dot}<title>{told}</title></g>"


def columns(
    bars: Sequence[float], lines: Mapping[str, Sequence[float]], labels: Sequence[str], *, x: str, y: str
) -> str:
    """Bars of one quantity, and a stepless line for each series over them, at the same places."""
    across = Axis(-0.5, len(bars) - 0.5, LEFT, WIDTH - RIGHT)
    up = Axis(0, max([*bars, *(v for line in lines.values() for v in line)]) * 1.06 or 1, 260 - BOTTOM, TOP)
    wide = (across.at(1) - across.at(0)) * 0.72
    parts = [_grid(across, up, x, y, labels)]
    for at, value in enumerate(bars):
        top, told = up.at(value), f"what users chose, {escape(labels[at])}: {number(value)}"
        parts.append(
            f'<rect class="bar" x="{across.at(at) - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" '
            f'height="{up.start - top:.1f}"><title>{told}</title></rect>'
        )
    for at, (name, line) in enumerate(lines.items()):
        pairs = [(float(place), value) for place, value in enumerate(line)]
        parts.append(_curve(name, pairs, across, up, look(at), "group", True))
    return _svg(260, parts, f"{y} by {x}")


def scatter(points: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Points (x, y, class number) and what they are, square, without axes: only who is near whom means anything."""
    size = 380.0
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    across, up = Axis(min(xs), max(xs), 14, WIDTH - 14), Axis(min(ys), max(ys), size - 14, 14)
    parts = [
        f'<circle class="speck c{int(c)}" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="2.2">'
        f"<title>{escape(name)}</title></circle>"
        for (x, y, c), name in zip(points, names, strict=True)
    ]
    return _svg(size, parts, "map of the item vectors")


def _grid(across: Axis, up: Axis, x: str, y: str, labels: Sequence[str] = ()) -> str:
    parts = []
    for tick in up.ticks():
        at = up.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    ticks = [(float(i), name) for i, name in enumerate(labels)] or [(tick, f"{tick:g}") for tick in across.ticks()]
    for tick, name in ticks:
        place = f'x="{across.at(tick):.1f}" y="{up.start + 15:.1f}" text-anchor="middle"'
        parts.append(f'<text class="tick" {place}>{escape(name)}</text>')
    base = f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up.start:.1f}" y2="{up.start:.1f}"/>'
    name = f'<text class="axis" x="{WIDTH - RIGHT}" y="{up.start + 30:.1f}" text-anchor="end">{escape(x)}</text>'
    return "".join(parts) + base + name + f'<text class="axis" x="2" y="10">{escape(y)}</text>'


def _svg(height: float, parts: Sequence[str], told: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg>'


def short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _real(value: float | None) -> float:
    return 0.0 if value is None else float(value)
