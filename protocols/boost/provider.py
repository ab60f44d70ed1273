"""The provider: columns as bins. README, section 3.

States: WaitOpening → WaitTransfer → WaitBegin → WaitShares → (WaitSplits → WaitSides) a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from protocols.boost import ggm
from protocols.boost.bins import Table
from protocols.boost.hashing import Words
from protocols.boost.messages import (
    CATEGORICAL,
    LEAF,
    MISSING,
    OWN,
    THEIRS,
    TO_BRAND,
    TO_PROVIDER,
    Begin,
    Bits,
    Collector,
    Corrections,
    Opening,
    Shape,
    Shares,
    Sides,
    Splits,
    Sums,
    Transfer,
    pieces,
)
from protocols.boost.model import ProviderResult, ProviderSplit
from protocols.boost.routing import Rows, slots_of, smaller
from protocols.boost.shares import Block, Layout, ProviderShares
from protocols.boost.store import Memory, Room
from protocols.boost.terms import Terms, terms_digest
from protocols.codec import array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, Machine, Step
from protocols.vole.chosen import Receiver, Strings

Rng = Callable[[int], bytes]


class Provider(Machine[ProviderResult]):
    """Answers with shares of sums; table.bins uint8[m, F] below 2^terms.bits; `room` is where its keys lie,
    16 bytes a row, column and bit. Progress counts levels of trees.

    LocalError `protocol.argument`; PeerError `protocol.binding`, `boost.size`, `boost.order`.
    """

    def __init__(
        self,
        table: Table,
        session: bytes,
        terms: Terms,
        rng: Rng,
        room: Room = Memory,
        transfer: Callable[..., Machine[Strings]] = Receiver,
    ) -> None:
        table.check(terms.bins)
        rows, columns = table.bins.shape
        if not (1 <= rows <= terms.max_rows and 1 <= columns <= terms.max_columns):
            raise LocalError(
                "protocol.argument",
                f"{rows} rows and {columns} columns; {terms.max_rows} and {terms.max_columns} are agreed",
            )
        if over := terms.over(rows, columns):
            raise LocalError("protocol.argument", over)
        super().__init__(Step((), WaitOpening(_Run(table, session, terms, rng, room, transfer))))


@dataclass
class _Run:
    table: Table
    session: bytes
    terms: Terms
    rng: Rng
    room: Room
    transfer: Callable[..., Machine[Strings]]
    splits: list[ProviderSplit] = field(default_factory=list)
    trees: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.table.bins.shape
        return int(rows), int(columns)


class WaitOpening:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run, rows = self._run, self._run.shape[0]
        opening = TO_PROVIDER.decode(message, Opening)
        digest = terms_digest(run.terms, run.session)
        if opening.digest != digest:
            # The brand could otherwise open more sums than were agreed.
            raise PeerError("protocol.binding", "the brand holds other terms or another session")
        if opening.rows != rows:
            raise PeerError("boost.size", f"the brand counts on {opening.rows} rows, there are {rows}")
        flags = run.table.categorical * CATEGORICAL + run.table.missing * MISSING
        shape = TO_BRAND.encode(Shape(digest, flags.astype(np.uint8).tobytes()))  # type: ignore[arg-type]
        layout = Layout(*run.shape, run.terms.bits)
        kept = None if run.terms.depth > 1 else 0  # the root's sums alone are made with the shares
        shares = ProviderShares(layout, run.table.bins, run.session, run.room, kept)
        forest = _Forest(run, layout, shares)
        taken: list[Words] = []
        inner = run.transfer(
            _Choices(run.table.bins, layout), run.session, run.rng, lambda words, _: taken.append(words)
        )

        def send() -> Iterator[bytes]:
            yield shape
            yield from _wrapped(inner.start())

        then = WaitTransfer(forest, inner, taken)
        return Step(send(), then, (0, run.terms.trees * run.terms.depth))


@dataclass
class _Forest:
    run: _Run
    layout: Layout
    shares: ProviderShares


class _Choices(Sequence[npt.NDArray[np.uint8]]):
    """What is chosen in the transfers of each segment, made when it is asked for."""

    def __init__(self, bins: ggm.Bins, layout: Layout) -> None:
        self._bins, self._bits, self._segments = bins, layout.bits, layout.segments()

    def __len__(self) -> int:
        return len(self._segments)

    @overload
    def __getitem__(self, segment: int) -> npt.NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, segment: slice) -> Sequence[npt.NDArray[np.uint8]]: ...
    def __getitem__(self, segment: int | slice) -> npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]:
        if isinstance(segment, slice):
            return [self[i] for i in range(*segment.indices(len(self)))]
        start, stop = self._segments[segment]
        return ggm.choices(self._bins[start:stop].reshape(-1), self._bits).reshape(-1)


def _wrapped(messages: Iterator[bytes]) -> Iterator[bytes]:
    for data in messages:
        yield TO_BRAND.encode(Transfer(data))


class WaitTransfer:
    """The correlated OT, and the corrections of every segment of it that has ended; then the first tree."""

    def __init__(self, forest: _Forest, inner: Machine[Strings], taken: list[Words]) -> None:
        self._forest, self._inner, self._taken = forest, inner, taken
        self._blocks = forest.layout.blocks()
        self._strings = np.zeros((0, forest.layout.bits, 2), dtype=np.uint64)  # of the segment that is due
        self._left = forest.layout.rows

    def receive(self, message: bytes) -> Step[ProviderResult]:
        if not self._left:
            return WaitBegin(self._forest).receive(message)
        layout = self._forest.layout
        sent = TO_PROVIDER.decode(
            message, *((Corrections,) if self._inner.finished else (Transfer, Corrections))
        )
        if isinstance(sent, Corrections):
            block = self._next()
            _in_order(sent.block, block.number)
            corrections = array_of(sent.data, "u8", block.rows * layout.columns, layout.bits - 1, 2)
            self._learn(block, corrections)
            return Step((), self)
        if len(self._taken) + bool(len(self._strings)) > 1:
            # Strings of more than two segments must not heap up here.
            raise PeerError("boost.order", "a transfer goes on before the corrections of the one before it")
        return Step(self._go_on(sent.data), self)

    def _go_on(self, data: bytes) -> Iterator[bytes]:
        yield from _wrapped(self._inner.receive(data))
        if self._forest.layout.bits == 1:  # trees of two leaves need no corrections
            while self._taken or len(self._strings):
                block = self._next()
                self._learn(
                    block, np.zeros((block.rows * self._forest.layout.columns, 0, 2), dtype=np.uint64)
                )

    def _next(self) -> Block:
        if not len(self._strings):
            if not self._taken:
                raise PeerError("boost.order", "corrections of a transfer that has not ended")
            self._strings = self._taken.pop(0).reshape(-1, self._forest.layout.bits, 2)
        return next(self._blocks)

    def _learn(self, block: Block, corrections: Words) -> None:
        count = len(corrections)
        self._forest.shares.learn(block, self._strings[:count], corrections)
        self._strings = self._strings[count:]
        self._left -= block.rows


def _in_order(found: int, due: int) -> None:
    if found != due:
        raise PeerError("boost.order", f"block {found} came where block {due} was due")


class WaitBegin:
    def __init__(self, forest: _Forest) -> None:
        self._forest = forest

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run, columns = self._forest.run, self._forest.layout.columns
        begin = TO_PROVIDER.decode(message, Begin)
        _in_order(begin.tree, run.trees)
        if begin.last:
            if begin.last != 1 or begin.columns:
                raise PeerError("protocol.malformed", "the end of the forest names columns")
            result = ProviderResult(tuple(run.splits), run.trees, run.shape[0])
            done = run.terms.trees * run.terms.depth
            return Step((), Done(result), (done, done))
        if run.trees >= run.terms.trees:
            # Every tree opens more sums; beyond those agreed none is answered.
            raise PeerError("boost.size", f"tree {begin.tree + 1}, {run.terms.trees} are agreed")
        bits = array_of(begin.columns, "u1", (columns + 7) // 8)
        chosen = np.unpackbits(bits)
        if chosen[columns:].any() or not chosen.any():
            raise PeerError("protocol.malformed", "a tree uses no column, or one that doesn't exist")
        return Step((), WaitShares(_Tree(self._forest, np.flatnonzero(chosen[:columns]))))


class _Tree:
    """One boosting tree at the provider: its shares, rows in nodes, sums of open nodes."""

    def __init__(self, forest: _Forest, used: npt.NDArray[np.int64]) -> None:
        self.run, self.forest, self.used = forest.run, forest, used
        self.rows = Rows(forest.layout.rows)
        self.open, self.due, self.known, self.level = [0], [0], 1, 0

    def sum_level(self) -> Iterator[bytes]:
        """This side's shares of the sums that are due, as messages."""
        shares = self.forest.shares
        due = slots_of(self.due, self.known)
        sums = shares.sums(self.rows.nodes, *due) if self.level else shares.root()
        yield from pieces(Sums, TO_BRAND, sums.astype("<u4", copy=False).tobytes())

    def split(self, heads: bytes) -> tuple[list[int], list[int]]:
        """(nodes that the brand splits, nodes that this side splits) by the heads; marks the rows of the
        latter."""
        fields = np.frombuffer(heads, dtype=np.uint8).reshape(len(self.open), 11)
        columns = np.full(self.known, -1, dtype=np.int64)
        masks = np.zeros((self.known, self.run.terms.bins), dtype=bool)
        own, theirs = list[int](), list[int]()
        for number, row in zip(self.open, fields, strict=True):
            kind = int(row[0])
            column, mask = int.from_bytes(row[1:3].tobytes(), "big"), int.from_bytes(row[3:].tobytes(), "big")
            if kind not in (LEAF, OWN, THEIRS) or (kind != THEIRS and (column or mask)):
                raise PeerError(
                    "protocol.malformed", f"a split of kind {kind}, column {column}, set {mask:#x}"
                )
            if kind == OWN:
                own.append(number)
            if kind != THEIRS:
                continue
            everything = (1 << self.run.terms.bins) - 1
            if column not in self.used or not 0 < mask < everything:
                # An empty or a full set splits nothing; a column that the tree doesn't use was not summed.
                raise PeerError("boost.size", f"no split by column {column} and set {mask:#x} can be")
            theirs.append(number)
            columns[number] = column
            masks[number] = [(mask >> b) & 1 for b in range(self.run.terms.bins)]
            self.run.splits.append(ProviderSplit(self.run.trees, number, column, mask))
        self.rows.mark(self.run.table.bins, columns, masks)
        return own, theirs

    def advance(self, split: list[int]) -> None:
        """Rows of the split nodes go to their children."""
        left = np.full(self.known, -1, dtype=np.int16)
        pairs = []
        for number in sorted(split):
            left[number] = self.known
            pairs.append((self.known, self.known + 1))
            self.known += 2
        self.rows.advance(left)
        self.open = [child for pair in pairs for child in pair]
        self.due = smaller(pairs, self.rows.sizes(self.known))
        self.level += 1


