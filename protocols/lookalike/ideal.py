"""The ideal functionality: what a trusted third party would give the provider. The tests' oracle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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
