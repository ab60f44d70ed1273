"""Where the fit starts: the brand's own model, of its columns alone. README, section 5.

Nothing is sent for it. It is taken from a sample of the rows, and so is the curvature there; the gradients
that follow are of all rows, so the sample decides how many steps are needed and not where they lead.
"""

from __future__ import annotations

import numpy as np

from protocols.joint import kernels
from protocols.joint.expansion import mean
from protocols.joint.kernels import F32, F64
from protocols.joint.metric import SAMPLE_ROWS, Metric, floored

#: Newton steps at the most, and the squared step in the metric at which it ends: far below sampling error.
MOST_STEPS, NEAR = 12, 1e-3


def slope(means: F64, family: str) -> F64:
    """The derivative of the mean, and so the curvature of a row, float64[n]."""
    if family == "logistic":
        return np.asarray(means * (1 - means))
    return means if family == "poisson" else np.ones_like(means)


def start(columns: F32, labels: F64, family: str, penalty: F64, at: F64) -> F64:
    """Weights float64[d] of the model of these columns float32[d, n], from `at` on; never worse than it."""
    stride = max(1, columns.shape[1] // SAMPLE_ROWS)
    x, y = np.ascontiguousarray(columns[:, ::stride]), labels[::stride]
    penalty = penalty / stride
    if family == "logistic" and not 0 < y.mean() < 1:
        return at

    def loss(weights: F64) -> float:
        eta = kernels.scores(x, weights, len(y))
        if family == "logistic":
            each = np.logaddexp(0, eta)
        else:
            each = eta * eta / 2 if family == "linear" else mean(family)(eta)
        return float(np.sum(each - y * eta) + 0.5 * (penalty * weights) @ weights)

    least = loss(at)
    for _ in range(MOST_STEPS):
        found = mean(family)(kernels.scores(x, at, len(y)))
        gradient = kernels.dots(x, found - y) + penalty * at
        step = Metric(kernels.moments(x, floored(slope(found, family))), penalty).step(gradient)
        length = 1.0
        while not (better := loss(at + length * step)) <= least and length > 1e-3:
            length /= 2
        if not better <= least:
            break
        at, least = at + length * step, better
        if -float(gradient @ step) < NEAR:
            break
    return at