class WaitShares:
    """c of a tree, block after block; then the root's sums go out."""

    def __init__(self, tree: _Tree) -> None:
        self._tree = tree
        self._blocks = tree.forest.layout.blocks()
        tree.forest.shares.begin(tree.run.trees, tree.used)

    def receive(self, message: bytes) -> Step[ProviderResult]:
        tree, rows = self._tree, self._tree.forest.layout.rows
        sent, block = TO_PROVIDER.decode(message, Shares), next(self._blocks)
        _in_order(sent.block, block.number)
        c = array_of(sent.data, "u4", block.rows, len(tree.used), 2)
        tree.forest.shares.open(block, c)
        if block.stop < rows:
            return Step((), self)
        return Step(tree.sum_level(), WaitSplits(tree), _progress(tree))


def _progress(tree: _Tree) -> tuple[int, int]:
    terms = tree.run.terms
    return tree.run.trees * terms.depth + tree.level, terms.trees * terms.depth


class WaitSplits:
    def __init__(self, tree: _Tree) -> None:
        self._tree = tree

    def receive(self, message: bytes) -> Step[ProviderResult]:
        tree = self._tree
        sent = TO_PROVIDER.decode(message, Splits)
        _in_order(sent.level, tree.level)
        if len(sent.data) != 11 * len(tree.open):
            raise PeerError("boost.size", f"{len(sent.data)} bytes for {len(tree.open)} open nodes")
        own, theirs = tree.split(sent.data)
        due = tree.rows.bytes_of(own, tree.known)
        if due:
            return Step((), WaitSides(tree, own, theirs, Collector(due)))
        return _answer(tree, own, theirs)


