"""The estimators behave as scikit-learn's own do: parameters, clone, pipelines, cross validation, tables."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pec.errors import PecError
from pec.estimators import VerticalLinearRegression, VerticalLogisticRegression, VerticalPoissonRegression


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(300, 4)) * [1, 5, 1, 0.1] + 3, columns=["a", "b", "c", "d"])
    eta = (x["a"] - 3) + 0.3 * (x["b"] - 3) - 8 * (x["d"] - 3)
    return x, (rng.random(300) < 1 / (1 + np.exp(-eta))).astype(int)


def test_logistic_is_scikit_learns(table: tuple[pd.DataFrame, np.ndarray]) -> None:
    x, y = table
    model = VerticalLogisticRegression(["c", "d"], steps=9, rank=8).fit(x, np.where(y, "yes", "no"))
    scaled = StandardScaler().fit_transform(x)
    plain = LogisticRegression().fit(scaled, y)
    chances = model.predict_proba(x)
    assert np.abs(chances[:, 1] - plain.predict_proba(scaled)[:, 1]).max() < 0.01
    assert np.allclose(chances.sum(axis=1), 1) and list(model.classes_) == ["no", "yes"]
    assert np.allclose(x.to_numpy() @ model.coef_ + model.intercept_, model.decision_function(x), atol=1e-4)
    assert model.score(x, np.where(y, "yes", "no")) > 0.7
    card = json.loads(json.dumps(model.model_card()))
    assert set(card["brand"]) == {"a", "b"} and set(card["provider"]) == {"c", "d"} and card["steps"] > 1
    for other in (pl.from_pandas(x), pa.Table.from_pandas(x), x.to_numpy()):
        assert np.allclose(model.decision_function(other), model.decision_function(x))


def test_regressors_are_scikit_learns(table: tuple[pd.DataFrame, np.ndarray]) -> None:
    x, _ = table
    rng = np.random.default_rng(1)
    scaled = StandardScaler().fit_transform(x)
    y = scaled @ [2.0, -1.0, 0.0, 3.0] + 7 + rng.normal(size=len(x))
    model = VerticalLinearRegression([2, 3]).fit(x, y)
    assert np.abs(model.predict(x) - Ridge(1.0).fit(scaled, y).predict(scaled)).max() < 0.02
    counts = rng.poisson(np.exp(scaled @ [0.4, 0.0, 0.2, -0.3]))
    found = VerticalPoissonRegression([0, 1], steps=10).fit(x, counts).predict(x)
    plain = PoissonRegressor(alpha=1 / len(x)).fit(scaled, counts).predict(scaled)
    assert np.abs(found / plain - 1).max() < 0.05


def test_scikit_learns_machinery(table: tuple[pd.DataFrame, np.ndarray]) -> None:
    x, y = table
    model = VerticalLogisticRegression(["c", "d"], l2=2.0, steps=3, rank=4)
    copy = clone(model)
    assert copy.get_params() == model.get_params() and copy.set_params(l2=1.0).l2 == 1.0
    scores = cross_val_score(model, x, y, cv=2, scoring="roc_auc")
    assert scores.min() > 0.7
    holes = x.mask(np.random.default_rng(2).random(x.shape) < 0.05)
    whole = make_pipeline(SimpleImputer(), VerticalLogisticRegression([2, 3], steps=2, rank=3)).fit(holes, y)
    assert whole.predict(holes).shape == (300,)


def test_what_can_not_be(table: tuple[pd.DataFrame, np.ndarray]) -> None:
    x, y = table
    cases = [
        (VerticalLogisticRegression(["z"]), x, y, r"pec\.column"),
        (VerticalLogisticRegression([9]), x, y, r"pec\.column"),
        (VerticalLogisticRegression(), x, y, "provider_columns"),
        (VerticalLogisticRegression(["c"]), x.mask(x > 4), y, "missing"),
        (VerticalLogisticRegression(["c"]), x.astype(str) + "?", y, "no numbers"),
        (VerticalLogisticRegression(["c"]), x, np.arange(300), "classes"),
        (VerticalLogisticRegression(["c"]), x[:25], y[:25], "rows a column"),
        (VerticalLogisticRegression(["c"]), x, y[:60], "labels"),
    ]
    for model, features, labels, wanted in cases:
        with pytest.raises(PecError, match=wanted):
            model.fit(features, labels)
