"""Transforms and draws of the linear query's ring."""

from __future__ import annotations

import gmpy2
import numpy as np
import pytest
from lattice_helpers import SESSION, fixed_rng

from protocols import security
from protocols.linear_query import kernels, ring, sampling
from protocols.linear_query.ring import N


def forward(values: np.ndarray, i: int) -> np.ndarray:
    out = np.empty(N, np.uint32)
    kernels.forward(values.copy(), out, ring.ROOTS[i], ring.ROOTS_Q[i], np.uint32(ring.PRIMES[i]))
    return out


def inverse(values: np.ndarray, i: int) -> np.ndarray:
    out = np.empty(N, np.uint32)
    prime = np.uint32(ring.PRIMES[i])
    kernels.inverse(values.copy(), out, ring.INVERSE[i], ring.INVERSE_Q[i], ring.DEGREE_INVERSE[i], prime)
    return out


def negacyclic(a: np.ndarray, b: np.ndarray, prime: int) -> np.ndarray:
    """a * b modulo X^N + 1, by one product of big integers (Kronecker substitution)."""

    def pack(values: np.ndarray) -> int:
        wide = np.zeros((N, 10), np.uint8)
        wide[:, :4] = values.astype("<u4").view(np.uint8).reshape(N, 4)
        return int.from_bytes(wide.tobytes(), "little")

    product = (pack(a) * pack(b)).to_bytes(20 * N, "little")
    full = [int.from_bytes(product[10 * i : 10 * i + 10], "little") for i in range(2 * N)]
    return np.array([(full[i] - full[i + N]) % prime for i in range(N)], dtype=np.uint32)


