"""The loops of a store: where keys lie, peeling, filling in, and adding up. Specification in README.md."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.parallel import compiled, parallel, prange

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@compiled
def scale(word: np.uint64, by: np.uint64) -> np.uint64:
    """⌊word · by / 2^64⌋ for by < 2^32: a uniform word becomes uniform below `by`."""
    high = (word >> _32) * by
    low = (word & _LOW) * by
    return (high + (low >> _32)) >> _32


@compiled
def into_bins(words: U64, bins: int, starts: I64, order: I32, placed: U64) -> None:
    """Sort keys by bin: `order` of row numbers, the words in that order, and where each bin starts."""
    n, b = len(words), np.uint64(bins)
    for i in range(n):
        starts[np.int64(scale(words[i, 0], b)) + 1] += 1
    for k in range(bins):
        starts[k + 1] += starts[k]
    at = starts[:-1].copy()
    for i in range(n):
        home = np.int64(scale(words[i, 0], b))
        j = at[home]
        at[home] = j + 1
        order[j] = i
        placed[j, 0] = words[i, 0]
        placed[j, 1] = words[i, 1]


@compiled
def positions(word: np.uint64, bins: np.uint64, sparse: np.uint64) -> tuple[np.int64, np.int64, np.int64]:
    """Three different positions below `sparse`, from what the choice of the bin left of the first word."""
    word = word * bins
    a = scale(word, sparse)
    word = word * sparse
    b = scale(word, sparse - np.uint64(1))
    word = word * (sparse - np.uint64(1))
    c = scale(word, sparse - np.uint64(2))
    # Skip what is taken, so that the three are a uniform triple without repetition.
    if b >= a:
        b += np.uint64(1)
    low, high = min(a, b), max(a, b)
    if c >= low:
        c += np.uint64(1)
    if c >= high:
        c += np.uint64(1)
    return np.int64(a), np.int64(b), np.int64(c)


@compiled
def peel_bin(
    placed: U64, first: int, last: int, bins: int, sparse: int, rows: U16, keys: I32, spots: U16
) -> int:
    """Take keys away that alone cover a position, until none does; gives how many were taken.

    `keys[first + i]` is the i-th key taken and `spots[first + i]` the position that it had alone; the keys
    that are left (the core) follow at the end of `keys`. `rows` receives the positions of every key.
    """
    degree = np.zeros(sparse, dtype=np.uint16)
    parity = np.zeros(sparse, dtype=np.uint32)  # XOR of the keys that cover the position
    n, s = np.uint64(bins), np.uint64(sparse)
    for i in range(first, last):
        a, b, c = positions(placed[i, 0], n, s)
        rows[i, 0] = a
        rows[i, 1] = b
        rows[i, 2] = c
        k = np.uint32(i - first)
        degree[a] += np.uint16(1)
        degree[b] += np.uint16(1)
        degree[c] += np.uint16(1)
        parity[a] ^= k
        parity[b] ^= k
        parity[c] ^= k
    todo = np.empty(sparse, dtype=np.int32)
    taken = first
    for start in range(sparse):
        if degree[start] != 1:
            continue
        todo[0] = start
        waiting = 1
        while waiting:
            waiting -= 1
            v = todo[waiting]
            if degree[v] != 1:
                continue
            k = parity[v]
            key = np.int64(k) + first
            keys[taken] = key
            spots[taken] = np.uint16(v)
            taken += 1
            for t in range(3):
                u = np.int64(rows[key, t])
                parity[u] ^= k
                degree[u] -= np.uint16(1)
                if degree[u] == 1:
                    todo[waiting] = u
                    waiting += 1
    found = taken - first
    if taken < last:
        covered = np.zeros(last - first, dtype=np.bool_)
        for j in range(first, taken):
            covered[keys[j] - first] = True
        at = taken
        for i in range(first, last):
            if not covered[i - first]:
                keys[at] = i
                at += 1
    return found


@parallel
def peel(placed: U64, starts: I64, sparse: int, rows: U16, keys: I32, spots: U16, taken: I64) -> None:
    """`peel_bin` of every bin."""
    bins = len(starts) - 1
    for b in prange(bins):
        taken[b] = peel_bin(placed, starts[b], starts[b + 1], bins, sparse, rows, keys, spots)


@compiled
def tables(vector: U64, at: int, dense: int, sums: U64) -> None:
    """`sums[t, v]`: XOR of the dense entries 8 t + i for the bits i of the byte v."""
    width = vector.shape[1]
    for t in range((dense + 7) // 8):
        for w in range(width):
            sums[t, 0, w] = np.uint64(0)
        for i in range(8):
            here = 8 * t + i
            for v in range(1 << i):
                for w in range(width):
                    entry = vector[at + here, w] if here < dense else np.uint64(0)
                    sums[t, (1 << i) + v, w] = sums[t, v, w] ^ entry


@parallel
def fill(
    placed: U64,
    starts: I64,
    sparse: int,
    dense: int,
    rows: U16,
    keys: I32,
    spots: U16,
    taken: I64,
    values: U64,
    vector: U64,
) -> None:
    """Give the positions of the keys that were taken their entries, the last one first."""
    bins, width, chunks = len(starts) - 1, values.shape[1], (dense + 7) // 8
    mask = np.uint64((1 << dense) - 1) if dense < 64 else np.uint64(0xFFFFFFFFFFFFFFFF)
    for b in prange(bins):
        at, first = b * (sparse + dense), starts[b]
        sums = np.empty((chunks, 256, width), dtype=np.uint64)
        tables(vector, at + sparse, dense, sums)
        for j in range(first + taken[b] - 1, first - 1, -1):
            i, spot = keys[j], at + np.int64(spots[j])
            p, q, r = at + np.int64(rows[i, 0]), at + np.int64(rows[i, 1]), at + np.int64(rows[i, 2])
            bits = placed[i, 1] & mask
            for w in range(width):
                # The spot's own old entry cancels out.
                entry = values[i, w] ^ vector[p, w] ^ vector[q, w] ^ vector[r, w] ^ vector[spot, w]
                for t in range(chunks):
                    entry ^= sums[t, np.int64((bits >> np.uint64(8 * t)) & np.uint64(255)), w]
                vector[spot, w] = entry


@parallel
def add_up(placed: U64, starts: I64, sparse: int, dense: int, vector: U64, out: U64) -> None:
    """`out[i]`: the sum of the entries that key i (in the order of the bins) covers."""
    bins, width, chunks = len(starts) - 1, vector.shape[1], (dense + 7) // 8
    mask = np.uint64((1 << dense) - 1) if dense < 64 else np.uint64(0xFFFFFFFFFFFFFFFF)
    n, s = np.uint64(bins), np.uint64(sparse)
    for b in prange(bins):
        at = b * (sparse + dense)
        if starts[b] < starts[b + 1]:
            sums = np.empty((chunks, 256, width), dtype=np.uint64)
            tables(vector, at + sparse, dense, sums)
            for i in range(starts[b], starts[b + 1]):
                p, q, r = positions(placed[i, 0], n, s)
                bits = placed[i, 1] & mask
                for w in range(width):
                    entry = vector[at + p, w] ^ vector[at + q, w] ^ vector[at + r, w]
                    for t in range(chunks):
                        entry ^= sums[t, np.int64((bits >> np.uint64(8 * t)) & np.uint64(255)), w]
                    out[i, w] = entry
