"""The valuer (provider): doubles the holder's masks, sends its own rows with encrypted values, decrypts sums.

States: Waiting (for the Hello), Collecting (the holder's masked elements), Summing (for the Joined).
README, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols import security
from protocols.codec import U64, array_of
from protocols.errors import LocalError, PeerError
from protocols.machine import Done, Machine, Step
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
from protocols.private_join.packing import Packing, packing
from protocols.private_join.paillier import PrivateKey, generate
from protocols.private_join.sets import Own, draw, is_padded, padded, permutation, refuse_repeated
from protocols.private_join.terms import VALUER, JoinResult, Terms, binding, withholds
from protocols.ristretto import POINT, Bytes, Rng

Values = npt.NDArray[np.int64]


class Valuer(Machine[JoinResult]):
    """Holds `items: uint8[m, 32]`, distinct, and `values: int64[m, k]`, k as in `terms.bounds`; m may be 0.

    Values above their column's bound are clipped to it. Learns a noisy size, and the sums if terms say so.
    `key` may be one of `generate`, used again between sessions; a new one is made otherwise.
    LocalError protocol.argument: wrong shape, repeated items, negative values, over `terms.max_valuer`.
    PeerError: the codes of README section 7. `progress` counts elements.
    """

    def __init__(
        self,
        items: npt.ArrayLike,
        values: npt.ArrayLike | None,
        session: bytes,
        terms: Terms,
        rng: Rng,
        key: PrivateKey | None = None,
    ) -> None:
        check_session(session)
        array = distinct_items(items, terms.max_valuer, "terms.max_valuer")
        clipped = _clipped(values, len(array), terms)
        own = Own(array, VALUER, session, terms, rng)
        if terms.bounds and key is None:
            key = generate(rng)
        if key is not None and key.public.bits != security.PAILLIER_BITS:
            raise LocalError("protocol.argument", f"a key of {key.public.bits} bits; make a new one")
        slots = packing(terms, own.size, security.PAILLIER_BITS) if terms.bounds else None
        run = _Run(own, clipped, slots, key if terms.bounds else None, session, terms, rng, generate_key(rng))
        super().__init__(Step((), Waiting(run), (0, own.size)))


def _clipped(values: npt.ArrayLike | None, rows: int, terms: Terms) -> Values:
    """`values` as int64[rows, k], each column at most its bound."""
    k = len(terms.bounds)
    array = np.zeros((rows, 0), dtype=np.int64) if values is None else np.asarray(values)
    if array.dtype.kind not in "iu" or array.shape != (rows, k):
        raise LocalError(
            "protocol.argument",
            f"values: {array.dtype}{list(array.shape)}, integers [{rows}, {k}] are needed",
        )
    if array.size and array.min() < 0:
        raise LocalError("protocol.argument", "values: some are negative")
    # The sums' noise is scaled to the bounds, so that a larger value would stand out of it.
    bounds = np.array(terms.bounds, dtype=np.uint64 if array.dtype.kind == "u" else np.int64)
    return np.minimum(array, bounds).astype(np.int64)


@dataclass
class _Run:
    """Everything that the valuer's states share."""

    own: Own
    values: Values
    slots: Packing | None
    paillier: PrivateKey | None
    session: bytes
    terms: Terms
    rng: Rng = field(repr=False)
    key: Bytes = field(repr=False)
    peer_size: int = 0
    done: int = 0

    @property
    def progress(self) -> tuple[int, int]:
        return self.done, 2 * self.peer_size + self.own.size

    def answer(self) -> Answer:
        modulus = roots = b""
        if self.paillier is not None:
            size = self.paillier.public.plaintext_bytes
            modulus = self.paillier.public.n.to_bytes(size, "big")
            roots = b"".join(root.to_bytes(size, "big") for root in self.paillier.roots(self.session))
        return Answer(binding(self.terms, self.session), U64(self.own.size), modulus, roots)

    def doubled(self, elements: Bytes) -> Iterator[bytes]:
        for low, high in pieces(0, len(elements), CHUNK):
            self.done += high - low
            yield TO_HOLDER.encode(Doubled(U64(low), elements[low:high].tobytes()))

    def rows(self) -> Iterator[bytes]:
        groups = len(self.slots.groups) if self.slots else 0
        width = groups * self.paillier.public.ciphertext_bytes if self.paillier else 0
        for low, high in pieces(0, self.own.size, rows_in_a_message(width)):
            elements = blind_evaluate(self.key, self.own.points[low:high], low)
            ciphertexts = self._encrypted(low, high)
            self.done += high - low
            yield TO_HOLDER.encode(Rows(U64(low), elements.tobytes(), ciphertexts))

    def _encrypted(self, low: int, high: int) -> bytes:
        """The ciphertexts of rows low…high, group after group; dummies and padding are worth nothing."""
        if self.paillier is None or self.slots is None:
            return b""
        people = len(self.values)
        packed: list[int] = []
        for item in self.own.order[low:high]:
            row = self.values[item].tolist() if item < people else [0] * len(self.terms.bounds)
            packed += self.slots.pack(row)
        size = self.paillier.public.ciphertext_bytes
        return b"".join(c.to_bytes(size, "big") for c in self.paillier.encrypt(packed, self.rng))

    def result(self, count: int, sums: tuple[int, ...] | None) -> JoinResult:
        return self.own.result(self.peer_size, count, sums)


