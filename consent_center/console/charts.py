"""Charts as SVG, drawn here and coloured by the style sheet; a table beside each has the same numbers.

No script and no inline style: the page's policy allows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

from consent_center.i18n import gettext as _

WIDTH, HEIGHT = 440, 200  # so that the letters are of a usual size in a card and on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 12, 26
COLOURS = 7


@dataclass(frozen=True)
class Series:
    """One line: its name and one value a position; None is a gap."""

    name: str
    values: Sequence[float | None]


def nice_top(value: float) -> float:
    """The next round number above: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-12))


def number(value: float) -> str:
    """Short: 1,234 · 12k · 3.4M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.3g}{unit}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2g}"


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def lines(
    series: Sequence[Series], labels: Sequence[str], title: str, unit: str = "number", area: bool = True
) -> Markup:
    """A line chart; `labels` name the positions, every few of them are written below."""
    shown = percent if unit == "percent" else number
    top = nice_top(max((v for one in series for v in one.values if v is not None), default=0))
    if unit == "percent":
        top = min(top, 1.0) if top <= 1 else top
    elif top < 4:
        top = 4.0
    across = max(1, len(labels) - 1)
    inner = WIDTH - _LEFT - _RIGHT

    def x(position: int) -> float:
        return _LEFT + inner * position / across

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - value / top)

    parts = [_open(title)]
    for step in range(5):
        at = y(top * step / 4)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        text = escape(shown(top * step / 4))
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    every = max(1, ceil(len(labels) / 5))
    for position in range(0, len(labels), every):
        anchor = "start" if position == 0 else "middle"
        anchor = "end" if position > len(labels) - 1 - every / 2 and position else anchor
        label = escape(labels[position])
        parts.append(f'<text x="{x(position):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{label}</text>')
    for index, one in enumerate(series):
        colour = index % COLOURS + 1
        for run in _runs(one.values):
            points = " ".join(f"{x(position):.1f},{y(value):.1f}" for position, value in run)
            if area and len(series) == 1 and len(run) > 1:
                first, last = x(run[0][0]), x(run[-1][0])
                around = f"{first:.1f},{y(0):.1f} {points} {last:.1f},{y(0):.1f}"
                parts.append(f'<polygon class="area f{colour}" points="{around}"/>')
            if len(run) == 1:
                position, value = run[0]
                parts.append(
                    f'<circle class="dot f{colour}" cx="{x(position):.1f}" cy="{y(value):.1f}" r="3"/>'
                )
            else:
                parts.append(f'<polyline class="line c{colour}" points="{points}"/>')
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - numbers, and texts that were escaped above


def bars(rows: Sequence[tuple[str, float]], title: str, good: str = "") -> Markup:
    """Horizontal bars, one a row, with its name and number; the row called `good` has the first colour."""
    height = 34 * len(rows) + 8
    top = max((value for _name, value in rows), default=0) or 1
    parts = [_open(title, height)]
    for index, (name, value) in enumerate(rows):
        at = 34 * index + 4
        width = max(2.0, (WIDTH - 70) * value / top) if value else 0.0
        colour = 1 if name == good else 2
        parts.append(f'<text x="0" y="{at + 10}">{escape(name)}</text>')
        parts.append(f'<rect class="f{colour}" x="0" y="{at + 15}" width="{width:.1f}" height="11" rx="3"/>')
        parts.append(f'<text x="{width + 8:.1f}" y="{at + 25}">{escape(f"{value:,.0f}")}</text>')
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - numbers, and texts that were escaped above


def legend(series: Sequence[Series]) -> Markup:
    """The names with their colours; nothing for a single line."""
    if len(series) < 2:
        return Markup("")
    item = Markup(
        '<li><svg class="chart" viewBox="0 0 10 10" aria-hidden="true">'
        '<rect class="f{}" width="10" height="10" rx="2"/></svg><bdi>{}</bdi></li>'
    )
    listed = Markup("").join(item.format(i % COLOURS + 1, one.name) for i, one in enumerate(series))
    return Markup('<ul class="legend-list">{}</ul>').format(listed)


def _open(title: str, height: int = HEIGHT) -> str:
    label = escape(_("Chart: %(title)s. The table below has the numbers.", title=title))
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches without a gap, as (position, value)."""
    found: list[list[tuple[int, float]]] = []
    open_run = False
    for position, value in enumerate(values):
        if value is None:
            open_run = False
            continue
        if not open_run:
            found.append([])
            open_run = True
        found[-1].append((position, float(value)))
    return found
