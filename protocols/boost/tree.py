"""The brand's part that is ordinary boosting: gradients, the best split of a node, leaf values.

As in XGBoost (Chen and Guestrin 2016): a node with sums G, H has the value w = −G / (H + λ) and its loss is
G w + (H + λ) w² / 2; a split's gain is what it takes off the loss. Missing values of ordered columns go to
either side. Categorical columns are split along the order of G / (H + `SMOOTH`) of their bins (Fisher 1958,
without `SMOOTH`); bins of fewer than `SUPPORT` rows have no place in it and go together to either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.boost.terms import Learning
from protocols.parallel import compiled

Floats = npt.NDArray[np.float64]

#: Least sum of hessians on either side of a split; scikit-learn's HistGradientBoosting has the same.
LEAST_HESSIAN = 1e-3

#: Of categorical bins: added to H, and rows that a bin needs for a place in the order. scikit-learn's
#: HistGradientBoosting has the same.
SMOOTH, SUPPORT = 10.0, 10.0


@dataclass(frozen=True)
class Columns:
    """What the search knows of one side's columns: `categorical`, `missing` bool[F], `monotone` int8[F]."""

    categorical: npt.NDArray[np.bool_]
    missing: npt.NDArray[np.bool_]
    monotone: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Node:
    """A node's sums over the brand's training rows, and the bounds that monotone columns above it set."""

    gradient: float
    hessian: float
    rows: int
    low: float = -math.inf
    high: float = math.inf

    def value(self, l2: float) -> float:
        """Its value as a leaf, before the learning rate."""
        return float(np.clip(_weight(self.gradient, self.hessian, l2), self.low, self.high))


@dataclass(frozen=True)
class Split:
    """`left` bool[B]: bins that go left; `sums` (G, H) of the left side; `sign` of a monotone column."""

    gain: float
    column: int
    left: npt.NDArray[np.bool_]
    sums: tuple[float, float]
    sign: int


def gradients(margin: Floats, y: Floats, objective: str) -> tuple[Floats, Floats]:
    """(g, h) of the loss at the margins; logistic: p − y and p (1 − p)."""
    if objective == "squared":
        return margin - y, np.ones_like(y)
    p = 1 / (1 + np.exp(-margin))
    return p - y, np.maximum(p * (1 - p), 1e-16)


def loss(margin: Floats, y: Floats, objective: str) -> float:
    """Mean loss: log loss, or half the squared error."""
    if objective == "squared":
        return float(np.mean((margin - y) ** 2) / 2)
    return float(np.mean(np.logaddexp(0, margin) - y * margin))


def unit(y: Floats, objective: str) -> float:
    """A power of two near the deviation of a squared objective's labels: what counts as a gain or a rounding
    error must not depend on whether money is in cents or in millions. 1 for logistic."""
    largest = float(np.abs(y).max())
    if objective != "squared" or not largest:
        return 1.0
    deviation = float(np.std(y / largest)) * largest
    return 2.0 ** round(math.log2(deviation)) if deviation > 0 else 1.0


def start(y: Floats, objective: str) -> float:
    """The margin before the first tree: the mean, for logistic its log-odds."""
    mean = float(y.mean())
    return mean if objective == "squared" else math.log(mean / (1 - mean))


def _weight(gradient: Any, hessian: Any, l2: float) -> Any:
    return -gradient / np.maximum(hessian + l2, 1e-12)


def _loss_of(gradient: Any, hessian: Any, weight: Any, l2: float) -> Any:
    return gradient * weight + 0.5 * (hessian + l2) * weight * weight


