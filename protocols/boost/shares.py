"""Shares of one-hot histograms: from keys to words of 32 bits, and their sums by node. README, section 2.

R of a row is uint64[U · B]: of a used column's bin j one word, of g in its lower half and of h in its upper
half; seen as uint32[U · 2B], all sums modulo 2^32. The shares of the first rows are kept for the levels of
their tree, as many as fit into `KEPT` bytes; those of the others are made again from the keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.boost import ggm
from protocols.boost.ggm import Bins
from protocols.boost.hashing import GROUP, Hash, Words
from protocols.boost.messages import PIECE
from protocols.boost.store import Room
from protocols.parallel import compiled

U32 = npt.NDArray[np.uint32]
Index = npt.NDArray[np.int64]
Nodes = npt.NDArray[np.int16]

#: Instances of the oblivious transfer in one segment, about.
SEGMENT = 1 << 20

#: Bytes of shares that a side keeps from one level of a tree to the next.
KEPT = 1 << 29


@dataclass(frozen=True)
class Block:
    """Rows `start` … `stop` − 1 of segment `segment`: the unit of messages and of work."""

    number: int
    start: int
    stop: int
    segment: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """m rows, F columns and D bits, cut into blocks whose corrections and shares fit one message each, and
    into segments: whole blocks, of some `SEGMENT` instances of the oblivious transfer, with one Δ.
    """

    rows: int
    columns: int
    bits: int

    @property
    def each(self) -> int:
        """Rows of a block; the last one may have fewer."""
        return max(1, PIECE // (16 * max(self.bits - 1, 1) * self.columns))

    @property
    def segment_blocks(self) -> int:
        return -(-SEGMENT // (self.each * self.columns * self.bits))

    def blocks(self) -> Iterator[Block]:
        each, together = self.each, self.segment_blocks
        for number, start in enumerate(range(0, self.rows, each)):
            yield Block(number, start, min(self.rows, start + each), number // together)

    def segments(self) -> list[tuple[int, int]]:
        """(first row, end) of each."""
        step = self.segment_blocks * self.each
        return [(at, min(self.rows, at + step)) for at in range(0, self.rows, step)]


class Keys:
    """The keys of all instances, block by block; `words` 64-bit words an instance."""

    def __init__(self, layout: Layout, words: int, room: Room) -> None:
        self._row = layout.columns * words
        self._shape = (layout.columns, words // 2, 2)
        self._store = room(layout.rows * self._row)

    def put(self, block: Block, keys: Words) -> None:
        self._store.write(block.start * self._row, keys)

    def of(self, block: Block) -> Words:
        """uint64[rows, F, words / 2, 2]; good until the next call."""
        found = self._store.read(block.start * self._row, block.rows * self._row)
        return found.reshape(block.rows, *self._shape)


@compiled
def _masked(words: Any, values: Any, c: Any) -> None:
    """c = values − Σ_j R_j. words uint32[R, U, 2B]; values uint32[R, 2]; c uint32[R, U, 2]."""
    for i in range(words.shape[0]):
        for u in range(words.shape[1]):
            g, h = values[i, 0], values[i, 1]
            for j in range(0, words.shape[2], 2):
                g, h = np.uint32(g - words[i, u, j]), np.uint32(h - words[i, u, j + 1])
            c[i, u, 0], c[i, u, 1] = g, h


@compiled
def _opened(words: Any, bins: Any, c: Any) -> None:
    """R_b = −(c + Σ_{j≠b} R_j) at the own bin b. words uint32[R, U, 2B]; bins uint8[R, U]; c as above."""
    for i in range(words.shape[0]):
        for u in range(words.shape[1]):
            own = 2 * np.int64(bins[i, u])
            g, h = np.uint32(0), np.uint32(0)
            for j in range(0, words.shape[2], 2):
                g, h = np.uint32(g + words[i, u, j]), np.uint32(h + words[i, u, j + 1])
            g, h = np.uint32(g - words[i, u, own]), np.uint32(h - words[i, u, own + 1])
            words[i, u, own] = np.uint32(np.uint32(0) - np.uint32(c[i, u, 0] + g))
            words[i, u, own + 1] = np.uint32(np.uint32(0) - np.uint32(c[i, u, 1] + h))


@compiled
def _accumulate(words: Any, nodes: Any, slots: Any, sums: Any) -> None:
    """sums[slots[nodes[i]]] += words[i] where the slot is not −1; words uint32[R, W], sums uint32[S, W]."""
    for i in range(words.shape[0]):
        slot = slots[nodes[i]]
        if slot < 0:
            continue
        row, to = words[i], sums[slot]
        for j in range(row.shape[0]):
            to[j] += row[j]


class Shares(ABC):
    """One side's shares of all trees. `begin` a tree, hand every block over once in order, then `sums`.

    Memory: `kept` bytes of shares, a block, and what the keys' store takes.
    """

    def __init__(
        self, layout: Layout, words: int, session: bytes, room: Room, kept: int | None = None
    ) -> None:
        self.layout, self._session = layout, session
        self._keys = Keys(layout, words, room)
        self._bench = ggm.Bench(layout.bits)
        self._pi = Hash("ggm", session)
        block = layout.columns << layout.bits  # words of a row, all columns being used
        most = min((KEPT if kept is None else kept) // 8, layout.rows * block)
        # A kernel writes whole groups of words: what is too many is overwritten by the next rows, or is here.
        self._room = np.empty(most + GROUP, dtype=np.uint64)
        self._spare = np.empty(min(layout.each, layout.rows) * block + GROUP, dtype=np.uint64)

    def begin(self, tree: int, used: Index) -> None:
        """Start boosting tree `tree` with the columns `used` int64[U]."""
        self._hash = Hash(f"tree {tree}", self._session)
        self._used, self._all = used, len(used) == self.layout.columns
        self._width = len(used) << self.layout.bits
        fitting = (len(self._room) - GROUP) // self._width
        self._kept = (
            self.layout.rows
            if fitting >= self.layout.rows
            else fitting // self.layout.each * self.layout.each
        )
        self._root = np.zeros((1, 2 * self._width), dtype=np.uint32)

    def _first(self, block: Block) -> Words:
        """Where the shares of a block go when they are made first: uint64[rows · U · B] and `GROUP` more."""
        if block.stop > self._kept:
            return self._spare
        return self._room[block.start * self._width :]

    def _words(self, flat: Words, rows: int) -> U32:
        """uint32[rows, U, 2B] of what a block's words lie in."""
        count = len(self._used)
        return flat[: rows * self._width].view(np.uint32).reshape(rows, count, -1)

    def _make(self, block: Block, rows: Index | None, out: Words) -> None:
        """R of the block's rows, or of those that `rows` names, into `out`."""
        keys = self._keys.of(block)
        if rows is not None:
            keys = keys[rows] if self._all else keys[np.ix_(rows, self._used)]
        elif not self._all:
            keys = keys[:, self._used]
        flat, bits = keys.reshape(-1, *keys.shape[2:]), self.layout.bits
        paths = self._paths(block, rows)
        for at in range(0, len(flat), self._bench.instances):
            part = slice(at, at + self._bench.instances)
            count = len(flat[part])
            leaves = self._leaves(block, flat[part], None if paths is None else paths[part])
            self._hash.words(leaves, out[at << bits :], count << bits)

    @abstractmethod
    def _finish(self, block: Block, rows: Index, words: U32) -> None:
        """What is still to be done with R of these rows of a block when it was made again."""

    @abstractmethod
    def _leaves(self, block: Block, keys: Words, paths: Bins | None) -> Words: ...

    @abstractmethod
    def _paths(self, block: Block, rows: Index | None) -> Bins | None: ...

    def _add(self, words: U32, nodes: Nodes, slots: Nodes, sums: U32) -> None:
        _accumulate(words.reshape(len(words), -1), nodes, slots, sums)

    def _add_to_root(self, words: U32) -> None:
        rows = len(words)
        self._add(words, np.zeros(rows, dtype=np.int16), np.zeros(1, dtype=np.int16), self._root)

    def root(self) -> U32:
        """uint32[1, U, 2B]: the sums over all rows."""
        return self._signed(self._root)

    def sums(self, nodes: Nodes, slots: Nodes, count: int) -> U32:
        """uint32[count, U, 2B]: row i goes to slot slots[nodes[i]], nowhere if that is −1."""
        sums = np.zeros((count, 2 * self._width), dtype=np.uint32)
        kept = self._kept
        if kept:
            self._add(self._words(self._room, kept), nodes[:kept], slots, sums)
        for block in self.layout.blocks():
            if block.stop <= kept:
                continue
            here = nodes[block.start : block.stop]
            rows = np.flatnonzero(slots[here] >= 0)
            if not len(rows):
                continue
            self._make(block, rows, self._spare)
            words = self._words(self._spare, len(rows))
            self._finish(block, rows, words)
            self._add(words, here[rows], slots, sums)
        return self._signed(sums)

    def _signed(self, sums: U32) -> U32:
        return sums.reshape(len(sums), len(self._used), -1)


