"""Compiled loops of the VOLE: the linear code over vectors of one or two words an element.

An element is a `uint64` (vectors `uint64[N]`, GF(2^64)) or two of them (`uint64[N, 2]`, GF(2^128)). The
same source serves both: `_load` and `_store` look at the number of dimensions, which numba knows when it
compiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from protocols.parallel import compiled, inlined

#: Positions of a permutation that are computed together, so that the loads that follow don't wait for them.
BLOCK = 256


@inlined
def _load(vector: Any, i: Any) -> Any:  # pragma: no cover (compiled)
    if vector.ndim == 1:
        return vector[i], np.uint64(0)
    else:
        return vector[i, 0], vector[i, 1]


@inlined
def _store(vector: Any, i: Any, u: Any, v: Any) -> None:  # pragma: no cover (compiled)
    if vector.ndim == 1:
        vector[i] = u
    else:
        vector[i, 0] = u
        vector[i, 1] = v


@inlined
def _times_x(word: Any) -> Any:  # pragma: no cover (compiled)
    """x · word in GF(2^64)."""
    return (word << np.uint64(1)) ^ (np.uint64(0x1B) * (word >> np.uint64(63)))


@inlined
def _times(word: Any, shift: Any) -> Any:  # pragma: no cover (compiled)
    """x · word for shift 1, and word itself for shift 0 (the binary code)."""
    return (word << shift) ^ (np.uint64(0x1B) * shift * (word >> np.uint64(63)))


@inlined
def _positions(
    place: Any, first: Any, size: Any, rows: Any, columns: Any, rounds: Any
) -> None:  # pragma: no cover (compiled)
    """Images of first, first + 1, … under the permutation that `rounds` defines (README section 5).

    All integers are unsigned: numba lets a negative index count from the end and would look for the sign.
    """
    size, columns, rows = np.uint64(size), np.uint64(columns), np.uint64(rows)
    r = np.uint64(first) // columns
    c = np.uint64(first) - r * columns
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
        c += np.uint64(1)
        if c == columns:
            c = np.uint64(0)
            r += np.uint64(1)


@inlined
def _gather(source: Any, buffer: Any, place: Any) -> None:  # pragma: no cover (compiled)
    """Loads in a loop of their own: many are under way at once, and their waiting for memory overlaps."""
    for k in range(place.shape[0]):
        u, v = _load(source, place[k])
        _store(buffer, k, u, v)


@inlined
def _accumulate(source: Any, target: Any, carry: Any, shift: Any) -> None:  # pragma: no cover (compiled)
    u, v = carry[0], carry[1]
    for k in range(target.shape[0]):
        p, q = _load(source, k)
        u, v = _times(u, shift) ^ p, _times(v, shift) ^ q
        _store(target, k, u, v)
    carry[0], carry[1] = u, v


@inlined
def _diagonal(
    out: Any, systematic: Any, other: Any, matrices: Any, table: Any
) -> None:  # pragma: no cover (compiled)
    """out = systematic + M · other in blocks of 32, four rows of M at a time by look-up (Four Russians)."""
    for block in range(0, out.shape[0], 32):
        for g in range(8):
            for bit in range(4):
                p, q = _load(other, block + 4 * g + bit)
                for k in range(1 << bit):
                    table[0, g, (1 << bit) + k] = table[0, g, k] ^ p
                    if out.ndim == 2:
                        table[1, g, (1 << bit) + k] = table[1, g, k] ^ q
        for k in range(block, min(block + 32, out.shape[0])):
            u, v = _load(systematic, k)
            row = matrices[k]
            for g in range(8):
                digit = row & np.uint32(15)
                row >>= np.uint32(4)
                u ^= table[0, g, digit]
                if out.ndim == 2:
                    v ^= table[1, g, digit]
            _store(out, k, u, v)


@compiled
def encode(
    wide: Any,
    wide_spare: Any,
    wide_out: Any,
    narrow: Any,
    narrow_spare: Any,
    narrow_out: Any,
    rows: int,
    columns: int,
    rounds: Any,
    matrices: Any,
    shift: int,
) -> None:  # pragma: no cover (compiled)
    """Both outputs are the code's images of both vectors; vectors and spares of their sizes are overwritten.

    `wide: uint64[N, 2]`; `narrow: uint64[N]` or `uint64[N, 2]`, or of length 0 and then left alone. Outputs
    have up to N / 2 elements; N is a multiple of 64. `rounds: uint16[accumulations, feistel rounds, …]`,
    `matrices: uint32[N / 2]`, `shift` 1, or 0 for the binary code.
    """
    size = wide.shape[0]
    half = size // 2
    factor = np.uint64(shift)
    second = narrow.shape[0] > 0
    place = np.empty(BLOCK, dtype=np.uint64)
    further = np.empty(BLOCK, dtype=np.uint64)
    wide_buffer, wide_other = np.empty_like(wide[:BLOCK]), np.empty_like(wide[:BLOCK])
    narrow_buffer, narrow_other = np.empty_like(narrow[:BLOCK]), np.empty_like(narrow[:BLOCK])
    carry = np.zeros((2, 2), dtype=np.uint64)
    table = np.zeros((2, 8, 16), dtype=np.uint64)
    _accumulate(wide, wide, carry[0], factor)
    _accumulate(narrow, narrow, carry[1], factor)
    last = rounds.shape[0] - 1
    for step in range(last):
        carry[:] = 0
        for first in range(0, size, BLOCK):
            here = min(BLOCK, size - first)
            _positions(place[:here], first, size, rows, columns, rounds[step])
            _gather(wide, wide_buffer, place[:here])
            _accumulate(wide_buffer, wide_spare[first : first + here], carry[0], factor)
            if second:
                _gather(narrow, narrow_buffer, place[:here])
                _accumulate(narrow_buffer, narrow_spare[first : first + here], carry[1], factor)
        wide, wide_spare = wide_spare, wide
        narrow, narrow_spare = narrow_spare, narrow
    for first in range(0, wide_out.shape[0], BLOCK):
        here = min(BLOCK, half - first)
        end = min(first + here, wide_out.shape[0])
        _positions(place[:here], first, size, rows, columns, rounds[last])
        _positions(further[:here], half + first, size, rows, columns, rounds[last])
        _gather(wide, wide_buffer, place[:here])
        _gather(wide, wide_other, further[:here])
        _diagonal(wide_out[first:end], wide_buffer, wide_other, matrices[first:end], table)
        if second:
            _gather(narrow, narrow_buffer, place[:here])
            _gather(narrow, narrow_other, further[:here])
            _diagonal(narrow_out[first:end], narrow_buffer, narrow_other, matrices[first:end], table)


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


@inlined
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
