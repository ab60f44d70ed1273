"""How good a ranking is, from the scores by row and the seeds that were held out of the fit.

Positives are held-out seeds; everybody else who was not used as a training seed is *unlabelled*, not
negative:
some of them would have been seeds had the brand known them. So the plain AUC understates the ranking, and
`corrected_auc` says by how much for an assumed share of hidden positives.

Ties count with the value that a random order among equals has on average; nothing depends on the row order.
The bootstrap resamples held-out seeds only: the other rows are the provider's whole file, not a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pec.errors import PecError

Floats = npt.NDArray[np.float64]
FRACTIONS = (0.01, 0.02, 0.05, 0.10, 0.20)


@dataclass(frozen=True)
class Ranking:
    """Scores in falling order, one entry a group of equal scores (g groups, n rows, p positives).

    `rows` and `hits`: int64[g], how many rows / positives score at least `score[i]`.
    """

    score: Floats
    rows: npt.NDArray[np.int64]
    hits: npt.NDArray[np.int64]

    @property
    def n(self) -> int:
        return int(self.rows[-1])

    @property
    def positives(self) -> int:
        return int(self.hits[-1])


def rank(scores: npt.ArrayLike, positive: npt.ArrayLike) -> Ranking:
    """`scores`: float[n], `positive`: bool[n]. Raises `pec.metrics` without both kinds, or on a NaN."""
    s = np.asarray(scores, dtype=np.float64)
    y = np.asarray(positive, dtype=bool)
    if s.shape != y.shape or s.ndim != 1:
        raise PecError(
            "pec.metrics",
            f"scores {s.shape} and positive {y.shape} must be one-dimensional and equal in length",
        )
    if np.isnan(s).any():
        raise PecError("pec.metrics", "a score is NaN")
    if not y.any() or y.all():
        raise PecError(
            "pec.metrics", f"{int(y.sum())} positives among {y.size} rows: both kinds are needed to measure"
        )
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    ends = np.append(np.flatnonzero(np.diff(s)), s.size - 1)
    return Ranking(s[ends], (ends + 1).astype(np.int64), np.cumsum(y, dtype=np.int64)[ends])


def auc(r: Ranking) -> float:
    """Chance that a positive outranks another row, ties counted half (the trapezoid under the ROC curve)."""
    tpr, fpr = _rates(r)
    return float(np.trapezoid(tpr, fpr))


def ks(r: Ranking) -> float:
    """Kolmogorov-Smirnov: the widest gap between the two cumulative distributions."""
    tpr, fpr = _rates(r)
    return float(np.max(tpr - fpr))


def recall_at(r: Ranking, fraction: float) -> float:
    """Share of the positives among the best `fraction` of the rows."""
    rows, hits = np.concatenate(([0], r.rows)), np.concatenate(([0], r.hits))
    return float(np.interp(fraction * r.n, rows, hits) / r.positives)


def lift_at(r: Ranking, fraction: float) -> float:
    """How many times more positives the best `fraction` holds than a random choice of that size."""
    return recall_at(r, fraction) / fraction


def corrected_auc(observed: float, hidden_share: float) -> float:
    """AUC against true negatives when a share α of the unlabelled rows are positives.

    A hidden positive ties with a seed on average, so observed = α/2 + (1 − α)·true.
    """
    if not 0 <= hidden_share < 1:
        raise PecError("pec.metrics", f"hidden_share must be in [0, 1), not {hidden_share}")
    return min(1.0, (observed - hidden_share / 2) / (1 - hidden_share))


def gain_curve(r: Ranking, points: int = 101) -> list[list[float]]:
    """[share of rows, share of positives] at `points` even steps from 0 to 1."""
    x = np.linspace(0, 1, points)
    rows, hits = np.concatenate(([0], r.rows)), np.concatenate(([0], r.hits))
    y = np.interp(x * r.n, rows, hits) / r.positives
    return [[round(float(a), 6), round(float(b), 6)] for a, b in zip(x, y, strict=True)]


def histogram(scores: npt.ArrayLike, positive: npt.ArrayLike, bins: int = 30) -> dict[str, list[float]]:
    """Counts per bin over the range of the scores: `edges` [bins + 1], `rows` and `positives` [bins]."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    edges = np.histogram_bin_edges(s, bins=bins)
    return {
        "edges": [round(float(e), 6) for e in edges],
        "rows": [int(c) for c in np.histogram(s, edges)[0]],
        "positives": [int(c) for c in np.histogram(s[y], edges)[0]],
    }