class BrandShares(Shares):
    """The brand's: R itself."""

    def __init__(self, layout: Layout, session: bytes, room: Room, kept: int | None = None) -> None:
        super().__init__(layout, 2, session, room, kept)
        self._deltas: list[Words] = []

    def segment(self, delta: Words) -> None:
        """Δ of the next segment."""
        self._deltas.append(delta)

    def learn(self, block: Block, strings: Words) -> Words:
        """Keep the keys of a block's strings uint64[K, D, 2]; gives the corrections uint64[K, D−1, 2]."""
        self._keys.put(block, np.ascontiguousarray(strings[:, 0]))
        return ggm.corrections(strings, self._deltas[block.segment], self._pi, self._bench)

    def mask(self, block: Block, values: U32) -> U32:
        """c uint32[R, U, 2] of the tree's next block; values uint32[R, 2] are g and h."""
        out = self._first(block)
        self._make(block, None, out)
        words = self._words(out, block.rows)
        c = np.empty((block.rows, len(self._used), 2), dtype=np.uint32)
        _masked(words, values, c)
        self._add_to_root(words)
        return c

    def _paths(self, block: Block, rows: Index | None) -> None:
        return None

    def _finish(self, block: Block, rows: Index, words: U32) -> None:
        """Nothing."""

    def _leaves(self, block: Block, keys: Words, paths: Bins | None) -> Words:
        return ggm.brand_leaves(keys[:, 0], self._deltas[block.segment], self._pi, self._bench)


