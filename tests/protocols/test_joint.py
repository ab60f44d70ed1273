"""Joint models: equal to the pooled fit, robust, and silent about everything but the declared."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, fixed_rng, ideal_queries, transcript

from protocols import joint
from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.joint import expansion as means
from protocols.joint import kernels, messages
from protocols.joint.ideal import joint as pooled
from protocols.joint.metric import Metric
from protocols.joint.mixing import History, Mixer
from protocols.joint.terms import scales
from protocols.linear_query import messages as query_messages
from protocols.machine import pump


def data(family: str, n: int = 400, extra: int = 150, d: int = 2, e: int = 3, seed: int = 0):
    """(rows, brand's columns, labels, provider's columns): n of n + extra rows are the brand's people."""
    rng = np.random.default_rng(seed)
    m = n + extra
    rows = rng.permutation(m)[:n]
    z = rng.standard_normal((m, e)).astype(np.float32)
    x = (rng.standard_normal((n, d)) + 0.4 * z[rows, :1]).astype(np.float32)
    w = rng.standard_normal(d + e) * 0.7
    eta = np.column_stack([x, z[rows]]) @ w - 0.3
    if family == "logistic":
        y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        y[:2] = 0.0, 1.0
    elif family == "linear":
        y = 5 + 3 * eta + rng.standard_normal(n)
    else:
        y = rng.poisson(np.exp(0.4 * eta)).astype(float)
        y[0] = 1.0
    return rows, x, y, z


def machines(rows, x, y, z, terms, rng=os.urandom, session=SESSION):
    names = [f"z{k}" for k in range(z.shape[1])]
    brand = joint.Brand(rows, x, y, len(z), session, terms, rng)
    return brand, joint.Provider(z, names, session, terms, rng)


def fit(rows, x, y, z, terms):
    brand, provider = machines(rows, x, y, z, terms)
    pump(brand, provider)
    return brand.result, provider.result


@pytest.mark.parametrize("family", joint.FAMILIES)
def test_equals_the_pooled_fit(family: str) -> None:
    rows, x, y, z = data(family)
    terms = joint.Terms(family=family, rank=8 if family == "logistic" else None)
    b, p = fit(rows, x, y, z, terms)
    # A linear model's labels are standardised, and the penalty with them: no difference to a ridge.
    beta, gamma, start = pooled(x.astype(float), z[rows].astype(float), y, family, 1.0)
    assert np.abs(b.scale * b.weights - beta).max() < 5e-3
    assert np.abs(b.scale * p.weights - gamma).max() < 5e-3
    scores = b.score(x, p.part(z)[rows])
    assert np.abs(scores - (x @ beta + z[rows] @ gamma + start)).max() < 0.02
    assert b.steps == p.steps <= 28 and p.padded_rows == joint.padded(len(rows))
    assert b.converged  # and a fit that has not come to the minimum says so
    assert not fit(rows, x, y, z, joint.Terms(family=family, steps=2))[0].converged


def test_a_linear_labels_unit_makes_no_difference() -> None:
    rows, x, y, z = data("linear", n=90, extra=10)
    terms = joint.Terms(family="linear", steps=6, minimum_rows=50)
    fits = [fit(rows, x, y * unit, z, terms)[0] for unit in (1.0, 2.0**-60, 2.0**60)]
    for one, unit in zip(fits, (1.0, 2.0**-60, 2.0**60), strict=True):
        assert one.scale * one.weights / unit == pytest.approx(fits[0].scale * fits[0].weights, abs=2e-3)


def test_equals_the_ideal_functionality_in_many_small_runs() -> None:
    worst = 0.0
    for seed in range(32):
        family = "logistic" if seed % 8 == 0 else joint.FAMILIES[1 + seed % 2]
        n, d, e = 60 + seed, 1 + seed % 3, 1 + seed % 2
        rows, x, y, z = data(family, n, 20 + seed, d, e, seed)
        rank = 6 if family == "logistic" else None
        terms = joint.Terms(family=family, rank=rank, steps=7, minimum_rows=50)
        b, p = fit(rows, x, y, z, terms)
        beta, gamma, start = pooled(x.astype(float), z[rows].astype(float), y, family, 1.0)
        wanted = x @ beta + z[rows] @ gamma + start
        worst = max(worst, float(np.abs(b.score(x, p.part(z)[rows]) - wanted).max() / max(1.0, wanted.std())))
    assert worst < 0.1, worst


