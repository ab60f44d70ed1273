"""Bins, hinges and products: the same at fit and scores, nobody stands alone in them, and they buy
ranking."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from test_features import Table

from parties import features, transforms
from parties.kinds.metrics import detailed, measure, reach


class Placed(Table):
    def own_rows(self):
        return np.arange(len(next(iter(self._columns.values())).values))


def _phi(table: Placed, form: str, noisy: bool = False):
    rows = np.arange(len(table.own_rows()))
    plan, phi = features.build(table, table.names, rows, noisy=noisy, form=form)
    return features.cross(plan, phi, None, noisy=noisy) if form == "crosses" else (plan, phi)


def _table(n: int = 3000, seed: int = 0) -> Placed:
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=n)
    gaps[rng.random(n) < 0.2] = np.nan
    return Placed(
        x=rng.normal(size=n),
        long=np.exp(3 * rng.normal(size=n)),
        gaps=gaps,
        few=rng.integers(0, 3, n),
        flag=rng.random(n) < 0.1,
        town=rng.choice(["a", "b", "c", "d"], n, p=[0.6, 0.3, 0.09, 0.01]),
    )


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("form", transforms.FORMS)
def test_a_plan_makes_the_same_phi_again_from_its_document(form, noisy):
    table = _table()
    plan, phi = _phi(table, form, noisy)
    assert len(plan.names) == phi.shape[1] == len(set(plan.names))
    again = features.Plan.from_document(json.loads(json.dumps(plan.to_document())))
    assert again == plan
    assert np.array_equal(features.matrix(again, table), phi)
    for j, values in features.stream(again, table, np.arange(50)):
        assert np.array_equal(values, phi[:50, j])
    if form != "linear":
        assert phi.shape[1] > _phi(table, "linear", noisy)[1].shape[1]
    assert not np.isnan(phi).any()


@pytest.mark.parametrize("form", ["bins", "splines", "crosses"])
def test_missing_values_have_a_level_of_their_own(form):
    plan, phi = _phi(_table(), form)
    at = plan.names.index("gaps=missing")
    gone = np.isnan(next(_table().read(["gaps"])).values)
    assert np.array_equal(phi[:, at] > 0.5, gone)
    if form == "bins":
        mine = [j for j, name in enumerate(plan.names) if name.startswith("gaps") and j != at]
        assert not phi[gone][:, mine].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["bins", "splines", "crosses"]), st.booleans())
def test_no_made_column_speaks_of_a_few_people_only(seed, form, noisy):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 800))
    wild = rng.normal(size=n)
    wild[rng.permutation(n)[: rng.integers(1, 5)]] = 10.0 ** rng.integers(2, 12)
    rare = np.zeros(n)
    rare[: rng.integers(1, 30)] = rng.normal(size=1)
    table = Placed(
        wild=wild, rare=rare, steps=rng.integers(0, rng.integers(2, 9), n), tail=rng.pareto(0.5, n)
    )
    plan, phi = _phi(table, form, noisy)
    least = features._threshold(n, noisy)
    for j, name in enumerate(plan.names):
        near = np.rint(phi[:, j] * (features.FINEST / np.abs(phi[:, j]).max()))
        alone = n - np.unique(near, return_counts=True)[1].max()
        assert alone >= least, (name, alone)


def test_shapes_and_products_buy_ranking_that_a_line_can_not():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 6000))
    table = Placed(a=a, b=b)
    curved = rng.random(6000) < 1 / (1 + np.exp(3 - 2 * a * a))
    crossed = rng.random(6000) < 1 / (1 + np.exp(-2 * a * b))

    def auc(form, y):
        phi = _phi(table, form)[1]
        half = np.arange(6000) < 3000
        model = LogisticRegression(max_iter=1000).fit(phi[half], y[half])
        return roc_auc_score(y[~half], model.decision_function(phi[~half]))

    assert auc("linear", curved) < 0.6 < 0.75 < min(auc("bins", curved), auc("splines", curved))
    assert auc("splines", crossed) < 0.6 < 0.75 < auc("crosses", crossed)


def test_products_keep_to_the_room_that_the_seeds_leave():
    table = _table()
    plan, phi = features.build(table, table.names, np.arange(3000), form="crosses")
    for room in (0, -3):
        assert features.cross(plan, phi, room)[0].products == ()
    wider, more = features.cross(plan, phi, 2)
    assert len(wider.products) == 2 and more.shape[1] == phi.shape[1] + 2


# -- figures of the ranking ----------------------------------------------------------------------------------


def test_detailed_figures_agree_with_scikit_learn_and_lie_in_their_intervals():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(2)
    positive = rng.random(8000) < 0.05
    scores = rng.normal(size=8000) + 1.2 * positive
    found, plain = detailed(scores, positive, 0.1), measure(scores, positive)
    assert found["pr_auc"] == pytest.approx(average_precision_score(positive, scores), rel=1e-6)
    assert found["auc_corrected"] == pytest.approx((plain["auc"] - 0.05) / 0.9)
    assert found["lift_at"]["5"] == pytest.approx(plain["lift_at_5pct"], rel=1e-6)
    values = {"auc": plain["auc"], "ks": plain["ks"], "pr_auc": found["pr_auc"]}
    values |= {f"recall_at_{p}": v for p, v in plain["recall_at"].items()}
    for name, value in values.items():
        low, high = found["intervals"][name]
        assert low < high and low - 0.02 <= value <= high + 0.02, name
    low, high = plain["auc_interval"]
    assert found["intervals"]["auc"] == pytest.approx([low, high], abs=0.01)
    calibration = found["calibration"]
    assert calibration["ece"] < 0.02 and calibration["slope"] > 0 and len(calibration["bins"]) == 10
    assert json.dumps(found)


def test_figures_without_both_classes_or_with_ties_do_not_break():
    assert detailed(np.zeros(5), np.zeros(5, bool))["pr_auc"] is None
    tied = detailed(np.zeros(100), np.arange(100) < 60)
    assert tied["calibration"]["ece"] < 0.2 and tied["intervals"]["auc"] == [0.5, 0.5]
    assert tied["intervals"]["ks"] == [0.0, 0.0]
    assert reach(np.array([])) == []
    curve = reach(np.random.default_rng(0).normal(size=1000))
    assert curve[0][0] == 1 and curve[-1][0] == 1000
    assert all(a[1] >= b[1] for a, b in zip(curve, curve[1:], strict=False))
