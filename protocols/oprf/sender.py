"""The sender's half of the exchange: evaluate what comes, and stream one's own rows in between.

States: Waiting (for the Request), Evaluating (the Blinded chunks, one after the other), Done.
What the rows are is the business of an `Offer`: align streams tags, enrich a sealed table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from protocols.codec import U32, U64, array_of
from protocols.errors import PeerError
from protocols.machine import Done, Step
from protocols.oprf.messages import Announce, Blinded, Evaluated, Kind, Request, binding
from protocols.oprf.padding import CHUNK, padded_size
from protocols.oprf.suite import blind_evaluate
from protocols.ristretto import POINT, Bytes


@dataclass(frozen=True)
class SenderResult:
    """What the sender learns: how many items the receiver asked for, rounded up (`padding.padded_size`)."""

    padded_receiver_size: int


class Offer(Protocol):
    """A sender's own rows."""

    rows: int
    #: How many rows are computed, for the progress.
    done: int

    def agree(self, size: int) -> int:
        """Told the receiver's padded size; gives the width to announce."""
        ...

    def serve(self, part: int, parts: int) -> Iterator[bytes]:
        """Messages that follow the given one of `parts` chunks; the plan of README section 3."""
        ...


@dataclass
class Sending:
    """Everything that the sender's states share."""

    kind: Kind
    session: bytes
    key: Bytes = field(repr=False)
    max_receiver: int
    offer: Offer

    def opening(self) -> Step[SenderResult]:
        return Step((), Waiting(self))


@dataclass(frozen=True)
class Waiting:
    """For the Request."""

    run: Sending

    def receive(self, message: bytes) -> Step[SenderResult]:
        run = self.run
        request = run.kind.to_sender.decode(message, Request)
        own = binding(run.kind.name, run.session)
        if request.binding != own:
            # A Request of another job replayed: its points would be evaluated under a key of this one.
            raise PeerError("protocol.binding", "the receiver's session is another; compare the job specs")
        most = padded_size(run.max_receiver)
        if request.size > most:
            raise PeerError(
                "protocol.too_large", f"the receiver asks for {request.size} items, {most} are allowed"
            )
        if request.size != padded_size(request.size):
            # An unrounded size would tell more about the receiver than its README says.
            raise PeerError(f"{run.kind.name}.size", f"{request.size} is no padded size")
        announce = Announce(own, U64(run.offer.rows), U32(run.offer.agree(request.size)))
        return Step(
            [run.kind.to_receiver.encode(announce)],
            Evaluating(run, request.size, 0),
            (0, request.size + run.offer.rows),
        )


@dataclass(frozen=True)
class Evaluating:
    """`at` of `size` elements are done."""

    run: Sending
    size: int
    at: int

    def receive(self, message: bytes) -> Step[SenderResult]:
        run, parts = self.run, -(-self.size // CHUNK)
        blinded = run.kind.to_sender.decode(message, Blinded)
        if blinded.first != self.at:
            # Replayed or reordered chunks would be answered for other items than the receiver thinks.
            raise PeerError("protocol.unexpected", f"elements {blinded.first}… came, {self.at}… were due")
        end = min(self.at + CHUNK, self.size)
        elements = array_of(blinded.elements, "u1", end - self.at, POINT)
        evaluated = blind_evaluate(run.key, elements, self.at)
        part = self.at // CHUNK
        send = self._answer(evaluated, part, parts)
        last = end == self.size
        then = Done(SenderResult(self.size)) if last else Evaluating(run, self.size, end)
        return Step(send, then, lambda: (end + run.offer.done, self.size + run.offer.rows))

    def _answer(self, evaluated: Bytes, part: int, parts: int) -> Iterator[bytes]:
        yield self.run.kind.to_receiver.encode(Evaluated(U64(self.at), evaluated.tobytes()))
        # Lazy: while these are computed the receiver already works on the elements above.
        yield from self.run.offer.serve(part, parts)
