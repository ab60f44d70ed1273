"""Numba kernels of the ring: transforms, encryption, and the provider's multiply-accumulate.

All arithmetic is exact modulo primes below 2^30 in 32-bit words, lazily reduced (Harvey, "Faster arithmetic
for number-theoretic transforms", 2014): butterflies keep values below 4p < 2^32. No table is
indexed by a secret, but reductions may branch on one: not hardened against local side channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from protocols.linear_query.ring import I32, I64, TAIL, U32, U64, N
from protocols.parallel import compiled, parallel, prange

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
def _transpose(x: U32, z: U32) -> None:
    """z[512 c + i] = x[16 i + c], two rows and two columns at a time in 64-bit words (the first entry is the
    lower half): a quarter of the time that single entries take.
    """
    words, out = x.view(np.uint64), z.view(np.uint64)
    low, high, half = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFF00000000), np.uint64(32)
    for i in range(N // TAIL // 2):
        row = words[TAIL * i : TAIL * (i + 1)]
        for c in range(TAIL // 2):
            u, v = row[c], row[TAIL // 2 + c]
            out[2 * c * (N // TAIL // 2) + i] = (u & low) | (v << half)
            out[(2 * c + 1) * (N // TAIL // 2) + i] = (u >> half) | (v & high)


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
    _transpose(x, z)
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
def _reduce_evenly(value: np.int64, prime: np.int64, reciprocal: float) -> np.int64:
    """value modulo prime for |value| < 2^62, with the same instructions for every value.

    The brand's labels come here, and the provider sees when each chunk arrives: a division or a branch that
    zeros pass quicker would tell how many of a chunk's rows count. The quotient, below 2^33 in size, is off
    by one at the most, so the remainder is in (-2p, 2p) before it is corrected, twice from below and once
    from above.
    """
    r = value - np.int64(np.float64(value) * reciprocal) * prime
    r += prime & (r >> 63)
    r += prime & (r >> 63)
    r -= prime
    return r + (prime & (r >> 63))


@compiled
def transform(values: I64, primes: U32, roots: U32, roots_q: U32) -> U32:
    """NTTs of small signed polynomials: int64[n, N], |entry| below every prime, to uint32[n, limbs, N]."""
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
    below: U64,
    inverse_t: U32,
    primes: U32,
    roots: U32,
    roots_q: U32,
    degree: U32,
) -> U32:
    """b = -a*s + e + floor(P y / t), in coefficients.

    a, secret: uint32[limbs, N] in the NTT order; small (e): int64[N], below 2^29 in size; below: uint64[N],
    P y modulo t, which is all of y that is needed: t floor(P y / t) = P y - (P y mod t), and P is 0 modulo
    every prime. inverse_t: uint32[limbs, 1], 1/t; roots are the inverse transform's.
    Returns uint32[limbs, N].
    """
    limbs = primes.shape[0]
    out = np.empty((limbs, N), np.uint32)
    for i in range(limbs):
        p, inverse_of_t = np.int64(primes[i, 0]), np.int64(inverse_t[i, 0])
        reciprocal = 1.0 / np.float64(p)
        z = np.empty(N, np.uint32)
        x = np.empty(N, np.uint32)
        for j in range(N):
            z[j] = np.uint32(_reduce_evenly(np.int64(a[i, j]) * np.int64(secret[i, j]), p, reciprocal))
        inverse(z, x, roots[i], roots_q[i], degree[i], primes[i, 0])
        for j in range(N):
            part = _reduce_evenly(np.int64(below[j]), p, reciprocal)
            message = _reduce_evenly(part * inverse_of_t, p, reciprocal)
            out[i, j] = np.uint32(_reduce_evenly(small[j] - message - np.int64(x[j]), p, reciprocal))
    return out


@compiled
def transform_residues(x: U32, roots: U32, roots_q: U32, primes: U32) -> U32:
    """NTTs of uint32[limbs, N] of residues."""
    out = np.empty(x.shape, np.uint32)
    for i in range(primes.shape[0]):
        forward(x[i].copy(), out[i], roots[i], roots_q[i], primes[i, 0])
    return out


@compiled
def transform_back(z: U32, roots: U32, roots_q: U32, degree: U32, primes: U32) -> U32:
    """The inverse of `transform_residues`; roots are the inverse transform's."""
    out = np.empty(z.shape, np.uint32)
    for i in range(primes.shape[0]):
        inverse(z[i].copy(), out[i], roots[i], roots_q[i], degree[i], primes[i, 0])
    return out


