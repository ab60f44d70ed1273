"""The fit's other forms against scikit-learn, scores by streaming, and what z tells about one person."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from lattice_helpers import SESSION
from scipy.stats import beta
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from protocols.errors import LocalError
from protocols.lookalike import Features, FitResult, Labels, Terms, fit, score, score_columns
from protocols.lookalike import rows as kernels
from protocols.lookalike.noise import add_noise
from protocols.lookalike.terms import agree
from protocols.machine import pump

PLAIN = {"epsilon": None, "minimum_seeds": 1, "minimum_level": 1}


def run(phi: np.ndarray, seeds: np.ndarray, terms: Terms) -> FitResult:
    brand = Labels(seeds, len(phi), SESSION, terms, os.urandom)
    provider = Features(phi, [str(j) for j in range(phi.shape[1])], SESSION, terms, os.urandom)
    pump(brand, provider)
    return provider.result


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    phi = StandardScaler().fit_transform(x)
    phi = np.hstack([phi, phi[:, :1]])  # a column twice: collinear, what l1 must not stumble over
    return np.asfortranarray(phi, dtype=np.float32), y == 1


@pytest.mark.parametrize(("l1", "l2"), [(0.5, 1.0), (5.0, 0.1), (20.0, 3.0)])
def test_elastic_net_is_scikit_learns(cancer, l1: float, l2: float) -> None:
    phi, y = cancer
    found = run(phi, np.flatnonzero(y), Terms(l1=l1, l2=l2, **PLAIN))
    oracle = LogisticRegression(
        C=1 / (l1 + l2), l1_ratio=l1 / (l1 + l2), solver="saga", tol=1e-4, max_iter=2000
    ).fit(phi, y)

    def objective(w: np.ndarray, b: float) -> float:
        eta = phi.astype(float) @ w + b
        loss = float(np.logaddexp(0, eta).sum() - eta[y].sum())
        return loss + l1 * float(np.abs(w).sum()) + l2 / 2 * float(w @ w)

    # saga has not quite arrived when it stops: its minimum is never below ours, and near it.
    ours, theirs = objective(found.weights, found.intercept), objective(oracle.coef_[0], oracle.intercept_[0])
    assert ours - 1e-3 <= theirs <= ours + 0.05
    assert np.corrcoef(phi @ found.weights, phi @ oracle.coef_[0])[0, 1] > 0.999
    weights = found.weights
    # Its own optimality: the gradient of the smooth part is -l1 sign(w), or within l1 where w is 0.
    p = 1 / (1 + np.exp(-(phi.astype(float) @ weights + found.intercept)))
    gradient = phi.T.astype(float) @ (p - y) + l2 * weights
    assert np.abs(gradient[weights == 0]).max(initial=0.0) <= l1 + 0.05
    assert np.abs(gradient + l1 * np.sign(weights))[weights != 0].max(initial=0.0) < 0.05


def test_a_large_l1_leaves_the_intercept_alone(cancer) -> None:
    phi, y = cancer
    found = run(phi, np.flatnonzero(y), Terms(l1=1e4, **PLAIN))
    assert not found.weights.any()
    assert found.intercept == pytest.approx(math.log(y.mean() / (1 - y.mean())), abs=1e-6)


@pytest.mark.parametrize("clip", [None, 2.0])
def test_scores_by_column_are_those_of_the_whole_matrix(clip: float | None) -> None:
    rng = np.random.default_rng(0)
    phi = np.asfortranarray(rng.normal(size=(150_001, 7)), dtype=np.float32)
    fit = FitResult(rng.normal(size=7), 0.3, np.zeros(8), 1, None, 256, clip, 20)
    assert np.allclose(score_columns(iter(phi.T), len(phi), fit), score(phi, fit), atol=1e-5)
    with pytest.raises(ValueError):
        score_columns(iter(phi.T[:6]), len(phi), fit)


@pytest.mark.parametrize("change", [{"l1": -1.0}, {"l1": math.inf}])
def test_terms_out_of_range_are_refused(change) -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        Terms(**change)


def _holds(epsilon: float, delta: float, shift: float, noise: np.ndarray) -> bool:
    """Whether any threshold on `noise` (without the person) and `noise + shift` (with) breaks (epsilon,
    delta),
    at 99.9 % for each. The threshold is the best test there is: the likelihood ratio of two shifted
    Gaussians.
    """
    n = len(noise) // 2
    without, with_ = noise[:n], noise[n : 2 * n] + shift
    for threshold in np.quantile(with_, np.linspace(0.02, 0.98, 25)):
        hits, false = int((with_ >= threshold).sum()), int((without >= threshold).sum())
        least = float(beta.ppf(0.001, hits, n - hits + 1)) if hits else 0.0
        most = float(beta.ppf(0.999, false + 1, n - false)) if false < n else 1.0
        if least > math.exp(epsilon) * most + delta:
            return False
    return True


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_a_membership_test_on_z_does_no_better_than_epsilon_allows(epsilon: float) -> None:
    """z of two seed sets that differ in the person with the longest row, seen along that row."""
    terms = Terms(epsilon=epsilon, delta=1e-6, clip=5.0)
    agreed = agree(terms, 10_000, 1, 256)
    assert agreed.sensitivity is not None and agreed.noise_scale is not None
    # One column: the row is (C, 1) at the most, and its quanta are what the label moves z by.
    row = np.array([terms.clip, 1.0]) / agreed.common_step
    length = float(np.linalg.norm(row))
    assert length <= agreed.sensitivity
    unit, n = row / length, 8000
    drawn = add_noise(np.zeros(2 * n, np.int64), agreed.noise_scale).reshape(n, 2)
    assert _holds(epsilon, 1e-6, length, drawn @ unit)
    # The check can fail: with a twelfth of the noise it does.
    less = add_noise(np.zeros(2 * n, np.int64), agreed.noise_scale / 12).reshape(n, 2)
    assert not _holds(epsilon, 1e-6, length, less @ unit)


@pytest.mark.parametrize("columns", [4, 301])
def test_newton_directions_are_those_of_a_general_solver(columns: int) -> None:
    """Few columns by numpy, many by scipy; a Hessian that is only just not positive gets its jitter."""
    rng = np.random.default_rng(1)
    root = rng.standard_normal((columns, 2 * columns)) * 10.0 ** rng.integers(-3, 4, columns)[:, None]
    gradient = rng.standard_normal(columns)
    found = fit._direction(root @ root.T, gradient)
    assert np.allclose(root @ root.T @ found, -gradient, rtol=1e-6, atol=1e-8)
    flat = np.ones((columns, columns))
    assert np.isfinite(fit._direction(flat, np.ones(columns))).all()
    with pytest.raises(LocalError, match=r"lookalike\.fit"):
        fit._direction(-3 * np.eye(columns) * 1e12, gradient)


@pytest.mark.parametrize("rows", [1, 7, 5000])
def test_looks_at_columns_are_numpys(rows: int) -> None:
    rng = np.random.default_rng(rows)
    columns = rng.normal(size=(5, rows)).astype(np.float32)
    columns[1] = -0.0
    columns[2, rows // 2 :] = 1e-42  # below the least normal number
    usual = columns[:, 0].copy()
    assert np.array_equal(kernels.column_ranges(columns), np.abs(columns).max(axis=1).astype(np.float64))
    assert np.array_equal(kernels.differing(columns, usual), (columns != usual[:, None]).sum(axis=1))
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        columns[3, rows // 2] = bad
        assert np.isfinite(kernels.column_ranges(columns)).tolist() == [True, True, True, False, True]
