"""Lookalike: equal to pooled scikit-learn, refusals, playbook, fuzz, noise."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, transcript
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.linear_query import ring
from protocols.lookalike import Features, FitResult, Labels, Terms, messages, padded, score
from protocols.lookalike import rows as kernels
from protocols.lookalike.fit import Solution, fit
from protocols.lookalike.ideal import lookalike
from protocols.lookalike.noise import add_noise, epsilon_of, noise_scale
from protocols.lookalike.terms import agree, terms_digest
from protocols.machine import pump

PLAIN = Terms(epsilon=None, minimum_seeds=1, minimum_level=1)


def pair(phi: np.ndarray, seeds: np.ndarray, terms: Terms) -> tuple[Labels, Features]:
    names = [f"column {j}" for j in range(phi.shape[1])]
    return (
        Labels(seeds, len(phi), SESSION, terms, os.urandom),
        Features(phi, names, SESSION, terms, os.urandom),
    )


def run(phi: np.ndarray, seeds: np.ndarray, terms: Terms = PLAIN) -> FitResult:
    brand, provider = pair(phi, seeds, terms)
    pump(brand, provider)
    assert brand.result.noise_scale == provider.result.noise_scale
    assert brand.result.padded_seeds == provider.result.padded_seeds == padded(len(np.unique(seeds)))
    return provider.result


def fitted(phi: np.ndarray, z: np.ndarray, z0: float, l2: float) -> Solution:
    """The fit alone, with quanta far below float32's rounding."""
    steps = np.maximum(np.abs(phi).max(axis=0), 1e-30).astype(float) * 2.0**-40
    return fit(np.asfortranarray(phi), np.ones(len(phi)), steps, z, z0, l2)


def scaled(features: np.ndarray) -> np.ndarray:
    return np.asfortranarray(StandardScaler().fit_transform(features), dtype=np.float32)


