"""The brand: labels and columns. README, section 3.

States: WaitShape → WaitTransfer → (WaitSums → WaitBits) a level, from the first tree to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.boost import ggm, shares
from protocols.boost.bins import Table
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
from protocols.boost.terms import Learning, Terms, terms_digest
from protocols.codec import U8, U32, U64, array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, Machine, State, Step
from protocols.vole.chosen import Sender, Strings

Rng = Callable[[int], bytes]

#: Sums of fewer training rows than this are refused: they would tell the brand's labels apart for nothing.
LEAST_ROWS = 100


@dataclass(frozen=True)
class Labels:
    """The brand's k people.

    rows    int64[k], distinct: the provider's row of each
    y       float64[k]; only read where `train` or `held`
    train   bool[k]: in the gradients; `held`: measured after each tree. Neither: only scored
    own     the brand's columns, k rows, up to 256 bins
    """

    rows: npt.NDArray[np.int64]
    y: npt.NDArray[np.float64]
    train: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]
    own: Table

    def check(self, total: int, learning: Learning) -> None:
        """LocalError `protocol.argument` for shapes and values, `boost.rows` for too few rows of a class."""
        k = len(self.rows)
        if not (len(self.y) == len(self.train) == len(self.held) == len(self.own.bins) == k):
            raise LocalError("protocol.argument", "rows, y, train, held and own bins must have one length")
        if len(np.unique(self.rows)) != k or (k and not 0 <= self.rows.min() <= self.rows.max() < total):
            raise LocalError("protocol.argument", f"rows must be distinct and from 0 to {total - 1}")
        if (self.train & self.held).any():
            raise LocalError("protocol.argument", "a row can't be in the training and held out")
        self.own.check(256)
        used = self.y[self.train | self.held]
        train = self.y[self.train]
        if not np.isfinite(used).all():
            raise LocalError("protocol.argument", "a label in use is missing or infinite")
        if len(train) < max(LEAST_ROWS, 2 * learning.minimum_rows):
            raise LocalError(
                "boost.rows",
                f"{len(train)} training rows, {max(LEAST_ROWS, 2 * learning.minimum_rows)} are needed",
            )
        if learning.objective == "logistic":
            if not np.isin(used, (0.0, 1.0)).all():
                raise LocalError("protocol.argument", "labels of a logistic objective are 0 and 1")
            if not 0 < train.sum() < len(train):
                raise LocalError("boost.rows", "the training rows have one class only; both are needed")


class Brand(Machine[BrandResult]):
    """Grows the forest. total_rows is m. Progress counts levels of trees.

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
        transfer: Callable[..., Machine[Strings]] = Sender,
    ) -> None:
        if not 1 <= total_rows <= terms.max_rows:
            raise LocalError("protocol.argument", f"{total_rows} rows; 1 to {terms.max_rows} are agreed")
        labels.check(total_rows, learning)
        opening = Opening(terms_digest(terms, session), U64(total_rows))  # type: ignore[arg-type]
        run = _Run(labels, total_rows, session, terms, learning, rng, transfer)
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
    transfer: Callable[..., Machine[Strings]]
    forest: Forest | None = None
    cache: list[npt.NDArray[np.uint64]] | None = None


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
        table = (flags & CATEGORICAL > 0), (flags & MISSING > 0)
        run.forest = Forest(run.labels, run.total, *table, run.terms, run.learning, run.rng)
        each = len(flags) * run.terms.bits
        groups = shares.segments(run.total, len(flags), run.terms.bits)
        sizes = [sum(block.rows for block in group) * each for group in groups]
        inner = run.transfer(sizes, run.session, run.rng)
        return Step(_wrapped(inner.start()), WaitTransfer(run, inner))


def _wrapped(messages: Iterator[bytes]) -> Iterator[bytes]:
    for data in messages:
        yield TO_PROVIDER.encode(Transfer(data))