def reach_curve(scores: npt.ArrayLike, points: int = 60) -> list[list[float]]:
    """[audience size, lowest score in it] for sizes from 1 to all rows, in even steps of the logarithm."""
    s = -np.sort(-np.asarray(scores, dtype=np.float64))
    sizes = np.unique(np.geomspace(1, s.size, points).round().astype(np.int64))
    return [[int(k), round(float(s[k - 1]), 6)] for k in sizes]


def intervals(r: Ranking, *, rounds: int = 400, level: float = 0.95, seed: int = 0) -> dict[str, list[float]]:
    """Percentile bootstrap intervals of `auc`, `ks` and `recall_at_*`; `seed` makes them repeatable."""
    hits = np.diff(np.concatenate(([0], r.hits)))
    rows = np.diff(np.concatenate(([0], r.rows)))
    groups = np.flatnonzero(hits)
    weight = hits[groups].astype(np.float64)
    p, negatives = r.positives, r.n - r.positives
    above = (r.rows - r.hits)[groups].astype(np.float64)  # negatives that score at least as much
    ties = (rows - hits)[groups].astype(np.float64)
    placement = 1 - (above - ties / 2) / negatives
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(p, weight / p, size=rounds) / p  # float[rounds, groups with a positive]
    tpr = np.cumsum(draws, axis=1)
    # Just before a group the gap can be wider than after it when its ties are many.
    before = np.concatenate((np.zeros((rounds, 1)), tpr[:, :-1]), axis=1) - (above - ties) / negatives
    values = {
        "auc": draws @ placement,
        "ks": np.maximum(np.max(tpr - above / negatives, axis=1), np.max(before, axis=1)),
    }
    first = (r.rows - rows)[groups]
    for fraction in FRACTIONS:
        inside = np.clip((fraction * r.n - first) / rows[groups], 0, 1)
        values[f"recall_at_{percent(fraction)}"] = draws @ inside
    tail = (1 - level) / 2
    return {k: [float(q) for q in np.quantile(v, [tail, 1 - tail])] for k, v in values.items()}


def percent(fraction: float) -> str:
    """0.05 → `5pct`, as in the names of the report's fields."""
    return f"{round(fraction * 100)}pct"


def summary(
    scores: npt.ArrayLike, positive: npt.ArrayLike, *, hidden_share: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """Every figure of a lookalike's report. Rows used as training seeds must have been left out."""
    r = rank(scores, positive)
    out: dict[str, Any] = {"auc": auc(r), "ks": ks(r), "evaluated_rows": r.n, "heldout_seeds": r.positives}
    for fraction in FRACTIONS:
        out[f"recall_at_{percent(fraction)}"] = recall_at(r, fraction)
        out[f"lift_at_{percent(fraction)}"] = lift_at(r, fraction)
    out["intervals"] = intervals(r, seed=seed)
    if hidden_share is not None:
        out["hidden_share"] = hidden_share
        out["auc_corrected"] = corrected_auc(out["auc"], hidden_share)
    return out


def _rates(r: Ranking) -> tuple[Floats, Floats]:
    tpr = np.concatenate(([0.0], r.hits / r.positives))
    fpr = np.concatenate(([0.0], (r.rows - r.hits) / (r.n - r.positives)))
    return tpr, fpr
