"""The sender of suite `vole`: unmasks the store into a key of the OPRF and sends the tags of its rows.

States: Waiting (for the Ask), Offered (Request), Proved (Challenge; malicious), Keying (Vector),
Tossing (Coin; malicious), Done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols import okvs
from protocols.align.vole import outputs
from protocols.align.vole.keys import locate, values
from protocols.align.vole.matching import scatter, scatter_numbers
from protocols.align.vole.messages import (
    TO_RECEIVER,
    TO_SENDER,
    Answer,
    Ask,
    Challenge,
    Coin,
    Offer,
    Proof,
    Request,
    Tags,
    Terms,
    Vector,
    binding,
    commitment,
    fits,
)
from protocols.codec import B32, U32, U64, array_of
from protocols.errors import PeerError
from protocols.machine import Done, State, Step
from protocols.oprf.limits import Limits
from protocols.oprf.padding import padded_size, pieces
from protocols.oprf.sender import SenderResult
from protocols.ot.field import multiply_add
from protocols.permute import taken
from protocols.ristretto import Bytes, Rng
from protocols.vole import VoleSender

Words = npt.NDArray[np.uint64]

#: Rows that are evaluated at once; bounds memory, and what is prepared while waiting.
BLOCK = 1 << 20


class Run:
    """Everything that the sender's states share."""

    def __init__(
        self,
        items: Bytes,
        numbers: Bytes | None,
        session: bytes,
        limits: Limits,
        rng: Rng,
        malicious: bool,
        runs: int,
    ) -> None:
        self.items, self.numbers = items, numbers
        self.session, self.limits, self.rng = session, limits, rng
        self.malicious, self.runs = malicious, runs
        self.coin = rng(32) if malicious else bytes(32)
        self.terms: Terms
        self.vole: VoleSender
        self.delta: Words
        self.key: Words  # the OPRF's key: first b, then b + Δ (p + c) as far as the vector has come
        self.at = 0
        self.done = 0
        self._ahead: tuple[okvs.Located, Words] | None = None

    def opening(self) -> Step[SenderResult]:
        return Step((), Waiting(self))

    def agree(self, ask: Ask) -> None:
        if ask.binding != binding(self.session, self.malicious, self.runs):
            # An Ask of another job replayed: its receiver would learn about this job's rows.
            raise PeerError(
                "protocol.binding",
                "the receiver's session, variant or number of runs is another; compare the specs",
            )
        most = padded_size(self.limits.max_receiver)
        if ask.size > most:
            raise PeerError(
                "protocol.too_large", f"the receiver asks for {ask.size} items, {most} are allowed"
            )
        if not fits(ask.size):
            # Found out later it would end the session as this side's fault.
            raise PeerError(
                "protocol.too_large",
                f"the receiver asks for {ask.size} items in one run; use buckets",
            )
        if ask.size != padded_size(ask.size):
            # An unrounded size would tell more about the receiver than the README says.
            raise PeerError("align.size", f"{ask.size} is no padded size")
        self.terms = terms = Terms(
            self.session,
            ask.size,
            len(self.items),
            ask.seed,
            self.malicious,
            self.numbers is not None,
            self.runs,
        )
        self.vole = VoleSender(
            terms.shape.size, terms.vole_session, self.rng, field=terms.field, malicious=terms.malicious
        )

    def offer(self) -> Iterator[bytes]:
        terms = self.terms
        yield TO_RECEIVER.encode(
            Offer(
                binding(self.session, self.malicious, self.runs),
                U64(terms.rows),
                U32(terms.width),
                commitment(self.session, self.coin) if self.malicious else B32(bytes(32)),
                self.vole.opening(),
            )
        )
        self._ahead = locate(self.items[:BLOCK], terms)  # while the receiver encodes

    def answer(self, request: bytes) -> Iterator[bytes]:
        yield TO_RECEIVER.encode(Answer(self.vole.answer(request)))
        if not self.malicious:
            self.expand()

    def prove(self, challenge: bytes) -> Iterator[bytes]:
        yield TO_RECEIVER.encode(Proof(self.vole.prove(challenge)))
        self.expand()

    def expand(self) -> None:
        half = self.vole.expand()
        self.key, self.delta = half.b, half.delta

    def take(self, vector: Vector) -> None:
        terms = self.terms
        if vector.first != self.at:
            # A repeated or skipped part would give a key under which the receiver's tags match nothing.
            raise PeerError("protocol.unexpected", f"entries {vector.first}… came, {self.at}… were due")
        due = min(terms.entries_per_message, len(self.key) - self.at)
        if len(vector.data) != 8 * terms.words * due:
            raise PeerError(
                "align.size", f"{len(vector.data)} bytes of the store, {8 * terms.words * due} are due"
            )
        masked = array_of(vector.data, "u8", due, terms.words).astype(np.uint64, copy=False)
        self.add(self.key[self.at : self.at + due], masked)
        self.at += due

    def add(self, out: Words, scalars: Words) -> None:
        """out += Δ · scalars."""
        multiply_add(out, self.delta, scalars.reshape(-1) if self.terms.words == 1 else scalars)

    def tags(self, coin: bytes) -> Iterator[bytes]:
        """The tags of all rows, a block at a time; the last use of the key."""
        terms, numbers = self.terms, self.numbers
        if not len(self.items):
            yield TO_RECEIVER.encode(Tags(U64(0), b""))  # so that the receiver waits for one in any case
        pending = np.zeros((0, terms.width), dtype=np.uint8)
        first = 0
        for low, high in pieces(0, len(self.items), BLOCK):
            items = self.items[low:high]
            keys, source = self._ahead if self._ahead is not None else locate(items, terms)
            self._ahead = None
            elements = okvs.decode(self.key, keys)
            self.add(elements, values(source, terms))
            ordered = taken(items, keys.order) if terms.malicious else None
            tags, masks = outputs.tags_and_masks(elements, ordered, coin, terms)
            rows = np.empty((high - low, terms.width), dtype=np.uint8)
            # Contiguous, as all that goes into a kernel: the pack has nothing for other arrays.
            scatter(np.ascontiguousarray(tags), keys.order, rows)
            if numbers is not None and masks is not None:
                scatter_numbers(np.ascontiguousarray(masks), numbers[low:high], keys.order, rows)
            self.done = high
            pending = rows if not len(pending) else np.concatenate([pending, rows])
            # Messages are of one size but for the last, wherever blocks end.
            whole = (
                len(pending)
                if high == len(self.items)
                else len(pending) // terms.rows_per_message * terms.rows_per_message
            )
            for at, end in pieces(0, whole, terms.rows_per_message):
                yield TO_RECEIVER.encode(Tags(U64(first + at), pending[at:end].tobytes()))
            first += whole
            pending = pending[whole:]

    @property
    def progress(self) -> tuple[int, int]:
        size = self.terms.size
        asked = size * self.at // self.terms.shape.size
        return asked + self.done, size + self.terms.rows


