"""The holder (brand): masks its items, matches, adds what matched; it holds no Paillier secret.

States: Greeting (for the Answer), Doubling (its own elements come back under both keys), Matching (the
valuer's rows), and if it learns the sums Opening (for the plaintexts under its masks). README, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols.codec import U64, array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, Machine, State, Step
from protocols.oprf.messages import check_session
from protocols.oprf.padding import CHUNK, distinct_items, pieces
from protocols.oprf.suite import blind_evaluate, generate_key
from protocols.private_join.messages import (
    TO_HOLDER,
    TO_VALUER,
    Answer,
    Doubled,
    Hello,
    Joined,
    Masked,
    Opened,
    Rows,
    expect_first,
    rows_in_a_message,
)
from protocols.private_join.noise import below
from protocols.private_join.packing import Packing, packing
from protocols.private_join.paillier import PublicKey, public_key
from protocols.private_join.sets import Matcher, Own, draw, is_padded, padded, refuse_repeated
from protocols.private_join.terms import HOLDER, JoinResult, Terms, binding, withholds
from protocols.ristretto import POINT, Bytes, Rng


class Holder(Machine[JoinResult]):
    """Holds `items: uint8[n, 32]`, distinct; n may be 0. Learns a noisy size, and the sums if terms say so.

    LocalError protocol.argument: wrong shape, repeated items, over `terms.max_holder`. PeerError: the codes
    of README section 7. `progress` counts elements.
    """

    def __init__(self, items: npt.ArrayLike, session: bytes, terms: Terms, rng: Rng) -> None:
        check_session(session)
        array = distinct_items(items, terms.max_holder, "terms.max_holder")
        own = Own(array, HOLDER, session, terms, rng)
        run = _Run(own, session, terms, rng, generate_key(rng))
        hello = Hello(binding(terms, session), U64(own.size))
        super().__init__(Step([TO_VALUER.encode(hello)], Greeting(run), (0, own.size)))


@dataclass
class _Run:
    """Everything that the holder's states share."""

    own: Own
    session: bytes
    terms: Terms
    rng: Rng = field(repr=False)
    key: Bytes = field(repr=False)
    peer_size: int = 0
    public: PublicKey | None = None
    slots: Packing | None = None
    done: int = 0

    @property
    def progress(self) -> tuple[int, int]:
        return self.done, 2 * self.own.size + self.peer_size

    @property
    def groups(self) -> int:
        """Ciphertexts a row."""
        return len(self.slots.groups) if self.slots else 0

    def masked(self) -> Iterator[bytes]:
        for low, high in pieces(0, self.own.size, CHUNK):
            elements = blind_evaluate(self.key, self.own.points[low:high], low)
            self.done += high - low
            yield TO_VALUER.encode(Masked(U64(low), elements.tobytes()))

    def result(self, count: int, sums: tuple[int, ...] | None) -> JoinResult:
        return self.own.result(self.peer_size, count, sums)


@dataclass
class Greeting:
    """For the Answer."""

    run: _Run

    def receive(self, message: bytes) -> Step[JoinResult]:
        run, terms = self.run, self.run.terms
        answer = TO_HOLDER.decode(message, Answer)
        if answer.binding != binding(terms, run.session):
            # Other terms would mean other noise than was agreed; another session, a replay.
            raise PeerError("protocol.binding", "the valuer's session or terms differ; compare the job specs")
        if answer.size > padded(terms.max_valuer, terms):
            raise PeerError("protocol.too_large", f"{answer.size} rows, over max_valuer {terms.max_valuer}")
        if not is_padded(answer.size, terms):
            raise PeerError("private_join.size", f"{answer.size} is no padded size with dummies")
        run.peer_size = answer.size
        if terms.bounds:
            run.public = public_key(answer.modulus, answer.roots, run.session)
            run.slots = packing(terms, answer.size, run.public.bits)
        elif answer.modulus or answer.roots:
            raise PeerError("private_join.key", "a modulus came where no sums are due")
        return Step(run.masked(), Doubling(run), lambda: run.progress)


