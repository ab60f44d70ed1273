"""The receiver's half of the exchange: blind, send a window of chunks, finalize what comes back.

States: Asking (for the Announce), Exchanging (Evaluated chunks and the sender's rows, in the one order that
README section 3 fixes), Done. What the outputs and the rows mean is the business of a `Wish`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np

from protocols.codec import U64, array_of
from protocols.errors import PeerError
from protocols.machine import Done, State, Step
from protocols.oprf.messages import Announce, Blinded, Evaluated, Kind, Request, binding
from protocols.oprf.padding import CHUNK, ITEM, padded_size, rows_per_message
from protocols.oprf.suite import blind, finalize
from protocols.ristretto import POINT, Bytes, Rng, random_bytes, random_scalars

#: Chunks under way at once: the sender always has the next one, and neither side buffers more than these.
WINDOW = 4

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Wish(Protocol[R_co]):
    """What a receiver makes of its outputs and of the sender's rows."""

    def agree(self, size: int, rows: int, width: int) -> int:
        """Told both sizes and the announced width; gives the bytes of a row, or raises PeerError."""
        ...

    def due(self, done: int, parts: int) -> int:
        """Rows that the sender has sent by the end of `done` of `parts` chunks."""
        ...

    def outputs(self, first: int, outputs: Bytes) -> None:
        """F of items `first`…, padding included: `uint8[k, 64]`."""
        ...

    def rows(self, first: int, rows: Bytes) -> None:
        """The sender's rows `first`…: `uint8[k, bytes of a row]`."""
        ...

    def result(self) -> R_co: ...


class Receiving(Generic[R]):
    """Everything that the receiver's states share."""

    def __init__(self, kind: Kind, session: bytes, items: Bytes, max_sender: int, rng: Rng, wish: Wish[R]):
        self.kind = kind
        self.session = session
        self.size = padded_size(len(items))
        self.parts = -(-self.size // CHUNK)
        self.max_sender = max_sender
        self.wish = wish
        self._rng = rng
        # Padding is random items, blinded like all others: neither the elements nor the time that they take
        # tell them apart.
        self._items = np.concatenate([items, random_bytes(self.size - len(items), ITEM, rng)])
        self._blinded = 0
        self._finalized = 0
        self._blinds: deque[Bytes] = deque()
        self._rows = 0
        self._sender_rows = 0
        self._row_bytes = 1

    def opening(self) -> Step[R]:
        request = Request(binding(self.kind.name, self.session), U64(self.size))
        return Step([self.kind.to_sender.encode(request)], Asking(self), (0, self.size))

    def accept(self, rows: int, width: int) -> None:
        self._sender_rows = rows
        self._row_bytes = self.wish.agree(self.size, rows, width)

    def blinded(self, chunks: int) -> Iterator[bytes]:
        """The next chunks, as far as there are any; lazy, so that each leaves before the next is computed."""
        for _ in range(min(chunks, self.parts - self._blinded)):
            low = self._blinded * CHUNK
            items = self._items[low : low + CHUNK]
            blinds = random_scalars(len(items), self._rng)
            self._blinds.append(blinds)
            self._blinded += 1
            yield self.kind.to_sender.encode(Blinded(U64(low), blind(items, blinds).tobytes()))

    def rows_due(self) -> int:
        """How many rows the next message must carry; 0 when it must be Evaluated."""
        due = self.wish.due(self._finalized, self.parts) - self._rows
        return min(due, rows_per_message(self._row_bytes))

    def take_rows(self, message: bytes, count: int) -> None:
        received = self.kind.to_receiver.decode(message, self.kind.rows)
        if received.first != self._rows:
            # A repeated or skipped message would attribute rows to other row numbers.
            raise PeerError("protocol.unexpected", f"rows {received.first}… came, {self._rows}… were due")
        self.wish.rows(self._rows, array_of(received.data, "u1", count, self._row_bytes))
        self._rows += count

    def take_evaluated(self, message: bytes) -> None:
        evaluated = self.kind.to_receiver.decode(message, Evaluated)
        low = self._finalized * CHUNK
        if evaluated.first != low:
            raise PeerError("protocol.unexpected", f"elements {evaluated.first}… came, {low}… were due")
        items = self._items[low : low + CHUNK]
        elements = array_of(evaluated.elements, "u1", len(items), POINT)
        self.wish.outputs(low, finalize(items, self._blinds.popleft(), elements, low))
        self._finalized += 1

    def following(self) -> State[R] | Done[R]:
        if self._finalized == self.parts and self._rows == self._sender_rows:
            return Done(self.wish.result())
        return Exchanging(self)

    @property
    def progress(self) -> tuple[int, int]:
        done = min(self._finalized * CHUNK, self.size) + self._rows
        return done, self.size + self._sender_rows


class Asking(Generic[R]):
    """For the Announce."""

    def __init__(self, run: Receiving[R]) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[R]:
        run = self._run
        announce = run.kind.to_receiver.decode(message, Announce)
        if announce.binding != binding(run.kind.name, run.session):
            # Without this a mismatch would end as an empty result that nobody notices.
            raise PeerError("protocol.binding", "the sender's session is another; compare the job specs")
        if announce.rows > run.max_sender:
            raise PeerError(
                "protocol.too_large", f"the sender has {announce.rows} rows, {run.max_sender} are allowed"
            )
        run.accept(announce.rows, announce.width)
        return Step(run.blinded(WINDOW), Exchanging(run), run.progress)


class Exchanging(Generic[R]):
    """For the one message that is due: rows of the sender's, or an Evaluated chunk."""

    def __init__(self, run: Receiving[R]) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[R]:
        run = self._run
        rows = run.rows_due()
        if rows:
            run.take_rows(message, rows)
            return Step((), run.following(), run.progress)
        run.take_evaluated(message)
        return Step(run.blinded(1), run.following(), run.progress)
