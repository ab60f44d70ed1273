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


@compiled
def _people(rows: Any, nodes: Any, bins: Any, columns: Any, lefts: Any, bit: Any, counts: Any) -> None:
    """bit of the row of person i whose node has a column: lefts[node, bin]; counts[node, bit] of them."""
    for i in range(rows.shape[0]):
        row = rows[i]
        node = nodes[row]
        if columns[node] >= 0:
            side = np.int64(lefts[node, bins[i, columns[node]]])
            bit[row] = side
            counts[node, side] += 1


@compiled
def _strangers(known: Any, nodes: Any, columns: Any, shares: Any, draws: Any, bit: Any) -> None:
    """bit of the other rows whose node has a column: 1 with the chance shares[node], by the draws in turn."""
    at = 0
    for i in range(nodes.shape[0]):
        node = nodes[i]
        if not known[i] and columns[node] >= 0:
            bit[i] = draws[at] < shares[node]
            at += 1


@compiled
def _went_left(rows: Any, nodes: Any, bit: Any, used: Any, g: Any, h: Any, sums: Any) -> None:
    """sums[node] += (g, h, 1) of the people in use whose bit is 1; sums float64[known, 3]."""
    for i in range(rows.shape[0]):
        row = rows[i]
        if used[i] and bit[row]:
            node = nodes[row]
            sums[node, 0] += g[i]
            sums[node, 1] += h[i]
            sums[node, 2] += 1.0


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

    def mark_people(
        self, people: Index, bins: npt.NDArray[np.uint8], columns: Index, lefts: npt.NDArray[np.bool_]
    ) -> Index:
        """Set the bits of the people's rows in nodes with columns[node] ≥ 0, by their bins uint8[k, F] and
        lefts bool[known, bins]; int64[known, 2]: people by node and bit."""
        counts = np.zeros((len(columns), 2), dtype=np.int64)
        _people(people, self.nodes, bins, columns, lefts, self.bit, counts)
        return counts

    def mark_strangers(
        self,
        known: npt.NDArray[np.bool_],
        columns: Index,
        shares: npt.NDArray[np.float64],
        draws: npt.NDArray[np.float64],
    ) -> None:
        """The bits of all rows but those `known` bool[m], where columns[node] ≥ 0: 1 with the chance
        shares[node]. `draws`, uniform in [0, 1), are one for each of them."""
        _strangers(known, self.nodes, columns, shares, draws, self.bit)

    def went_left(
        self,
        people: Index,
        used: npt.NDArray[np.bool_],
        g: npt.NDArray[np.float64],
        h: npt.NDArray[np.float64],
        known: int,
    ) -> npt.NDArray[np.float64]:
        """float64[known, 3]: sums of g, of h and number of the people in use whose bit is 1, by node."""
        sums = np.zeros((known, 3))
        _went_left(people, self.nodes, self.bit, used, g, h, sums)
        return sums

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
