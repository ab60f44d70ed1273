"""Sizes and arrays: what the receiver's size is rounded to, how sets are cut, and that items are distinct."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from protocols.distinct import repeats
from protocols.errors import LocalError
from protocols.machine import MAX_MESSAGE
from protocols.ristretto import Bytes, rows
from protocols.security import PADDING_FLOOR, PADDING_MANTISSA_BITS

#: Width of an item: a SHA-256 digest.
ITEM = 32

#: Elements in one message and in one batch of work: 256 KiB, about 0.2 s of work on two cores.
CHUNK = 8192

#: Room for the fields of a message beside its rows: type, first, length.
HEADER = 16


def padded_size(n: int) -> int:
    """n rounded up to a number of `PADDING_MANTISSA_BITS` bits after its leading one, at least the floor.

    With three bits the sizes are 256, 288, 320, …, 512, 576, …: eight a doubling, at most 12.5 % above n.
    """
    n = max(n, PADDING_FLOOR)
    step = 1 << (n.bit_length() - 1 - PADDING_MANTISSA_BITS)
    return -(-n // step) * step


def pieces(low: int, high: int, most: int) -> Iterator[tuple[int, int]]:
    """[low, high) cut into consecutive ranges of `most`, the last one shorter."""
    for at in range(low, high, most):
        yield at, min(at + most, high)


def rows_per_message(row_bytes: int) -> int:
    """How many rows of the sender's travel in one message."""
    return min(CHUNK, (MAX_MESSAGE - HEADER) // row_bytes)


def portion(total: int, done: int, parts: int) -> int:
    """How many of `total` rows are due after `done` of `parts` equal parts."""
    return total * done // parts


def distinct_items(items: npt.ArrayLike, most: int, limit: str) -> Bytes:
    """`items` as `uint8[n, 32]`; LocalError if there are more than `most` or if one comes twice."""
    array = rows(items, ITEM)
    if len(array) > most:
        raise LocalError(
            "protocol.argument", f"{len(array)} items, but {limit} is {most}; raise the limit on both sides"
        )
    repeated = int(np.count_nonzero(repeats(array)))
    if repeated:
        raise LocalError("protocol.argument", f"{repeated} items are repeated; remove duplicates first")
    return array


class Index:
    """Finds rows of `uint8[k, w]` tags, 1 ≤ w ≤ 16, by sorting and searching whole arrays."""

    def __init__(self, tags: Bytes) -> None:
        self._high, self._low = words(tags)
        self.order = np.argsort(self._high, kind="stable")
        self._high = self._high[self.order]
        if (self._high[1:] == self._high[:-1]).any():
            # Two tags share their first eight bytes: rare by chance, or a peer that wants long scans.
            high, low = words(tags)
            self.order = np.lexsort((low, high))
            self._high = high[self.order]
        self._low = self._low[self.order]

    def find(self, tags: Bytes) -> npt.NDArray[np.int64]:
        """For each of `tags` the (first) row that is equal in all its bytes, or -1."""
        high, low = words(tags)
        if not len(self._high) or not len(high):
            return np.full(len(high), -1, dtype=np.int64)
        at = np.searchsorted(self._high, high, side="left")
        end = np.searchsorted(self._high, high, side="right")
        # Rows at…end have the same first word. A binary search of all queries at once for the second one.
        last = len(self._low) - 1
        upper = end.copy()
        for _ in range(int((end - at).max()).bit_length()):
            middle = (at + upper) >> 1
            right = (at < upper) & (self._low[np.minimum(middle, last)] < low)
            at = np.where(right, middle + 1, at)
            upper = np.where(right, upper, np.minimum(middle, upper))
        here = np.minimum(at, last)
        found = (at < end) & (self._high[here] == high) & (self._low[here] == low)
        return np.where(found, self.order[here], -1).astype(np.int64)


def words(tags: Bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Tags as two big-endian words, so that their order is that of the bytes."""
    if tags.shape[1] > 16:
        raise LocalError("protocol.argument", f"tags of {tags.shape[1]} bytes, 16 allowed")
    wide = np.zeros((len(tags), 16), dtype=np.uint8)
    wide[:, : tags.shape[1]] = tags
    words = wide.view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]
