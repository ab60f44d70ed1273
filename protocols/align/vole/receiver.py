"""The receiver of suite `vole`: encodes its items, masks the store, and looks for the sender's tags.

States: Asked (for the Offer), Wanting (Answer), Proving (Proof; malicious), Opening (Coin; malicious),
Matching (Tags), Done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from protocols import okvs
from protocols.align.result import AlignResult
from protocols.align.tags import numbers_of
from protocols.align.vole import outputs
from protocols.align.vole.keys import locate, values
from protocols.align.vole.matching import Table
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
from protocols.codec import B16, B32, U64, array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, State, Step
from protocols.oprf.limits import Limits
from protocols.oprf.padding import ITEM, padded_size, pieces
from protocols.permute import taken
from protocols.ristretto import Bytes, Rng, random_bytes
from protocols.vole import VoleReceiver

Words = npt.NDArray[np.uint64]


class Run:
    """Everything that the receiver's states share."""

    def __init__(
        self,
        items: Bytes,
        session: bytes,
        limits: Limits,
        rng: Rng,
        malicious: bool,
        numbered: bool,
        runs: int,
    ) -> None:
        self.n, self.size = len(items), padded_size(len(items))
        if not fits(self.size):
            raise LocalError(
                "protocol.argument",
                f"{self.n} items in one run of suite vole; cut the set into buckets of {1 << 25} at the most",
            )
        self.limits, self.rng = limits, rng
        # Padding is random items, encoded like all others: neither sizes nor times tell them apart.
        self.items = np.concatenate([items, random_bytes(self.size - self.n, ITEM, rng)])
        self.terms = Terms(session, self.size, 0, rng(16), malicious, numbered, runs)
        self.commitment = b""
        self.coin = rng(32) if malicious else bytes(32)
        self.rows = 0  # of the sender, so far
        self._keys: okvs.Located | None = None
        self._source: Words
        self._vector: Words | None
        self._table: Table
        self.vole: VoleReceiver

    def opening(self) -> Step[AlignResult]:
        return Step(self._ask(), Asked(self), (0, self.size))

    def _ask(self) -> Iterator[bytes]:
        terms = self.terms
        own = binding(terms.session, terms.malicious, terms.runs)
        yield TO_SENDER.encode(Ask(own, U64(self.size), B16(terms.seed)))
        self._keys, self._source = locate(self.items, terms)  # while the sender prepares its offer

    @property
    def keys(self) -> okvs.Located:
        if self._keys is None:
            raise LocalError("protocol.state", "the opening was not taken to its end")
        return self._keys

    def accept(self, offer: Offer) -> None:
        terms = self.terms
        if offer.binding != binding(terms.session, terms.malicious, terms.runs):
            # Without this a mismatch would end as an empty result that nobody notices.
            raise PeerError(
                "protocol.binding",
                "the sender's session, variant or number of runs is another; compare the specs",
            )
        if offer.rows > self.limits.max_sender:
            raise PeerError(
                "protocol.too_large",
                f"the sender has {offer.rows} rows, {self.limits.max_sender} are allowed",
            )
        self.terms = terms = replace(terms, rows=offer.rows)
        if offer.width != terms.width:
            # Shorter tags would give false matches, longer ones only cost.
            raise PeerError("align.size", f"tags of {offer.width} bytes announced, {terms.width} are due")
        self.commitment = offer.commitment
        self.vole = VoleReceiver(
            terms.shape.size, terms.vole_session, self.rng, field=terms.field, malicious=terms.malicious
        )

    def request(self, opening: bytes) -> Iterator[bytes]:
        yield TO_SENDER.encode(Request(self.vole.request(opening)))
        # While the sender answers.
        self._vector = okvs.encode(self.keys, values(self._source, self.terms), self.rng)
        if self._vector is None:
            raise self._no_store()

    def _no_store(self) -> LocalError:
        repeated = self.size - len(np.unique(self.items, axis=0))
        if repeated:
            return LocalError("protocol.argument", f"{repeated} items are repeated; remove duplicates first")
        return LocalError(
            "align.store", "the items can't be encoded under this run's seed; start the job again"
        )

    def masked(self) -> Iterator[bytes]:
        """The store under the mask c; then one's own tags, while the sender works."""
        vole, terms, vector = self.vole.expand(), self.terms, self._vector
        if vector is None:
            raise LocalError("protocol.state", "the request was not taken to its end")
        self._vector = None
        vector ^= vole.c.reshape(vector.shape)
        for low, high in pieces(0, len(vector), terms.entries_per_message):
            yield TO_SENDER.encode(Vector(U64(low), vector[low:high].astype("<u8", copy=False).tobytes()))
        if terms.malicious:
            yield TO_SENDER.encode(Coin(B32(self.coin)))
        del vector
        self._elements = okvs.decode(vole.a, self.keys)
        del vole
        if not terms.malicious:
            self.finish(self.coin)

    def finish(self, coin: bytes) -> None:
        """Own tags, and the table to look for them in."""
        order = self.keys.order
        items = taken(self.items, order) if self.terms.malicious else None
        tags, masks = outputs.tags_and_masks(self._elements, items, coin, self.terms)
        del self._elements
        self._table = Table(tags, masks)

    def take(self, message: bytes) -> None:
        terms = self.terms
        tags = TO_RECEIVER.decode(message, Tags)
        if tags.first != self.rows:
            # A repeated or skipped message would attribute rows to other row numbers.
            raise PeerError("protocol.unexpected", f"rows {tags.first}… came, {self.rows}… were due")
        due = min(terms.rows_per_message, terms.rows - self.rows)
        self._table.take(self.rows, array_of(tags.data, "u1", due, terms.width))
        self.rows += due

    def following(self) -> State[AlignResult] | Done[AlignResult]:
        return Matching(self) if self.rows < self.terms.rows else Done(self.result())

    def result(self) -> AlignResult:
        found = self._table.rows
        if self.terms.numbered:
            hit = np.flatnonzero(found >= 0)
            found[hit] = numbers_of(self._table.extra[hit])
        rows = np.empty(self.size, dtype=np.int64)
        rows[self.keys.order] = found
        return AlignResult(rows[: self.n].copy(), self.terms.rows)

    @property
    def progress(self) -> tuple[int, int]:
        return self.size + self.rows, self.size + self.terms.rows


