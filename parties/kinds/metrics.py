"""How good a ranking is, from held-out seeds against everybody who is not known to be a seed.

Seeds are positives and everybody else is unlabelled, so a figure here is a lower bound for "seed-like or
not": among the unlabelled there are people who are like the seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

RECALL_AT = (1, 2, 5, 10, 20)


def measure(scores: np.ndarray, positives: np.ndarray) -> dict[str, Any]:
    """Figures of `scores` float[n] with `positives` bool[n]; None for all of them without both classes.

    `auc` (ties count half) with a 95 % interval (Hanley and McNeil 1982), `ks`, `recall_at` {percent: share
    of positives among that top share}, `lift_at_5pct`, counts of both classes.
    """
    n, hits = len(scores), int(np.count_nonzero(positives))
    out: dict[str, Any] = {"held_out": hits, "unlabelled": n - hits}
    if not hits or hits == n:
        return {**out, "auc": None, "auc_interval": None, "ks": None, "recall_at": None, "lift_at_5pct": None}
    ranks = rankdata(scores)
    auc = float((ranks[positives].sum() - hits * (hits + 1) / 2) / (hits * (n - hits)))
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
