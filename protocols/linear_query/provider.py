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
from protocols.linear_query import kernels, messages, sampling
from protocols.linear_query.binding import digest
from protocols.linear_query.brand import Rng, centred
from protocols.linear_query.parameters import Plan, Query, plan
from protocols.linear_query.ring import I32, I64, U32, N
from protocols.linear_query.transforms import Transforms, nowhere
from protocols.machine import Done, Machine, Step

R = TypeVar("R")

#: Rows [start, stop) of Q, transposed: int32[queries, stop - start], C order; called in order, once.
Queries = Callable[[int, int], I32]

#: Chunks held until one pass over the queries; bounds memory to about queries * 0.3 MB + 2 MB.
BATCH = 8
#: Groups of answers that are re-randomised together.
ANSWER_BATCH = 32


class Evaluator:
    """Accumulates ciphertexts against the queries; re-randomises, floods, masks and rounds the answers."""

    def __init__(
        self, agreed: Plan, queries: Queries, session: bytes, rng: Rng, kept: Transforms | None = None
    ) -> None:
        self._plan, self._queries, self._session, self._kept = agreed, queries, session, kept
        if kept is not None:
            kept.bind(agreed)
        self._secret_seed = rng(32)
        self._level = agreed.level
        self._sum_a: U32 = np.zeros((agreed.groups, agreed.limbs, N), np.uint32)
        width = agreed.limbs * (N if agreed.packing > 1 else 1)
        self._sum_b: U32 = np.zeros((agreed.groups, width), np.uint32)
        self._batch: list[U32] = []
        self.taken = self._nonzero = 0
        self.seed = b""
        self.p0: U32 = np.zeros((0, 0), np.uint32)
        self.masks: I64 = np.zeros(agreed.query.queries, np.int64)

    def take(self, b: U32) -> None:
        """Chunk number `taken`, uint32[limbs, N] in coefficients."""
        self._batch.append(b)
        self.taken += 1
        if len(self._batch) == BATCH or self.taken == self._plan.chunks:
            self._flush()

    def _flush(self) -> None:
        agreed, level, count = self._plan, self._level, len(self._batch)
        first = self.taken - count
        a = np.stack([self._uniform("chunk", first + k) for k in range(count)])
        b = np.stack(self._batch)
        self._batch.clear()
        held = None if self._kept is None else self._kept.find(first)
        if held is not None:
            b = np.stack([self._transformed(one) for one in b])
            sums = self._sum_a, self._sum_b
            kernels.accumulate_kept(*sums, a, b, held, agreed.packing, level.column, level.degree)
            return
        rows = self._rows(first, count)
        room = nowhere(agreed) if self._kept is None else self._kept.room(first, count, agreed)
        self._accumulate(self._sum_a, self._sum_b, a, b, rows, room, agreed.query.max_query)

    def _rows(self, first: int, count: int) -> I32:
        """The queries' rows of `count` chunks, padded to whole chunks, checked against the agreed bound."""
        agreed, query = self._plan, self._plan.query
        start, stop = first * agreed.chunk_rows, min((first + count) * agreed.chunk_rows, query.rows)
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
        if query.sparse_queries:
            self._nonzero += int(np.count_nonzero(rows.any(axis=0)))
            if self._nonzero > query.max_nonzero:
                raise LocalError(
                    "linear_query.overflow", f"Q has more than the agreed {query.max_nonzero} rows that count"
                )
        if rows.shape[1] < count * agreed.chunk_rows:
            rows = np.pad(rows, ((0, 0), (0, count * agreed.chunk_rows - rows.shape[1])))
        return np.ascontiguousarray(rows)

    def _uniform(self, usage: str, index: int) -> U32:
        return sampling.uniform(self.seed, usage, self._session, index, self._plan.limbs)

    def _transformed(self, b: U32) -> U32:
        level = self._level
        return kernels.transform_residues(b, level.roots, level.roots_q, level.column)

    def _accumulate(self, sum_a: U32, sum_b: U32, a: U32, b: U32, rows: I32, room: U32, largest: int) -> None:
        """One pass of the queries `rows` over the chunks a, b (b in coefficients)."""
        level, packing = self._level, self._plan.packing
        if packing > 1:
            b = np.stack([self._transformed(one) for one in b])
        tables = level.column, level.roots, level.roots_q
        kernels.accumulate(sum_a, sum_b, a, b, rows, room, packing, int(largest == 1), *tables)

    def answers(self) -> Iterator[bytes]:
        """One message a group. Each adds a fresh encryption of zero, the flooding and the mask (README 3.3).

        The encryption of zero is one more chunk whose queries are ternary: its accumulate gives p1*u and
        p0*u at once.
        """
        agreed, level = self._plan, self._level
        p1 = self._uniform("public key", 0)[None]
        for first in range(0, agreed.groups, ANSWER_BATCH):
            part = slice(first, min(first + ANSWER_BATCH, agreed.groups))
            count = part.stop - first
            stream = sampling.Stream(self._secret_seed, "provider", "zero", self._session, first)
            u = sampling.ternary(stream, count * N).astype(np.int32)
            u = u.reshape(count * agreed.packing, agreed.chunk_rows)
            e1 = sampling.errors(stream, count * N).reshape(count, N)
            a, b = self._sum_a[part], self._sum_b[part]
            self._accumulate(a, b, p1, self.p0[None], u, nowhere(agreed), 1)
            inverse = level.column, level.inverse, level.inverse_q, level.degree
            words = kernels.finish(a, e1, agreed.answer_bits, *inverse, level.scale, level.fractions)
            for g in range(first, part.stop):
                at = g * agreed.packing
                numbers = [self._number(at + i, row, stream) for i, row in enumerate(self._residues(g))]
                sent = messages.words_of(words[g - first]), messages.pack_numbers(numbers)
                yield messages.TO_BRAND.encode(messages.Answer(g, *sent))  # type: ignore[arg-type]

    def _residues(self, g: int) -> U32:
        """The coefficients of sum b_k Q_k + p0 u that answer group g, uint32[queries of the group, limbs]."""
        agreed, level = self._plan, self._level
        if agreed.packing == 1:
            return self._sum_b[g : g + 1]
        inverse = level.inverse, level.inverse_q, level.degree, level.column
        whole = kernels.transform_back(self._sum_b[g].reshape(agreed.limbs, N), *inverse)
        last = agreed.query.queries - g * agreed.packing
        return whole[:, :: agreed.chunk_rows].T[: min(agreed.packing, last)]

    def _number(self, query: int, residues: U32, stream: sampling.Stream) -> int:
        """b'' of one query: flooded, masked, rounded to k bits."""
        agreed, modulus = self._plan, self._level.modulus
        offset = sampling.integer_below(stream, 2 * agreed.flood + 1) - agreed.flood
        if agreed.query.to_provider:
            mask = sampling.integer_below(stream, agreed.plain_modulus)
            self.masks[query] = mask
            # P r / t, and not r floor(P / t): where answer + r goes over t nothing must show (README 4.2).
            offset += (modulus * mask + agreed.plain_modulus // 2) // agreed.plain_modulus
        whole = (self._level.lift(residues) + offset) % modulus
        return ((whole << agreed.answer_bits) + modulus // 2) // modulus % (1 << agreed.answer_bits)


def steps(
    query: Query,
    queries: Queries,
    session: bytes,
    rng: Rng,
    then: Callable[[I64 | None], Step[R]],
    kept: Transforms | None = None,
) -> Step[R]:
    """Wait for the key; `then` gets int64[queries] in [-t/2, t/2), None when the brand learns.

    `kept` is shared by runs over the same Q; where it holds the transforms `queries` isn't called.
    """
    agreed = plan(query)
    evaluator = Evaluator(agreed, queries, session, rng, kept)
    return Step((), WaitKey(evaluator, agreed, session, then), (0, agreed.chunks))


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
        self._evaluator.p0 = messages.residues_of(key.p0, self._plan.level)
        return Step((), WaitChunks(self._evaluator, self._plan, self._then), (0, self._plan.chunks))


class WaitChunks(Generic[R]):
    """Takes Chunk 0 … chunks-1 in order; the answers follow the last one."""

    def __init__(self, evaluator: Evaluator, agreed: Plan, then: Callable[[I64 | None], Step[R]]) -> None:
        self._evaluator, self._plan, self._then = evaluator, agreed, then

    def receive(self, message: bytes) -> Step[R]:
        chunk = messages.TO_PROVIDER.decode(message, messages.Chunk)
        due, total = self._evaluator.taken, self._plan.chunks
        if chunk.index != due:
            # A chunk out of order would be multiplied with other people's rows.
            raise PeerError("linear_query.size", f"chunk {chunk.index} came where {due} was due")
        self._evaluator.take(messages.residues_of(chunk.b, self._plan.level))
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

    def __init__(
        self,
        matrix: npt.NDArray[np.integer],
        query: Query,
        session: bytes,
        rng: Rng,
        kept: Transforms | None = None,
    ) -> None:
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

        super().__init__(steps(query, rows, session, rng, lambda answers: Step((), Done(answers)), kept))
