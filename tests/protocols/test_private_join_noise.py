"""private_join's noise: the sampler's law, and the (epsilon, delta) that README section 5 claims for it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from oprf_helpers import stream
from scipy import stats

from protocols.errors import LocalError
from protocols.private_join import Terms
from protocols.private_join.noise import below, least_bound, sample, truncation_delta


def law(rate: float, bound: int) -> np.ndarray:
    """P[z] for z in -bound…bound."""
    p = np.exp(-rate * np.abs(np.arange(-bound, bound + 1)))
    return p / p.sum()


def needed_delta(p: np.ndarray, epsilon: float, shift: int) -> float:
    """The least delta for two outputs of this law that are `shift` apart (hockey-stick divergence)."""
    one = np.concatenate([p, np.zeros(shift)])
    other = np.concatenate([np.zeros(shift), p])
    return float(np.maximum(one - math.exp(epsilon) * other, 0).sum())


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.1, 1e-6), (0.5, 1e-3), (1.0, 1e-6), (2.0, 1e-9), (10, 1e-3)]
)
def test_sizes_are_private(epsilon: float, delta: float) -> None:
    bound = least_bound(Fraction(epsilon), 1, delta)
    needed = needed_delta(law(epsilon, bound), epsilon, 1)
    assert needed <= delta
    assert needed == pytest.approx(truncation_delta(epsilon, 1, bound), rel=1e-6)
    assert bound == 1 or needed_delta(law(epsilon, bound - 1), epsilon, 1) > delta * (1 - 1e-5)


@pytest.mark.parametrize(("epsilon", "top", "delta"), [(1.0, 7, 1e-6), (0.5, 100, 1e-3), (3.0, 1000, 1e-9)])
def test_sums_are_private_for_every_difference_up_to_the_bound(
    epsilon: float, top: int, delta: float
) -> None:
    rate = Fraction(epsilon) / top
    bound = least_bound(rate, top, delta)
    p = law(float(rate), bound)
    for shift in {1, 2, top // 2, top - 1, top}:
        assert needed_delta(p, epsilon, shift) <= delta * (1 + 1e-9)


def test_columns_share_epsilon_and_delta() -> None:
    terms = Terms(bounds=(10, 1000, 5), sum_epsilon=0.9, delta=1e-6)
    for noise, top in zip(terms.sum_noise, terms.bounds, strict=True):
        assert float(noise.rate) * top == pytest.approx(0.3)
        assert truncation_delta(float(noise.rate), top, noise.bound) <= 1e-6 / 3
    assert all(noise.bound == 0 for noise in Terms(bounds=(10,)).sum_noise)


@pytest.mark.parametrize(
    ("rate", "bound"), [(Fraction(1), 14), (Fraction(0.3), 20), (Fraction(2), 3), (Fraction(1, 3), 2)]
)
def test_samples_follow_the_law(rate: Fraction, bound: int) -> None:
    rng, n = np.random.default_rng(7).bytes, 6000
    drawn = np.array([sample(rate, bound, rng) for _ in range(n)])
    assert abs(drawn).max() <= bound
    expected = law(float(rate), bound) * n
    counts = np.bincount(drawn + bound, minlength=2 * bound + 1).astype(float)
    rare = expected < 8
    observed = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    kept = wanted > 0
    assert stats.chisquare(observed[kept], wanted[kept]).pvalue > 1e-4


def test_below_is_exactly_uniform() -> None:
    """Every value of one byte gives the values below 5 equally often, or is drawn again."""
    found = []
    for byte in range(256):
        calls = iter([bytes([byte]), b"\x00"])
        value = below(5, lambda _, calls=calls: next(calls))
        if next(calls, None) is not None:  # decided by the first byte
            found.append(value)
    assert np.bincount(found).tolist() == [32] * 5
    assert below(1, lambda n: bytes(n)) == 0


def test_a_broken_rng_and_impossible_noise_are_refused() -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        sample(Fraction(1), 5, lambda n: bytes(n + 1))
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        least_bound(Fraction(1, 1 << 70), 1 << 40, 1e-15)
    assert sample(Fraction(1), 5, stream("s")) in range(-5, 6)