@compiled
def _add_dot(constant: np.int64, rows: I32, b: U32, p: np.int64) -> np.int64:
    """constant + rows . b modulo p; |rows| < 2^20, so that 2^13 products below 2^50 fit 63 bits."""
    dot = np.int64(0)
    for j in range(N):
        dot += np.int64(rows[j]) * np.int64(np.int32(b[j]))  # signed words both: one instruction a product
    return (constant + dot % p) % p


@compiled
def _add_signed(constant: np.int64, rows: I32, b: U32, p: np.int64) -> np.int64:
    """The same for rows of -1, 0 and 1: additions only, of the residues' halves of 15 bits."""
    low, high = np.int32(0), np.int32(0)  # 2^13 terms below 2^15
    for j in range(N):
        sign, value = np.int32(rows[j] >> 1), np.int32(b[j])
        used = np.int32(-np.int32(rows[j] & 1))
        low = np.int32(low + np.int32(((value & np.int32(0x7FFF) & used) ^ sign) - sign))
        high = np.int32(high + np.int32((((value >> 15) & used) ^ sign) - sign))
    return (constant + (np.int64(low) + (np.int64(high) << 15)) % p) % p


@compiled
def _pack(rows: I32, first: int, c: int, start: int, x: U32, prime: np.uint32) -> None:
    """Q_k(X) of README 2.1: queries first to first + c (zero beyond the last), rows start to start + N/c."""
    m = N // c
    for i in range(c):
        q = first + i
        # Row j of query i goes to coefficient i m - j; of query 0 to N - j, negated, but for its first.
        target = x[(i - 1) * m + 1 : i * m + 1] if i > 0 else x[N - m + 1 :]
        if q >= rows.shape[0]:
            target[:] = np.uint32(0)
            if i == 0:
                x[0] = np.uint32(0)
            continue
        block = rows[q, start : start + m]
        if i == 0:
            v = np.int32(block[0])
            x[0] = np.uint32(v) + (prime if v < 0 else np.uint32(0))
            back = block[:0:-1]
            for j in range(m - 1):
                v = np.int32(-back[j])
                target[j] = np.uint32(np.uint32(v) + (prime & np.uint32(v >> np.int32(31))))
        else:
            back = block[::-1]
            for j in range(m):
                v = np.int32(back[j])
                target[j] = np.uint32(np.uint32(v) + (prime & np.uint32(v >> np.int32(31))))