@dataclass
class Waiting:
    """For the Hello."""

    run: _Run

    def receive(self, message: bytes) -> Step[JoinResult]:
        run, terms = self.run, self.run.terms
        hello = TO_VALUER.decode(message, Hello)
        if hello.binding != binding(terms, run.session):
            # Other terms would mean other noise than was agreed; another session, a replay.
            raise PeerError("protocol.binding", "the holder's session or terms differ; compare the job specs")
        if hello.size > padded(terms.max_holder, terms):
            raise PeerError(
                "protocol.too_large", f"{hello.size} elements, over max_holder {terms.max_holder}"
            )
        if not is_padded(hello.size, terms):
            raise PeerError("private_join.size", f"{hello.size} is no padded size with dummies")
        run.peer_size = hello.size
        return Step([TO_HOLDER.encode(run.answer())], Collecting(run), lambda: run.progress)


@dataclass
class Collecting:
    """For the holder's masked elements, which are doubled as they come and go back when all are there."""

    run: _Run
    parts: list[Bytes] = field(default_factory=list)
    at: int = 0

    def receive(self, message: bytes) -> Step[JoinResult]:
        run = self.run
        masked = TO_VALUER.decode(message, Masked)
        expect_first(masked.first, self.at)
        due = min(CHUNK, run.peer_size - self.at)
        self.parts.append(blind_evaluate(run.key, array_of(masked.elements, "u1", due, POINT), self.at))
        self.at += due
        run.done += due
        if self.at < run.peer_size:
            return Step((), self)
        elements = np.concatenate(self.parts)
        # A holder that sent one person twice would find the pair again and so learn that it is in both.
        refuse_repeated(elements, "holder")
        # Without a new order the holder would know which of its items each element is.
        return Step(self._send(elements[permutation(len(elements), run.rng)]), Summing(run))

    def _send(self, elements: Bytes) -> Iterator[bytes]:
        yield from self.run.doubled(elements)
        yield from self.run.rows()


@dataclass
class Summing:
    """For the count and the encrypted sums."""

    run: _Run

    def receive(self, message: bytes) -> Step[JoinResult]:
        run, terms = self.run, self.run.terms
        joined = TO_VALUER.decode(message, Joined)
        if not run.own.eta <= joined.count <= min(run.own.size, run.peer_size):
            # The holder has all of this side's dummies, so that fewer matches can't be.
            raise PeerError("private_join.sum", f"{joined.count} matches are impossible with these sizes")
        if run.paillier is None or run.slots is None or withholds(terms, joined.count):
            if joined.sums:
                raise PeerError("private_join.sum", "sums came that the terms don't allow")
            return Step((), Done(run.result(joined.count, None)))
        public = run.paillier.public
        plaintexts = run.paillier.decrypt(public.ciphertexts_of(joined.sums, len(run.slots.groups)))
        noise = terms.sum_noise
        if terms.sum_to == VALUER:
            slots = run.slots.unpack(plaintexts)
            sums = tuple(slot - law.bound for slot, law in zip(slots, noise, strict=True))
            return Step((), Done(run.result(joined.count, sums)))
        # The holder learns them: this side's noise protects its people; under the mask it still adds up.
        added = run.slots.pack([law.bound + draw(law, run.rng) for law in noise])
        opened = b"".join(
            ((t + extra) % public.n).to_bytes(public.plaintext_bytes, "big")
            for t, extra in zip(plaintexts, added, strict=True)
        )
        return Step([TO_HOLDER.encode(Opened(opened))], Done(run.result(joined.count, None)))