class WaitSides:
    def __init__(self, tree: _Tree, own: list[int], theirs: list[int], due: Collector) -> None:
        self._tree, self._own, self._theirs, self._due = tree, own, theirs, due

    def receive(self, message: bytes) -> Step[ProviderResult]:
        piece = TO_PROVIDER.decode(message, Sides)
        self._due.add(piece.first, piece.data)
        if not self._due.complete:
            return Step((), self)
        self._tree.rows.unpack(self._own, self._tree.known, self._due.data)
        return _answer(self._tree, self._own, self._theirs)


def _answer(tree: _Tree, own: list[int], theirs: list[int]) -> Step[ProviderResult]:
    """Bits of this side's splits; then the next level's sums, or the end of the tree."""
    bits = pieces(Bits, TO_BRAND, tree.rows.pack(theirs, tree.known))
    tree.advance(own + theirs)
    if tree.open and tree.level < tree.run.terms.depth:

        def send() -> Iterator[bytes]:
            yield from bits  # first, so that the brand sums while this side does
            yield from tree.sum_level()

        return Step(send(), WaitSplits(tree), _progress(tree))
    tree.run.trees += 1
    return Step(bits, WaitBegin(tree.forest), (tree.run.trees * tree.run.terms.depth, _progress(tree)[1]))
