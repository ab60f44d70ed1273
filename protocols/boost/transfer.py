"""The correlated OT inside: m·F·D instances with one Δ, in batches that fit a message. README, section 4.

OT extension by columns (`protocols/ot`, README section 3): 128 base OTs, in which the brand chooses by the
bits of its
Δ; then the provider sends, for every batch of its choices x, the masked columns, and both transpose what they
have: q_i = t_i ⊕ x_i·Δ. Here the brand is the extension's sender and the provider its receiver.

    provider                        brand
               ◄────── Base         points of the base OTs
    Point ──────►                   then Columns, batch after batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols.boost.messages import PIECE
from protocols.codec import B32, U32, Codec
from protocols.errors import PeerError
from protocols.machine import Done, Machine, Step
from protocols.ot.base import BaseReceiver, BaseSender
from protocols.ot.columns import ColumnReceiver, ColumnSender, bits, transpose
from protocols.ristretto import random_bytes
from protocols.security import OT_COLUMNS

Rng = Callable[[int], bytes]
Words = npt.NDArray[np.uint64]

#: Words of a column in one message; 64 instances each.
BATCH = PIECE // (8 * OT_COLUMNS)


@dataclass(frozen=True)
class Strings:
    """words uint64[n, 2]: the brand's q, the provider's t = q ⊕ choice · Δ; `delta` uint64[2], the brand's
    alone."""

    words: Words = field(repr=False)
    delta: Words = field(repr=False)


@dataclass(frozen=True)
class Base:
    """Brand: points of the base OTs."""

    points: bytes


@dataclass(frozen=True)
class Point:
    """Provider: its point of the base OTs."""

    point: B32


@dataclass(frozen=True)
class Columns:
    """Provider: masked columns of batch `batch`, and the check that they are of one vector."""

    batch: U32
    data: bytes
    check: bytes


TO_PROVIDER = Codec(Base)
TO_BRAND = Codec(Point, Columns)


def _batches(count: int) -> Iterator[tuple[int, int]]:
    """(first instance, words of a column) of each batch; words are even."""
    for start in range(0, count, 64 * BATCH):
        words = -(-min(64 * BATCH, count - start) // 64)
        yield start, words + words % 2


class Sender(Machine[Strings]):
    """The brand: `count` instances, Δ drawn from `rng`. PeerError `ot.bad_point`, `ot.check`,
    `boost.order`."""

    def __init__(self, count: int, session: bytes, rng: Rng) -> None:
        delta = random_bytes(1, 16, rng).view("<u8").astype(np.uint64)[0]
        base = BaseReceiver(bits(delta), session, rng)
        opening = TO_PROVIDER.encode(Base(base.points))
        super().__init__(Step((opening,), WaitPoint(base, delta, count, session)))


class WaitPoint:
    def __init__(self, base: BaseReceiver, delta: Words, count: int, session: bytes) -> None:
        self._base, self._delta, self._count, self._session = base, delta, count, session

    def receive(self, message: bytes) -> Step[Strings]:
        keys = self._base.keys(TO_BRAND.decode(message, Point).point)
        columns = ColumnSender(self._delta, keys, self._session)
        return Step((), WaitColumns(columns, self._delta, self._count))


class WaitColumns:
    def __init__(self, columns: ColumnSender, delta: Words, count: int) -> None:
        self._columns, self._delta, self._count = columns, delta, count
        self._due = list(enumerate(_batches(count)))[::-1]
        self._words = np.empty((count, 2), dtype=np.uint64)

    def receive(self, message: bytes) -> Step[Strings]:
        sent = TO_BRAND.decode(message, Columns)
        number, (start, words) = self._due.pop()
        if sent.batch != number:
            raise PeerError("boost.order", f"batch {sent.batch} came where batch {number} was due")
        # Checked: a provider whose columns differ would learn bits of Δ, and with Δ every gradient.
        q = self._columns.unmask(words, sent.data, sent.check, True)
        stop = min(self._count, start + 64 * words)
        self._words[start:stop] = transpose(q[:, :words])[: stop - start]
        if self._due:
            return Step((), self)
        return Step((), Done(Strings(self._words, self._delta)))


class Receiver(Machine[Strings]):
    """The provider: choices uint8[n] of 0 and 1."""

    def __init__(self, choices: npt.NDArray[np.uint8], session: bytes, rng: Rng) -> None:
        super().__init__(Step((), WaitBase(choices, session, rng)))


class WaitBase:
    def __init__(self, choices: npt.NDArray[np.uint8], session: bytes, rng: Rng) -> None:
        self._choices, self._session, self._rng = choices, session, rng

    def receive(self, message: bytes) -> Step[Strings]:
        points = TO_PROVIDER.decode(message, Base).points
        base = BaseSender(self._session, self._rng)
        columns = ColumnReceiver(base.keys(points, OT_COLUMNS), self._session, self._rng)
        count = len(self._choices)
        strings = Strings(np.empty((count, 2), dtype=np.uint64), np.zeros(2, dtype=np.uint64))

        def send() -> Iterator[bytes]:
            yield TO_BRAND.encode(Point(B32(base.point)))
            for number, (start, words) in enumerate(_batches(count)):
                stop = min(count, start + 64 * words)
                chosen = np.zeros(64 * words, dtype=np.uint8)
                chosen[: stop - start] = self._choices[start:stop]
                x = np.packbits(chosen, bitorder="little").view("<u8").astype(np.uint64)
                t, data, check = columns.mask(x, True)
                strings.words[start:stop] = transpose(t[:, :words])[: stop - start]
                yield TO_BRAND.encode(Columns(U32(number), data, check))

        return Step(send(), Done(strings))