def synthetic(rows: int, columns: int, rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    phi = np.asfortranarray(random.standard_normal((rows, columns)), dtype=np.float32)
    logit = phi @ random.standard_normal(columns) * 0.7
    logit += math.log(rate / (1 - rate)) - 0.4
    return phi, np.flatnonzero(random.random(rows) < 1 / (1 + np.exp(-logit)))


def example(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "breast cancer":
        features, y = load_breast_cancer(return_X_y=True)
        return scaled(features), np.flatnonzero(y)
    if name == "digits, below five":
        features, y = load_digits(return_X_y=True)
        return scaled(features), np.flatnonzero(y < 5)
    if name == "wine":
        features, y = load_wine(return_X_y=True)
        return scaled(features), np.flatnonzero(y == 1)
    if name == "half a percent":
        return synthetic(60_000, 12, 0.005)
    if name == "separable":
        random = np.random.default_rng(1)
        phi = random.standard_normal((2000, 5)).astype(np.float32)
        return np.asfortranarray(phi), np.flatnonzero(phi[:, 0] + phi[:, 1] > 0.5)
    if name == "collinear and constant columns":
        phi, seeds = synthetic(3000, 4, 0.2)
        extra = np.stack([phi[:, 0], 2 * phi[:, 1] - phi[:, 2], np.ones(3000), np.zeros(3000)], axis=1)
        return np.asfortranarray(np.hstack([phi, extra]), dtype=np.float32), seeds
    if name == "columns of very different size":
        phi, seeds = synthetic(4000, 4, 0.3)
        return np.asfortranarray(phi * np.array([1e-3, 1, 40, 1e3], np.float32)), seeds
    raise KeyError(name)


NAMES = [
    "breast cancer",
    "digits, below five",
    "wine",
    "half a percent",
    "separable",
    "collinear and constant columns",
    "columns of very different size",
]


@pytest.mark.parametrize("name", NAMES)
def test_equals_pooled_scikit_learn(name: str) -> None:
    phi, seeds = example(name)
    # Few rows a column are what the guard refuses; the equality is shown at any size.
    terms = PLAIN if len(seeds) >= 10 * phi.shape[1] else None
    weights, intercept, z = lookalike(phi, seeds, 1.0)
    if terms is None:
        solved = fitted(phi, z[:-1], z[-1], 1.0)
        assert np.abs(solved.weights - weights).max() < 1e-5
        assert abs(solved.intercept - intercept) < 1e-5
        return
    result = run(phi, seeds)
    # README 4.2: each z_j is off by at most half a step a seed.
    steps = np.append(np.abs(phi).max(axis=0), 0) / (2**19 - 1)
    assert (np.abs(result.z - z) <= len(seeds) * steps / 2 + 1e-6).all()
    assert result.z[-1] == len(seeds)
    typical = np.abs(phi).std(axis=0) + 1e-12
    assert np.abs((result.weights - weights) * typical).max() < 1e-4
    assert abs(result.intercept - intercept) < 1e-4
    y = np.zeros(len(phi))
    y[seeds] = 1
    pooled = roc_auc_score(y, phi.astype(float) @ weights + intercept)
    assert abs(roc_auc_score(y, score(phi, result)) - pooled) < 1e-5


@pytest.mark.parametrize("l2", [1e-4, 0.1, 100.0])
def test_penalty_is_scikit_learns(l2: float) -> None:
    phi, seeds = synthetic(5000, 6, 0.2)
    weights, intercept, z = lookalike(phi, seeds, l2)
    solved = fitted(phi, z[:-1], z[-1], l2)
    assert np.abs(solved.weights - weights).max() < 1e-6 and abs(solved.intercept - intercept) < 1e-6


def test_sampled_hessian_reaches_the_minimum_of_all_rows() -> None:
    """Blocks that the sample skips hold the only rows in which the last column isn't zero."""
    phi, seeds = synthetic(300_000, 5, 0.05)
    phi[:, 4] = 0
    phi[1024 * 3 : 1024 * 4, 4] = 1
    weights, intercept, z = lookalike(phi, seeds, 1.0)
    solved = fitted(phi, z[:-1], z[-1], 1.0)
    assert np.abs(solved.weights - weights).max() < 1e-5 and abs(solved.intercept - intercept) < 1e-5


@pytest.mark.parametrize("l2", [1e-6, 1.0])
@pytest.mark.parametrize("shift", [30.0, 3000.0])
def test_statistics_that_no_labels_could_give_still_have_a_minimum(l2: float, shift: float) -> None:
    phi, seeds = synthetic(1000, 4, 0.2)
    z = phi[seeds].sum(axis=0).astype(float) + shift * np.array([1, -1, 1, -1])
    for z0 in (-50.0, 0.0, 200.0, 1000.0, 5000.0):
        solved = fitted(phi, z, z0, l2)
        assert np.isfinite(solved.weights).all() and np.isfinite(solved.intercept)
        # At the minimum the gradient vanishes: sigma(phi w + b) phi - z + l2 w = 0.
        p = 1 / (1 + np.exp(-np.clip(phi.astype(float) @ solved.weights + solved.intercept, -700, 700)))
        gradient = phi.T.astype(float) @ p - z + l2 * solved.weights
        assert np.abs(gradient).max() < 1e-4 * max(1, np.abs(z).max())


def test_duplicate_seeds_count_once_and_c_order_is_taken() -> None:
    phi, seeds = synthetic(2000, 3, 0.2)
    once = run(phi, seeds)
    twice = run(np.ascontiguousarray(phi), np.concatenate([seeds, seeds[:10]]))
    assert np.allclose(once.weights, twice.weights, atol=1e-9)


def test_scores_are_log_odds_of_clipped_rows() -> None:
    phi, _ = synthetic(3000, 4, 0.1)
    model = FitResult(np.array([1.0, -2, 0.5, 3]), -1.0, np.zeros(5), 1, None, 256, None, 20)
    assert np.allclose(score(phi, model), phi @ model.weights - 1, atol=1e-5)
    clipped = score(phi, replace(model, clip=1.5))
    norms = np.linalg.norm(phi, axis=1)
    expected = (phi * np.minimum(1, 1.5 / norms)[:, None]) @ model.weights - 1
    assert np.allclose(clipped, expected, atol=1e-5) and clipped.dtype == np.float32
    with pytest.raises(LocalError):
        score(phi[:, :3], model)


WORK_QUEUE = """
import os, threading
import numpy as np
from protocols.lookalike import Features, Labels, Terms, score
from protocols.machine import pump

def job():
    phi = np.asfortranarray(np.random.default_rng(0).standard_normal((3000, 4)), dtype=np.float32)
    for _ in range(2):
        brand = Labels(np.arange(500), 3000, bytes(32), Terms(epsilon=None), os.urandom)
        provider = Features(phi, list("abcd"), bytes(32), Terms(epsilon=None), os.urandom)
        pump(brand, provider)
        score(phi, provider.result)

threads = [threading.Thread(target=job) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("all done")
"""


def test_jobs_in_several_threads_survive_numbas_work_queue() -> None:
    """Without OpenMP, numba ends the process when two threads start parallel loops at once."""
    environment = os.environ | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", WORK_QUEUE], env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0 and "all done" in done.stdout, done.stderr[-500:]


# Noise


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-6), (1.0, 1e-5), (2.0, 1e-6), (8.0, 1e-9)])
def test_noise_scale_gives_the_agreed_epsilon_and_no_more_noise_than_needed(
    epsilon: float, delta: float
) -> None:
    scale = noise_scale(epsilon, delta, 1e6)
    assert epsilon * 0.99 < epsilon_of(scale, delta, 1e6) <= epsilon
    # Never below the analytic Gaussian mechanism, which is optimal (Balle and Wang 2018, theorem 8).
    ratio = scale / 1e6

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    exact = normal(0.5 / ratio - epsilon * ratio) - math.exp(epsilon) * normal(-0.5 / ratio - epsilon * ratio)
    assert exact <= delta


