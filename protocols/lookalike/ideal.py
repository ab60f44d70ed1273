"""The ideal functionality: what a trusted third party would give the provider. The tests' oracle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression


def lookalike(
    phi: npt.NDArray[np.float32], seed_rows: npt.NDArray[np.int64], l2: float
) -> tuple[npt.NDArray[np.float64], float, npt.NDArray[np.float64]]:
    """(weights, intercept, z) of plain scikit-learn on the pooled rows, without noise or quantisation."""
    y = np.zeros(len(phi))
    y[seed_rows] = 1
    features = phi.astype(np.float64)
    model = LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10, max_iter=500).fit(features, y)
    return model.coef_[0], float(model.intercept_[0]), np.append(features.T @ y, y.sum())


def bagged(
    phi: npt.NDArray[np.float32],
    bags: list[npt.NDArray[np.int64]],
    halves: list[npt.NDArray[np.int64]],
    l2: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(average of [weights, intercept], z of each bag): bag b has the seeds `bags[b]`, fitted on the rows
    `halves[b]` with half the penalty. By a general minimiser.
    """
    ones = np.column_stack([phi.astype(np.float64), np.ones(len(phi))])
    penalty = np.append(np.full(phi.shape[1], l2 / 2), 0.0)
    z = np.array([ones[seeds].sum(axis=0) for seeds in bags])

    def model(rows: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        def value(w: npt.NDArray[np.float64]) -> float:
            return float(np.logaddexp(0, rows @ w).sum() - target @ w + 0.5 * (penalty * w) @ w)

        def slope(w: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.asarray(rows.T @ expit(rows @ w) - target + penalty * w)

        found = minimize(value, np.zeros(len(target)), jac=slope, method="BFGS", options={"gtol": 1e-7})
        return np.asarray(found.x)

    models = [model(ones[rows], target) for rows, target in zip(halves, z, strict=True)]
    return np.mean(models, axis=0), z