@parallel
def accumulate(
    sum_a: U32,
    sum_b: U32,
    a: U32,
    b: U32,
    queries: Any,
    kept: U32,
    c: int,
    binary: int,
    primes: U32,
    roots: U32,
    roots_q: U32,
) -> None:
    """sum_a[g] += sum_k a_k * Q_k (NTT order), and sum_b[g] += b_k * Q_k (README 2.1 and 2.2).

    a: uint32[n, limbs, N] in the NTT order, n <= MAX_BATCH; queries: int32[q, n * N/c], |entry| < 2^20, row r
    of chunk k at k * N/c + r; sum_a: uint32[groups, limbs, N], updated in place. c = 1: b in coefficients,
    sum_b: uint32[groups, limbs], the constant coefficient. c > 1: b in the NTT order, sum_b as sum_a.
    binary: 1 if queries are -1, 0 and 1. kept: uint32[groups, n, limbs, N] is filled with the transforms
    of the Q_k; of no groups where they aren't to be kept.
    """
    limbs = primes.shape[0]
    chunks = a.shape[0]
    m = N // c
    for task in prange(sum_a.shape[0] * limbs):
        g, i = task // limbs, task % limbs
        prime = primes[i, 0]
        reciprocal = 1.0 / np.float64(prime)
        x = np.empty(N, np.uint32)
        scratch = np.empty(N, np.uint32)
        total = np.empty(N, np.uint64)
        other = np.empty(N if c > 1 else 0, np.uint64)
        for j in range(N):
            total[j] = sum_a[g, i, j]
        for j in range(other.shape[0]):
            other[j] = sum_b[g, i * N + j]
        constant = np.int64(0) if c > 1 else np.int64(sum_b[g, i])
        for k in range(chunks):
            z = kept[g, k, i] if kept.shape[0] > 0 else scratch
            if c == 1:
                rows = queries[g, k * N : (k + 1) * N]
                if binary == 1:
                    constant = _add_signed(constant, rows, b[k, i], np.int64(prime))
                else:
                    constant = _add_dot(constant, rows, b[k, i], np.int64(prime))
            _pack(queries, g * c, c, k * m, x, prime)
            forward(x, z, roots[i], roots_q[i], prime)
            ak = a[k, i]
            for j in range(N):
                total[j] += np.uint64(ak[j]) * np.uint64(z[j])
            if c > 1:
                bk = b[k, i]
                for j in range(N):
                    other[j] += np.uint64(bk[j]) * np.uint64(z[j])
        for j in range(N):
            sum_a[g, i, j] = np.uint32(_reduce(total[j], prime, reciprocal))
        for j in range(other.shape[0]):
            sum_b[g, i * N + j] = np.uint32(_reduce(other[j], prime, reciprocal))
        if c == 1:
            sum_b[g, i] = np.uint32(constant)


@parallel
def accumulate_kept(
    sum_a: U32, sum_b: U32, a: U32, b: U32, kept: U32, c: int, primes: U32, degree: U32
) -> None:
    """`accumulate` from kept transforms, uint32[groups, n, limbs, N]; b is in the NTT order always."""
    limbs = primes.shape[0]
    chunks = a.shape[0]
    for task in prange(sum_a.shape[0] * limbs):
        g, i = task // limbs, task % limbs
        prime = primes[i, 0]
        reciprocal = 1.0 / np.float64(prime)
        total = np.empty(N, np.uint64)
        other = np.empty(N if c > 1 else 0, np.uint64)
        for j in range(N):
            total[j] = sum_a[g, i, j]
        for j in range(other.shape[0]):
            other[j] = sum_b[g, i * N + j]
        constant = np.uint64(0)
        for k in range(chunks):
            z, ak, bk = kept[g, k, i], a[k, i], b[k, i]
            for j in range(N):
                total[j] += np.uint64(ak[j]) * np.uint64(z[j])
            if c > 1:
                for j in range(N):
                    other[j] += np.uint64(bk[j]) * np.uint64(z[j])
            else:
                # Halves of 15 bits: 2^13 products below 2^45.
                low, high = np.uint64(0), np.uint64(0)
                for j in range(N):
                    low += np.uint64(bk[j]) * np.uint64(z[j] & np.uint32(0x7FFF))
                    high += np.uint64(bk[j]) * np.uint64(z[j] >> np.uint32(15))
                whole = _reduce(low, prime, reciprocal)
                whole += _reduce(high, prime, reciprocal) << np.uint64(15)
                constant += _reduce(whole, prime, reciprocal)
        for j in range(N):
            sum_a[g, i, j] = np.uint32(_reduce(total[j], prime, reciprocal))
        for j in range(other.shape[0]):
            sum_b[g, i * N + j] = np.uint32(_reduce(other[j], prime, reciprocal))
        if c == 1:
            scaled = _reduce(constant, prime, reciprocal) * np.uint64(degree[i, 0])
            summed = np.uint64(sum_b[g, i]) + _reduce(scaled, prime, reciprocal)
            sum_b[g, i] = np.uint32(_reduce(summed, prime, reciprocal))


