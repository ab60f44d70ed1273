"""Numba kernels of the ring: transforms, encryption, and the provider's multiply-accumulate.

All arithmetic is exact modulo primes below 2^30 in 32-bit words, lazily reduced (Harvey, "Faster arithmetic
for number-theoretic transforms", 2014): butterflies keep values below 4p < 2^32. No table is
indexed by a secret, but reductions may branch on one: not hardened against local side channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from protocols.linear_query.ring import I64, TAIL, U32, N
from protocols.parallel import compiled, parallel

#: Chunks that `accumulate` takes at most: 15 products below 2^60 and a carry stay below 2^64.
MAX_BATCH = 15


@compiled
def _stage(x: U32, low: int, half: int, w: np.uint32, wq: np.uint32, p: np.uint32) -> None:
    """Cooley-Tukey butterflies of x[low:low+half] with x[low+half:low+2*half], one twiddle."""
    twice = np.uint32(p + p)
    left, right = x[low : low + half], x[low + half : low + 2 * half]  # views from 0 vectorise, offsets don't
    for j in range(half):
        a = np.uint32(left[j])
        a = min(a, np.uint32(a - twice))
        y = np.uint32(right[j])
        quotient = np.uint32((np.uint64(y) * np.uint64(wq)) >> np.uint64(32))
        t = np.uint32(np.uint32(y * w) - np.uint32(quotient * p))
        left[j] = np.uint32(a + t)
        right[j] = np.uint32(np.uint32(a - t) + twice)


@compiled
def _tail_stage(z: U32, low: int, high: int, w: U32, wq: U32, start: int, p: np.uint32) -> None:
    """The same for two columns of the transposed layout, one twiddle an entry."""
    twice = np.uint32(p + p)
    n = N // TAIL
    left, right, ws, qs = z[low : low + n], z[high : high + n], w[start : start + n], wq[start : start + n]
    for j in range(n):
        a = np.uint32(left[j])
        a = min(a, np.uint32(a - twice))
        y = np.uint32(right[j])
        quotient = np.uint32((np.uint64(y) * np.uint64(qs[j])) >> np.uint64(32))
        t = np.uint32(np.uint32(y * ws[j]) - np.uint32(quotient * p))
        left[j] = np.uint32(a + t)
        right[j] = np.uint32(np.uint32(a - t) + twice)


@compiled
def forward(x: U32, z: U32, roots: U32, roots_q: U32, prime: np.uint32) -> None:
    """Negacyclic NTT of x (overwritten, entries below 2p) into z, entries below p.

    Stages of stride 16 and more run in place; then the 512 blocks of 16 are transposed and the last four
    stages run across blocks. The result's order is that of the transposed layout.
    """
    blocks = N // TAIL
    groups, half = 1, N // 2
    while groups < blocks:
        for g in range(groups):
            _stage(x, 2 * g * half, half, roots[groups + g], roots_q[groups + g], prime)
        groups *= 2
        half //= 2
    for i in range(blocks):
        for c in range(TAIL):
            z[c * blocks + i] = x[i * TAIL + c]
    while groups < N:
        for h in range(groups // blocks):
            for c in range(half):
                low = (2 * h * half + c) * blocks
                _tail_stage(z, low, low + half * blocks, roots, roots_q, groups + h * blocks, prime)
        groups *= 2
        half //= 2
    twice = np.uint32(prime + prime)
    for j in range(N):
        a = np.uint32(z[j])
        a = min(a, np.uint32(a - twice))
        z[j] = min(a, np.uint32(a - prime))


@compiled
def _times(y: np.uint32, w: np.uint32, wq: np.uint32, p: np.uint32) -> np.uint32:
    """y * w modulo p by Shoup's quotient, below 2p for any 32-bit y."""
    quotient = np.uint32((np.uint64(y) * np.uint64(wq)) >> np.uint64(32))
    return np.uint32(np.uint32(y * w) - np.uint32(quotient * p))