def test_levels_of_rows_lead_to_the_same_minimum() -> None:
    """Gradients over a part of the rows first; it ends within a part of a standard error."""
    rng = np.random.default_rng(4)
    m, n = 107_000, 90_000
    rows = np.sort(rng.permutation(m)[:n])
    z = rng.standard_normal((m, 2)).astype(np.float32)
    x = (rng.standard_normal((n, 1)) + 0.5 * z[rows, :1]).astype(np.float32)
    eta = 0.8 * x[:, 0] - z[rows, 0] + 0.3 * z[rows, 1] - 1
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    assert joint.terms.levels(m, joint.padded(n), 3) == (3 * 8192, m)
    terms = joint.Terms(rank=8)
    b, p = fit(rows, x, y, z, terms)
    beta, gamma, _start = pooled(x.astype(float), z[rows].astype(float), y, "logistic", 1.0)
    pool = np.column_stack([x, z[rows]]).astype(float)
    w = y.mean() * (1 - y.mean())
    error = np.sqrt(np.diag(np.linalg.inv(w * pool.T @ pool)))
    off = np.abs(np.concatenate([b.weights - beta, p.weights - gamma])) / error
    assert off.max() < 0.3 and 3 <= b.steps <= 12, (off, b.steps)


def covariance(x: np.ndarray, weight: np.ndarray, l2: float, dispersion: float) -> np.ndarray:
    """Of all pooled weights, the intercept last: the inverse of the penalised information."""
    x = np.column_stack([x, np.ones(len(x))]).astype(float)
    penalty = np.append(np.full(x.shape[1] - 1, l2), 0.0)
    return np.linalg.inv(((x * weight[:, None]).T @ x + np.diag(penalty)) / dispersion)


@pytest.mark.parametrize("family", joint.FAMILIES)
def test_standard_errors_equal_the_pooled_ones(family: str) -> None:
    rows, x, y, z = data(family, n=500, extra=90)
    terms = joint.Terms(family=family)
    beta, gamma, start = pooled(x.astype(float), z[rows].astype(float), y, family, 1.0)
    eta = x @ beta + z[rows] @ gamma + start
    mu = means.mean(family)(eta)
    dispersion = float(np.sum((y - mu) ** 2) / (len(y) - 6)) if family == "linear" else 1.0
    weight = mu * (1 - mu) if family == "logistic" else mu if family == "poisson" else np.ones(len(y))
    brand = joint.Weights(rows, x, weight, len(z), dispersion, SESSION, terms, os.urandom)
    provider = joint.Columns(z, SESSION, terms, os.urandom)
    pump(brand, provider)
    whole = covariance(np.column_stack([x, z[rows]]), weight, 1.0, dispersion)
    wanted = np.sqrt(np.diag(whole))
    assert brand.result.errors == pytest.approx(np.append(wanted[:2], wanted[-1]), rel=2e-3)
    assert provider.result.errors == pytest.approx(wanted[2:-1], rel=2e-3)
    own = np.ix_([0, 1, 5], [0, 1, 5])
    assert np.abs(brand.result.covariance - whole[own]).max() < 3e-3 * whole[own].max()
    p = joint.p_values(beta, brand.result.errors[:2])
    assert ((p >= 0) & (p <= 1)).all()


def test_standard_errors_equal_a_plain_computation_in_hundreds_of_runs(monkeypatch) -> None:
    """Of the weights that both sides have, with columns of every kind; the linear queries are ideal ones."""
    ideal_queries(monkeypatch)
    off = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n, d, e = int(rng.integers(150, 900)), int(rng.integers(0, 6)), int(rng.integers(1, 8))
        m = n + int(rng.integers(0, n))
        rows = rng.permutation(m)[:n]
        z, x = rng.standard_normal((m, e)), rng.standard_normal((n, d))
        for columns in (x, z):
            for k in range(0, columns.shape[1], 2):  # counts, rare flags, heavy tails, correlated ones
                kind = rng.integers(4)
                columns[:, k] = (
                    rng.poisson(2, len(columns)),
                    rng.random(len(columns)) < 0.1,
                    np.exp(1.5 * columns[:, k]),
                    columns[:, k] + columns[:, -1],
                )[kind]
        x += 0.5 * z[rows, :1]
        x, z = ((v - v.mean(0)) / (v.std(0) + 1e-9) for v in (x, z))
        x, z = x.astype(np.float32), z.astype(np.float32)
        l2, dispersion = float(10 ** rng.uniform(-3, 1)), float(10 ** rng.uniform(-2, 2))
        mean = 1 / (1 + np.exp(-np.column_stack([x, z[rows]]) @ rng.standard_normal(d + e)))
        weight = mean * (1 - mean)
        terms = joint.Terms(l2=l2)
        brand = joint.Weights(rows, x, weight, m, dispersion, SESSION, terms, os.urandom)
        provider = joint.Columns(z, SESSION, terms, os.urandom)
        pump(brand, provider)
        wanted = np.sqrt(np.diag(covariance(np.column_stack([x, z[rows]]), weight, l2, dispersion)))
        found = np.concatenate([brand.result.errors[:-1], provider.result.errors, brand.result.errors[-1:]])
        off.append(float(np.abs(found / wanted - 1).max()))
    # The last are columns of heavy tails, whose largest values count for little: what counts is rounded.
    assert np.median(off) < 2e-4 and np.quantile(off, 0.9) < 4e-3 and max(off) < 0.08, np.sort(off)[-20:]