@parallel
def finish(
    sums: U32,
    small: I64,
    bits: int,
    primes: U32,
    roots: U32,
    roots_q: U32,
    degree: U32,
    scale: U32,
    fractions: U32,
) -> U32:
    """Back to coefficients, e_1 added, rounded to `bits` bits and packed (README 3.3 and 3.4).

    sums: uint32[n, limbs, N] in the NTT order; small: int64[n, N]; roots are the inverse transform's.
    Returns uint32[n, N * bits / 32].
    """
    limbs = primes.shape[0]
    out = np.empty((sums.shape[0], N * bits // 32), np.uint32)
    for n in prange(sums.shape[0]):
        y = np.empty((limbs, N), np.uint32)
        for i in range(limbs):
            prime = primes[i, 0]
            x = np.empty(N, np.uint32)
            inverse(sums[n, i].copy(), x, roots[i], roots_q[i], degree[i], prime)
            for j in range(N):
                v = np.int64(x[j]) + small[n, j]
                v = v + np.int64(prime) if v < 0 else v
                r = _times(np.uint32(v), scale[i, 0], scale[i, 1], prime)
                y[i, j] = min(r, np.uint32(r - prime))
        words = np.empty((N, 4), np.uint32)
        half, mask = np.uint64(1) << np.uint64(31 - bits % 32), np.uint64(0xFFFFFFFF)
        # Words 1 to 4 of the fraction are those of 2^-128 to 2^-1; half a step stands just below 2^-bits.
        at = 4 - bits // 32
        for j in range(N):
            carry = np.uint64(0)
            for word in range(5):
                for i in range(limbs):  # four products below 2^62 - 2^32 and a carry below 2^32
                    carry += np.uint64(y[i, j]) * np.uint64(fractions[i, word])
                if word == at:
                    carry += half
                if word > 0:
                    words[j, word - 1] = np.uint32(carry & mask)
                carry >>= np.uint64(32)
        pack_bits(words, 128 - bits, bits, out[n])
    return out


@compiled
def pack_bits(words: U32, shift: int, bits: int, out: U32) -> None:
    """Bits [shift, shift + bits) of each row of words (the lowest word first), one row after the other."""
    have, filled, at = np.uint64(0), 0, 0
    for j in range(words.shape[0]):
        left = bits
        low = shift
        while left > 0:
            take = min(left, 32 - low % 32)
            value = (np.uint64(words[j, low // 32]) >> np.uint64(low % 32)) & (
                (np.uint64(1) << np.uint64(take)) - np.uint64(1)
            )
            have |= value << np.uint64(filled)
            filled += take
            if filled >= 32:
                out[at] = np.uint32(have & np.uint64(0xFFFFFFFF))
                at += 1
                have >>= np.uint64(32)
                filled -= 32
            low += take
            left -= take


@compiled
def pack(values: U32, bits: int) -> U32:
    """uint32[1, n] below 2^bits, n * bits a multiple of 32, to uint32[n * bits / 32] without gaps."""
    n = values.shape[1]
    out = np.empty(n * bits // 32, np.uint32)
    pack_bits(values.reshape(n, 1), 0, bits, out)
    return out


@compiled
def unpack(packed: U32, count: int, bits: int) -> U32:
    """The inverse: uint32[words, count], the lowest word of each number first."""
    words = (bits + 31) // 32
    out = np.empty((words, count), np.uint32)
    have, filled, at = np.uint64(0), 0, 0
    for j in range(count):
        for w in range(words):
            take = min(32, bits - 32 * w)
            if filled < take:
                have |= np.uint64(packed[at]) << np.uint64(filled)
                at += 1
                filled += 32
            out[w, j] = np.uint32(have & ((np.uint64(1) << np.uint64(take)) - np.uint64(1)))
            have >>= np.uint64(take)
            filled -= take
    return out


@compiled
def signed_sums(words: U32, signs: I32) -> I64:
    """sum_j words[w, j] * signs[j] for each w, int64[words]: 2^13 terms below 2^32, signs of -1, 0 and 1."""
    out = np.zeros(words.shape[0], np.int64)
    for w in range(words.shape[0]):
        row, total = words[w], np.int64(0)
        for j in range(N):
            total += np.int64(row[j]) * np.int64(signs[j])
        out[w] = total
    return out


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
