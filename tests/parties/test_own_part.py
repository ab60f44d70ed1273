"""The brand's own weights given the provider's part: the minimum itself, for any family and columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from parties import features, own_part
from parties.errors import PartyError
from parties.gate import Column

FAMILIES = ("logistic", "linear", "poisson")


def drawn(seed: int, n: int, levels: int) -> list[Column]:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=n)
    gaps = np.where(rng.random(n) < 0.2, np.nan, rng.lognormal(size=n))
    shop = rng.integers(-1, levels, n).astype(np.int32)
    return [
        Column("x", "numeric", numbers),
        Column("gaps", "numeric", gaps),
        Column("shop", "categorical", shop, tuple(f"s{k}" for k in range(levels))),
    ]


class View:
    def __init__(self, columns: list[Column]) -> None:
        self.columns = {column.name: column for column in columns}

    def read(self, names, rows=None):
        for name in names:
            yield self.columns[name] if rows is None else self.columns[name].take(rows)


def pooled(phi: np.ndarray, y: np.ndarray, offset: np.ndarray, family: str, l2: float) -> float:
    """The least penalised loss, by another method on the dense table."""
    x = np.column_stack([phi, np.ones(len(y))])
    penalty = np.append(np.full(phi.shape[1], l2), 0.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, mean = cumulant(x @ w + offset, family)
        return float(np.sum(value - y * (x @ w + offset)) + 0.5 * (penalty * w) @ w), x.T @ (
            mean - y
        ) + penalty * w

    return float(
        minimize(
            loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 3000, "maxcor": 30}
        ).fun
    )


def cumulant(eta: np.ndarray, family: str) -> tuple[np.ndarray, np.ndarray]:
    if family == "linear":
        return eta**2 / 2, eta
    if family == "poisson":
        return np.exp(eta), np.exp(eta)
    return np.logaddexp(0, eta), 1 / (1 + np.exp(-eta))


@given(
    family=st.sampled_from(FAMILIES),
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(30, 300),
    levels=st.integers(1, 40),
    l2=st.sampled_from([0.1, 1.0, 30.0]),
)
@settings(max_examples=25, deadline=None)
def test_it_is_the_minimum_given_the_providers_part(
    family: str, seed: int, n: int, levels: int, l2: float
) -> None:
    columns = drawn(seed, n, levels)
    rng = np.random.default_rng(seed + 1)
    rows = np.sort(rng.permutation(n)[: n - 5])
    offset = 0.7 * rng.normal(size=len(rows))
    eta = offset + columns[0].values[rows] + 0.5 * rng.normal(size=levels + 1)[columns[2].values[rows]]
    y = {
        "linear": lambda: eta + rng.normal(size=len(rows)),
        "poisson": lambda: rng.poisson(np.exp(np.clip(eta, -5, 3))).astype(float),
        "logistic": lambda: (rng.random(len(rows)) < 1 / (1 + np.exp(-eta))).astype(float),
    }[family]()
    y[:2] = 0.0, 1.0
    found = own_part.settle(columns, rows, y, offset, family, l2, {"": 0.3, "shop=other": 2.0})
    assert found is not None
    phi = features.matrix(found.plan, View(columns), rows).astype(float)
    assert list(found.weights) == list(found.plan.names)
    weights = np.array(list(found.weights.values()))
    assert np.allclose(found.own[rows], phi @ weights + found.intercept, atol=1e-5)
    value, _ = cumulant(phi @ weights + found.intercept + offset, family)
    ours = float(np.sum(value - y * (phi @ weights + found.intercept + offset)) + l2 / 2 * weights @ weights)
    assert ours <= pooled(phi, y, offset, family, l2) + 1e-4 * (1 + abs(ours))
    counted = np.bincount(columns[2].values[rows] + 1, minlength=levels + 1)[1:]
    people = dict(zip(found.weights, found.people, strict=True))
    for k in np.flatnonzero(counted) if counted.max() < len(rows) else ():
        assert people[f"shop=s{k}"] == counted[k]
    assert people["x"] == len(rows)


@given(seed=st.integers(0, 2**32 - 1), drop=st.integers(0, 2**8 - 1))
@settings(max_examples=25, deadline=None)
def test_a_part_is_what_the_columns_of_phi_add_up_to(seed: int, drop: int) -> None:
    columns = drawn(seed, 200, 6)
    plan = features.learn(View(columns), ["x", "gaps", "shop"])
    names = plan.names
    kept = tuple(j for j in range(len(names)) if j == 0 or not drop >> j & 1)
    plan = features.Plan(plan.steps, kept=kept)
    weights = dict(zip(plan.names, np.random.default_rng(seed).normal(size=len(kept)).tolist(), strict=True))
    found = own_part.part(plan, View(columns).read(plan.used), 200, weights)
    whole = features.matrix(plan, View(columns)).astype(float) @ np.array([weights[n] for n in plan.names])
    assert np.allclose(found, whole, atol=1e-5)


def test_a_column_that_has_become_text_is_told() -> None:
    plan = features.learn(View(drawn(0, 100, 3)), ["x"])
    other = Column("x", "categorical", np.zeros(100, dtype=np.int32), ("a",))
    with pytest.raises(PartyError, match=r"features\.changed"):
        own_part.part(plan, [other], 100, {"x": 1.0})


def test_a_level_called_other_has_a_weight_of_its_own() -> None:
    """Weights are kept by name: rare levels grouped as other, and missing ones, are told from such levels."""
    codes = np.repeat(np.array([0, 1, 2, 3, -1], dtype=np.int32), [40, 30, 12, 6, 12])
    codes[82:88] = np.arange(3, 9)
    levels = ("a", "other", "missing", *(f"rare{k}" for k in range(6)))
    codes[88:92] = 3
    view = View([Column("c", "categorical", codes, levels)])
    plan = features.learn(view, ["c"])
    assert plan.names == ("c=a", "c=other", "c=missing", "c=other*")
    weights = dict(zip(plan.names, (1.0, 2.0, 3.0, 4.0), strict=True))
    found = own_part.part(plan, view.read(["c"]), 100, weights)
    assert np.array_equal(found, features.matrix(plan, view) @ np.arange(1.0, 5.0))
    with pytest.raises(PartyError, match=r"features\.changed"):
        own_part.part(plan, view.read(["c"]), 100, {"c=a": 1.0})


def test_no_column_is_no_model() -> None:
    rows, nobody = np.arange(40), np.zeros(40)
    constant = Column("x", "numeric", np.ones(40))
    assert own_part.settle([constant], rows, rows % 2 * 1.0, nobody, "logistic", 1.0, {}) is None
