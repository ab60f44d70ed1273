"""Compiled loops of the VOLE: the linear code over vectors of one or two words an element.

An element is a `uint64` (vectors `uint64[N]`, GF(2^64)) or two of them (`uint64[N, 2]`, GF(2^128)). The
same source serves both: `_load` and `_store` look at the number of dimensions, which numba knows when it
compiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from protocols.parallel import compiled

#: Positions of a permutation that are computed together, so that the loads that follow don't wait for them.
BLOCK = 256


@njit(nogil=True)
def _load(vector: Any, i: Any) -> Any:  # pragma: no cover (compiled)
    if vector.ndim == 1:
        return vector[i], np.uint64(0)
    else:
        return vector[i, 0], vector[i, 1]


@njit(nogil=True)
def _store(vector: Any, i: Any, u: Any, v: Any) -> None:  # pragma: no cover (compiled)
    if vector.ndim == 1:
        vector[i] = u
    else:
        vector[i, 0] = u
        vector[i, 1] = v


@njit(nogil=True)
def _times_x(word: Any) -> Any:  # pragma: no cover (compiled)
    """x · word in GF(2^64)."""
    return (word << np.uint64(1)) ^ (np.uint64(0x1B) * (word >> np.uint64(63)))


@njit(nogil=True)
def _gather(source: Any, buffer: Any, place: Any, first: Any, rows: Any, columns: Any, rounds: Any) -> None:
    # pragma: no cover (compiled)
    """buffer[k] = source[image of first + k] under the permutation that `rounds` defines (README section 5).

    Positions first and loads in a loop of their own: so many loads are under way at once, and their waiting
    for memory, which is most of the time that the code takes, overlaps. All integers are unsigned, since
    numba lets a negative index count from the end and would look for the sign each time.
    """
    size, columns, rows = np.uint64(source.shape[0]), np.uint64(columns), np.uint64(rows)
    r = np.uint64(first) // columns
    c = np.uint64(first) - r * columns
    one = np.uint64(1)
    for k in range(place.shape[0]):
        left, right = r, c
        while True:
            for j in range(0, rounds.shape[0], 2):
                left += rounds[np.uint64(j), right]
                left = min(left, left - rows)  # below zero wraps to a large number
                right += rounds[np.uint64(j + 1), left]
                right = min(right, right - columns)
            image = left * columns + right
            if image < size:
                break
        place[k] = image
        c += one
        if c == columns:
            c = np.uint64(0)
            r += one
    for k in range(place.shape[0]):
        u, v = _load(source, place[k])
        _store(buffer, k, u, v)


@compiled
def encode(
    vector: Any, scratch: Any, out: Any, rows: int, columns: int, rounds: Any, matrices: Any
) -> None:  # pragma: no cover (compiled)
    """out = code · vector; `vector` and `scratch` (N elements each) are overwritten, `out` has up to N / 2.

    N is a multiple of 64. `rounds: uint16[accumulations, feistel rounds, …]`, `matrices: uint32[N / 2]`.
    """
    size = vector.shape[0]
    half = size // 2
    place = np.empty(BLOCK, dtype=np.uint64)
    buffer = np.empty_like(vector[:BLOCK])
    second = np.empty_like(vector[:BLOCK])
    u = v = np.uint64(0)
    for i in range(size):
        p, q = _load(vector, i)
        u, v = _times_x(u) ^ p, _times_x(v) ^ q
        _store(vector, i, u, v)
    last = rounds.shape[0] - 1
    for step in range(last):
        u = v = np.uint64(0)
        source, target = (vector, scratch) if step % 2 == 0 else (scratch, vector)
        for first in range(0, size, BLOCK):
            here = min(BLOCK, size - first)
            _gather(source, buffer, place[:here], first, rows, columns, rounds[step])
            for k in range(here):
                p, q = _load(buffer, k)
                u, v = _times_x(u) ^ p, _times_x(v) ^ q
                _store(target, first + k, u, v)
    source = vector if last % 2 == 0 else scratch
    table_u = np.zeros((8, 16), dtype=np.uint64)
    table_v = np.zeros((8, 16), dtype=np.uint64)
    for first in range(0, out.shape[0], BLOCK):
        here = min(BLOCK, half - first)
        _gather(source, buffer, place[:here], first, rows, columns, rounds[last])
        _gather(source, second, place[:here], half + first, rows, columns, rounds[last])
        for block in range(0, here, 32):
            for g in range(8):
                for bit in range(4):
                    p, q = _load(second, block + 4 * g + bit)
                    for k in range(1 << bit):
                        table_u[g, (1 << bit) + k] = table_u[g, k] ^ p
                        if vector.ndim == 2:
                            table_v[g, (1 << bit) + k] = table_v[g, k] ^ q
            for k in range(block, min(block + 32, out.shape[0] - first)):
                u, v = _load(buffer, k)
                row = matrices[first + k]
                for g in range(8):
                    digit = row & np.uint32(15)
                    row >>= np.uint32(4)
                    u ^= table_u[g, digit]
                    if vector.ndim == 2:
                        v ^= table_v[g, digit]
                _store(out, first + k, u, v)


@compiled
def add_sum(children: Any, parents: Any, sums: Any) -> None:  # pragma: no cover (compiled)
    """children += parents, and sums += the sum of the result's rows; `uint64[w, k]` twice, `uint64[k]`."""
    for i in range(children.shape[0]):
        for k in range(children.shape[1]):
            value = children[i, k] ^ parents[i, k]
            children[i, k] = value
            sums[k] ^= value


@compiled
def evaluate(vector: Any, table: Any) -> Any:  # pragma: no cover (compiled)
    """Σ vector[i] · χ^(N - i) in GF(2^128) for `uint64[N, 2]`; `table` multiplies by χ (Horner's rule)."""
    u = v = np.uint64(0)
    for i in range(vector.shape[0]):
        x, y = u ^ vector[i, 0], v ^ vector[i, 1]
        u = v = np.uint64(0)
        for byte in range(8):
            low, high = x & np.uint64(255), y & np.uint64(255)
            x >>= np.uint64(8)
            y >>= np.uint64(8)
            u ^= table[byte, low, 0] ^ table[byte + 8, high, 0]
            v ^= table[byte, low, 1] ^ table[byte + 8, high, 1]
    return u, v


@njit(nogil=True)
def _product(a: Any, b: Any) -> Any:  # pragma: no cover (compiled)
    """a · b in GF(2^64)."""
    result = np.uint64(0)
    for _ in range(64):
        result ^= a * (b & np.uint64(1))
        a = _times_x(a)
        b >>= np.uint64(1)
    return result


@compiled
def power_sum(point: Any, exponents: Any, scalars: Any) -> Any:  # pragma: no cover (compiled)
    """Σ scalars[i] · χ^exponents[i] in GF(2^128): `uint64[2]`, `int64[t]`, `uint64[t, 2]`."""
    constant = np.uint64(1 << 61)
    u = v = np.uint64(0)
    for i in range(exponents.shape[0]):
        x, y = scalars[i, 0], scalars[i, 1]
        p, q = point[0], point[1]
        exponent = exponents[i]
        while exponent:
            if exponent & 1:
                low, high = _product(x, p), _product(y, q)
                y = _product(x ^ y, p ^ q) ^ low
                x = low ^ _product(high, constant)
            low, high = _product(p, p), _product(q, q)
            p, q = low ^ _product(high, constant), high
            exponent >>= 1
        u ^= x
        v ^= y
    return u, v
