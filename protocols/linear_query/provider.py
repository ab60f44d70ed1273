"""The provider: holds Q. README section 3.

States: WaitKey, WaitChunks, then WaitMasked when the provider learns the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from protocols.codec import array_of
from protocols.errors import LocalError, PeerError
from protocols.linear_query import kernels, messages, ring, sampling
from protocols.linear_query.binding import digest
from protocols.linear_query.brand import Rng, centred
from protocols.linear_query.parameters import Plan, Query, plan
from protocols.linear_query.ring import I64, U32, N
from protocols.machine import Done, Machine, Step

R = TypeVar("R")
I32 = npt.NDArray[np.int32]

#: Rows [start, stop) of Q, transposed: int32[queries, stop - start], C order; called in order, once.
Queries = Callable[[int, int], I32]

#: Chunks held until one pass over the queries; bounds memory to about queries * 0.3 MB + 2 MB.
BATCH = 8
#: Answers that are re-randomised together.
ANSWER_BATCH = 32


class Evaluator:
    """Accumulates ciphertexts against the queries, then re-randomises, floods and masks the answers."""

    def __init__(self, agreed: Plan, queries: Queries, session: bytes, rng: Rng) -> None:
        self._plan, self._queries, self._session = agreed, queries, session
        self._secret_seed = rng(32)
        q = agreed.query
        self._sum_a: U32 = np.zeros((q.queries, ring.LIMBS, N), np.uint32)
        self._sum_b: U32 = np.zeros((q.queries, ring.LIMBS), np.uint32)
        self._batch: list[U32] = []
        self.taken = 0
        self.seed = b""
        self.p0: U32 = np.zeros((0, 0), np.uint32)
        self.masks: I64 = np.zeros(q.queries, np.int64)

    def take(self, b: U32) -> None:
        """Chunk number `taken`, uint32[4, N] in coefficients."""
        self._batch.append(b)
        self.taken += 1
        if len(self._batch) == BATCH or self.taken == self._plan.query.chunks:
            self._flush()

    def _flush(self) -> None:
        query, count = self._plan.query, len(self._batch)
        first = self.taken - count
        start, stop = first * N, min(self.taken * N, query.rows)
        rows = self._queries(start, stop)
        if rows.shape != (query.queries, stop - start) or rows.dtype != np.int32:
            raise LocalError(
                "linear_query.size",
                f"rows {start} to {stop} came as {rows.dtype}{rows.shape}, "
                f"not int32[{query.queries}, {stop - start}]",
            )
        if max(int(rows.max()), -int(rows.min())) > query.max_query:
            raise LocalError(
                "linear_query.overflow", f"a value of Q is larger than the agreed {query.max_query}"
            )
        if rows.shape[1] < count * N:
            rows = np.pad(rows, ((0, 0), (0, count * N - rows.shape[1])))
        a = np.stack([sampling.uniform(self.seed, "chunk", self._session, first + k) for k in range(count)])
        kernels.accumulate(
            self._sum_a,
            self._sum_b,
            a,
            np.stack(self._batch),
            np.ascontiguousarray(rows),
            ring.PRIME_COLUMN,
            ring.ROOTS,
            ring.ROOTS_Q,
        )
        self._batch.clear()

    def answers(self) -> Iterator[bytes]:
        """One message a query. Each adds a fresh encryption of zero, the flooding and the mask (README 3.3).

        The encryption of zero is one more chunk whose queries are ternary: its accumulate gives p1*u and
        the constant coefficient of p0*u at once.
        """
        p1 = sampling.uniform(self.seed, "public key", self._session, 0)[None]
        total = self._plan.query.queries
        for first in range(0, total, ANSWER_BATCH):
            part = slice(first, min(first + ANSWER_BATCH, total))
            count = part.stop - first
            stream = sampling.Stream(self._secret_seed, "provider", "zero", self._session, first)
            u = sampling.ternary(stream, count * N).reshape(count, N).astype(np.int32)
            e1 = sampling.errors(stream, count * N).reshape(count, N)
            a, b = self._sum_a[part], self._sum_b[part]
            kernels.accumulate(a, b, p1, self.p0[None], u, ring.PRIME_COLUMN, ring.ROOTS, ring.ROOTS_Q)
            noise = kernels.transform(e1, ring.PRIME_COLUMN, ring.ROOTS, ring.ROOTS_Q)
            a += noise
            np.minimum(a, a - ring.PRIME_COLUMN, out=a)  # unsigned: a - p wraps above a when a < p
            for j in range(first, part.stop):
                yield self._answer(j, stream)

    def _answer(self, j: int, stream: sampling.Stream) -> bytes:
        agreed = self._plan
        offset = sampling.integer_below(stream, 2 * agreed.flood + 1) - agreed.flood
        if agreed.query.to_provider:
            mask = sampling.integer_below(stream, agreed.plain_modulus)
            self.masks[j] = mask
            offset += agreed.delta * mask
        primes = ring.PRIME_COLUMN[:, 0].astype(np.uint64)
        b = (self._sum_b[j].astype(np.uint64) + ring.residues([offset])[0]) % primes
        answer = messages.Answer(j, messages.pack(self._sum_a[j]), messages.pack(b.astype(np.uint32)))  # type: ignore[arg-type]
        return messages.TO_BRAND.encode(answer)


def steps(
    query: Query, queries: Queries, session: bytes, rng: Rng, then: Callable[[I64 | None], Step[R]]
) -> Step[R]:
    """Wait for the key; `then` gets int64[queries] in [-t/2, t/2), None when the brand learns."""
    agreed = plan(query)
    return Step(
        (), WaitKey(Evaluator(agreed, queries, session, rng), agreed, session, then), (0, query.chunks)
    )


class WaitKey(Generic[R]):
    def __init__(
        self, evaluator: Evaluator, agreed: Plan, session: bytes, then: Callable[[I64 | None], Step[R]]
    ) -> None:
        self._evaluator, self._plan, self._session, self._then = evaluator, agreed, session, then

    def receive(self, message: bytes) -> Step[R]:
        key = messages.TO_PROVIDER.decode(message, messages.Key)
        if key.digest != digest(self._plan, self._session):
            # A ciphertext of another job or of other sizes would be answered with this job's queries.
            raise PeerError(
                "protocol.binding",
                "the linear query's sizes or session differ between the sides; compare the terms",
            )
        self._evaluator.seed = key.seed
        self._evaluator.p0 = messages.residues_of(key.p0, N)
        return Step((), WaitChunks(self._evaluator, self._plan, self._then), (0, self._plan.query.chunks))


class WaitChunks(Generic[R]):
    """Takes Chunk 0 … chunks-1 in order; the answers follow the last one."""

    def __init__(self, evaluator: Evaluator, agreed: Plan, then: Callable[[I64 | None], Step[R]]) -> None:
        self._evaluator, self._plan, self._then = evaluator, agreed, then

    def receive(self, message: bytes) -> Step[R]:
        chunk = messages.TO_PROVIDER.decode(message, messages.Chunk)
        due, total = self._evaluator.taken, self._plan.query.chunks
        if chunk.index != due:
            # A chunk out of order would be multiplied with other people's rows.
            raise PeerError("linear_query.size", f"chunk {chunk.index} came where {due} was due")
        self._evaluator.take(messages.residues_of(chunk.b, N))
        if due + 1 < total:
            return Step((), self, (due + 1, total))
        answers = self._evaluator.answers()
        if self._plan.query.to_provider:
            return Step(answers, WaitMasked(self._evaluator, self._plan, self._then), (total, total))
        ending = self._then(None)
        return Step(_both(answers, ending), ending.then, (total, total))


def _both(first: Iterator[bytes], ending: Step[R]) -> Iterator[bytes]:
    yield from first
    yield from ending.send


class WaitMasked(Generic[R]):
    """Takes the masked answers and removes the masks."""

    def __init__(self, evaluator: Evaluator, agreed: Plan, then: Callable[[I64 | None], Step[R]]) -> None:
        self._evaluator, self._plan, self._then = evaluator, agreed, then

    def receive(self, message: bytes) -> Step[R]:
        masked = messages.TO_PROVIDER.decode(message, messages.Masked)
        if masked.bits != self._plan.plain_bits:
            raise PeerError(
                "protocol.binding", f"answers modulo 2^{masked.bits}, agreed is 2^{self._plan.plain_bits}"
            )
        values = array_of(masked.values, "u8", self._plan.query.queries)
        t = self._plan.plain_modulus
        if bool((values >= np.uint64(t)).any()):
            raise PeerError("linear_query.residue", "a masked answer is not below the plaintext modulus")
        answers = np.mod(values.astype(np.int64) - self._evaluator.masks, np.int64(t))
        return self._then(centred(answers, self._plan))


class Provider(Machine[I64 | None]):
    """Standalone run: Q int[rows, queries]. Result: int64[queries] if the provider learns, else None."""

    def __init__(self, matrix: npt.NDArray[np.integer], query: Query, session: bytes, rng: Rng) -> None:
        if matrix.shape != (query.rows, query.queries):
            raise LocalError(
                "linear_query.size",
                f"Q has shape {matrix.shape}, ({query.rows}, {query.queries}) is announced",
            )

        def rows(start: int, stop: int) -> I32:
            block = matrix[start:stop].T
            if block.size and max(int(block.max()), -int(block.min())) > query.max_query:
                raise LocalError(
                    "linear_query.overflow", f"a value of Q is larger than the agreed {query.max_query}"
                )
            return np.ascontiguousarray(block, dtype=np.int32)

        super().__init__(steps(query, rows, session, rng, lambda answers: Step((), Done(answers))))
