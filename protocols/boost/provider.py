"""The provider: columns as bins. README, section 3.

States: WaitOpening → WaitTransfer → WaitCorrections → WaitBegin → WaitShares → (WaitSplits → WaitSides) a
level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols.boost import ggm, shares
from protocols.boost.bins import Table
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
from protocols.boost.routing import Rows, smaller
from protocols.boost.terms import Terms, terms_digest
from protocols.codec import array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, Machine, State, Step
from protocols.vole.chosen import Receiver, Strings

Rng = Callable[[int], bytes]


class Provider(Machine[ProviderResult]):
    """Answers with shares of sums; table.bins uint8[m, F] below 2^terms.bits. Progress counts levels of
    trees.

    LocalError `protocol.argument`; PeerError `protocol.binding`, `boost.size`, `boost.order`.
    """

    def __init__(
        self,
        table: Table,
        session: bytes,
        terms: Terms,
        rng: Rng,
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
        super().__init__(Step((), WaitOpening(_Run(table, session, terms, rng, transfer))))


@dataclass
class _Run:
    table: Table
    session: bytes
    terms: Terms
    rng: Rng
    transfer: Callable[..., Machine[Strings]]
    leaves: list[npt.NDArray[np.uint64]] = field(default_factory=list)
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
        chosen = []
        for group in shares.segments(*run.shape, run.terms.bits):
            bins = run.table.bins[group[0].start : group[-1].stop].reshape(-1)
            chosen.append(ggm.choices(bins, run.terms.bits).reshape(-1))
        inner = run.transfer(chosen, run.session, run.rng)

        def send() -> Iterator[bytes]:
            yield shape
            yield from _wrapped(inner.start())

        return Step(send(), WaitTransfer(run, inner), (0, run.terms.trees * run.terms.depth))


def _wrapped(messages: Iterator[bytes]) -> Iterator[bytes]:
    for data in messages:
        yield TO_BRAND.encode(Transfer(data))


class WaitTransfer:
    """The correlated OT; corrections (or, with two bins, the first tree) may come once it has ended."""

    def __init__(self, run: _Run, inner: Machine[Strings]) -> None:
        self._run, self._inner = run, inner

    def receive(self, message: bytes) -> Step[ProviderResult]:
        if not self._inner.finished:
            data = TO_PROVIDER.decode(message, Transfer).data
            return Step(_wrapped(self._inner.receive(data)), self)
        following: State[ProviderResult] = WaitCorrections(self._run, self._inner.result)
        if self._run.terms.bits == 1:
            _expand_all(self._run, self._inner.result)
            following = WaitBegin(self._run)
        return following.receive(message)


def _expand_all(run: _Run, strings: Strings) -> None:
    """Trees of two leaves need no corrections."""
    pi = ggm.Permutation("ggm", run.session)
    for block, t in _by_block(run, strings):
        _expand(run, t, block, np.zeros((len(t), 0, 2), dtype=np.uint64), pi)


def _by_block(run: _Run, strings: Strings) -> Iterator[tuple[shares.Block, ggm.Words]]:
    """Each block with its strings t, uint64[instances, D, 2]."""
    columns, bits = run.shape[1], run.terms.bits
    for words, group in zip(strings.words, shares.segments(*run.shape, bits), strict=True):
        each = words.reshape(-1, bits, 2)
        for block in group:
            first = (block.start - group[0].start) * columns
            yield block, each[first : first + block.rows * columns]


def _expand(
    run: _Run, t: ggm.Words, block: shares.Block, corrections: ggm.Words, pi: ggm.Permutation
) -> None:
    paths = np.ascontiguousarray(run.table.bins[block.start : block.stop]).reshape(-1)
    leaves = ggm.provider_leaves(t, corrections, paths, pi)
    run.leaves.append(leaves.reshape(block.rows, run.shape[1], -1, 2))


class WaitCorrections:
    def __init__(self, run: _Run, strings: Strings) -> None:
        self._run = run
        self._blocks = _by_block(run, strings)
        self._pi = ggm.Permutation("ggm", run.session)

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run = self._run
        sent, (block, t) = TO_PROVIDER.decode(message, Corrections), next(self._blocks)
        _in_order(sent.block, block.number)
        corrections = array_of(sent.data, "u8", len(t), run.terms.bits - 1, 2)
        _expand(run, t, block, corrections, self._pi)
        if block.stop < run.shape[0]:
            return Step((), self)
        return Step((), WaitBegin(run))


def _in_order(found: int, due: int) -> None:
    if found != due:
        raise PeerError("boost.order", f"block {found} came where block {due} was due")


class WaitBegin:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run, columns = self._run, self._run.shape[1]
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
        return Step((), WaitShares(_Tree(run, np.flatnonzero(chosen[:columns]))))


class _Tree:
    """One boosting tree at the provider: its shares, rows in nodes, sums of open nodes."""

    def __init__(self, run: _Run, used: npt.NDArray[np.int64]) -> None:
        self.run, self.used = run, used
        self.rows = Rows(run.shape[0])
        self.kept: list[shares.U32] = []
        self.open, self.due, self.known, self.level = [0], [0], 1, 0
        self.parents: dict[int, int] = {}
        self.sums: dict[int, shares.U32] = {}

    def sum_level(self) -> Iterator[bytes]:
        """This side's shares of the sums that are due, as messages."""
        slots = np.full(self.known, -1, dtype=np.int16)
        slots[self.due] = np.arange(len(self.due))
        sums = np.zeros((len(self.due), len(self.used), 2 * self.run.terms.bins), dtype=np.uint32)
        at = 0
        for share in self.kept:
            shares.accumulate(share, self.rows.nodes[at : at + len(share)], slots, sums)
            at += len(share)
        return pieces(Sums, TO_BRAND, sums.astype("<u4").tobytes())

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
            self.parents[self.known] = self.parents[self.known + 1] = number
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
        self._blocks = shares.blocks(*tree.run.shape, tree.run.terms.bits)
        self._pi = ggm.Permutation(f"tree {tree.run.trees}", tree.run.session)

    def receive(self, message: bytes) -> Step[ProviderResult]:
        tree, run = self._tree, self._tree.run
        sent, block = TO_PROVIDER.decode(message, Shares), next(self._blocks)
        _in_order(sent.block, block.number)
        c = array_of(sent.data, "u4", block.rows, len(tree.used), 2)
        bins = run.table.bins[block.start : block.stop]
        tree.kept.append(shares.provider_share(run.leaves[block.number], tree.used, bins, c, self._pi))
        if block.stop < run.shape[0]:
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
    return Step(bits, WaitBegin(tree.run), (tree.run.trees * tree.run.terms.depth, _progress(tree)[1]))