@dataclass(frozen=True)
class Asked:
    """For the Offer."""

    run: Run

    def receive(self, message: bytes) -> Step[AlignResult]:
        run = self.run
        offer = TO_RECEIVER.decode(message, Offer)
        run.accept(offer)
        return Step(run.request(offer.opening), Wanting(run), (0, run.size + run.terms.rows))


@dataclass(frozen=True)
class Wanting:
    """For the VOLE's answer."""

    run: Run

    def receive(self, message: bytes) -> Step[AlignResult]:
        run = self.run
        challenge = run.vole.accept(TO_RECEIVER.decode(message, Answer).answer)
        if run.terms.malicious:
            if challenge is None:
                raise LocalError("protocol.state", "a malicious VOLE without a challenge")
            return Step([TO_SENDER.encode(Challenge(challenge))], Proving(run))
        return Step(run.masked(), Matching(run), lambda: run.progress)


@dataclass(frozen=True)
class Proving:
    """For the VOLE's proof, without which nothing that depends on the items leaves."""

    run: Run

    def receive(self, message: bytes) -> Step[AlignResult]:
        self.run.vole.verify(TO_RECEIVER.decode(message, Proof).proof)
        return Step(self.run.masked(), Opening(self.run), lambda: self.run.progress)


@dataclass(frozen=True)
class Opening:
    """For the sender's coin, to which it is committed since its Offer."""

    run: Run

    def receive(self, message: bytes) -> Step[AlignResult]:
        run = self.run
        coin = TO_RECEIVER.decode(message, Coin).coin
        if commitment(run.terms.session, coin) != run.commitment:
            # A coin chosen after the receiver's would let the sender steer the hash.
            raise PeerError("align.coin", "the sender's coin is not the one that it is committed to")
        run.finish(bytes(a ^ b for a, b in zip(coin, run.coin, strict=True)))
        return Step((), Matching(run), run.progress)


@dataclass(frozen=True)
class Matching:
    """For the sender's tags."""

    run: Run

    def receive(self, message: bytes) -> Step[AlignResult]:
        self.run.take(message)
        return Step((), self.run.following(), self.run.progress)
