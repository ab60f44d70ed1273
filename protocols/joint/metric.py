"""The metric H of a side's steps: its curvature, as far as it knows it, and the penalty. README 5."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from protocols.errors import LocalError
from protocols.joint import kernels
from protocols.joint.kernels import F32, F64

#: Rows from which the products of columns are taken.
SAMPLE_ROWS = 1 << 16
#: The same when the metric is renewed: not more products than these, but so many rows a column.
RENEWED_PRODUCTS, RENEWED_ROWS_PER_COLUMN = 1 << 30, 32
#: Curvatures below this share of the average one count as it: a separable problem has none.
LEAST_CURVATURE = 0.05
#: The same when the metric is renewed, by rows whose mean is next to 0 or 1.
LEAST_RENEWED = 0.001


def second_moments(columns: F32, factor: F64 | None = None) -> F64:
    """Mean of factor x x^T over (a regular sample of) the rows, float64[d, d]; factor float64[n], or 1."""
    stride = max(1, columns.shape[1] // SAMPLE_ROWS)
    sample = np.ascontiguousarray(columns[:, ::stride])
    used = np.ones(sample.shape[1]) if factor is None else factor[::stride]
    return np.asarray(kernels.moments(sample, used) / max(1, sample.shape[1]))


def renewed(columns: F32, at: F64, slope: Callable[[F64], F64]) -> F64:
    """`second_moments` with the factor slope(scores) of each row at the weights `at`, float64[d, d]."""
    d, n = columns.shape
    rows = min(SAMPLE_ROWS, max(RENEWED_PRODUCTS // (d * d), RENEWED_ROWS_PER_COLUMN * d))
    sample = np.ascontiguousarray(columns[:, :: max(1, n // rows)])
    found = floored(slope(kernels.scores(sample, at, sample.shape[1])), LEAST_RENEWED)
    return np.asarray(kernels.moments(sample, found) / max(1, sample.shape[1]))


def floored(curvature: F64, least: float = LEAST_CURVATURE) -> F64:
    return np.maximum(curvature, least * float(curvature.mean()) + 1e-12)


def with_diagonal(moments: F64, diagonal: F64) -> F64:
    """The matrix with this diagonal and the correlations of `moments`."""
    own = np.diag(moments)
    scale = np.sqrt(np.maximum(diagonal, 0.0) / np.where(own > 0, own, 1.0))
    return np.asarray(moments * scale[:, None] * scale[None, :])


class Metric:
    """H as the inverse of its Cholesky factor; `step(g)` is -H^-1 g."""

    def __init__(self, curvature: F64, penalty: F64) -> None:
        matrix = curvature + np.diag(penalty)
        scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        unit = matrix * scale[:, None] * scale[None, :]
        if not np.isfinite(unit).all():
            raise LocalError("joint.fit", "the columns are not finite; check them for extreme values")
        # The correlations come from other rows than the diagonal, and of collinear columns rounding is all
        # that is left: a little more of the diagonal keeps H positive.
        identity = np.eye(len(unit))
        self._root = np.linalg.solve(np.linalg.cholesky(unit + 1e-9 * identity), identity)
        self._scale = scale

    def step(self, gradient: F64) -> F64:
        return np.asarray(-self._scale * (self._root.T @ (self._root @ (self._scale * gradient))))