class WaitTransfer:
    """The correlated OT runs inside; when it has ended, the corrections and the first tree follow."""

    def __init__(self, run: _Run, inner: Machine[Strings]) -> None:
        self._run, self._inner = run, inner

    def receive(self, message: bytes) -> Step[BrandResult]:
        data = TO_BRAND.decode(message, Transfer).data
        answers = list(self._inner.receive(data))  # the sender's messages are few and short
        if not self._inner.finished:
            return Step(_wrapped(iter(answers)), self)
        first = begin(self._run)

        def send() -> Iterator[bytes]:
            yield from _wrapped(iter(answers))
            yield from _corrections(self._run, self._inner.result)
            yield from first.send

        return Step(send(), first.then, first.progress)


def _corrections(run: _Run, strings: Strings) -> Iterator[bytes]:
    """Expand all trees, keep their leaves, and send what the provider needs for its own."""
    forest, bits = _forest(run), run.terms.bits
    pi = ggm.Permutation("ggm", run.session)
    run.cache = []
    groups = shares.segments(run.total, forest.columns, bits)
    for words, delta, group in zip(strings.words, strings.deltas, groups, strict=True):
        each = words.reshape(-1, bits, 2)
        for block in group:
            first = (block.start - group[0].start) * forest.columns
            q = each[first : first + block.rows * forest.columns]
            leaves, corrections = ggm.brand_leaves(q, delta, pi)
            run.cache.append(leaves.reshape(block.rows, forest.columns, -1, 2))
            if bits > 1:
                yield TO_PROVIDER.encode(Corrections(U32(block.number), corrections.tobytes()))


def _forest(run: _Run) -> Forest:
    if run.forest is None:
        raise LocalError("protocol.state", "the forest is asked for before its shape is known")
    return run.forest


def begin(run: _Run) -> Step[BrandResult]:
    """The next tree, or the end."""
    forest = _forest(run)
    if forest.finished:
        end = Begin(U32(len(forest.trees)), U8(1), b"")
        return Step((TO_PROVIDER.encode(end),), Done(forest.result()), forest.progress)
    used = forest.begin()
    chosen = np.zeros(forest.columns, dtype=np.uint8)
    chosen[used] = 1
    opening = Begin(U32(len(forest.trees)), U8(0), np.packbits(chosen).tobytes())

    def send() -> Iterator[bytes]:
        yield TO_PROVIDER.encode(opening)
        pi = ggm.Permutation(f"tree {len(forest.trees)}", run.session)
        values = forest.fixed_point()
        for block in shares.blocks(run.total, forest.columns, run.terms.bits):
            leaves = (run.cache or [])[block.number]
            share, c = shares.brand_share(leaves, used, values[block.start : block.stop], pi)
            forest.keep(share)
            yield TO_PROVIDER.encode(Shares(U32(block.number), c.tobytes()))
        forest.sum_level()

    return Step(send(), WaitSums(run), forest.progress)


class WaitSums:
    """The provider's shares of a level's sums; the answer are the splits."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._due: Collector | None = None

    def receive(self, message: bytes) -> Step[BrandResult]:
        forest = _forest(self._run)
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
        then: State[BrandResult] = WaitBits(self._run, forest.bits_bytes())
        if forest.bits_bytes():
            return Step(messages, then)
        return _next(self._run, messages)


class WaitBits:
    """Which rows go left at the provider's splits; then the next level, or the next tree."""

    def __init__(self, run: _Run, due: int) -> None:
        self._run, self._due = run, Collector(due)

    def receive(self, message: bytes) -> Step[BrandResult]:
        piece = TO_BRAND.decode(message, Bits)
        self._due.add(piece.first, piece.data)
        if not self._due.complete:
            return Step((), self)
        _forest(self._run).take_bits(self._due.data)
        return _next(self._run, [])


def _next(run: _Run, messages: list[bytes]) -> Step[BrandResult]:
    forest = _forest(run)
    if forest.advance():
        forest.sum_level()
        return Step(messages, WaitSums(run), forest.progress)
    forest.end_tree()
    after = begin(run)

    def send() -> Iterator[bytes]:
        yield from messages
        yield from after.send

    return Step(send(), after.then, after.progress)
