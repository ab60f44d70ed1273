"""The brand: labels and columns. README, section 3.

States: WaitShape → WaitTransfer → (WaitSums → WaitBits) a level, from the first tree to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.boost.growth import Forest
from protocols.boost.messages import (
    CATEGORICAL,
    MISSING,
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
from protocols.boost.model import BrandResult
from protocols.boost.people import Labels
from protocols.boost.shares import BrandShares, Layout
from protocols.boost.store import Memory, Room
from protocols.boost.terms import Learning, Terms, terms_digest
from protocols.codec import U8, U32, U64, array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, Machine, Step
from protocols.vole.chosen import Sender, Strings

Rng = Callable[[int], bytes]


class Brand(Machine[BrandResult]):
    """Grows the forest. total_rows is m; `room` is where its keys lie, 16 bytes a row and column of the
    provider. Progress counts levels of trees.

    LocalError `protocol.argument`, `boost.rows`; PeerError `protocol.binding`, `boost.size`.
    """

    def __init__(
        self,
        labels: Labels,
        total_rows: int,
        session: bytes,
        terms: Terms,
        learning: Learning,
        rng: Rng,
        room: Room = Memory,
        transfer: Callable[..., Machine[Strings]] = Sender,
    ) -> None:
        if not 1 <= total_rows <= terms.max_rows:
            raise LocalError("protocol.argument", f"{total_rows} rows; 1 to {terms.max_rows} are agreed")
        labels.check(total_rows, learning)
        opening = Opening(terms_digest(terms, session), U64(total_rows))  # type: ignore[arg-type]
        run = _Run(labels, total_rows, session, terms, learning, rng, room, transfer)
        super().__init__(Step((TO_PROVIDER.encode(opening),), WaitShape(run)))


@dataclass
class _Run:
    """What stays the same for the whole run, and what the states fill in."""

    labels: Labels
    total: int
    session: bytes
    terms: Terms
    learning: Learning
    rng: Rng
    room: Room
    transfer: Callable[..., Machine[Strings]]


class WaitShape:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[BrandResult]:
        run = self._run
        shape = TO_BRAND.decode(message, Shape)
        if shape.digest != terms_digest(run.terms, run.session):
            # The provider could otherwise be led through more trees or finer bins than it agreed to.
            raise PeerError("protocol.binding", "the provider holds other terms or another session")
        flags = np.frombuffer(shape.columns, dtype=np.uint8)
        if not 1 <= len(flags) <= run.terms.max_columns or (flags > (CATEGORICAL | MISSING)).any():
            raise PeerError(
                "boost.size", f"{len(flags)} columns announced, 1 to {run.terms.max_columns} agreed"
            )
        if over := run.terms.over(run.total, len(flags)):
            raise PeerError("boost.size", over)
        return _Forest(run, flags).transfer()


def _wrapped(messages: Iterator[bytes]) -> Iterator[bytes]:
    for data in messages:
        yield TO_PROVIDER.encode(Transfer(data))


class _Forest:
    """The forest and this side's shares: what there is once the provider's columns are known."""

    def __init__(self, run: _Run, flags: npt.NDArray[np.uint8]) -> None:
        table = (flags & CATEGORICAL > 0), (flags & MISSING > 0)
        self.run = run
        self.grown = Forest(run.labels, run.total, *table, run.terms, run.learning, run.rng)
        self.layout = Layout(run.total, len(flags), run.terms.bits)
        kept = None if run.terms.depth > 1 else 0  # the root's sums alone are made with the shares
        self.shares = BrandShares(self.layout, run.session, run.room, kept)

    def transfer(self) -> Step[BrandResult]:
        each = self.layout.columns * self.layout.bits
        sizes = [(stop - start) * each for start, stop in self.layout.segments()]
        taken: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]] = []
        inner = self.run.transfer(
            sizes, self.run.session, self.run.rng, lambda words, delta: taken.append((words, delta))
        )
        return Step(_wrapped(inner.start()), WaitTransfer(self, inner, taken))

    def begin(self) -> Step[BrandResult]:
        """The next tree, or the end."""
        grown, layout = self.grown, self.layout
        if grown.finished:
            end = Begin(U32(len(grown.trees)), U8(1), b"")
            return Step((TO_PROVIDER.encode(end),), Done(grown.result()), grown.progress)
        used = grown.begin()
        chosen = np.zeros(layout.columns, dtype=np.uint8)
        chosen[used] = 1
        opening = Begin(U32(len(grown.trees)), U8(0), np.packbits(chosen).tobytes())

        def send() -> Iterator[bytes]:
            yield TO_PROVIDER.encode(opening)
            self.shares.begin(len(grown.trees), used)
            values = grown.fixed_point()
            for block in layout.blocks():
                c = self.shares.mask(block, values[block.start : block.stop])
                yield TO_PROVIDER.encode(Shares(U32(block.number), c.tobytes()))
            grown.take_sums(self.shares.root())

        return Step(send(), WaitSums(self), grown.progress)

    def next(self, messages: list[bytes]) -> Step[BrandResult]:
        """After a level: its messages, then the next level or the next tree."""
        grown = self.grown
        if grown.advance():

            def go_on() -> Iterator[bytes]:
                yield from messages  # first, so that the provider sums while this side does
                grown.take_sums(self.shares.sums(*grown.due_rows()))

            return Step(go_on(), WaitSums(self), grown.progress)
        grown.end_tree()
        after = self.begin()

        def send() -> Iterator[bytes]:
            yield from messages
            yield from after.send

        return Step(send(), after.then, after.progress)


class WaitTransfer:
    """The correlated OT runs inside. A segment's corrections follow its end, and the opening of the next one,
    so that the provider is at work meanwhile; the first tree follows the last segment's.
    """

    def __init__(
        self,
        forest: _Forest,
        inner: Machine[Strings],
        taken: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]],
    ) -> None:
        self._forest, self._inner, self._taken = forest, inner, taken
        self._blocks = forest.layout.blocks()
        self._first: Step[BrandResult] | None = None

    def receive(self, message: bytes) -> Step[BrandResult]:
        if self._first is not None and not isinstance(self._first.then, Done):
            return self._first.then.receive(message)
        answers = self._inner.receive(TO_BRAND.decode(message, Transfer).data)
        return Step(self._send(answers), self)

    def _send(self, answers: Iterator[bytes]) -> Iterator[bytes]:
        yield from _wrapped(answers)
        while self._taken:
            yield from self._corrections(*self._taken.pop(0))
        if self._inner.finished:
            self._first = self._forest.begin()
            yield from self._first.send

    def _corrections(self, words: npt.NDArray[np.uint64], delta: npt.NDArray[np.uint64]) -> Iterator[bytes]:
        """Keep a segment's keys, and send what the provider needs for its own."""
        layout, shares = self._forest.layout, self._forest.shares
        each = words.reshape(-1, layout.bits, 2)
        shares.segment(delta)
        at = 0
        while at < len(each):
            block = next(self._blocks)
            strings = each[at : at + block.rows * layout.columns]
            at += len(strings)
            corrections = shares.learn(block, strings)
            if layout.bits > 1:
                yield TO_PROVIDER.encode(Corrections(U32(block.number), corrections.tobytes()))


