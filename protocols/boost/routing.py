"""Which node a row is in, and the bits that say where it goes next.

A node's number counts from 0, the root, in the order in which nodes come into being: level by level, of each
split the left child first. Both sides count alike, so numbers are never sent. Bits of a level stand node
after
node, in each in the order of its rows, most significant bit first, every node padded to a byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.parallel import compiled

Nodes = npt.NDArray[np.int16]
Bits = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]


@compiled
def _pack(nodes: Any, offsets: Any, bit: Any, out: Any) -> None:
    """Write bit[i] of the rows whose node has an offset (in bits; −1: none); offsets move on."""
    for i in range(nodes.shape[0]):
        at = offsets[nodes[i]]
        if at >= 0:
            if bit[i]:
                out[at >> 3] |= np.uint8(128 >> (at & 7))
            offsets[nodes[i]] = at + 1


@compiled
def _unpack(nodes: Any, offsets: Any, data: Any, bit: Any) -> None:
    for i in range(nodes.shape[0]):
        at = offsets[nodes[i]]
        if at >= 0:
            bit[i] = (data[at >> 3] >> (7 - (at & 7))) & 1
            offsets[nodes[i]] = at + 1


@compiled
def _advance(nodes: Any, left: Any, bit: Any) -> None:
    """A row of a split node goes to left[node] where its bit is 1, and to the number after it where it is
    0."""
    for i in range(nodes.shape[0]):
        to = left[nodes[i]]
        if to >= 0:
            nodes[i] = to if bit[i] else to + 1


@compiled
def _sides(nodes: Any, bins: Any, columns: Any, masks: Any, bit: Any) -> None:
    """bit[i] of the rows whose node has a column: whether the row's bin is in the node's set."""
    for i in range(nodes.shape[0]):
        column = columns[nodes[i]]
        if column >= 0:
            bit[i] = masks[nodes[i], bins[i, column]]


@dataclass
class Rows:
    """Where m rows are in the tree that grows. `nodes` int16[m]; `bit` uint8[m] of the level's splits."""

    count: int
    nodes: Nodes = field(init=False)
    bit: Bits = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = np.zeros(self.count, dtype=np.int16)
        self.bit = np.zeros(self.count, dtype=np.uint8)

    def sizes(self, known: int) -> Index:
        """int64[known]: rows in each node."""
        return np.bincount(self.nodes, minlength=known)

    def bytes_of(self, which: list[int], known: int) -> int:
        """Bytes that the bits of these nodes take."""
        return int(((self.sizes(known)[which] + 7) // 8).sum())

    def _offsets(self, which: list[int], known: int) -> Index:
        offsets = np.full(known, -1, dtype=np.int64)
        widths = (self.sizes(known)[which] + 7) // 8 * 8
        offsets[which] = np.cumsum(widths) - widths
        return offsets

    def pack(self, which: list[int], known: int) -> bytes:
        out = np.zeros(self.bytes_of(which, known), dtype=np.uint8)
        _pack(self.nodes, self._offsets(which, known), self.bit, out)
        return out.tobytes()

    def unpack(self, which: list[int], known: int, data: bytes) -> None:
        _unpack(self.nodes, self._offsets(which, known), np.frombuffer(data, dtype=np.uint8), self.bit)

    def mark(self, bins: npt.NDArray[np.uint8], columns: Index, masks: npt.NDArray[np.bool_]) -> None:
        """Set the bits of the rows in nodes with columns[node] ≥ 0 by masks bool[known, bins]."""
        _sides(self.nodes, bins, columns, masks, self.bit)

    def advance(self, left: npt.NDArray[np.int16]) -> None:
        """left int16[known]: number of the left child of a split node, −1 for any other."""
        _advance(self.nodes, left, self.bit)


def smaller(pairs: list[tuple[int, int]], sizes: Index) -> list[int]:
    """Of each pair of siblings the one that is summed: fewer rows, the left one of equals."""
    return [a if sizes[a] <= sizes[b] else b for a, b in pairs]


def slots_of(due: list[int], known: int) -> tuple[Nodes, int]:
    """(int16[known]: position of each node in `due`, −1 of any other; how many are due)."""
    slots = np.full(known, -1, dtype=np.int16)
    slots[due] = np.arange(len(due))
    return slots, len(due)
