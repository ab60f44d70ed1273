"""Charts as inline SVG, drawn here so that a report is one file without scripts or external parts.

Every function takes plain numbers and returns markup that is safe to put into a page: all text is escaped.
A text is a pair (zh, en); the page shows one of the two. Colours come from the page's CSS variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

Text = tuple[str, str]
Point = tuple[float, float]
WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 50, 22, 14, 44


def score_histogram(edges: Sequence[float], rows: Sequence[int], positives: Sequence[int]) -> str:
    """Share of all scored people and of held-out seeds in each bin of the score."""
    total, hits = max(1, sum(rows)), max(1, sum(positives))
    a, b = [c / total for c in rows], [c / hits for c in positives]
    top = max([*a, *b, 1e-9]) * 1.3  # the legend stands above the highest bar
    x, y = _linear(edges[0], edges[-1], LEFT, WIDTH - RIGHT), _linear(0, top, HEIGHT - BOTTOM, TOP)
    body = _frame(("得分", "score"), ("占比", "share"))
    body += _ticks_x(x, _nice(edges[0], edges[-1], 5), _short)
    body += _ticks_y(y, _nice(0, top, 4), _percent)
    for values, css in ((a, "s1"), (b, "s2")):
        steps = [(x(edges[0]), y(0))]
        for i, v in enumerate(values):
            steps += [(x(edges[i]), y(v)), (x(edges[i + 1]), y(v))]
        body += f'<path class="area {css}" d="{_path([*steps, (x(edges[-1]), y(0))])}Z"/>'
    body += _legend(
        [(("被评分的人", "people scored"), "s1"), (("留出的种子", "held-out seeds"), "s2")], right=True
    )
    return _svg(body, ("得分直方图", "Score histogram"))


def gain_curve(points: Sequence[Sequence[float]], mark: float = 0.05) -> str:
    """Share of held-out seeds found against the share of people taken, best first."""
    x, y = _linear(0, 1, LEFT, WIDTH - RIGHT), _linear(0, 1, HEIGHT - BOTTOM, TOP)
    body = _frame(("取得分最高的人群占比", "best people taken"), ("找到的种子", "seeds found"))
    body += _ticks_x(x, [0, 0.25, 0.5, 0.75, 1], _percent) + _ticks_y(y, [0, 0.25, 0.5, 0.75, 1], _percent)
    body += f'<path class="line dash" d="{_path([(x(0), y(0)), (x(1), y(1))])}"/>'
    curve = [(x(p[0]), y(p[1])) for p in points]
    body += f'<path class="area bare s1" d="{_path([*curve, (x(1), y(1))])}Z"/>'
    body += f'<path class="line s1" d="{_path(curve)}"/>'
    at = min(points, key=lambda p: abs(p[0] - mark))
    body += f'<circle class="dot" cx="{x(at[0]):.1f}" cy="{y(at[1]):.1f}" r="4"/>'
    found = f"{at[1]:.0%}"
    body += _text(
        x(at[0]) + 9,
        y(at[1]) + 15,
        (f"前 {at[0]:.0%}：找到 {found}", f"best {at[0]:.0%} hold {found}"),
        "start strong",
    )
    body += _legend([(("本模型", "this model"), "s1"), (("随机", "at random"), "dash")], right=True, low=True)
    return _svg(body, ("增益曲线", "Gain curve"))


def reliability(bins: Sequence[Sequence[float]]) -> str:
    """Share of positives found against the mean chance that was said, a point a bin [said, found, people]."""
    top = max([*(b[0] for b in bins), *(b[1] for b in bins), 1e-9]) * 1.08
    x, y = _linear(0, top, LEFT, WIDTH - RIGHT), _linear(0, top, HEIGHT - BOTTOM, TOP)
    body = _frame(("预测概率", "chance said"), ("实际比例", "share found"))
    body += _ticks_x(x, _nice(0, top, 4), _percent) + _ticks_y(y, _nice(0, top, 4), _percent)
    body += f'<path class="line dash" d="{_path([(x(0), y(0)), (x(top), y(top))])}"/>'
    body += f'<path class="line s1" d="{_path([(x(b[0]), y(b[1])) for b in bins])}"/>'
    for b in bins:
        body += f'<circle class="dot" cx="{x(b[0]):.1f}" cy="{y(b[1]):.1f}" r="3"/>'
    body += _legend(
        [(("本模型", "this model"), "s1"), (("完全校准", "perfect"), "dash")], right=True, low=True
    )
    return _svg(body, ("校准曲线", "Calibration"))


def reach_curve(points: Sequence[Sequence[float]], chosen: int | None) -> str:
    """Lowest score in an audience against its size (logarithmic), with the size that was asked for."""
    sizes, scores = [p[0] for p in points], [p[1] for p in points]
    low, high = min(scores), max(scores)
    pad = (high - low) * 0.06 or 0.05
    top_power = max(1.0, math.log10(max(sizes)))
    lx, y = _linear(0, top_power, LEFT, WIDTH - RIGHT), _linear(low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    body = _frame(("人群规模", "audience size"), ("最低得分", "lowest score"))
    powers = list(range(int(top_power) + 1))
    body += "".join(_tick_x(lx(k), _count(10**k)) for k in powers)
    body += _ticks_y(y, _nice(low - pad, high + pad, 4), _short)
    curve = [(lx(math.log10(s)), y(v)) for s, v in zip(sizes, scores, strict=True)]
    body += f'<path class="line s1" d="{_path(curve)}"/>'
    if chosen and chosen <= max(sizes):
        cx = lx(math.log10(chosen))
        body += f'<path class="line mark" d="M{cx:.1f},{TOP}V{HEIGHT - BOTTOM}"/>'
        side = "end" if cx > WIDTH / 2 else "start"
        shift = -7 if side == "end" else 7
        body += _text(
            cx + shift,
            HEIGHT - BOTTOM - 12,
            (f"所选：{chosen:,} 人", f"chosen: {chosen:,}"),
            f"{side} strong",
        )
    return _svg(body, ("触达曲线", "Reach curve"))


def funnel(steps: Sequence[tuple[Text, int, Text | None]]) -> str:
    """Bars from the file down to the result: (label, people, what was lost on the way there)."""
    widest = max([n for _, n, _ in steps] + [1])
    row, body = 52, ""
    for i, (label, n, lost) in enumerate(steps):
        top = 4 + i * row
        wide = max(2.0, (WIDTH - 4) * n / widest)
        body += _text(2, top + 13, label, "start strong") + _text(
            WIDTH - 2, top + 13, (f"{n:,}",) * 2, "end strong"
        )
        body += f'<rect class="track" x="2" y="{top + 19}" width="{WIDTH - 4}" height="11" rx="5"/>'
        body += (
            f'<rect class="fill s{1 + i % 4}" x="2" y="{top + 19}" width="{wide:.1f}" height="11" rx="5"/>'
        )
        if lost is not None:
            body += _text(2, top + 43, lost, "start small")
    return _svg(body, ("同意漏斗", "Consent funnel"), height=8 + row * len(steps))


def _svg(body: str, title: Text, height: int = HEIGHT) -> str:
    name = escape(f"{title[0]} / {title[1]}")
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}">{body}</svg>'


def _frame(x_label: Text, y_label: Text) -> str:
    axis = f'<path class="axis" d="M{LEFT},{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
    axis += _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 7, x_label, "middle label")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        axis + f'<g transform="rotate(-90 12 {middle:.0f})">{_text(12, middle, y_label, "middle label")}</g>'
    )


def _text(x: float, y: float, text: Text, css: str) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" class="{css}"'
    if text[0] == text[1]:
        return f"<text {at}>{escape(text[0])}</text>"
    return f'<text {at} lang="zh">{escape(text[0])}</text><text {at} lang="en">{escape(text[1])}</text>'


def _legend(items: Sequence[tuple[Text, str]], *, right: bool = False, low: bool = False) -> str:
    out, x = "", WIDTH - RIGHT - 128 if right else LEFT + 12
    y = HEIGHT - BOTTOM - 18 * len(items) if low else TOP + 6
    for i, (label, css) in enumerate(items):
        top = y + 18 * i
        out += f'<path class="line key {css}" d="M{x},{top}h18"/>' + _text(x + 25, top + 4, label, "start")
    return out


def _ticks_x(scale: Callable[[float], float], values: Sequence[float], show: Callable[[float], str]) -> str:
    return "".join(_tick_x(scale(v), show(v)) for v in values)


def _tick_x(x: float, label: str) -> str:
    base = HEIGHT - BOTTOM
    return f'<path class="axis" d="M{x:.1f},{base}v4"/>' + _text(x, base + 18, (label, label), "middle")


def _ticks_y(scale: Callable[[float], float], values: Sequence[float], show: Callable[[float], str]) -> str:
    return "".join(
        f'<path class="grid" d="M{LEFT},{scale(v):.1f}H{WIDTH - RIGHT}"/>'
        + _text(LEFT - 6, scale(v) + 4, (show(v), show(v)), "end")
        for v in values
    )


def _linear(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda v: start + (v - low) / span * (stop - start)


def _nice(low: float, high: float, about: int) -> list[float]:
    """Round tick values inside [low, high]."""
    span = (high - low) or 1.0
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _short(v: float) -> str:
    return f"{v:.3g}"


def _percent(v: float) -> str:
    return f"{v * 100:.3g}%"


def _count(n: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.0f}"