class ProviderShares(Shares):
    """The provider's, with the sign turned: R off the own bin, −(c + Σ_{j≠b} R_j) at it."""

    def __init__(
        self, layout: Layout, bins: Bins, session: bytes, room: Room, kept: int | None = None
    ) -> None:
        super().__init__(layout, 2 * layout.bits, session, room, kept)
        self._bins = bins
        self._c: dict[int, U32] = {}

    def learn(self, block: Block, strings: Words, corrections: Words) -> None:
        """Keep a block's keys: its strings t uint64[K, D, 2], levels 2 … D with the brand's corrections."""
        keys = strings.copy()
        keys[:, 1:] ^= corrections
        self._keys.put(block, keys)

    def begin(self, tree: int, used: Index) -> None:
        super().begin(tree, used)
        self._c.clear()

    def open(self, block: Block, c: U32) -> None:
        """What the brand sent of the tree's next block, uint32[R, U, 2]."""
        out = self._first(block)
        self._make(block, None, out)
        words = self._words(out, block.rows)
        _opened(words, self._own(block, None), c)
        self._add_to_root(words)
        if block.stop > self._kept:
            self._c[block.number] = c

    def _own(self, block: Block, rows: Index | None) -> Bins:
        """uint8[R, U]."""
        bins = self._bins[block.start : block.stop]
        if rows is not None:
            bins = bins[rows]
        return bins if self._all else np.ascontiguousarray(bins[:, self._used])

    def _paths(self, block: Block, rows: Index | None) -> Bins:
        return self._own(block, rows).reshape(-1)

    def _leaves(self, block: Block, keys: Words, paths: Bins | None) -> Words:
        return ggm.provider_leaves(keys, paths, self._pi, self._bench)  # type: ignore[arg-type]

    def _finish(self, block: Block, rows: Index, words: U32) -> None:
        _opened(words, self._own(block, rows), self._c[block.number][rows])

    def _signed(self, sums: U32) -> U32:
        return super()._signed(np.negative(sums))
