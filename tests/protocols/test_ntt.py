"""Transforms and draws of the linear query's ring."""

from __future__ import annotations

import platform
import re

import gmpy2
import numba
import numpy as np
import pytest
from lattice_helpers import SESSION, fixed_rng

from protocols import security
from protocols.linear_query import kernels, messages, ring, sampling
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
    assert ring.LEVELS[4].modulus.bit_length() <= security.RLWE_MAX_MODULUS_BITS
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


def extreme(queries: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Fifteen chunks of p-1 and queries of their largest size: the lazily reduced sums' worst case."""
    count = kernels.MAX_BATCH
    a = np.repeat(np.repeat(ring.PRIME_COLUMN - 1, N, axis=1)[None], count, axis=0)
    rows = np.full((queries, count * N), top, np.int32)
    rows[1::2] = -top
    return a, rows


@pytest.mark.parametrize(("top", "binary"), [((1 << 20) - 1, 0), (1, 0), (1, 1)])
def test_accumulate_at_the_largest_values_does_not_overflow(top: int, binary: int) -> None:
    count, level = kernels.MAX_BATCH, ring.LEVELS[4]
    a, queries = extreme(2, top)
    sum_a, sum_b = np.zeros((2, 4, N), np.uint32), np.zeros((2, 4), np.uint32)
    kept = np.empty((2, count, 4, N), np.uint32)
    tables = level.column, level.roots, level.roots_q
    kernels.accumulate(sum_a, sum_b, a, a, queries, kept, 1, binary, *tables)
    for i, prime in enumerate(ring.PRIMES):
        rows = np.full(N, top)
        packed = np.concatenate([[top], -rows[:0:-1]]) % prime
        one = forward(packed.astype(np.uint32), i).astype(object)
        assert (sum_a[0, i] == (-count * one) % prime).all()
        assert (sum_a[1, i] == (count * one) % prime).all()
        assert sum_b[0, i] == -count * N * top % prime
        assert sum_b[1, i] == count * N * top % prime
    # From kept transforms, with b in the NTT order: the same.
    again_a, again_b = np.zeros_like(sum_a), np.zeros_like(sum_b)
    b = np.stack([kernels.transform_residues(one, *tables[1:], level.column) for one in a])
    kernels.accumulate_kept(again_a, again_b, a, b, kept, 1, level.column, level.degree)
    assert (again_a == sum_a).all() and (again_b == sum_b).all()


@pytest.mark.parametrize("limbs", [3, 4])
@pytest.mark.parametrize(("c", "queries"), [(2, 3), (16, 16), (1024, 5)])
def test_a_group_is_one_polynomial_with_its_answers_at_multiples_of_a_chunk(
    limbs: int, c: int, queries: int
) -> None:
    """Against whole products of integers: coefficient i N/c of b Q is b's dot product with query i."""
    level, m, random = ring.LEVELS[limbs], N // c, np.random.default_rng(c)
    tables = level.column, level.roots, level.roots_q
    rows = random.integers(-5, 6, (queries, m)).astype(np.int32)
    groups = -(-queries // c)
    b = np.stack([random.integers(0, p, N) for p in level.primes]).astype(np.uint32)
    b_ntt = kernels.transform_residues(b, *tables[1:], level.column)[None]
    kept = np.empty((groups, 1, limbs, N), np.uint32)
    sum_a = np.zeros((groups, limbs, N), np.uint32)
    sum_b = np.zeros((groups, limbs * N), np.uint32)
    kernels.accumulate(sum_a, sum_b, b_ntt, b_ntt, rows, kept, c, 0, *tables)
    assert (sum_a.reshape(groups, -1) == sum_b).all()
    again = np.zeros_like(sum_a), np.zeros_like(sum_b)
    kernels.accumulate_kept(*again, b_ntt, b_ntt, kept, c, level.column, level.degree)
    assert (again[0] == sum_a).all() and (again[1] == sum_b).all()
    inverse = level.inverse, level.inverse_q, level.degree, level.column
    for g in range(groups):
        whole = np.zeros(N, np.int64)
        for i, query in enumerate(rows[g * c : (g + 1) * c]):
            for j, value in enumerate(query.tolist()):
                place = i * m - j
                whole[place % N] += value if place >= 0 else -value
        got = kernels.transform_back(sum_b[g].reshape(limbs, N), *inverse)
        for i, p in enumerate(level.primes):
            expected = negacyclic(b[i], (whole % p).astype(np.uint32), p)
            assert (got[i] == expected).all()
    # A chunk's rows, alone in b, meet each query at its own place and no other one.
    y = random.integers(-3, 4, m)
    short = np.zeros(N, np.int64)
    short[:m] = y
    products = [
        negacyclic((short % p).astype(np.uint32), (whole % p).astype(np.uint32), p) for p in level.primes
    ]
    for i, query in enumerate(rows[(groups - 1) * c :]):
        value = level.lift(np.array([product[i * m] for product in products]))
        assert (value + level.modulus // 2) % level.modulus - level.modulus // 2 == int(query @ y)


@pytest.mark.parametrize(
    ("limbs", "bits"), [(3, 17), (3, 32), (3, 64), (3, 90), (4, 64), (4, 88), (4, 96), (4, 119), (4, 120)]
)
def test_answers_are_rounded_to_the_nearest(limbs: int, bits: int) -> None:
    level, random = ring.LEVELS[limbs], np.random.default_rng(bits)
    whole = [int(v) % level.modulus for v in random.integers(0, 1 << 62, 2)] + [0, 1, level.modulus - 1]
    whole += [int.from_bytes(random.bytes(15), "big") % level.modulus for _ in range(N - len(whole))]
    coefficients = np.ascontiguousarray(level.residues(whole).T)
    ntt = kernels.transform_residues(coefficients, level.roots, level.roots_q, level.column)
    small = random.integers(-21, 22, (1, N))
    inverse = level.column, level.inverse, level.inverse_q, level.degree
    packed = kernels.finish(ntt[None], small, bits, *inverse, level.scale, level.fractions)
    words = messages.polynomial_of(messages.words_of(packed[0]), bits)
    for j, value in enumerate(whole):
        exact = (value + int(small[0, j])) % level.modulus
        got = sum(int(word[j]) << (32 * w) for w, word in enumerate(words))
        # README 3.4: |eps| <= 1/2 + 2^(k-128), around 2^bits.
        off = (((got * level.modulus - (exact << bits)) << 128) // level.modulus) % (1 << (bits + 128))
        off = min(off, (1 << (bits + 128)) - off)
        assert off <= (1 << 127) + (1 << bits) + 1


@pytest.mark.parametrize("bits", [1, 7, 30, 31, 32, 33, 64, 88, 120, 128])
def test_unpack_inverts_pack(bits: int) -> None:
    random = np.random.default_rng(bits)
    numbers = [int.from_bytes(random.bytes(16), "big") >> (128 - bits) for _ in range(N)]
    words = np.array([[n >> (32 * w) & 0xFFFFFFFF for w in range(4)] for n in numbers], np.uint32)
    packed = np.empty(N * bits // 32, np.uint32)
    kernels.pack_bits(words, 0, bits, packed)
    stream = sum(number << (bits * j) for j, number in enumerate(numbers[:64]))
    assert packed[: 2 * bits].astype("<u4").tobytes() == stream.to_bytes(8 * bits, "little")
    back = kernels.unpack(packed, N, bits)
    assert (back == words.T[: len(back)]).all()


def test_signed_sums_at_the_largest_values() -> None:
    words = np.full((4, N), 0xFFFFFFFF, np.uint32)
    signs = np.ones(N, np.int32)
    assert (kernels.signed_sums(words, signs) == N * 0xFFFFFFFF).all()
    assert (kernels.signed_sums(words, -signs) == -N * 0xFFFFFFFF).all()


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


def test_a_label_is_reduced_with_the_same_instructions_whatever_it_is() -> None:
    for prime in (int(p) for p in ring.PRIMES):
        edges = (0, 1, prime - 1, prime, prime + 1, 2 * prime, prime << 31, (prime << 31) - 1, 2**62 - 1)
        for value in (sign * edge for edge in edges for sign in (1, -1)):
            reduced = kernels._reduce_evenly(np.int64(value), np.int64(prime), 1.0 / prime)
            assert int(reduced) == value % prime
    if platform.machine() != "x86_64":
        return
    compiled = numba.njit("int64(int64, int64, float64)")(kernels._reduce_evenly.py_func)
    asm = compiled.inspect_asm(compiled.signatures[0])
    body = asm[: asm.index("ret")]  # the function itself; wrappers for Python stand in the same text after it
    assert "imul" in body  # it is the right part of the text
    # README 5: a division or a conditional jump would take zeros and other values different times.
    assert not re.findall(r"\n\s+(?:i?div\w*|j(?!mp)\w+)\s", body)


def test_lift_inverts_residues() -> None:
    for level in ring.LEVELS.values():
        for value in (0, 1, level.modulus - 1, 3**50, level.modulus // 2):
            assert level.lift(level.residues([value])[0]) == value
        assert level.lift(level.residues([-5])[0]) == level.modulus - 5


def test_uniform_is_below_its_primes_reproducible_and_separated() -> None:
    seed = fixed_rng("uniform")(32)
    first = sampling.uniform(seed, "chunk", SESSION, 0, 4)
    assert (first < ring.PRIME_COLUMN).all()
    assert (first == sampling.uniform(seed, "chunk", SESSION, 0, 4)).all()
    for other in (
        sampling.uniform(seed, "chunk", SESSION, 1, 4),
        sampling.uniform(seed, "public key", SESSION, 0, 4),
        sampling.uniform(seed, "chunk", bytes(32), 0, 4),
        sampling.uniform(bytes(32), "chunk", SESSION, 0, 4),
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