def test_standard_errors_of_collinear_columns_are_large_and_finite() -> None:
    rows, x, _y, z = data("logistic", n=500, extra=90)
    z[rows, 0] = x[:, 0]  # the same column at both sides
    z[:, 2] = z[:, 1]
    brand = joint.Weights(rows, x, np.full(500, 0.2), len(z), 1.0, SESSION, joint.Terms(), os.urandom)
    provider = joint.Columns(z, SESSION, joint.Terms(), os.urandom)
    pump(brand, provider)
    wanted = np.sqrt(np.diag(covariance(np.column_stack([x, z[rows]]), np.full(500, 0.2), 1.0, 1.0)))
    assert brand.result.errors[0] == pytest.approx(wanted[0], rel=0.05)
    assert provider.result.errors == pytest.approx(wanted[2:-1], rel=0.05)


def test_standard_errors_are_refused_where_they_would_say_too_much() -> None:
    rows, x, _y, z = data("logistic", n=60, extra=20, d=2, e=6)
    terms = joint.Terms(minimum_rows=20)
    for curvature, dispersion in ((np.zeros(60), 1.0), (np.full(60, -1.0), 1.0), (np.ones(60), 0.0)):
        with pytest.raises(LocalError):
            joint.Weights(rows, x, curvature, len(z), dispersion, SESSION, terms, os.urandom)
    brand = joint.Weights(rows, x, np.ones(60), len(z), 1.0, SESSION, terms, os.urandom)
    with pytest.raises(LocalError, match=r"joint\.rows.*39 sums"):
        pump(brand, joint.Columns(z, SESSION, terms, os.urandom))
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        brand = joint.Weights(rows, x, np.ones(60), len(z), 1.0, bytes(32), terms, os.urandom)
        pump(brand, joint.Columns(z, SESSION, terms, os.urandom))


