"""Which rows repeat an earlier one: one pass with a hash table, no sorting."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.parallel import compiled, read_only
from protocols.ristretto import Bytes, rows

#: Odd multipliers of a multilinear hash. Nothing but speed depends on them: rows are compared in full.
_BY = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], dtype=np.uint64
)

#: Rows whose slots are loaded together before they are looked at, so that waiting for memory overlaps.
_BLOCK = 256


@compiled
def _mark(
    words: npt.NDArray[np.uint64],
    slots: npt.NDArray[np.uint64],
    repeats: npt.NDArray[np.bool_],
    firsts: npt.NDArray[np.int64],
) -> None:  # pragma: no cover (compiled)
    """`firsts` may be empty: then only who repeats is written."""
    mask, half, low = np.int64(len(slots) - 1), np.uint64(32), np.uint64(0xFFFFFFFF)
    hashes, seen = np.empty(_BLOCK, dtype=np.uint64), np.uint64(0)
    for first in range(0, len(words), _BLOCK):
        here = min(_BLOCK, len(words) - first)
        for t in range(here):
            h = np.uint64(0)
            for k in range(4):
                h = (h ^ words[first + t, k]) * _BY[k]
                h ^= h >> half
            hashes[t] = h
        for t in range(here):
            seen ^= slots[np.int64(hashes[t]) & mask]
        for t in range(here):
            i, h = first + t, hashes[t]
            at = np.int64(h) & mask
            while slots[at] != 0:
                if slots[at] >> half == h >> half:
                    j = np.int64(slots[at] & low) - 1
                    if (
                        words[i, 0] == words[j, 0]
                        and words[i, 1] == words[j, 1]
                        and words[i, 2] == words[j, 2]
                        and words[i, 3] == words[j, 3]
                    ):
                        repeats[i] = True
                        if len(firsts):
                            firsts[i] = j
                        break
                at = (at + 1) & mask
            else:
                slots[at] = (h >> half << half) | np.uint64(i + 1)
    hashes[0] = seen  # so that the compiler keeps the loads


def repeats(items: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """bool[n]: where a row of `items: uint8[n, 32]` equals an earlier one; n below 2^32 - 1."""
    return _looked_up(items, np.empty(0, dtype=np.int64))


def firsts(items: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """int64[n]: the first row that equals this one (its own number if none before does), as `repeats`."""
    out = np.arange(len(np.asarray(items)), dtype=np.int64)
    _looked_up(items, out)
    return out


def _looked_up(items: npt.ArrayLike, first: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    array: Bytes = rows(items, 32)
    n = len(array)
    if n >= (1 << 32) - 1:
        raise LocalError("protocol.argument", f"{n} items; split them into buckets")
    out = np.zeros(n, dtype=np.bool_)
    slots = np.zeros(1 << max(2 * n - 1, 1).bit_length(), dtype=np.uint64)
    _mark(read_only(array.view(np.uint64).reshape(n, 4)), slots, out, first)
    return out