def draw(kind: str, prime: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return {
        "uniform": random.integers(0, prime, N),
        "largest": np.full(N, prime - 1),
        "monomial": np.eye(1, N, N - 1, dtype=np.int64)[0],
    }[kind].astype(np.uint32)


def test_primes_are_what_the_standard_and_the_kernels_need() -> None:
    for prime in ring.PRIMES:
        assert gmpy2.is_prime(prime) and prime < 1 << 30 and prime % (2 * N) == 1
    assert len(set(ring.PRIMES)) == 4
    assert ring.MODULUS.bit_length() <= security.RLWE_MAX_MODULUS_BITS
    assert (security.RLWE_ERROR_ETA / 2) ** 0.5 >= 3.19


@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("kinds", [("uniform", "uniform"), ("largest", "largest"), ("monomial", "uniform")])
def test_products_are_negacyclic(i: int, kinds: tuple[str, str]) -> None:
    prime = ring.PRIMES[i]
    a, b = draw(kinds[0], prime, 1), draw(kinds[1], prime, 2)
    product = forward(a, i).astype(np.uint64) * forward(b, i) % np.uint64(prime)
    assert (inverse(product.astype(np.uint32), i) == negacyclic(a, b, prime)).all()


@pytest.mark.parametrize("kind", ["uniform", "largest", "monomial"])
def test_forward_then_inverse_is_the_identity(kind: str) -> None:
    for i, prime in enumerate(ring.PRIMES):
        values = draw(kind, prime, 3)
        transformed = forward(values, i)
        assert (transformed < prime).all()
        assert (inverse(transformed, i) == values).all()


def test_constant_coefficient_is_the_scaled_sum_of_evaluations() -> None:
    for i, prime in enumerate(ring.PRIMES):
        a, b = draw("uniform", prime, 4), draw("uniform", prime, 5)
        constant = kernels.constant_of_product(
            forward(a, i), forward(b, i), np.uint32(prime), ring.DEGREE_INVERSE[i, 0]
        )
        assert int(constant) == int(negacyclic(a, b, prime)[0])


def test_accumulate_at_the_largest_values_does_not_overflow() -> None:
    """Fifteen chunks of p-1 against the largest query: the lazily reduced sums' worst case."""
    count, top = kernels.MAX_BATCH, (1 << 20) - 1
    a = np.repeat(np.repeat(ring.PRIME_COLUMN - 1, N, axis=1)[None], count, axis=0)
    queries = np.full((2, count * N), top, np.int32)
    queries[1] = -top
    sum_a, sum_b = np.zeros((2, 4, N), np.uint32), np.zeros((2, 4), np.uint32)
    kernels.accumulate(sum_a, sum_b, a, a, queries, ring.PRIME_COLUMN, ring.ROOTS, ring.ROOTS_Q)
    for i, prime in enumerate(ring.PRIMES):
        rows = np.full(N, top)
        packed = np.concatenate([[top], -rows[:0:-1]]) % prime
        one = forward(packed.astype(np.uint32), i).astype(object)
        assert (sum_a[0, i] == (-count * one) % prime).all()
        assert (sum_a[1, i] == (count * one) % prime).all()
        assert sum_b[0, i] == -count * N * top % prime
        assert sum_b[1, i] == count * N * top % prime


def test_reduction_is_exact_on_extreme_words() -> None:
    for prime in ring.PRIMES:
        for value in (
            0,
            1,
            prime - 1,
            prime,
            prime + 1,
            2**60,
            2**63,
            2**64 - 1,
            prime << 33,
            (prime << 33) - 1,
        ):
            reduced = kernels._reduce(np.uint64(value), np.uint32(prime), 1.0 / prime)
            assert int(reduced) == value % prime


def test_lift_inverts_residues() -> None:
    for value in (0, 1, ring.MODULUS - 1, 3**70, ring.MODULUS // 2):
        assert ring.lift(ring.residues([value])[0]) == value
    assert ring.lift(ring.residues([-5])[0]) == ring.MODULUS - 5


def test_uniform_is_below_its_primes_reproducible_and_separated() -> None:
    seed = fixed_rng("uniform")(32)
    first = sampling.uniform(seed, "chunk", SESSION, 0)
    assert (first < ring.PRIME_COLUMN).all()
    assert (first == sampling.uniform(seed, "chunk", SESSION, 0)).all()
    for other in (
        sampling.uniform(seed, "chunk", SESSION, 1),
        sampling.uniform(seed, "public key", SESSION, 0),
        sampling.uniform(seed, "chunk", bytes(32), 0),
        sampling.uniform(bytes(32), "chunk", SESSION, 0),
    ):
        assert (first == other).mean() < 1e-3


def test_rejection_keeps_every_value_below_the_bound_and_no_other() -> None:
    bound = np.uint32(ring.PRIMES[0])
    words = np.array([0, bound - 1, bound, 2**30 - 1, 2**31 + 7], np.uint32)
    out = np.zeros(8, np.uint32)
    assert kernels.keep_below(words, bound, out, 0) == 3
    assert out[:3].tolist() == [0, int(bound) - 1, 7]


def test_errors_and_ternary_have_their_distributions() -> None:
    count = 400_000
    errors = sampling.errors(sampling.Stream(bytes(32), "brand", "error", SESSION), count)
    assert np.abs(errors).max() <= 21
    # Mean within 5 standard errors; the variance of the sample variance of a binomial is about 2 s^4 / n.
    assert abs(errors.mean()) < 5 * (10.5 / count) ** 0.5
    assert abs(errors.var() - 10.5) < 5 * 10.5 * (2 / count) ** 0.5
    ternary = sampling.ternary(sampling.Stream(bytes(32), "brand", "secret", SESSION), count)
    counts = np.bincount(ternary + 1, minlength=3)
    assert counts.sum() == count and (np.abs(counts - count / 3) < 5 * (count * 2 / 9) ** 0.5).all()


def test_integer_below_covers_its_range() -> None:
    stream = sampling.Stream(bytes(32), "provider", "zero", SESSION)
    assert {sampling.integer_below(stream, 5) for _ in range(200)} == {0, 1, 2, 3, 4}
    big = [sampling.integer_below(stream, 3 << 100) for _ in range(200)]
    assert max(big) < 3 << 100 and max(big) > 2 << 100
