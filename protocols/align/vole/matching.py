"""Finding the sender's tags among one's own while they come in: a hash table with open addressing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.parallel import compiled, read_only
from protocols.ristretto import Bytes

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: Tags whose slots are loaded together before they are looked at, so that waiting for memory overlaps. What
#: the loads give goes into `kept`, so that the compiler leaves them.
_BLOCK = 256


@compiled
def _words(tags: Bytes, i: int) -> tuple[np.uint64, np.uint64]:
    """A tag of up to 16 bytes as two little-endian words."""
    low, high, width = np.uint64(0), np.uint64(0), tags.shape[1]
    for k in range(min(width, 8)):
        low |= np.uint64(tags[i, k]) << np.uint64(8 * k)
    for k in range(8, width):
        high |= np.uint64(tags[i, k]) << np.uint64(8 * (k - 8))
    return low, high


@compiled
def _insert(tags: Bytes, low: U64, high: U64, slots: U64, kept: U64) -> None:  # pragma: no cover (compiled)
    mask, seen = np.int64(len(slots) - 1), np.uint64(0)
    for first in range(0, len(tags), _BLOCK):
        last = min(first + _BLOCK, len(tags))
        for i in range(first, last):
            low[i], high[i] = _words(tags, i)
        for i in range(first, last):
            seen ^= slots[np.int64(low[i]) & mask]
        for i in range(first, last):
            a = low[i]
            at = np.int64(a) & mask
            while slots[at] != 0:
                at = (at + 1) & mask
            # The upper half of the first word stands beside the row, so that most others are passed at once.
            slots[at] = (a >> np.uint64(32) << np.uint64(32)) | np.uint64(i + 1)
    kept[0] = seen


@compiled
def _probe(
    tags: Bytes, first: int, low: U64, high: U64, slots: U64, rows: I64, extra: Bytes, found: Bytes, kept: U64
) -> None:  # pragma: no cover (compiled)
    mask = np.int64(len(slots) - 1)
    width = tags.shape[1] - found.shape[1]
    one, upper = np.uint64(0xFFFFFFFF), np.uint64(32)
    words, seen = np.empty((_BLOCK, 2), dtype=np.uint64), np.uint64(0)
    for begin in range(0, len(tags), _BLOCK):
        here = min(_BLOCK, len(tags) - begin)
        for t in range(here):
            words[t, 0], words[t, 1] = _words(tags[:, :width], begin + t)
        for t in range(here):
            seen ^= slots[np.int64(words[t, 0]) & mask]
        for t in range(here):
            j, a, b = begin + t, words[t, 0], words[t, 1]
            at = np.int64(a) & mask
            while slots[at] != 0:
                if slots[at] >> upper == a >> upper:
                    i = np.int64(slots[at] & one) - 1
                    if low[i] == a and high[i] == b:
                        if rows[i] < 0:  # a tag that comes again is that of the first row
                            rows[i] = first + j
                            for k in range(found.shape[1]):
                                found[i, k] = tags[j, width + k] ^ extra[i, k]
                        break
                at = (at + 1) & mask
    kept[0] = seen


class Table:
    """One's own tags `uint8[n, w]`, n < 2^32, w ≤ 16; `masks: uint8[n, k]` uncover what follows a tag.

    Own tags are pseudorandom, so that runs of full slots stay short whatever the peer sends.
    """

    def __init__(self, tags: Bytes, masks: Bytes | None) -> None:
        n = len(tags)
        self._low, self._high = np.empty(n, dtype=np.uint64), np.empty(n, dtype=np.uint64)
        self._slots = np.zeros(
            1 << max(n, 1).bit_length() + 1 if n & (n - 1) else 2 * max(n, 1), dtype=np.uint64
        )
        self._masks = np.zeros((n, 0), dtype=np.uint8) if masks is None else np.ascontiguousarray(masks)
        #: int64[n]: the sender's row of each tag so far, or -1.
        self.rows = np.full(n, -1, dtype=np.int64)
        #: uint8[n, k]: what followed the tag, uncovered.
        self.extra = np.zeros_like(self._masks)
        self._kept = np.zeros(1, dtype=np.uint64)
        _insert(np.ascontiguousarray(tags), self._low, self._high, self._slots, self._kept)

    def take(self, first: int, rows: Bytes) -> None:
        """The sender's rows `first`, …: tags, each with its masked bytes behind it."""
        tags = read_only(rows)
        _probe(
            tags, first, self._low, self._high, self._slots, self.rows, self._masks, self.extra, self._kept
        )


@compiled
def scatter(tags: Bytes, order: npt.NDArray[np.int32], out: Bytes) -> None:  # pragma: no cover (compiled)
    """out[order[i], :w] = tags[i]."""
    for i in range(len(tags)):
        row = order[i]
        for k in range(tags.shape[1]):
            out[row, k] = tags[i, k]


@compiled
def scatter_numbers(
    masks: Bytes, numbers: Bytes, order: npt.NDArray[np.int32], out: Bytes
) -> None:  # pragma: no cover (compiled)
    """The last bytes of out[order[i]] = masks[i] ⊕ numbers[order[i]]."""
    at = out.shape[1] - masks.shape[1]
    for i in range(len(masks)):
        row = order[i]
        for k in range(masks.shape[1]):
            out[row, at + k] = masks[i, k] ^ numbers[row, k]
