"""Ordinary boosting at the brand: splits against brute force, monotone columns, binning, scikit-learn
beside it."""

from __future__ import annotations

import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
from boost_helpers import Dealer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from protocols import boost
from protocols.boost import tree
from protocols.boost.growth import Forest
from protocols.boost.score import Answerer, Scorer
from protocols.errors import LocalError
from protocols.machine import pump


def brute(
    sums: np.ndarray, columns: tree.Columns, node: tree.Node, learning: boost.Learning, *, every_set: bool
) -> float:
    """The largest gain over the allowed sets of bins, tried one after the other.

    A categorical column's sets are all of them (`every_set`), or those that follow the order, with all
    bins of few rows on one side. Fisher: the best of the second is the best of the first, but only without λ,
    a least weight of a side, `SMOOTH` and `SUPPORT`.
    """
    best = 0.0
    for f in range(len(sums)):
        g, h = sums[f, :, 0], sums[f, :, 1]
        rows = sums[f, :, 2] if sums.shape[2] == 3 else h * (node.rows / node.hessian)
        count = len(g)
        if columns.categorical[f]:
            sets = [set(c) for k in range(1, count) for c in itertools.combinations(range(count), k)]
            if not every_set:
                few = {j for j in range(count) if rows[j] < tree.SUPPORT}
                value = [a / (b + tree.SMOOTH) for a, b in zip(g, h, strict=True)]
                sets = [s for s in sets if few <= s or not few & s]
                rest = set(range(count)) - few
                sets = [
                    s
                    for s in sets
                    if max((value[j] for j in s - few), default=-np.inf)
                    <= min((value[j] for j in rest - s), default=np.inf)
                ]
        else:
            sets = [set(range(j + 1)) for j in range(count - 1)]
            if columns.missing[f]:
                sets += [set(range(1, j + 1)) for j in range(1, count)]
        for left in sets:
            index = sorted(left)
            gl, hl, nl = g[index].sum(), h[index].sum(), rows[index].sum()
            gr, hr, nr = node.gradient - gl, node.hessian - hl, node.rows - nl
            if min(hl, hr) < 1e-3 or min(nl, nr) < learning.minimum_rows / 2 - 1e-6:
                continue
            wl, wr = -gl / (hl + learning.l2), -gr / (hr + learning.l2)
            if columns.monotone[f] * (wr - wl) < 0:
                continue
            gain = 0.5 * (
                gl**2 / (hl + learning.l2)
                + gr**2 / (hr + learning.l2)
                - node.gradient**2 / (node.hessian + learning.l2)
            )
            best = max(best, gain)
    return best


@given(st.integers(0, 2**32), st.booleans(), st.booleans())
@example(3_775_430_864, False, False)  # only a set that leaves the order of G / H is allowed here
@settings(max_examples=150, deadline=None)
def test_the_best_split_is_the_best_of_all(seed: int, free: bool, counted: bool) -> None:
    rng = np.random.default_rng(seed)
    f, b = int(rng.integers(1, 4)), int(rng.integers(2, 6))
    people, sums = int(rng.integers(20, 120)), np.zeros((f, b, 3))
    values = np.stack([rng.normal(0, 1, people), rng.uniform(0.01, 0.25, people), np.ones(people)], axis=1)
    for column in range(f):  # every column spreads the same people over its bins
        np.add.at(sums[column], rng.integers(0, rng.integers(1, b + 1), people), values)
    categorical = rng.random(f) < 0.4
    columns = tree.Columns(
        categorical,
        ~categorical & (rng.random(f) < 0.5),
        rng.integers(-1, 2, f).astype(np.int8) * ~categorical,
    )
    node = tree.Node(*values[:, :2].sum(axis=0).tolist(), people)
    learning = boost.Learning(l2=1.0, minimum_rows=20, minimum_gain=0.0)
    sums = sums if counted else sums[..., :2].copy()
    with pytest.MonkeyPatch.context() as patch:
        if free:  # looser than the terms allow, and in the plain order
            learning = SimpleNamespace(l2=0.0, minimum_rows=0, minimum_gain=0.0)
            patch.setattr(tree, "SMOOTH", 0.0)
            patch.setattr(tree, "SUPPORT", 0.0)
        found = tree.best(sums, columns, node, learning)
        expected = brute(sums, columns, node, learning, every_set=free)
    assert (found.gain if found else 0.0) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if found is not None:
        index = np.flatnonzero(found.left)
        assert sums[found.column, index, :2].sum(axis=0) == pytest.approx(found.sums, abs=1e-9)


def binned(values: np.ndarray, most: int) -> boost.Table:
    missing = np.isnan(values).any(axis=0)
    bins = [
        boost.ordered(c, boost.cuts(c[~np.isnan(c)], most - int(gone), 5), bool(gone))
        for c, gone in zip(values.T, missing, strict=True)
    ]
    table = np.ascontiguousarray(np.stack(bins, axis=1)) if bins else np.zeros((len(values), 0), np.uint8)
    return boost.Table(table, np.zeros(len(bins), dtype=bool), missing)