class WaitSums:
    """The provider's shares of a level's sums; the answer are the splits."""

    def __init__(self, forest: _Forest) -> None:
        self._forest = forest
        self._due: Collector | None = None

    def receive(self, message: bytes) -> Step[BrandResult]:
        forest = self._forest.grown
        if self._due is None:
            self._due = Collector(forest.sums_bytes())
        piece = TO_BRAND.decode(message, Sums)
        self._due.add(piece.first, piece.data)
        if not self._due.complete:
            return Step((), self)
        theirs = array_of(self._due.data, "u4", *forest.sums_shape())
        heads, sides = forest.split_level(theirs)
        level = U8(forest.level)
        messages: list[bytes] = [TO_PROVIDER.encode(Splits(level, heads))]
        messages += pieces(Sides, TO_PROVIDER, sides)
        if due := forest.bits_bytes():
            return Step(messages, WaitBits(self._forest, due))
        return self._forest.next(messages)


class WaitBits:
    """Which rows go left at the provider's splits; then the next level, or the next tree."""

    def __init__(self, forest: _Forest, due: int) -> None:
        self._forest, self._due = forest, Collector(due)

    def receive(self, message: bytes) -> Step[BrandResult]:
        piece = TO_BRAND.decode(message, Bits)
        self._due.add(piece.first, piece.data)
        if not self._due.complete:
            return Step((), self)
        self._forest.grown.take_bits(self._due.data)
        return self._forest.next([])
