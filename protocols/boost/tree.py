"""The brand's part that is ordinary boosting: gradients, the best split of a node, leaf values.

As in XGBoost (Chen and Guestrin 2016): a node with sums G, H has the value w = −G / (H + λ) and its loss is
G w + (H + λ) w² / 2; a split's gain is what it takes off the loss. Categorical columns are split along the
order
of G / H of their bins (Fisher 1958), both ways for missing values of ordered ones.
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


def start(y: Floats, objective: str) -> float:
    """The margin before the first tree: the mean, for logistic its log-odds."""
    mean = float(y.mean())
    return mean if objective == "squared" else math.log(mean / (1 - mean))


def _weight(gradient: Any, hessian: Any, l2: float) -> Any:
    return -gradient / np.maximum(hessian + l2, 1e-12)


def _loss_of(gradient: Any, hessian: Any, weight: Any, l2: float) -> Any:
    return gradient * weight + 0.5 * (hessian + l2) * weight * weight


def best(sums: Floats, columns: Columns, node: Node, learning: Learning) -> Split | None:
    """The best split of a node by sums float64[F, B, 2] of its columns' bins; None without an allowed one."""
    if not sums.size:
        return None
    g, h = sums[..., 0], np.maximum(sums[..., 1], 0.0)
    ratio = np.where(h > 0, g / np.maximum(h, 1e-12), np.inf)  # empty bins last: an unseen level goes right
    plain = np.broadcast_to(np.arange(g.shape[1]), g.shape)
    order = np.where(columns.categorical[:, None], np.argsort(ratio, axis=1, kind="stable"), plain)
    left_g = np.cumsum(np.take_along_axis(g, order, 1), axis=1)
    left_h = np.cumsum(np.take_along_axis(h, order, 1), axis=1)
    ways = [(left_g, left_h)]
    if (columns.missing & ~columns.categorical).any():
        # Missing values (bin 0) to the right; only where the column has them, and not alone on the left.
        apart = (columns.missing & ~columns.categorical)[:, None] & (np.arange(g.shape[1]) > 0)
        ways.append((np.where(apart, left_g - g[:, :1], np.nan), np.where(apart, left_h - h[:, :1], np.nan)))
    found: Split | None = None
    for way, (gl, hl) in enumerate(ways):
        gain = _gains(gl, hl, columns.monotone[:, None], node, learning)
        at = int(np.argmax(gain))
        column, position = divmod(at, g.shape[1])
        value = float(gain.flat[at])
        if value > learning.minimum_gain and (found is None or value > found.gain):
            left = np.zeros(g.shape[1], dtype=bool)
            left[order[column, way : position + 1]] = True
            if columns.categorical[column]:
                left &= h[column] > 0
            left_sums = float(gl.flat[at]), float(hl.flat[at])
            found = Split(value, column, left, left_sums, int(columns.monotone[column]))
    return found


def _gains(gl: Floats, hl: Floats, sign: npt.NDArray[np.int8], node: Node, learning: Learning) -> Floats:
    """float64[F, B], −inf where the split is not allowed."""
    gr, hr = node.gradient - gl, node.hessian - hl
    wl = np.clip(_weight(gl, hl, learning.l2), node.low, node.high)
    wr = np.clip(_weight(gr, hr, learning.l2), node.low, node.high)
    whole = _loss_of(node.gradient, node.hessian, node.value(learning.l2), learning.l2)
    gain = whole - _loss_of(gl, hl, wl, learning.l2) - _loss_of(gr, hr, wr, learning.l2)
    # Rows of a side, estimated by its share of the hessian (as LightGBM does): the sums don't count rows.
    least = max(LEAST_HESSIAN, node.hessian * (learning.minimum_rows / 2) / max(node.rows, 1))
    with np.errstate(invalid="ignore"):
        allowed = (hl >= least) & (hr >= least) & (sign * (wr - wl) >= 0)
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
    """sums[slot[i], u, bins[i, used[u]]] += (g[i], h[i]) of rows in use (h > 0) whose slot is not −1."""
    for i in range(bins.shape[0]):
        s = slot[i]
        if s < 0 or h[i] <= 0:
            continue
        for u in range(used.shape[0]):
            b = bins[i, used[u]]
            sums[s, u, b, 0] += g[i]
            sums[s, u, b, 1] += h[i]


def histogram(
    bins: npt.NDArray[np.uint8],
    used: npt.NDArray[np.int64],
    slot: npt.NDArray[np.int16],
    values: tuple[Floats, Floats],
    slots: int,
    count: int,
) -> Floats:
    """float64[slots, U, count, 2]: sums of (g, h) by slot, column in use and bin; slot int16[n], −1: none."""
    sums = np.zeros((slots, len(used), count, 2))
    _histogram(bins, used, slot, *values, sums)
    return sums
