"""Numba kernels over one side's rows: scores, and the integers of its queries.

`columns` is float32[d, n] in C order throughout; nothing here copies more than a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import prange

from protocols.parallel import parallel, parallel_reordering

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

#: Rows a block of `scores`.
BLOCK = 4096


@parallel
def scores(columns: F32, weights: F64) -> F64:
    """columns^T weights, float64[n]."""
    d, n = columns.shape
    out = np.zeros(n, np.float64)
    for block in prange((n + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        stop = min(n, start + BLOCK)
        part = out[start:stop]
        for j in range(d):
            w, values = weights[j], columns[j, start:stop]
            for i in range(stop - start):
                part[i] += w * np.float64(values[i])
    return out


@parallel
def weighted(
    columns: F32, factor: F64, inverse: F64, largest: int, low: int, positions: I64, out: I32
) -> None:
    """out[j, positions[i]] = round(factor[low + i] * columns[j, low + i] * inverse[j]), |.| <= largest.

    Other entries of out: int32[d, width] are left. Rounds to nearest.
    """
    d = columns.shape[0]
    for j in prange(d):
        values, target, scale = columns[j], out[j], inverse[j]
        for i in range(positions.shape[0]):
            q = np.int64(np.rint(factor[low + i] * np.float64(values[low + i]) * scale))
            target[positions[i]] = largest if q > largest else -largest if q < -largest else q


@parallel
def squared(columns: F32, inverse: F64, largest: int, low: int, positions: I64, out: I32) -> None:
    """The same with the column itself as the factor."""
    d = columns.shape[0]
    for j in prange(d):
        values, target, scale = columns[j], out[j], inverse[j]
        for i in range(positions.shape[0]):
            v = np.float64(values[low + i])
            q = np.int64(np.rint(v * v * scale))
            target[positions[i]] = largest if q > largest else q


@parallel_reordering
def gram(columns: F32) -> F64:
    """Lower half of columns columns^T, float64[d, d]. A loop of its own and not BLAS, whose threads come to a
    standstill on a busy machine.
    """
    d, n = columns.shape
    out = np.zeros((d, d), np.float64)
    for j in prange(d):
        left = columns[j]
        for k in range(j + 1):
            right, total = columns[k], 0.0
            for i in range(n):
                total += np.float64(left[i]) * np.float64(right[i])
            out[j, k] = total
    return out


def largest_of(columns: F32) -> F64:
    """Largest absolute value of each column, float64[d]; not finite when one of its values isn't."""
    return np.array(
        [max(float(v.max()), -float(v.min())) if v.size else 0.0 for v in columns], dtype=np.float64
    )