def best(sums: Floats, columns: Columns, node: Node, learning: Learning) -> Split | None:
    """The best split of a node by sums float64[F, B, 2 or 3] of its columns' bins: G, H and, where they are
    known, rows. None without an allowed one.
    """
    if not sums.size:
        return None
    h = np.maximum(sums[..., 1], 0.0)
    # Rows that aren't known by the share of the hessian, as LightGBM does.
    rows = sums[..., 2] if sums.shape[2] == 3 else h * (node.rows / max(node.hessian, 1e-300))
    values = np.stack((sums[..., 0], h, rows))
    left = np.cumsum(values, axis=2)
    # The second way: missing values (bin 0) to the right, where a column has them, and not alone on the left.
    other, apart = np.full(left.shape, np.nan), np.flatnonzero(columns.missing & ~columns.categorical)
    other[:, apart, 1:] = left[:, apart, 1:] - values[:, apart, :1]
    ordered = np.flatnonzero(columns.categorical)
    order, alone = _order(values[:, ordered], node.rows)
    if len(ordered):
        # Bins that are not in the order go to the right, or the second way to the left.
        part = np.cumsum(np.take_along_axis(values[:, ordered], order[None], 2), axis=2)
        part[:, np.arange(len(h[0])) >= (~alone).sum(axis=1)[:, None]] = np.nan
        left[:, ordered] = part
        other[:, ordered] = part + np.where(alone, values[:, ordered], 0.0).sum(axis=2, keepdims=True)
    found: Split | None = None
    for way, part in enumerate((left, other) if len(apart) or alone.any() else (left,)):
        gain = _gains(part, columns.monotone[:, None], node, learning)
        at = int(np.argmax(gain))
        column, position = divmod(at, gain.shape[1])
        value = float(gain.flat[at])
        if value > learning.minimum_gain and (found is None or value > found.gain):
            goes = np.zeros(gain.shape[1], dtype=bool)
            if columns.categorical[column]:
                k = int(np.searchsorted(ordered, column))
                goes[order[k, : position + 1]] = True
                goes |= alone[k] & (way == 1)
                goes &= h[column] > 0  # an unseen level goes right
            else:
                goes[way : position + 1] = True
            left_sums = float(part[0, column, position]), float(part[1, column, position])
            found = Split(value, column, goes, left_sums, int(columns.monotone[column]))
    return found


def _order(values: Floats, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Of categorical columns' G, H, rows float64[3, C, B]: (their bins in order, the rare ones last; the rare
    ones), both [C, B]."""
    alone = values[2] < min(SUPPORT, rows)
    ratio = np.where(alone, np.inf, values[0] / np.maximum(values[1] + SMOOTH, 1e-12))
    return np.argsort(ratio, axis=1, kind="stable"), alone


def _gains(left: Floats, sign: npt.NDArray[np.int8], node: Node, learning: Learning) -> Floats:
    """float64[F, B] by G, H and rows of the left side float64[3, F, B]; −inf where a split is not allowed."""
    gl, hl, rows = left
    gr, hr = node.gradient - gl, node.hessian - hl
    wl = np.clip(_weight(gl, hl, learning.l2), node.low, node.high)
    wr = np.clip(_weight(gr, hr, learning.l2), node.low, node.high)
    whole = _loss_of(node.gradient, node.hessian, node.value(learning.l2), learning.l2)
    gain = whole - _loss_of(gl, hl, wl, learning.l2) - _loss_of(gr, hr, wr, learning.l2)
    least = learning.minimum_rows / 2 - 1e-6  # estimated rows are not whole
    with np.errstate(invalid="ignore"):
        allowed = (np.minimum(rows, node.rows - rows) >= least) & (sign * (wr - wl) >= 0)
        allowed &= np.minimum(hl, hr) >= LEAST_HESSIAN
    return np.where(allowed & np.isfinite(gain), gain, -np.inf)


def children(
    node: Node, split: Split, rows: tuple[int, int], exact: tuple[float, float], l2: float
) -> tuple[Node, Node]:
    """The two nodes of a split; `rows` and `exact` are the rows and the (G, H) that did go left."""
    g, h = exact
    lower = upper = (node.low, node.high)
    if split.sign:
        ends = [
            float(np.clip(_weight(a, b, l2), node.low, node.high))
            for a, b in ((g, h), (node.gradient - g, node.hessian - h))
        ]
        middle = sum(ends) / 2
        lower, upper = (node.low, middle), (middle, node.high)
    left, right = (upper, lower) if split.sign < 0 else (lower, upper)
    return Node(g, h, rows[0], *left), Node(node.gradient - g, node.hessian - h, rows[1], *right)


@compiled
def _histogram(bins: Any, used: Any, slot: Any, g: Any, h: Any, sums: Any) -> None:
    """sums[slot[i], u, bins[i, used[u]]] += (g[i], h[i], 1) of rows in use (h > 0) whose slot is not −1."""
    for i in range(bins.shape[0]):
        s = slot[i]
        if s < 0 or h[i] <= 0:
            continue
        for u in range(used.shape[0]):
            b = bins[i, used[u]]
            sums[s, u, b, 0] += g[i]
            sums[s, u, b, 1] += h[i]
            sums[s, u, b, 2] += 1.0


def histogram(
    bins: npt.NDArray[np.uint8],
    used: npt.NDArray[np.int64],
    slot: npt.NDArray[np.int16],
    values: tuple[Floats, Floats],
    slots: int,
    count: int,
) -> Floats:
    """float64[slots, U, count, 3]: sums of (g, h, 1) by slot, column in use, bin; slot int16[n], −1: none."""
    sums = np.zeros((slots, len(used), count, 3))
    _histogram(bins, used, slot, *values, sums)
    return sums
