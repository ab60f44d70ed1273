#!/usr/bin/env python3
"""How align grows: a plot (SVG) and a table (Markdown) from lines of `pec bench align --json`.

    for n in 65536 262144 1048576 4194304 16777216; do
        pec bench align --receiver $n --sender $n --json >> growth.jsonl
    done
    .venv/bin/python scripts/plot_growth.py growth.jsonl docs/images/align-growth.svg

Both axes are logarithmic: linear growth is a straight line that rises as the dashed one does. Of several
lines with the same size the fastest counts. With a third argument, `cpu`, only processor time is drawn: what
other programs do on the same machine hardly changes it.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 64, 24, 24, 52
SERIES = (("seconds", "#1f5fbf"), ("CPU seconds, both sides", "#b3541e"))


def read(lines: list[str]) -> list[dict[str, Any]]:
    """The fastest run of each size, smallest size first. ValueError where a line is of something else."""
    best: dict[int, dict[str, Any]] = {}
    for line in filter(None, (text.strip() for text in lines)):
        run = json.loads(line)
        if run.get("bench") != "align" or "sizes" not in run:
            raise ValueError("every line must be one of `pec bench align --json`, without --job")
        n = max(run["sizes"].values())
        if n not in best or run["seconds"] < best[n]["seconds"]:
            best[n] = run
    if len(best) < 2:
        raise ValueError("a plot needs runs of two sizes at the least")
    return [best[n] for n in sorted(best)]


def size(run: dict[str, Any]) -> int:
    return int(max(run["sizes"].values()))


def named(n: int) -> str:
    return f"2^{n.bit_length() - 1}" if n & (n - 1) == 0 else f"{n:,}"


def table(runs: list[dict[str, Any]]) -> str:
    head = "| people a side | seconds | CPU s, both sides | µs a person | MB | peak MiB receiver / sender |"
    rows = [head, "|---:|---:|---:|---:|---:|---:|"]
    for run in runs:
        n, peak = size(run), run["peak_rss_mb"]
        moved = (run["bytes_sent"] + run["bytes_received"]) / 1e6
        rows.append(
            f"| {named(n)} | {run['seconds']:.1f} | {sum(run['cpu_seconds'].values()):.1f} "
            f"| {run['seconds'] / n * 1e6:.2f} | {moved:,.1f} | {peak['receiver']:,.0f} / "
            f"{peak['sender']:,.0f} |"
        )
    return "\n".join(rows)


def plot(runs: list[dict[str, Any]], cpu_only: bool = False) -> str:
    """The SVG's text."""
    series = [
        [(size(run), float(run["seconds"])) for run in runs],
        [(size(run), float(sum(run["cpu_seconds"].values()))) for run in runs],
    ]
    shown = list(zip(SERIES, series, strict=True))[cpu_only:]
    series = [line for _, line in shown]
    xs, ys = [p[0] for p in series[0]], [y for line in series for _, y in line]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    left, right = math.log2(xs[0]), math.log2(xs[-1])

    def x(n: float) -> float:
        return LEFT + (math.log2(n) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(seconds: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(seconds) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" role="img" aria-label="Align: seconds by people a side, both axes logarithmic">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
    for n in xs:
        out.append(f'<path d="M{x(n):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        out.append(f'<text x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{named(n)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">people a side</text>')
    # As the largest run, in proportion; only as far as the axes go.
    n, seconds = series[0][-1]
    first = max(xs[0], n * 10.0**low / seconds)
    out.append(
        f'<path d="M{x(first):.1f} {y(seconds * first / n):.1f}L{x(n):.1f} {y(seconds):.1f}" '
        'stroke="#888888" stroke-dasharray="5 4" fill="none"/>'
    )
    for place, ((name, colour), line) in enumerate(shown):
        points = " ".join(f"{x(n):.1f},{y(s):.1f}" for n, s in line)
        out.append(f'<polyline points="{points}" stroke="{colour}" stroke-width="2" fill="none"/>')
        out += [f'<circle cx="{x(n):.1f}" cy="{y(s):.1f}" r="3.5" fill="{colour}"/>' for n, s in line]
        out.append(f'<text x="{LEFT + 12}" y="{TOP + 16 + 18 * place}" fill="{colour}">{name}</text>')
    note = "dashed: in proportion to the size"
    out.append(f'<text x="{LEFT + 12}" y="{TOP + 52}" fill="#888888">{note}</text>')
    return "\n".join([*out, "</svg>", ""])


def main(source: str, target: str, what: str = "") -> int:
    runs = read(Path(source).read_text().splitlines())
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(plot(runs, what == "cpu"))
    print(table(runs))
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
