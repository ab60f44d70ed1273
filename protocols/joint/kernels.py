"""Numba kernels over one side's rows: scores, and the integers of its queries.

`columns` is float32[d, n] in C order throughout; nothing here copies more than a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.parallel import compiled, parallel, parallel_reordering, prange

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

#: Rows a block of `scores`.
BLOCK = 4096

#: Steps, in 2^-32, of the numbers that decide on rounding up or down: from row to row the golden section,
#: which fills [0, 1) evenly, and from one column or vector to the next another one, so that each is rounded
#: in its own way.
ROW_STEP, NEXT_STEP = np.uint32(2654435769), np.uint32(2246822519)


@parallel
def scores(columns: F32, weights: F64, n: int) -> F64:
    """columns^T weights of the first n rows, float64[n]."""
    d = columns.shape[0]
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
def between(scores: F64, middle: float, size: float, reach: float, table: F64) -> F64:
    """float64[k, n]: functions float64[k, g] on a grid at asinh((scores - middle) / size), which is even from
    -reach to reach; linear between its points, and beyond its ends as at them.
    """
    k, g = table.shape
    n = scores.shape[0]
    out = np.empty((k, n), np.float64)
    scale = (g - 1) / (2.0 * reach)
    for block in prange((n + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        stop = min(n, start + BLOCK)
        place = np.empty(stop - start, np.int64)
        share = np.empty(stop - start, np.float64)
        for i in range(stop - start):
            x = np.arcsinh((scores[start + i] - middle) / size)
            x = min(max((x + reach) * scale, 0.0), g - 1.0)
            at = min(np.int64(x), g - 2)
            place[i], share[i] = at, x - at
        for j in range(k):
            row, part = table[j], out[j, start:stop]
            for i in range(stop - start):
                low = row[place[i]]
                part[i] = low + share[i] * (row[place[i] + 1] - low)
    return out


@parallel
def weighted(
    columns: F32, factor: F64, inverse: F64, largest: int, low: int, which: int, positions: I64, out: I32
) -> None:
    """out[j, positions[i]] = factor[low + i] * columns[j, low + i] * inverse[j], |.| <= largest, rounded up
    or down so that the errors of many rows cancel: a column whose largest value is far out would have all
    others rounded alike. `which` factor it is says where the rounding begins.

    Other entries of out: int32[d, width] are left. In two loops, as one that computes and scatters isn't
    vectorised.
    """
    d, n, top = columns.shape[0], positions.shape[0], np.float64(largest)
    for j in prange(d):
        part = np.empty(BLOCK, np.int32)
        for start in range(0, n, BLOCK):
            stop = min(n, start + BLOCK)
            a, v = factor[low + start : low + stop], columns[j, low + start : low + stop]
            at = _first(low + start, which * d + j)
            for i in range(stop - start):
                up = np.float64(np.uint32(at + np.uint32(i) * ROW_STEP)) * 2.0**-32
                q = np.floor(a[i] * np.float64(v[i]) * inverse[j] + up)
                part[i] = np.int32(min(max(q, -top), top))
            _put(part, positions[start:stop], out[j])


@parallel
def products(
    columns: F32, left: I64, right: I64, inverse: F64, largest: int, low: int, positions: I64, out: I32
) -> None:
    """The same of the product of two columns: out[j] is of columns left[j] and right[j]."""
    n, top = positions.shape[0], np.float64(largest)
    for j in prange(left.shape[0]):
        part = np.empty(BLOCK, np.int32)
        for start in range(0, n, BLOCK):
            stop = min(n, start + BLOCK)
            v, w = columns[left[j], low + start : low + stop], columns[right[j], low + start : low + stop]
            at = _first(low + start, j)
            for i in range(stop - start):
                up = np.float64(np.uint32(at + np.uint32(i) * ROW_STEP)) * 2.0**-32
                q = np.floor(np.float64(v[i]) * np.float64(w[i]) * inverse[j] + up)
                part[i] = np.int32(min(max(q, -top), top))
            _put(part, positions[start:stop], out[j])


@compiled
def _first(row: int, which: int) -> np.uint32:
    """Where the numbers that decide on rounding are at this row."""
    return np.uint32(np.uint32(row) * ROW_STEP + np.uint32(which) * NEXT_STEP)


def rounded(values: F64, which: int, low: int) -> F64:
    """Each of float64[n] to a whole number, up or down as in `weighted`: rows `low` … of vector `which`."""
    start = (which * int(NEXT_STEP) + low * int(ROW_STEP)) % (1 << 32)
    at = np.uint32(start) + np.arange(len(values), dtype=np.uint32) * ROW_STEP
    return np.asarray(np.floor(values + at * 2.0**-32))


@parallel
def largest_weighted(columns: F32, factors: F64) -> F64:
    """max |factors[k, i] * columns[j, i]|, float64[d]: of all factors float64[v, n] and the first n rows."""
    d, n = columns.shape[0], factors.shape[1]
    out = np.zeros(d, np.float64)
    for j in prange(d):
        most = 0.0
        for start in range(0, n, BLOCK):
            stop = min(n, start + BLOCK)
            v = columns[j, start:stop]
            for k in range(factors.shape[0]):
                a = factors[k, start:stop]
                for i in range(stop - start):
                    most = max(most, abs(a[i] * np.float64(v[i])))
        out[j] = most
    return out


@compiled
def _put(part: I32, positions: I64, target: I32) -> None:
    """target[positions[i]] = part[i]; positions rise."""
    n = positions.shape[0]
    if n and positions[n - 1] - positions[0] == n - 1:
        first = positions[0]
        for i in range(n):  # not as a slice: numba would compile the text of its error, some seconds
            target[first + i] = part[i]
    else:
        for i in range(n):
            target[positions[i]] = part[i]


@parallel_reordering
def gram(columns: F32, factor: F64) -> F64:
    """Lower half of columns diag(factor) columns^T, float64[d, d]. A loop of its own and not BLAS, whose
    threads come to a standstill on a busy machine.
    """
    d, n = columns.shape
    out = np.zeros((d, d), np.float64)
    for j in prange(d):
        left = factor * columns[j]
        for k in range(j + 1):
            right, total = columns[k], 0.0
            for i in range(n):
                total += left[i] * np.float64(right[i])
            out[j, k] = total
    return out


def moments(columns: F32, factor: F64) -> F64:
    """columns diag(factor) columns^T, float64[d, d]."""
    half = gram(columns, factor)
    return half + np.tril(half, -1).T


@parallel_reordering
def dots(columns: F32, vector: F64) -> F64:
    """columns vector, float64[d]: the sum of each column's first n rows, weighted by a float64[n]."""
    d, n = columns.shape[0], vector.shape[0]
    out = np.zeros(d, np.float64)
    for j in prange(d):
        values, total = columns[j], 0.0
        for i in range(n):
            total += vector[i] * np.float64(values[i])
        out[j] = total
    return out


def largest_of(columns: F32) -> F64:
    """Largest absolute value of each column, float64[d]; not finite when one of its values isn't."""
    return np.array(
        [max(float(v.max()), -float(v.min())) if v.size else 0.0 for v in columns], dtype=np.float64
    )
