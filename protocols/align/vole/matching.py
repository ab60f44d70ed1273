"""Finding the sender's tags among one's own while they come in: a hash table with open addressing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.parallel import compiled
from protocols.ristretto import Bytes

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


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
def _insert(tags: Bytes, low: U64, high: U64, slots: U64) -> None:  # pragma: no cover (compiled)
    mask = np.int64(len(slots) - 1)
    for i in range(len(tags)):
        a, b = _words(tags, i)
        low[i], high[i] = a, b
        at = np.int64(a) & mask
        while slots[at] != 0:
            at = (at + 1) & mask
        # The upper half of the first word stands beside the row, so that most others are passed at once.
        slots[at] = (a >> np.uint64(32) << np.uint64(32)) | np.uint64(i + 1)


@compiled
def _probe(
    tags: Bytes, first: int, low: U64, high: U64, slots: U64, rows: I64, extra: Bytes, found: Bytes
) -> None:  # pragma: no cover (compiled)
    mask = np.int64(len(slots) - 1)
    width = tags.shape[1] - found.shape[1]
    one, upper = np.uint64(0xFFFFFFFF), np.uint64(32)
    for j in range(len(tags)):
        a, b = _words(tags[:, :width], j)
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
        _insert(np.ascontiguousarray(tags), self._low, self._high, self._slots)

    def take(self, first: int, rows: Bytes) -> None:
        """The sender's rows `first`, …: tags, each with its masked bytes behind it."""
        _probe(rows, first, self._low, self._high, self._slots, self.rows, self._masks, self.extra)


@compiled
def scatter(tags: Bytes, order: npt.NDArray[np.int32], out: Bytes) -> None:  # pragma: no cover (compiled)
    """out[order[i], :w] = tags[i]."""
    for i in range(len(tags)):
        row = order[i]
        for k in range(tags.shape[1]):
            out[row, k] = tags[i, k]