def grown(
    x_own: np.ndarray,
    x_theirs: np.ndarray,
    y: np.ndarray,
    held: np.ndarray,
    *,
    both: bool = False,
    **learning: object,
):
    dealer, terms = Dealer(), boost.Terms(trees=20, depth=4, bits=5)
    k = len(y)
    labels = boost.Labels(np.arange(k), y.astype(float), ~held, held, binned(x_own, 256))
    how = boost.Learning(**learning)  # type: ignore[arg-type]
    brand = boost.Brand(labels, k, SESSION, terms, how, os.urandom, transfer=dealer.sender)
    provider = boost.Provider(binned(x_theirs, 32), SESSION, terms, os.urandom, transfer=dealer.receiver)
    pump(brand, provider)
    return (brand.result, provider.result) if both else brand.result


def test_as_good_as_scikit_learn_on_the_pooled_table() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    held = np.random.default_rng(0).random(len(y)) < 0.3
    scores = grown(x[:, ::2], x[:, 1::2], y, held).scores
    plain = HistGradientBoostingClassifier(max_iter=20, max_depth=4, early_stopping=False)
    pooled = plain.fit(x[~held], y[~held]).decision_function(x[held])
    assert roc_auc_score(y[held], scores[held]) > roc_auc_score(y[held], pooled) - 0.01


@pytest.mark.parametrize("case", ["constant", "missing", "imbalanced", "separable", "none of its own"])
def test_awkward_columns(case: str) -> None:
    x, y = make_classification(
        3000, 6, n_informative=4, weights=[0.995 if case == "imbalanced" else 0.5], random_state=4
    )
    x_own, x_theirs = x[:, :3].copy(), x[:, 3:].copy()
    if case == "constant":
        x_own[:, 0], x_theirs[:, 0] = 1.0, 2.0
    if case == "missing":
        x_own[:, 0], x_theirs[::3, 0], x_theirs[:, 1] = np.nan, np.nan, np.nan
    if case == "separable":
        x_theirs[:, 2] = y
    if case == "none of its own":
        x_own = x_own[:, :0]
    held = np.random.default_rng(1).random(len(y)) < 0.3
    result = grown(x_own, x_theirs, y, held)
    assert np.isfinite(result.scores).all()
    pooled = HistGradientBoostingClassifier(max_iter=20, max_depth=4, early_stopping=False)
    both = np.hstack([x_own, x_theirs])
    both = both[:, ~np.isnan(both).all(axis=0)]  # scikit-learn refuses a column without any value
    plain = pooled.fit(both[~held], y[~held]).decision_function(both[held])
    slack = 0.06 if case == "imbalanced" else 0.015  # fifteen positives in all: a coin's spread
    assert roc_auc_score(y[held], result.scores[held]) > roc_auc_score(y[held], plain) - slack