@dataclass
class Doubling:
    """For its own elements under both keys, in the valuer's order."""

    run: _Run
    parts: list[Bytes] = field(default_factory=list)
    at: int = 0

    def receive(self, message: bytes) -> Step[JoinResult]:
        run = self.run
        doubled = TO_HOLDER.decode(message, Doubled)
        expect_first(doubled.first, self.at)
        due = min(CHUNK, run.own.size - self.at)
        self.parts.append(array_of(doubled.elements, "u1", due, POINT))
        self.at += due
        run.done += due
        if self.at < run.own.size:
            return Step((), self)
        elements = np.concatenate(self.parts)
        # Fewer distinct elements than were sent: the valuer hides people from the count.
        refuse_repeated(elements, "valuer")
        return Step((), Matching(run, Matcher(elements)))


@dataclass
class Matching:
    """For the valuer's rows; adds the ciphertexts of those that match as they come."""

    run: _Run
    matcher: Matcher
    at: int = 0
    count: int = 0
    seen: list[Bytes] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)

    def receive(self, message: bytes) -> Step[JoinResult]:
        run = self.run
        rows = TO_HOLDER.decode(message, Rows)
        expect_first(rows.first, self.at)
        width = run.groups * run.public.ciphertext_bytes if run.public else 0
        due = min(rows_in_a_message(width), run.peer_size - self.at)
        elements = blind_evaluate(run.key, array_of(rows.elements, "u1", due, POINT), self.at)
        matched = np.flatnonzero(self.matcher.find(elements))
        self._add(rows.ciphertexts, due, matched)
        self.seen.append(elements)
        self.count += len(matched)
        self.at += due
        run.done += due
        if self.at < run.peer_size:
            return Step((), self)
        refuse_repeated(np.concatenate(self.seen), "valuer")
        if self.count < run.own.eta:
            # The valuer has all of this side's dummies, so that fewer matches can't be.
            raise PeerError("private_join.sum", f"{self.count} matches are impossible with these dummies")
        return self._finish()

    def _add(self, data: bytes, rows: int, matched: npt.NDArray[np.int64]) -> None:
        run = self.run
        if run.public is None:
            if data:
                raise PeerError("protocol.malformed", "ciphertexts came where no sums are due")
            return
        ciphertexts = run.public.ciphertexts_of(data, rows * run.groups)
        totals = self.totals or [1] * run.groups
        self.totals = [
            run.public.product([total, *(ciphertexts[i * run.groups + g] for i in matched)])
            for g, total in enumerate(totals)
        ]

    def _finish(self) -> Step[JoinResult]:
        run, terms = self.run, self.run.terms
        if run.public is None or run.slots is None or withholds(terms, self.count):
            return self._send(b"", Done(run.result(self.count, None)))
        n, size = run.public.n, run.public.ciphertext_bytes
        then: State[JoinResult] | Done[JoinResult]
        if terms.sum_to == HOLDER:
            # A mask uniform modulo n: the valuer decrypts a number that says nothing.
            added = [below(n, run.rng) for _ in range(run.groups)]
            then = Opening(run, self.count, added)
        else:
            # This side's noise protects its people from the valuer; the shift keeps each slot from falling
            # below zero.
            added = run.slots.pack([noise.bound + draw(noise, run.rng) for noise in terms.sum_noise])
            then = Done(run.result(self.count, None))
        # The fresh encryption carries new randomness: from a bare product the valuer, who knows its own
        # ciphertexts, could tell which of them were multiplied.
        sums = b"".join(
            run.public.product([total, run.public.encrypt(extra, run.rng)]).to_bytes(size, "big")
            for total, extra in zip(self.totals, added, strict=True)
        )
        return self._send(sums, then)

    def _send(self, sums: bytes, then: State[JoinResult] | Done[JoinResult]) -> Step[JoinResult]:
        return Step([TO_VALUER.encode(Joined(U64(self.count), sums))], then)


@dataclass
class Opening:
    """For the plaintexts under its masks, with the valuer's noise."""

    run: _Run
    count: int
    masks: list[int] = field(repr=False)

    def receive(self, message: bytes) -> Step[JoinResult]:
        run = self.run
        opened = TO_HOLDER.decode(message, Opened)
        if run.public is None or run.slots is None:
            raise LocalError("protocol.state", "no sums were asked for")
        n = run.public.n
        plaintexts = run.public.plaintexts_of(opened.plaintexts, run.groups)
        slots = run.slots.unpack([(t - mask) % n for t, mask in zip(plaintexts, self.masks, strict=True)])
        noise = run.terms.sum_noise
        sums = tuple(slot - law.bound for slot, law in zip(slots, noise, strict=True))
        return Step((), Done(run.result(self.count, sums)))