@compiled
def _stage_back(left: U32, right: U32, ws: U32, qs: U32, stride: int, p: np.uint32) -> None:
    """Gentleman-Sande butterflies of left with right; stride 0 uses ws[0] for all, 1 one twiddle an entry."""
    twice = np.uint32(p + p)
    for j in range(left.shape[0]):
        a, b = np.uint32(left[j]), np.uint32(right[j])
        s = np.uint32(a + b)
        left[j] = min(s, np.uint32(s - twice))
        right[j] = _times(np.uint32(np.uint32(a - b) + twice), ws[j * stride], qs[j * stride], p)


@compiled
def inverse(z: U32, x: U32, roots: U32, roots_q: U32, degree: U32, prime: np.uint32) -> None:
    """The inverse of `forward`: z (overwritten, entries below p) into x, entries below p."""
    n = N // TAIL
    groups, half = N // 2, 1
    while groups >= n:
        for h in range(groups // n):
            ws, qs = roots[groups + h * n :], roots_q[groups + h * n :]
            for c in range(half):
                low = (2 * h * half + c) * n
                high = low + half * n
                _stage_back(z[low : low + n], z[high : high + n], ws, qs, 1, prime)
        groups //= 2
        half *= 2
    for i in range(n):
        for c in range(TAIL):
            x[i * TAIL + c] = z[c * n + i]
    while groups >= 1:
        for g in range(groups):
            low = 2 * g * half
            left, right = x[low : low + half], x[low + half : low + 2 * half]
            _stage_back(left, right, roots[groups + g :], roots_q[groups + g :], 0, prime)
        groups //= 2
        half *= 2
    for j in range(N):
        a = _times(x[j], degree[0], degree[1], prime)
        x[j] = min(a, np.uint32(a - prime))


@compiled
def _reduce(value: np.uint64, prime: np.uint32, reciprocal: float) -> np.uint64:
    """value modulo prime for any 64-bit value; the float quotient is off by one at the most."""
    q = np.uint64(np.float64(value) * reciprocal)
    r = np.int64(value - q * np.uint64(prime))
    if r < 0:
        r += np.int64(prime)
    if r < 0:
        r += np.int64(prime)
    if r >= np.int64(prime):
        r -= np.int64(prime)
    return np.uint64(r)


@compiled
def transform(values: I64, primes: U32, roots: U32, roots_q: U32) -> U32:
    """NTTs of small signed polynomials: int64[n, N], |entry| below every prime, to uint32[n, 4, N]."""
    limbs = primes.shape[0]
    out = np.empty((values.shape[0], limbs, N), np.uint32)
    for task in range(values.shape[0] * limbs):
        row, i = task // limbs, task % limbs
        prime = primes[i, 0]
        x = np.empty(N, np.uint32)
        for j in range(N):
            v = values[row, j]
            x[j] = np.uint32(v + np.int64(prime) if v < 0 else v)
        forward(x, out[row, i], roots[i], roots_q[i], prime)
    return out


@compiled
def encrypt(
    a: U32,
    secret: U32,
    small: I64,
    scaled: I64,
    delta: U32,
    primes: U32,
    roots: U32,
    roots_q: U32,
    degree: U32,
) -> U32:
    """b = -a*s + e + Delta*y, in coefficients.

    a, secret: uint32[4, N] in the NTT order; small (e) and scaled (y): int64[N], below 2^29 in size;
    delta: uint32[4, 1]; roots are the inverse transform's. Returns uint32[4, N].
    """
    limbs = primes.shape[0]
    out = np.empty((limbs, N), np.uint32)
    for i in range(limbs):
        prime = primes[i, 0]
        p = np.int64(prime)
        reciprocal = 1.0 / np.float64(prime)
        z = np.empty(N, np.uint32)
        x = np.empty(N, np.uint32)
        for j in range(N):
            z[j] = _reduce(np.uint64(a[i, j]) * np.uint64(secret[i, j]), prime, reciprocal)
        inverse(z, x, roots[i], roots_q[i], degree[i], prime)
        for j in range(N):
            y = scaled[j]
            if y < 0:
                y += p
            message = _reduce(np.uint64(y) * np.uint64(delta[i, 0]), prime, reciprocal)
            value = np.int64(message) + small[j] - np.int64(x[j])
            if value < 0:
                value += p
            if value >= p:
                value -= p
            if value < 0:
                value += p
            out[i, j] = np.uint32(value)
    return out


@parallel
def accumulate(
    sum_a: U32, sum_b: U32, a: U32, b: U32, queries: Any, primes: U32, roots: U32, roots_q: U32
) -> None:
    """sum_a[q] += sum_k a_k * Q_k (NTT order) and sum_b[q] += constant coefficient of sum_k b_k * Q_k.

    a: uint32[c, 4, N] in the NTT order, b: uint32[c, 4, N] in coefficients, c <= MAX_BATCH;
    queries: int32[n, c*N], |entry| < 2^20, row r of chunk k at k*N + r. The reversed packing makes the
    constant coefficient of b_k * Q_k the plain dot product of b_k with the rows, so b is never transformed.
    sum_a: uint32[n, 4, N], sum_b: uint32[n, 4], both updated in place.
    """
    limbs = primes.shape[0]
    chunks = a.shape[0]
    for task in prange(queries.shape[0] * limbs):
        q, i = task // limbs, task % limbs
        prime = primes[i, 0]
        p = np.int64(prime)
        reciprocal = 1.0 / np.float64(prime)
        x = np.empty(N, np.uint32)
        z = np.empty(N, np.uint32)
        total = np.empty(N, np.uint64)
        for j in range(N):
            total[j] = sum_a[q, i, j]
        constant = np.int64(sum_b[q, i])
        for k in range(chunks):
            rows = queries[q, k * N : (k + 1) * N]
            bk, ak = b[k, i], a[k, i]
            dot = np.int64(0)  # 2^13 products below 2^50
            for j in range(N):
                dot += np.int64(rows[j]) * np.int64(bk[j])
            constant = (constant + dot % p) % p
            v = np.int32(rows[0])
            x[0] = np.uint32(v) + (prime if v < 0 else np.uint32(0))
            back, tail = rows[:0:-1], x[1:]
            for j in range(N - 1):
                v = np.int32(-back[j])
                tail[j] = np.uint32(np.uint32(v) + (prime & np.uint32(v >> np.int32(31))))
            forward(x, z, roots[i], roots_q[i], prime)
            for j in range(N):
                total[j] += np.uint64(ak[j]) * np.uint64(z[j])
        for j in range(N):
            sum_a[q, i, j] = np.uint32(_reduce(total[j], prime, reciprocal))
        sum_b[q, i] = np.uint32(constant)


@compiled
def keep_below(words: U32, bound: np.uint32, out: U32, filled: int) -> int:
    """Append the low 30 bits of each word to out[filled:] unless they reach `bound`; returns the new fill."""
    for i in range(words.shape[0]):
        if filled == out.shape[0]:
            break
        value = np.uint32(words[i] & np.uint32(0x3FFFFFFF))
        if value < bound:
            out[filled] = value
            filled += 1
    return filled


@compiled
def constant_of_product(a: U32, secret: U32, prime: np.uint32, degree: np.uint32) -> np.uint64:
    """Constant coefficient of a*s, both in the NTT order: N^-1 times the sum of the pointwise products."""
    reciprocal = 1.0 / np.float64(prime)
    total = np.uint64(0)
    for j in range(N):
        total += _reduce(np.uint64(a[j]) * np.uint64(secret[j]), prime, reciprocal)
    return np.uint64(_reduce(_reduce(total, prime, reciprocal) * np.uint64(degree), prime, reciprocal))