def test_levels_grow_until_a_quarter() -> None:
    assert joint.terms.levels(50_000, 50_000, 20) == (50_000,)
    found = joint.terms.levels(10_000_000, 8_000_000, 20)
    assert found == (3 * 8192, 24 * 8192, 192 * 8192, 10_000_000)
    # A level has enough rows for its gradients, however wide a side is.
    for columns in (1, 100, 1000):
        for total in (100_000, 3_000_000):
            for level in joint.terms.levels(total, total // 2, columns)[:-1]:
                assert level / 2 >= 200 * columns


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    return float((scores[positives][:, None] > scores[~positives]).mean())


def test_awkward_columns_and_labels_do_not_break_it() -> None:
    rng = np.random.default_rng(5)
    n = m = 2000
    rows = np.arange(n)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    z = rng.standard_normal((m, 4)).astype(np.float32)
    x[:, 1] = 1.0  # constant
    x[:, 2] = x[:, 0]  # collinear
    z[:, 1] = z[:, 0]
    z[:, 2] = 0.0
    z[:, 3] = x[:, 0]  # the same on both sides
    cases = {
        "separable": (x[:, 0] + z[:, 0] > 0).astype(float),
        "half a percent": (x[:, 0] + z[:, 0] > np.quantile(x[:, 0] + z[:, 0], 0.995)).astype(float),
    }
    for name, y in cases.items():
        b, p = fit(rows, x, y, z, joint.Terms(steps=8, rank=6))
        scores = b.score(x, p.part(z))
        assert np.isfinite(scores).all(), name
        assert auc(scores, y > 0) > 0.98, name


@pytest.mark.parametrize(("at", "own", "other"), [(0, 1.0, 1.0), (-5, 2.0, 1.0), (1, 0.3, 4.0)])
def test_expansion_is_close_where_scores_are(at: float, own: float, other: float) -> None:
    index = [means.spread_indices(np.array([-s, s])) for s in (own, other)]
    found = means.expansion("logistic", 8, means.location_index(at), *index)
    rng = np.random.default_rng(1)
    a, b = at + own * rng.standard_normal(2000), other * rng.standard_normal(2000)
    near = (found.of_brand(a) * found.of_provider(b)).sum(axis=0)
    assert np.abs(near - 1 / (1 + np.exp(-a - b))).mean() < 2e-3
    assert np.allclose(found.psi[0], 1.0)


def test_expansion_of_heavy_tailed_scores() -> None:
    """A few scores that are far out must not take the resolution from all others."""
    rng = np.random.default_rng(6)
    draws = {
        "lognormal": lambda: (np.exp(1.5 * rng.standard_normal(4000)) - 3) / 4,
        "cauchy": lambda: rng.standard_cauchy(4000) / 2,
    }
    for name, draw in draws.items():
        u, v = draw(), draw()
        at = means.location_index(means.middle(u))
        spreads = means.spread_indices(u - means.location(at)), means.spread_indices(v)
        found = means.expansion("logistic", 10, at, *spreads)
        near = (found.of_brand(u) * found.of_provider(v)).sum(axis=0)
        assert np.abs(near - (1 + np.tanh((u + v) / 2)) / 2).mean() < 0.01, name


def test_mixing_solves_a_quadratic_in_a_few_steps() -> None:
    rng = np.random.default_rng(2)
    a = np.diag(np.arange(1.0, 7.0))
    target = rng.standard_normal(6)
    history, mixer = History(np.zeros(6)), Mixer()
    for _ in range(9):
        gradient = a @ (history.at - target)
        history.move(mixer.choose(history.add(gradient, Metric(3 * np.eye(6), np.zeros(6)))))
    assert np.abs(history.at - target).max() < 1e-3 and mixer.sizes[-1] < 1e-5 * mixer.sizes[0]


def test_a_setback_shortens_the_step_each_time() -> None:
    """Steps that are ten times too long in one direction: no length is tried twice."""
    a = np.diag([1.0, 20.0])
    history, mixer, lengths = History(np.zeros(2)), Mixer(), []
    metric = Metric(np.eye(2), np.zeros(2))
    for _ in range(20):
        mix = mixer.choose(history.add(a @ (history.at - 1.0), metric))
        lengths.append(mix.length)
        history.move(mix)
    assert mixer.sizes[-1] < 1e-6 * mixer.sizes[0], (lengths, mixer.sizes)


def test_rounding_errors_of_many_rows_cancel() -> None:
    """A column whose largest value is far out: nearest integers would lose all others."""
    rng = np.random.default_rng(1)
    column = np.concatenate([[40.0], 0.003 + 0.001 * rng.standard_normal(49_999)]).astype(np.float32)
    factor, positions = rng.random(50_000), np.arange(50_000)
    out = np.zeros((1, 50_000), np.int32)
    unit = 40.0 / 2047
    kernels.weighted(column[None, :], factor, np.array([1 / unit]), 2047, 0, 0, positions, out)
    exact = float(factor[1:] @ column[1:].astype(float))
    assert abs(out[0, 1:].sum() * unit / exact - 1) < 0.03
    assert np.abs(out[0] * unit - factor * column).max() < unit
    vectors = np.stack([0.1 * rng.random(4000), np.arange(4000.0)])
    whole = kernels.rounded(vectors[0], 0, 0)
    assert abs(whole.sum() - vectors[0].sum()) < 60  # to the nearest it would be 200
    assert np.array_equal(kernels.rounded(vectors[0][77:], 0, 77), whole[77:])  # a part as in the whole
    assert np.array_equal(kernels.rounded(vectors[1], 1, 0), vectors[1])


@pytest.mark.parametrize("kind", ["lognormal", "cauchy", "separated"])
def test_columns_of_heavy_tails_reach_the_pooled_fit(kind: str, monkeypatch) -> None:
    """Where the curvature at the end has little to do with that at the start."""
    ideal_queries(monkeypatch)
    rng = np.random.default_rng(7)
    raw = rng.standard_normal((3000, 6))
    if kind == "lognormal":
        raw = np.exp(2 * raw)
    elif kind == "cauchy":
        raw = rng.standard_cauchy((3000, 6))
    eta = (raw - np.median(raw, 0)) / (np.quantile(raw, 0.75, 0) - np.quantile(raw, 0.25, 0))
    eta = eta @ np.array([1.0, -0.8, 0.6, 0.5, -0.4, 0.3])
    noise = 0.05 if kind == "separated" else 0.7
    y = (eta + noise * rng.logistic(size=3000) > np.median(eta)).astype(float)
    scaled = ((raw - raw.mean(0)) / raw.std(0)).astype(np.float32)
    rows, x, z = np.arange(3000), scaled[:, ::2], scaled[:, 1::2]
    b, p = fit(rows, x, y, z, joint.Terms())
    beta, gamma, _start = pooled(x.astype(float), z.astype(float), y, "logistic", 1.0)
    ours, best = (
        auc(s, y > 0) for s in (b.score(x, p.part(z)), np.column_stack([x, z]) @ np.append(beta, gamma))
    )
    assert abs(ours - best) < 0.002, (ours, best, b.steps)


def shape(log):
    return [(side, message[0], len(message)) for side, message in log]


def test_the_provider_can_not_tell_permuted_labels() -> None:
    """Same structure and sizes, and ciphertexts that look uniform, whoever matched and whatever they did."""
    rows, x, y, z = data("logistic")
    terms = joint.Terms(steps=2, rank=4)
    shapes, first_chunks = [], []
    other_rows = np.random.default_rng(9).permutation(len(z))[: len(rows)]
    for who, labels in ((rows, y), (rows, np.random.default_rng(3).permutation(y)), (other_rows, y)):
        log = transcript(*machines(who, x, labels, z, terms))
        shapes.append(shape(log))
        chunks = [m for side, m in log if side == "left" and len(m) > 80_000]
        words = np.concatenate([np.frombuffer(m[9:], "<u4") for m in chunks if m[0] == 2])
        first_chunks.append(words)
    assert shapes[0] == shapes[1] == shapes[2]
    for (
        words
    ) in first_chunks:  # residues in 30 bits each, one after the other: their bits are as good as uniform
        share = np.bincount(words >> 28, minlength=16) / len(words)
        assert np.abs(share - 1 / 16).max() < 6 * (1 / 16 / len(words)) ** 0.5
        assert len(np.unique(words)) > 0.99 * len(words)


def test_masked_answers_look_uniform_and_keys_are_fresh() -> None:
    rows, x, y, z = data("logistic")
    terms = joint.Terms(steps=4, rank=4)
    values, keys = [], []
    for _ in range(2):
        for _side, message in transcript(*machines(rows, x, y, z, terms)):
            if message[0] == 3 and 20 < len(message) < 200:
                masked = query_messages.TO_PROVIDER.decode(message, query_messages.Masked)
                words = np.frombuffer(masked.values, "<u8").astype(float)
                values.append(words / 2.0**masked.bits)
            if message[0] == 1 and len(message) > 90_000:
                keys.append(message[33:65])
    everything = np.concatenate(values)
    assert len(everything) > 40 and abs(everything.mean() - 0.5) < 0.18
    assert 0.04 < everything.var() < 0.13  # 1/12 for a uniform one
    assert len(set(keys)) == len(keys)


def test_too_few_rows_are_refused_with_the_reason() -> None:
    rows, x, y, z = data("logistic", n=60, extra=500, d=2, e=8)
    terms = joint.Terms(minimum_rows=20)
    with pytest.raises(LocalError, match=r"joint\.rows.*10 rows a column"):
        fit(rows, x, y, z, terms)
    with pytest.raises(LocalError, match=r"joint\.rows.*100 are agreed"):
        fit(rows, x, y, z, joint.Terms())
    wide = np.random.default_rng(0).standard_normal((560, 40)).astype(np.float32)
    brand, provider = machines(rows, x, y, wide, terms)
    list(provider.start())
    with pytest.raises(PeerError, match=r"joint\.rows"):
        list(provider.receive(next(iter(brand.start()))))


def test_steps_are_cut_where_sums_would_outnumber_labels() -> None:
    rows, x, y, z = data("logistic", n=60, extra=0, d=2, e=6)
    b, _ = fit(rows, x, y, z, joint.Terms(steps=40, rank=3, minimum_rows=20))
    assert b.steps <= 10


@pytest.mark.parametrize(
    ("family", "labels"),
    [("logistic", [0, 1, 2]), ("logistic", [1, 1, 1]), ("poisson", [-1, 0, 1]), ("linear", [2])],
)
def test_labels_that_can_not_be(family: str, labels: list[float]) -> None:
    rows, x, _y, z = data(family)
    with pytest.raises(LocalError, match=r"joint\.labels"):
        machines(rows, x, np.resize(np.array(labels, float), len(rows)), z, joint.Terms(family=family))


def test_a_rare_level_is_refused() -> None:
    rows, x, y, z = data("logistic")
    z[:, 1] = 0
    z[:5, 1] = 1
    with pytest.raises(LocalError, match=r"joint\.columns.*'z1'"):
        machines(rows, x, y, z, joint.Terms())


def test_other_terms_or_session_end_it() -> None:
    rows, x, y, z = data("logistic")
    brand, _ = machines(rows, x, y, z, joint.Terms())
    for terms, session in ((joint.Terms(l2=2.0), SESSION), (joint.Terms(), bytes(32))):
        _, provider = machines(rows, x, y, z, terms, session=session)
        opening = messages.TO_PROVIDER.encode(
            messages.Opening(joint.terms.terms_digest(joint.Terms(), SESSION), len(z), 416, 2)  # type: ignore[arg-type]
        )
        list(provider.start())
        with pytest.raises(PeerError, match=r"protocol\.binding"):
            list(provider.receive(opening))
    assert not brand.finished


@given(which=st.integers(0, 200), place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=15, deadline=None)
def test_damaged_messages_end_in_an_error_or_in_numbers(
    which: int, place: float, value: int, cut: bool
) -> None:
    rows, x, y, z = data("logistic", n=60, extra=5, d=1, e=1)

    def damage(side: str, index: int, message: bytes) -> bytes:
        if index != which:
            return message
        at = min(int(place * len(message)), len(message) - 1)
        return message[:at] if cut else message[:at] + bytes([value]) + message[at + 1 :]

    brand, provider = machines(rows, x, y, z, joint.Terms(steps=2, rank=3, minimum_rows=20), fixed_rng("f"))
    try:
        transcript(brand, provider, damage)
    except ProtocolError:
        return
    if brand.finished and provider.finished:
        assert np.isfinite(brand.result.weights).all() and np.isfinite(provider.result.weights).all()


def test_plans_exist_up_to_the_largest_sizes() -> None:
    for rows in (10, 10**5, 10**6, 10**7):
        found = scales(5, rows, 21, rows)
        assert found.query >= 127 and found.plan.hiding_bits >= 40
    with pytest.raises(LocalError, match="linear_query"):
        scales(10, 10**10, 100, 10**10)


def test_the_brand_can_not_tell_the_providers_columns() -> None:
    """Same structure and sizes; what it gets to decrypt looks uniform but for its own declared sums."""
    rows, x, y, z = data("logistic")
    terms = joint.Terms(steps=2, rank=4)
    shapes = []
    for other in (z, np.random.default_rng(7).permutation(z)):
        log = transcript(*machines(rows, x, y, other.astype(np.float32), terms))
        shapes.append(shape(log))
        received = [m for side, m in log if side == "right" and len(m) > 50_000]
        # Answers and encrypted vectors (after type and index; keys have a digest): uniform polynomials.
        kinds = {size: [m for m in received if len(m) == size] for size in {len(m) for m in received}}
        assert len(kinds) > 2
        polynomials = [m for m in received if (len(m) - 69) % 30_720]
        words = np.concatenate([np.frombuffer(m[9:30_009], "<u4") for m in polynomials])
        share = np.bincount(words >> 28, minlength=16) / len(words)
        assert np.abs(share - 1 / 16).max() < 6 * (1 / 16 / len(words)) ** 0.5
        # The plain columns, quantised or not, stand in no message.
        column = np.ascontiguousarray(other[:64, 0], "<f4").tobytes()
        assert not any(column[:32] in m for _side, m in log)
    assert shapes[0] == shapes[1]


@given(st.integers(1, 1 << 24))
def test_what_follows_the_padded_rows_tells_no_more(rows: int) -> None:
    """The brand's limit on columns is made from `least`: equal for all counts that are padded alike."""
    least = joint.least(rows)
    assert 1 <= least <= rows and joint.padded(least) == joint.padded(rows)
    assert least == 1 or joint.padded(least - 1) < joint.padded(rows)