def test_noise_has_the_variance_of_its_scale() -> None:
    noise = add_noise(np.zeros(20_000, np.int64), 1234.5)
    assert abs(noise.mean()) < 5 * 1234.5 / 20_000**0.5
    assert abs(noise.std() / 1234.5 - 1) < 5 / 40_000**0.5
    # Kurtosis of a Gaussian is 3; a Laplace's would be 6.
    assert abs((noise.astype(float) ** 4).mean() / noise.astype(float).var() ** 2 - 3) < 0.3


@settings(max_examples=40, deadline=None)
@given(
    clip=st.sampled_from([0.01, 0.7, 1.0, 4.0, 1000.0]),
    columns=st.integers(1, 40),
    bits=st.integers(12, 20),
    seed=st.integers(0, 1000),
)
def test_no_row_moves_z_by_more_than_the_sensitivity(clip: float, columns: int, bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    phi = np.asfortranarray(
        random.standard_normal((50, columns)) * 10 ** random.uniform(-4, 6), dtype=np.float32
    )
    terms = Terms(epsilon=1.0, clip=clip, quantisation_bits=bits)
    agreed = agree(terms, 50, columns, 256)
    assert agreed.common_step is not None and agreed.sensitivity is not None
    factors = kernels.clip_factors(phi.T, clip)
    inverse = np.full(columns, 1 / agreed.common_step)
    quantised = kernels.quantise(
        phi.T, 0, 50, factors, inverse, agreed.largest, round(1 / agreed.common_step)
    ).astype(float)
    assert np.linalg.norm(quantised, axis=0).max() <= agreed.sensitivity


def test_noisy_z_is_spread_as_announced_and_the_model_holds() -> None:
    phi, seeds = synthetic(20_000, 8, 0.1)
    terms = Terms(epsilon=2.0, clip=4.0, minimum_seeds=100)
    clipped = phi * np.minimum(1, 4 / np.linalg.norm(phi, axis=1))[:, None]
    exact = np.append(clipped[seeds].astype(float).sum(axis=0), len(seeds))
    results = [run(phi, seeds, terms) for _ in range(12)]
    scale = results[0].noise_scale
    assert scale is not None and 0 < scale < 20
    deviations = np.concatenate([r.z - exact for r in results])
    assert 0.7 < deviations.std() / scale < 1.3
    y = np.zeros(len(phi))
    y[seeds] = 1
    plain = roc_auc_score(y, score(phi, run(phi, seeds)))
    assert all(plain - roc_auc_score(y, score(phi, r)) < 0.03 for r in results)


def test_both_sides_take_fewer_bits_when_the_sizes_require_it() -> None:
    terms = Terms(epsilon=None, quantisation_bits=20)
    few, many = agree(terms, 10**6, 100, padded(20_000)), agree(terms, 10**9, 100, padded(10**7))
    assert few.largest == 2**19 - 1 and 2**11 <= many.largest + 1 < 2**19
    with pytest.raises(LocalError) as caught:
        agree(Terms(epsilon=1e-3, delta=1e-12), 1 << 40, 4096, padded(1 << 40))
    assert caught.value.code in {"linear_query.noise", "linear_query.overflow"}


# Refusals


def test_too_few_seeds_are_refused_by_the_brand() -> None:
    phi, _ = synthetic(1000, 2, 0.2)
    with pytest.raises(LocalError) as caught:
        Labels(np.arange(99), 1000, SESSION, Terms(), os.urandom)
    assert caught.value.code == "lookalike.seeds"


def test_too_few_seeds_are_refused_by_the_provider() -> None:
    phi, seeds = synthetic(1000, 2, 0.2)
    terms = replace(PLAIN, minimum_seeds=500)
    provider = Features(phi, ["a", "b"], SESSION, terms, os.urandom)
    list(provider.start())
    with pytest.raises(PeerError) as caught:
        provider.receive(
            messages.TO_PROVIDER.encode(messages.Opening(terms_digest(terms, SESSION), 1000, 256))
        )
    assert caught.value.code == "lookalike.seeds"


@pytest.mark.parametrize(("columns", "blame"), [(20, LocalError), (30, PeerError)])
def test_few_seeds_a_column_are_refused_without_noise_only(columns: int, blame: type[ProtocolError]) -> None:
    """150 seeds, padded to 256: at 20 columns the brand knows better, at 30 the provider sees it too."""
    phi, _ = synthetic(1000, columns, 0.2)
    with pytest.raises(blame) as caught:
        run(phi, np.arange(150))
    assert caught.value.code == "lookalike.columns"
    assert run(phi, np.arange(150), Terms(epsilon=4.0, clip=5.0)).noise_scale is not None


@pytest.mark.parametrize("value", [0.0, 1.0, 3.5])
def test_a_rare_level_is_refused_without_noise(value: float) -> None:
    phi, seeds = synthetic(1000, 3, 0.2)
    phi[:, 1] = value
    terms = replace(PLAIN, minimum_level=10)
    run(phi, seeds, terms)  # constant: says nothing about anyone
    phi[100:109, 1] += 1
    with pytest.raises(LocalError, match="column 1") as caught:
        run(phi, seeds, terms)
    assert caught.value.code == "lookalike.columns"
    phi[5, 1] += 1
    run(phi, seeds, terms)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_missing_and_infinite_values_are_refused_with_the_columns_name(bad: float) -> None:
    phi, _ = synthetic(100, 3, 0.2)
    phi[50, 2] = bad
    with pytest.raises(LocalError, match="column 2"):
        Features(phi, ["column 0", "column 1", "column 2"], SESSION, PLAIN, os.urandom)


@pytest.mark.parametrize("seeds", [[-1, 4], [5, 1000]])
def test_rows_out_of_range_are_refused(seeds: list[int]) -> None:
    with pytest.raises(LocalError) as caught:
        Labels(np.array(seeds), 1000, SESSION, PLAIN, os.urandom)
    assert caught.value.code == "protocol.argument"


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"delta": 0.5},
        {"clip": math.inf},
        {"minimum_seeds": 0},
        {"l2": 0.0},
        {"quantisation_bits": 21},
        {"quantisation_bits": 11},
        {"max_columns": 0},
    ],
)
def test_terms_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LocalError) as caught:
        Terms(**change)
    assert caught.value.code == "protocol.argument"


