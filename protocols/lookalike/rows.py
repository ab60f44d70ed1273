"""Kernels over the provider's rows: column ranges, rare levels, clipping, quantisation.

`columns` is phi transposed, float32[d, m] in C order, throughout; nothing here copies more than a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.parallel import parallel, prange

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

#: Rows a block: a block of a hundred float32 columns stays in the second-level cache.
BLOCK = 1024


def column_ranges(columns: F32) -> F64:
    """Largest absolute value of each column, float64[d]; not finite when one of its values isn't."""
    return np.asarray(_largest_bits(columns).view(np.float32), dtype=np.float64)


@parallel
def _largest_bits(columns: F32) -> U32:
    """The largest of each column's values without their signs, as bits: these are in order as the finite
    values are, with infinity above them, and what isn't a number above that.
    """
    d, m = columns.shape
    out = np.empty(d, np.uint32)
    for j in prange(d):
        bits, largest = columns[j].view(np.uint32), np.uint32(0)
        for i in range(m):
            largest = max(largest, np.uint32(bits[i] & np.uint32(0x7FFFFFFF)))
        out[j] = largest
    return out


@parallel
def differing(columns: F32, usual: F32) -> I64:
    """How many rows of each column differ from `usual[j]`, int64[d]."""
    d, m = columns.shape
    out = np.empty(d, np.int64)
    for j in prange(d):
        values, common, count = columns[j], usual[j], np.int32(0)  # rows are fewer than 2^31
        for i in range(m):
            count += np.int32(values[i] != common)
        out[j] = count
    return out


@parallel
def _take(columns: F32, rows: I64, out: F32) -> None:
    for j in prange(columns.shape[0]):
        values, target = columns[j], out[j]
        for i in range(rows.shape[0]):
            target[i] = values[rows[i]]


def some_rows(phi: F32, rows: I64) -> F32:
    """phi[rows], float32[len(rows), d] in Fortran order."""
    out = np.empty((phi.shape[1], len(rows)), np.float32)
    _take(phi.T, rows, out)
    return out.T


@parallel
def clip_factors(columns: F32, clip: float) -> F64:
    """Factor of each row that brings its Euclidean norm to `clip` at the most; float64[m] in (0, 1]."""
    d, m = columns.shape
    out = np.ones(m, np.float64)
    for block in prange((m + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        n = min(BLOCK, m - start)
        squares = np.zeros(n, np.float64)
        for j in range(d):
            values = columns[j, start : start + n]
            for i in range(n):
                v = np.float64(values[i])
                squares[i] += v * v
        for i in range(n):
            norm = np.sqrt(squares[i])
            if norm > clip:
                # A hair below, so that rounding can't carry the norm over the bound that the proof uses.
                out[start + i] = clip / norm * (1 - 1e-9)
    return out


@parallel
def quantise(
    columns: F32, start: int, stop: int, factors: F64, inverse_steps: F64, largest: int, intercept: int
) -> I32:
    """Rows [start, stop) rounded to integers, an intercept row last: int32[d + 1, stop - start].

    factors: float64[m], ones for no clipping. Rounds to nearest, so each entry is off by 1/2 at the most.
    """
    d, n = columns.shape[0], stop - start
    out = np.empty((d + 1, n), np.int32)
    for j in prange(d + 1):
        if j == d:
            for i in range(n):
                out[d, i] = intercept
        else:
            inverse = inverse_steps[j]
            values, target = columns[j, start:stop], out[j]
            for i in range(n):
                q = np.int32(np.rint(np.float64(values[i]) * inverse * factors[start + i]))
                target[i] = min(max(q, -largest), largest)
    return out
