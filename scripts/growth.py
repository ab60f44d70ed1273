"""Growth of a benchmark: a Markdown table and a log-log plot (SVG) from what `pec bench … --json` printed.

    for n in 65536 262144 1048576; do pec bench align --receiver $n --sender $n --json >> runs.jsonl; done
    python scripts/growth.py sizes.receiver=people seconds,cpu_seconds.receiver=CPU growth.svg runs.jsonl

The first name is the size on the x axis, then the figures to draw, by name, by path (such as
`peak_rss_mb.provider`) or as a sum of paths (a+b), and after `=` what to call them; after @ at the end what
they are in (seconds, if nothing is said); then the picture, then files of lines. Of several lines with one
size the one with the least first figure counts. The dashed line is in proportion to the size, through the
last point of each figure: what is above it is a fixed cost.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 62, 170, 16, 46
COLOURS = ("#1f6feb", "#d9822b", "#2da44e", "#8250df")
STYLE = "text{font:12px sans-serif;fill:#57606a}.grid{stroke:#d0d7de}.line{fill:none;stroke-width:2}"


def at(report: dict[str, Any], name: str) -> float:
    """The figure of this name: dots lead into parts, + adds, what follows = is for the reader."""
    total = 0.0
    for path in name.partition("=")[0].split("+"):
        found: Any = report
        for part in path.split("."):
            found = found[part]
        total += float(found)
    return total


def called(name: str) -> str:
    return name.partition("=")[2] or name


def fastest(size: str, name: str, lines: Sequence[str]) -> list[dict[str, Any]]:
    """The best run of each size, smallest size first. ValueError, KeyError for lines of something else."""
    best: dict[float, dict[str, Any]] = {}
    for line in lines:
        report = json.loads(line)
        held = best.setdefault(at(report, size), report)
        if at(report, name) < at(held, name):
            best[at(report, size)] = report
    return [best[n] for n in sorted(best)]


def table(size: str, names: Sequence[str], reports: Sequence[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(called(n) for n in (size, *names))} |", "|" + "---:|" * (len(names) + 1)]
    for report in reports:
        lines.append(
            f"| {at(report, size):,.0f} | " + " | ".join(f"{at(report, n):,.4g}" for n in names) + " |"
        )
    return "\n".join(lines)


def plot(size: str, names: Sequence[str], reports: Sequence[dict[str, Any]], unit: str = "seconds") -> str:
    x = [math.log10(at(r, size)) for r in reports]
    y = [[math.log10(max(at(r, n), 1e-3)) for r in reports] for n in names]
    low, high = math.floor(min(map(min, y))), math.ceil(max(map(max, y)))
    left, right = math.floor(min(x) + 1e-9), math.ceil(max(x) - 1e-9)

    def place(a: float, b: float) -> tuple[float, float]:
        across = LEFT + (a - left) / max(right - left, 1) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (b - low) / max(high - low, 1) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for power in range(left, right + 1):
        across, bottom = place(power, low)
        out.append(f'<path class="grid" d="M{across:.1f},{TOP}V{bottom:.1f}"/>')
        out.append(f'<text x="{across:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">10^{power}</text>')
    for power in range(low, high + 1):
        _, up = place(left, power)
        out.append(f'<path class="grid" d="M{LEFT},{up:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{up + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for k, (name, values) in enumerate(zip(names, y, strict=True)):
        colour = COLOURS[k % len(COLOURS)]
        points = [place(a, b) for a, b in zip(x, values, strict=True)]
        reach = min(x[-1] - x[0], values[-1] - low)  # cut off at the lower edge
        linear = [place(x[-1] - reach, values[-1] - reach), points[-1]]
        for shape, extra in ((linear, ' stroke-dasharray="4 4" opacity=".6"'), (points, "")):
            path = "L".join(f"{a:.1f},{b:.1f}" for a, b in shape)
            out.append(f'<path class="line" stroke="{colour}"{extra} d="M{path}"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points]
        top = TOP + 12 + 20 * k
        out.append(f'<path class="line" stroke="{colour}" d="M{WIDTH - RIGHT + 12},{top}h18"/>')
        out.append(f'<text x="{WIDTH - RIGHT + 36}" y="{top + 4}">{escape(called(name))}</text>')
    top = TOP + 12 + 20 * len(names)
    out.append(
        f'<path class="line" stroke="#57606a" stroke-dasharray="4 4" d="M{WIDTH - RIGHT + 12},{top}h18"/>'
    )
    out.append(f'<text x="{WIDTH - RIGHT + 36}" y="{top + 4}">in proportion</text>')
    middle, centre = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text x="14" y="{centre:.0f}" text-anchor="middle" transform="rotate(-90 14 {centre:.0f})">'
        f"{escape(unit)}</text>"
    )
    out.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(called(size))}</text></svg>'
    )
    return "\n".join(out) + "\n"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 4:
        print(__doc__)
        return 2
    figures, _, unit = arguments[1].partition("@")
    size, names, target = arguments[0], figures.split(","), Path(arguments[2])
    lines = [line for path in arguments[3:] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    reports = fastest(size, names[0], [line for line in lines if line.strip()])
    target.write_text(plot(size, names, reports, unit or "seconds"), encoding="utf-8")
    print(table(size, names, reports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