# Messages


def test_playbook() -> None:
    phi, seeds = synthetic(ring.N + 1, 2, 0.1)
    log = transcript(*pair(phi, seeds, PLAIN))
    assert [(side, len(m)) for side, m in log] == [
        ("left", 49),  # Opening
        ("right", 37),  # Shape
        ("left", 122_949),  # Key
        *[("left", 122_889)] * 2,  # Chunks
        *[("right", 1024 * 86 + 29)] * 3,  # Answers: two columns and the intercept
        ("left", 30),  # Masked
    ]


def test_message_sizes_are_equal_for_any_labels_with_one_padded_count() -> None:
    phi, _ = synthetic(5000, 2, 0.1)
    sizes = set()
    for seeds in (np.arange(260), np.arange(288), np.arange(4712, 5000)):
        sizes.add(tuple((side, len(m)) for side, m in transcript(*pair(phi, seeds, PLAIN))))
    assert len(sizes) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 1.0},
        {"delta": 1e-7},
        {"clip": 6.0},
        {"minimum_seeds": 2},
        {"minimum_level": 2},
        {"l2": 2.0},
        {"l1": 0.1},
        {"quantisation_bits": 19},
        {"max_rows": 10**6},
        {"max_columns": 100},
    ],
)
def test_each_term_is_bound(change: dict[str, Any]) -> None:
    phi, seeds = synthetic(2000, 2, 0.2)
    brand, _ = pair(phi, seeds, PLAIN)
    _, provider = pair(phi, seeds, replace(PLAIN, **change))
    with pytest.raises(PeerError) as caught:
        pump(brand, provider)
    assert caught.value.code == "protocol.binding"