@dataclass(frozen=True)
class Waiting:
    """For the Ask."""

    run: Run

    def receive(self, message: bytes) -> Step[SenderResult]:
        run = self.run
        run.agree(TO_SENDER.decode(message, Ask))
        return Step(run.offer(), Offered(run), lambda: run.progress)


@dataclass(frozen=True)
class Offered:
    """For the VOLE's request."""

    run: Run

    def receive(self, message: bytes) -> Step[SenderResult]:
        run = self.run
        request = TO_SENDER.decode(message, Request)
        then: State[SenderResult] = Proved(run) if run.malicious else Keying(run)
        return Step(run.answer(request.request), then)


@dataclass(frozen=True)
class Proved:
    """For the VOLE's challenge."""

    run: Run

    def receive(self, message: bytes) -> Step[SenderResult]:
        challenge = TO_SENDER.decode(message, Challenge)
        return Step(self.run.prove(challenge.challenge), Keying(self.run))


@dataclass(frozen=True)
class Keying:
    """For the masked store, part by part."""

    run: Run

    def receive(self, message: bytes) -> Step[SenderResult]:
        run = self.run
        run.take(TO_SENDER.decode(message, Vector))
        if run.at < run.terms.shape.size:
            return Step((), self)
        if run.malicious:
            return Step((), Tossing(run))
        return Step(run.tags(run.coin), Done(SenderResult(run.terms.size)), lambda: run.progress)


@dataclass(frozen=True)
class Tossing:
    """For the receiver's coin, after the whole store: only now is the hash fixed."""

    run: Run

    def receive(self, message: bytes) -> Step[SenderResult]:
        run = self.run
        theirs = TO_SENDER.decode(message, Coin).coin
        coin = bytes(a ^ b for a, b in zip(theirs, run.coin, strict=True))
        return Step(self._send(coin), Done(SenderResult(run.terms.size)), lambda: run.progress)

    def _send(self, coin: bytes) -> Iterator[bytes]:
        yield TO_RECEIVER.encode(Coin(B32(self.run.coin)))
        yield from self.run.tags(coin)
