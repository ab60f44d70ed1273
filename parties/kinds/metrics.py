"""How good a ranking is, from held-out seeds against everybody who is not known to be a seed.

Seeds are positives and everybody else is unlabelled, so a figure here is a lower bound for "seed-like or
not": among the unlabelled there are people who are like the seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RECALL_AT = (1, 2, 5, 10, 20)

#: Rounds of the bootstrap, and the quantiles that it gives.
ROUNDS, LEVELS = 300, (0.025, 0.975)

#: Points of the reach curve, bins of the reliability table, rows that the calibration is fitted to at
#: the most.
POINTS, RELIABILITY_BINS, CALIBRATION_ROWS = 50, 10, 200_000

#: Fewer positives than this give no calibration worth printing.
LEAST_CALIBRATION = 50


def measure(scores: np.ndarray, positives: np.ndarray) -> dict[str, Any]:
    """Figures of `scores` float[n] with `positives` bool[n]; None for all of them without both classes.

    `auc` (ties count half) with a 95 % interval (Hanley and McNeil 1982), `ks`, `recall_at` {percent: share
    of positives among that top share}, `lift_at_5pct`, counts of both classes.
    """
    n, hits = len(scores), int(np.count_nonzero(positives))
    out: dict[str, Any] = {"held_out": hits, "unlabelled": n - hits}
    if not hits or hits == n:
        return {**out, "auc": None, "auc_interval": None, "ks": None, "recall_at": None, "lift_at_5pct": None}
    known, rest = scores[positives], np.sort(scores[~positives])
    below = np.searchsorted(rest, known, side="left") + np.searchsorted(rest, known, side="right")
    auc = float(below.sum() / (2 * hits * (n - hits)))
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (hits - 1) * (q1 - auc * auc) + (n - hits - 1) * (q2 - auc * auc)
    half = 1.96 * float(np.sqrt(max(spread, 0.0) / (hits * (n - hits))))
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(positives[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # a threshold can't cut through ties
    share_in, share_out = found / hits, (np.arange(1, n + 1) - found) / (n - hits)
    recall = {str(p): float(found[max(1, round(n * p / 100)) - 1] / hits) for p in RECALL_AT}
    return {
        **out,
        "auc": auc,
        "auc_interval": [max(0.0, auc - half), min(1.0, auc + half)],
        "ks": float(np.max((share_in - share_out)[last], initial=0.0)),
        "recall_at": recall,
        "lift_at_5pct": recall["5"] / (max(1, round(n * 0.05)) / n),
    }


def detailed(scores: np.ndarray, positives: np.ndarray, hidden_share: float | None = None) -> dict[str, Any]:
    """More of the same ranking: `pr_auc` (average precision), `lift_at` {percent}, `intervals` of `auc,
    pr_auc,
    ks, recall_at_<p>, lift_at_<p>` (95 %, bootstrap of the positives; everybody else is the whole file and no
    sample), `calibration`, and for an assumed `hidden_share` α of positives among the others `auc_corrected`.

    A hidden positive ties with a known one on average, so auc = α/2 + (1 − α)·true.
    """
    n, hits = len(scores), int(np.count_nonzero(positives))
    if not hits or hits == n:
        return {"pr_auc": None, "lift_at": None, "intervals": None, "calibration": None}
    others = n - hits
    known, rest = np.sort(scores[positives])[::-1], np.sort(scores[~positives])
    above = others - np.searchsorted(rest, known, side="right")  # others that score more
    ties = others - above - np.searchsorted(rest, known, side="left")
    place = above + 0.5 * ties
    # No secret: resampling for the bootstrap, the same each time so that a report can be repeated.
    draws = np.random.default_rng(0).multinomial(hits, np.full(hits, 1 / hits), ROUNDS)
    draws = np.concatenate([np.ones((1, hits)), draws])  # the first row is the sample itself
    found = np.cumsum(draws, axis=1)
    figures = {
        "auc": 1 - draws @ place / (hits * others),
        "pr_auc": (draws * found / np.maximum(found + place, 1)).sum(axis=1) / hits,
        "ks": np.max(found / hits - (above + ties) / others, axis=1).clip(0),
    }
    for percent in RECALL_AT:
        top = max(1, round(n * percent / 100))
        inside = np.clip(top - (np.arange(1, hits + 1) + place) + 0.5, 0, 1)
        recall = draws @ inside / hits
        figures[f"recall_at_{percent}"], figures[f"lift_at_{percent}"] = recall, recall * n / top
    out: dict[str, Any] = {
        "pr_auc": float(figures["pr_auc"][0]),
        "lift_at": {str(p): float(figures[f"lift_at_{p}"][0]) for p in RECALL_AT},
        "intervals": {k: [float(q) for q in np.quantile(v[1:], LEVELS)] for k, v in figures.items()},
        "calibration": _calibration(scores, positives) if hits >= LEAST_CALIBRATION else None,
    }
    if hidden_share is not None:
        corrected = (float(figures["auc"][0]) - hidden_share / 2) / (1 - hidden_share)
        out |= {"hidden_share": hidden_share, "auc_corrected": min(1.0, corrected)}
    return out


def reach(scores: np.ndarray) -> list[list[float]]:
    """[audience size, lowest score in it] from one person to all, in even steps of the logarithm."""
    falling = np.sort(scores)[::-1]
    if not len(falling):
        return []
    sizes = np.unique(np.geomspace(1, len(falling), POINTS).round().astype(np.int64))
    return [[int(k), round(float(falling[k - 1]), 6)] for k in sizes]


def _calibration(scores: np.ndarray, positives: np.ndarray) -> dict[str, Any]:
    """Chance of being a positive by score: Platt's sigmoid, fitted to every other row and looked at on
    the rest.

    `bins`: [mean chance said, share found, rows] of equal numbers of people; `brier`, `ece` (expected
    calibration error). The others are unlabelled, so it is the chance of being one of these positives, not of
    being like them.
    """
    # No secret: which half the sigmoid is fitted to.
    shuffled = np.random.default_rng(1).permutation(len(scores))
    fit, seen = shuffled[::2], shuffled[1::2]
    keep = fit[:CALIBRATION_ROWS]
    x, y = scores[keep], positives[keep].astype(np.float64)
    middle, spread = float(x.mean()), float(x.std()) or 1.0
    a, b = _platt((x - middle) / spread, y)
    said = 1 / (1 + np.exp(-np.clip(a * (scores[seen] - middle) / spread + b, -500, 500)))
    truth = positives[seen]
    bins = []
    for part in np.array_split(np.argsort(said, kind="stable"), RELIABILITY_BINS):
        if len(part):
            bins.append([float(said[part].mean()), float(truth[part].mean()), len(part)])
    return {
        "method": "platt",
        "slope": a / spread,
        "intercept": b - a * middle / spread,
        "brier": float(np.mean((said - truth) ** 2)),
        "ece": float(sum(count * abs(p - q) for p, q, count in bins) / len(seen)),
        "bins": bins,
    }


def _platt(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of a logistic regression of y on x, with a penalty that keeps the slope finite."""
    a, b = 0.0, float(np.log((y.sum() + 0.5) / (len(y) - y.sum() + 0.5)))
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(a * x + b, -500, 500)))
        w = np.maximum(p * (1 - p), 1e-12)
        gradient = np.array([x @ (p - y) + 1e-3 * a, (p - y).sum()])
        curve = np.array([[w @ (x * x) + 1e-3, w @ x], [w @ x, w.sum() + 1e-9]])
        step = np.linalg.solve(curve, gradient)
        length = min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        a, b = a - length * step[0], b - length * step[1]
        if np.abs(step).max() < 1e-8:
            break
    return float(a), float(b)