def test_a_term_given_as_an_integer_is_the_same_term() -> None:
    assert terms_digest(Terms(l2=1, clip=5), SESSION) == terms_digest(Terms(l2=1.0, clip=5.0), SESSION)
    assert terms_digest(Terms(), SESSION) != terms_digest(Terms(), bytes(32))


@pytest.mark.parametrize(
    ("index", "edit", "code"),
    [
        (0, lambda m: m[:33] + (1999).to_bytes(8, "big") + m[41:], "linear_query.size"),
        (0, lambda m: m[:41] + (257).to_bytes(8, "big"), "linear_query.size"),
        (0, lambda m: m[:41] + (1 << 63).to_bytes(8, "big"), "linear_query.size"),
        (0, lambda m: m + b"\x00", "protocol.malformed"),
        (1, lambda m: m[:1] + bytes(32) + m[33:], "protocol.binding"),
        (1, lambda m: m[:33] + bytes(4), "protocol.too_large"),
        (1, lambda m: m[:33] + b"\x00\x01\x00\x00", "protocol.too_large"),
        (1, lambda m: m[:33] + b"\x00\x00\x00\x03", "protocol.binding"),
        (2, lambda m: m[:100], "protocol.malformed"),
        (3, lambda m: m[:-4] + b"\xff\xff\xff\xff", "linear_query.residue"),
    ],
)
def test_negative_vectors(index: int, edit: Any, code: str) -> None:
    phi, seeds = synthetic(2000, 2, 0.2)
    with pytest.raises(PeerError) as caught:
        transcript(*pair(phi, seeds, PLAIN), lambda side, i, m: edit(m) if i == index else m)
    assert caught.value.code == code


@settings(max_examples=80, deadline=None)
@given(
    target=st.integers(0, 7), position=st.integers(0, 2**31), value=st.binary(max_size=5), cut=st.booleans()
)
def test_fuzzed_bytes_give_a_result_or_a_protocol_error(
    target: int, position: int, value: bytes, cut: bool
) -> None:
    phi, seeds = synthetic(300, 2, 0.3)

    def change(side: str, index: int, message: bytes) -> bytes:
        if index != target:
            return message
        at = position % (len(message) + 1)
        return message[:at] if cut else message[:at] + value + message[at + len(value) :]

    brand, provider = pair(phi, seeds, PLAIN)
    try:
        transcript(brand, provider, change)
    except ProtocolError:
        return
    if provider.finished:
        assert np.isfinite(provider.result.weights).all()
