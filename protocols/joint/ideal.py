"""The ideal functionality: the pooled fit, computed by Newton's method; the tests' oracle."""

from __future__ import annotations

import numpy as np

from protocols.joint.expansion import mean
from protocols.joint.kernels import F64


def joint(brand: F64, provider: F64, labels: F64, family: str, l2: float) -> tuple[F64, F64, float]:
    """(weights of the brand's columns, of the provider's, intercept) on the pooled training rows.

    brand: float64[n, d], provider: float64[n, e], labels: float64[n].
    """
    x = np.column_stack([brand, provider, np.ones(len(labels))])
    penalty = np.full(x.shape[1], l2)
    penalty[-1] = 0.0
    at = np.zeros(x.shape[1])
    average = float(labels.mean())
    if family == "logistic":
        at[-1] = np.log(average / (1 - average))
    else:
        at[-1] = average if family == "linear" else np.log(average)

    def loss(w: F64) -> float:
        eta = x @ w
        if family == "logistic":
            each = np.logaddexp(0, eta)
        else:
            each = eta * eta / 2 if family == "linear" else np.exp(np.minimum(eta, 50))
        return float(np.sum(each - labels * eta) + 0.5 * (penalty * w) @ w)

    for _ in range(200):
        mu = mean(family)(x @ at)
        gradient = x.T @ (mu - labels) + penalty * at
        weight = mu * (1 - mu) if family == "logistic" else mu if family == "poisson" else np.ones_like(mu)
        step = np.linalg.solve((x * weight[:, None]).T @ x + np.diag(penalty + 1e-10), gradient)
        length = 1.0
        while loss(at - length * step) > loss(at) and length > 1e-6:
            length /= 2
        at = at - length * step
        if float(np.abs(gradient @ step)) < 1e-14:
            break
    d = brand.shape[1]
    return at[:d], at[d:-1], float(at[-1])
