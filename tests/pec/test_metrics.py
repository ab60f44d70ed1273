"""Every figure against scikit-learn or against its definition, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from pec import metrics
from pec.errors import PecError


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores on a coarse grid, so that ties are common, with both kinds of rows."""
    n = draw(st.integers(2, 60))
    scores = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    positive = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda v: 0 < sum(v) < len(v)))
    return np.array(scores, dtype=float) / 2, np.array(positive)


@given(rankings())
@settings(max_examples=150, deadline=None)
def test_auc_and_ks_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = case
    r = metrics.rank(scores, positive)
    assert metrics.auc(r) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert metrics.ks(r) == pytest.approx(max(tpr - fpr), abs=1e-12)


@given(rankings(), st.floats(0.01, 1), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_recall_is_the_average_over_orders_among_equals(
    case: tuple[np.ndarray, np.ndarray], fraction: float, seed: int
) -> None:
    scores, positive = case
    take = max(1, round(fraction * scores.size))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(300):
        order = np.lexsort((rng.random(scores.size), -scores))
        found.append(positive[order[:take]].sum() / positive.sum())
    spread = np.std(found) / np.sqrt(300)
    got = metrics.recall_at(metrics.rank(scores, positive), take / scores.size)
    assert got == pytest.approx(np.mean(found), abs=5 * spread + 1e-9)


def test_a_perfect_ranking() -> None:
    positive = np.arange(1000) < 50
    r = metrics.rank(-np.arange(1000.0), positive)
    assert metrics.auc(r) == 1 and metrics.ks(r) == 1
    assert metrics.lift_at(r, 0.05) == pytest.approx(20)
    assert metrics.recall_at(r, 0.01) == pytest.approx(0.2)
    assert metrics.gain_curve(r)[5] == [0.05, 1.0]


def test_equal_scores_tell_nothing() -> None:
    r = metrics.rank(np.zeros(100), np.arange(100) % 4 == 0)
    assert metrics.auc(r) == 0.5 and metrics.ks(r) == 0
    assert metrics.lift_at(r, 0.05) == pytest.approx(1)


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    scores, positive = rng.integers(0, 9, 500).astype(float), rng.random(500) < 0.2
    shuffle = rng.permutation(500)
    assert metrics.summary(scores, positive) == metrics.summary(scores[shuffle], positive[shuffle])


def test_intervals_hold_the_figure_and_cover_resampled_ones() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(4000) < 0.1
    scores = np.round(rng.normal(size=4000) + positive, 1)
    out = metrics.summary(scores, positive)
    for name, (low, high) in out["intervals"].items():
        assert low <= out[name] <= high, name
    low, high = out["intervals"]["auc"]
    hits = np.flatnonzero(positive)
    again = []
    for _ in range(200):
        drawn = rng.choice(hits, hits.size)
        rows = np.concatenate((np.flatnonzero(~positive), drawn))
        again.append(roc_auc_score(np.arange(rows.size) >= rows.size - drawn.size, scores[rows]))
    inside = np.mean([(low <= a <= high) for a in again])
    assert 0.88 <= inside <= 0.99


def test_correction_for_hidden_positives() -> None:
    rng = np.random.default_rng(5)
    positive = rng.random(200_000) < 0.3
    scores = rng.normal(size=200_000) + positive
    known = positive & (rng.random(200_000) < 0.5)
    hidden = (positive & ~known).sum() / (~known).sum()
    observed = metrics.auc(metrics.rank(scores, known))
    true = roc_auc_score(positive, scores)
    assert metrics.corrected_auc(observed, hidden) == pytest.approx(true, abs=0.005)
    assert observed < true - 0.02


@pytest.mark.parametrize(
    ("scores", "positive"),
    [
        ([1.0, 2.0], [True, True]),
        ([1.0, 2.0], [False, False]),
        ([np.nan, 1.0], [True, False]),
        ([1.0], [True, False]),
    ],
)
def test_what_can_not_be_measured_is_refused(scores: list[float], positive: list[bool]) -> None:
    with pytest.raises(PecError) as error:
        metrics.rank(scores, positive)
    assert error.value.code == "pec.metrics"


def test_histogram_and_reach() -> None:
    scores = np.array([0.0, 0.1, 0.5, 0.9, 1.0, 1.0])
    h = metrics.histogram(scores, scores > 0.8, bins=2)
    assert h == {"edges": [0.0, 0.5, 1.0], "rows": [2, 4], "positives": [0, 3]}
    reach = metrics.reach_curve(scores)
    assert reach[0] == [1, 1.0] and reach[-1] == [6, 0.0]
    assert all(a[0] < b[0] and a[1] >= b[1] for a, b in zip(reach, reach[1:], strict=False))