@pytest.mark.parametrize("side", ["monotone_own", "monotone_provider"])
def test_a_monotone_column_never_turns(side: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.random((2500, 2))
    y = (np.sin(9 * x[:, 0]) + x[:, 0] + rng.normal(0, 0.4, 2500) > 0.5).astype(float)
    own, theirs = (x[:, :1], x[:, 1:]) if side == "monotone_own" else (x[:, 1:], x[:, :1])
    held = np.zeros(2500, dtype=bool)
    bound = grid(*grown(own, theirs, y, held, both=True, **{side: {0: 1}}, learning_rate=0.3))
    free = grid(*grown(own, theirs, y, held, both=True, learning_rate=0.3))
    axis = 0 if side == "monotone_own" else 1
    assert (np.diff(bound, axis=axis) >= 0).all() and np.ptp(bound) > 1
    assert (np.diff(free, axis=axis) < 0).any()


@pytest.mark.parametrize("side", ["monotone_own", "monotone_provider"])
def test_a_column_of_levels_is_not_monotone(side: str) -> None:
    bins, levels = np.zeros((200, 2), dtype=np.uint8), np.array([False, True])
    people = np.arange(200)
    table = boost.Table(bins, levels, np.zeros(2, dtype=bool))
    labels = boost.Labels(people, (people % 2).astype(float), people >= 0, people < 0, table)
    for column, fits in ((0, True), (1, False)):
        learning = boost.Learning(**{side: {column: 1}})  # type: ignore[arg-type]
        given_ = labels, 200, levels, levels, boost.Terms(), learning, os.urandom
        if fits:
            Forest(*given_)
        else:
            with pytest.raises(LocalError, match=r"boost\.monotone: column 1 "):
                Forest(*given_)


def grid(mine: boost.BrandResult, theirs: boost.ProviderResult) -> np.ndarray:
    """Scores of every pair of bins, float64[256, 32]."""
    a, b = (
        m.ravel().astype(np.uint8)[:, None] for m in np.meshgrid(np.arange(256), np.arange(32), indexing="ij")
    )
    flags = np.zeros(1, dtype=bool)
    scorer = Scorer(np.arange(len(a)), boost.Table(a, flags, flags), len(a), mine.start, mine.trees, SESSION)
    pump(scorer, Answerer(boost.Table(b, flags, flags), theirs.splits, SESSION))
    return scorer.result.reshape(256, 32)


def test_rows_and_columns_are_drawn_anew_for_every_tree() -> None:
    rng = np.random.default_rng(4)
    own, theirs, people = binned(rng.random((3000, 6)), 16), np.zeros(10, dtype=bool), np.arange(3000)
    held = people % 5 == 0
    labels = boost.Labels(people, (people % 2).astype(float), ~held, held, own)
    learning = boost.Learning(row_share=0.4, column_share=0.35)
    forest = Forest(
        labels, 3000, theirs, theirs, boost.Terms(trees=20, depth=2, bits=4), learning, os.urandom
    )
    rows, used, own_used = [], [], []
    for _ in range(20):
        used.append(tuple(forest.begin()))
        own_used.append(tuple(forest._own_used))
        rows.append(forest._train)
        # Rows outside, and held-out ones, add nothing to any sum.
        assert not (forest.fixed_point()[~rows[-1]]).any() and not (rows[-1] & held).any()
    assert {len(u) for u in used} == {4} and {len(u) for u in own_used} == {3}  # 3.5 and 2.1, rounded up
    assert len(set(used)) > 5 and len(set(own_used)) > 5
    assert {c for u in used for c in u} == set(range(10))
    share = np.array(rows)[:, ~held].mean(axis=0)
    assert abs(share.mean() - 0.4) < 0.02 and share.min() < 0.3 and share.max() > 0.5
    whole = Forest(labels, 3000, theirs, theirs, boost.Terms(), boost.Learning(), os.urandom)
    assert tuple(whole.begin()) == tuple(range(10)) and (whole._train == ~held).all()


def test_early_stopping_keeps_the_best_forest() -> None:
    x, y = make_classification(1500, 6, n_informative=3, flip_y=0.4, random_state=0)
    held = np.random.default_rng(3).random(len(y)) < 0.3
    result = grown(x[:, :3], x[:, 3:], y, held, learning_rate=1.0, patience=3)
    assert len(result.trees) == int(np.argmin(result.losses)) < len(result.losses) - 1


@given(
    st.lists(st.floats(-5, 5, width=16) | st.just(0.0), min_size=1, max_size=200),
    st.integers(2, 64),
    st.integers(1, 20),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_no_bin_is_small(values: list[float], most: int, least: int, tails: bool) -> None:
    array = np.array(values)
    bounds = boost.cuts(array, most, least, tails)
    bins = boost.ordered(array, bounds, missing=False)
    sizes = np.bincount(bins)
    assert len(bounds) < most and (len(sizes) == 1 or sizes.min() >= least)
    order = np.argsort(array, kind="stable")
    assert (np.diff(bins[order].astype(int)) >= 0).all()


def test_a_frequent_value_takes_no_cut_from_the_others() -> None:
    values = np.concatenate((np.zeros(8000), np.arange(1, 2001)))
    sizes = np.bincount(boost.ordered(values, boost.cuts(values, 16, 10), missing=False))
    assert sizes[0] == 8000 and len(sizes) == 16 and sizes[1:].max() < 160
    few = np.repeat(np.arange(16.0), np.arange(10, 26))
    assert boost.cuts(few, 16, 10).tolist() == (np.arange(15) + 0.5).tolist()


@pytest.mark.parametrize("pair", [(0.0, 5e-324), (1.0, 1.0 + 2**-52), (-1.7e308, 1.7e308)])
def test_a_cut_lies_between_its_values(pair: tuple[float, float]) -> None:
    (bound,) = boost.cuts(np.repeat(pair, 20), 4, 10).tolist()
    assert pair[0] <= bound < pair[1]


def test_the_unit_of_the_label_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(600, 2))
    y, held = x.sum(axis=1) + rng.normal(0, 0.1, 600), np.arange(600) % 4 == 0
    plain, cents = (grown(x[:, :1], x[:, 1:], y * k, held, objective="squared") for k in (1.0, 2.0**-40))
    assert np.allclose(plain.scores, cents.scores * 2.0**40, rtol=1e-12)
    assert np.allclose(plain.gains[0], cents.gains[0] * 2.0**80) and plain.gains[0].sum() > 0
    assert ((plain.scores - y)[held] ** 2).mean() < y.var() / 4


def test_bins_of_trees_are_finer_in_the_tails() -> None:
    values = np.arange(10_000, dtype=float)
    sizes = np.bincount(boost.ordered(values, boost.cuts(values, 16, 10, True), missing=False))
    assert len(sizes) == 16 and sizes[0] < 250 and sizes[-1] < 250 and sizes.max() < 1000
