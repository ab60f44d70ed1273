"""The linear queries under a step: quantise, ask or hold, scale back. README, section 3.3.

Several vectors over the provider's rows become one long vector of the linear query, one after the other; the
queries are laid out alike, so that one answer is the sum over all vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import numpy as np

from protocols.errors import LocalError, PeerError
from protocols.joint import kernels
from protocols.joint.kernels import F32, F64, I32, I64
from protocols.joint.messages import TO_BRAND, TO_PROVIDER, Scale
from protocols.joint.terms import Scales
from protocols.linear_query import brand as holder
from protocols.linear_query import messages as query_messages
from protocols.linear_query import provider as asker
from protocols.machine import Step

R = TypeVar("R")
Rng = Callable[[int], bytes]

#: Exponents of scales lie in [-MOST, MOST].
MOST_EXPONENT = 100
OFFSET = 128


@dataclass(frozen=True)
class Held:
    """Rows that one side has something for: `rows` int64[n], strictly rising, of the provider's `total`."""

    rows: I64
    total: int

    def first(self, total: int) -> Held:
        """Those among the first `total` rows."""
        if total == self.total:
            return self
        return Held(self.rows[: int(np.searchsorted(self.rows, total))], total)

    def within(self, start: int, stop: int) -> tuple[int, I64]:
        """(index of the first held row in [start, stop), its and the following ones' places from start)."""
        low, high = (int(i) for i in np.searchsorted(self.rows, (start, stop)))
        return low, self.rows[low:high] - start

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int, I64]]:
        """Rows [start, stop) of the long vector, one vector after the other: (vector, place of its first row,
        index of its first held row, places of the held rows from there)."""
        at = start
        while at < stop:
            vector, low = divmod(at, self.total)
            end = min(stop, (vector + 1) * self.total)
            yield vector, at - start, *self.within(low, low + end - at)
            at = end


def _exponent(vectors: F64) -> int:
    largest = max(float(vectors.max()), -float(vectors.min())) if vectors.size else 0.0
    if not math.isfinite(largest) or largest > 2.0**MOST_EXPONENT:
        raise LocalError("joint.fit", "the scores are too large; check the columns for extreme values")
    return max(math.ceil(math.log2(largest)) if largest > 0 else 0, -MOST_EXPONENT)


def hold(
    to_asker: bytes | None,
    from_brand: bool,
    scales: Scales,
    vectors: F64,
    held: Held,
    session: bytes,
    rng: Rng,
    then: Callable[[bytes], Step[R]],
) -> Step[R]:
    """Encrypt `vectors` float64[v, n], which must not change any more; `then` gets the last message of the
    query, to be sent first.
    """
    exponent = _exponent(vectors)
    step = math.ldexp(1.0, exponent) / scales.value

    def values(start: int, stop: int) -> I64:
        # Made when a chunk is due: of all rows at once they would take as much memory as the vectors, thrice.
        block = np.zeros(stop - start, np.int64)
        for vector, at, first, places in held.parts(start, stop):
            whole = kernels.rounded(vectors[vector, first : first + len(places)] / step, vector, first)
            block[places + at] = np.clip(whole, -scales.value, scales.value)
        return block

    def answered(answers: I64) -> Step[R]:
        modulus = np.int64(scales.plan.plain_modulus)
        masked = np.mod(answers, modulus).astype("<u8").tobytes()
        reply = query_messages.Masked(scales.plan.plain_bits, masked)  # type: ignore[arg-type]
        return then(query_messages.TO_PROVIDER.encode(reply))

    codec = TO_PROVIDER if from_brand else TO_BRAND
    opening = [codec.encode(Scale(exponent + OFFSET))]  # type: ignore[arg-type]
    if to_asker is not None:
        opening.insert(0, to_asker)
    inner = holder.steps(scales.plan.query, values, session, rng, answered)
    return Step(chain(opening, inner.send), inner.then, inner.progress)


class WaitScale(Generic[R]):
    """Takes the Scale, then asks: `factors` float64[v, n] times `columns` float32[d, n or more], or the
    columns' products, those of `pairs` (by default each with itself), where factors is None. `largest`
    float64[d] bounds the columns. `then` gets the sums, float64 one a query.
    """

    def __init__(
        self,
        from_brand: bool,
        scales: Scales,
        factors: F64 | None,
        columns: F32,
        largest: F64,
        held: Held,
        session: bytes,
        rng: Rng,
        then: Callable[[F64], Step[R]],
        pairs: tuple[I64, I64] | None = None,
    ) -> None:
        self._codec = TO_PROVIDER if from_brand else TO_BRAND
        self._scales, self._factors, self._columns, self._held = scales, factors, columns, held
        self._session, self._rng, self._then = session, rng, then
        every = np.arange(len(columns))
        self._left, self._right = (every, every) if pairs is None else pairs
        products = largest[self._left] * largest[self._right]
        each = products if factors is None else kernels.largest_weighted(columns, factors)
        #: What one unit of a query's integers stands for; a column of zeros has any.
        self._units = np.where(each > 0, each, 1.0) / scales.query

    def receive(self, message: bytes) -> Step[R]:
        exponent = self._codec.decode(message, Scale).exponent - OFFSET
        if abs(exponent) > MOST_EXPONENT:
            raise PeerError("protocol.malformed", f"a scale of 2^{exponent}")
        step = math.ldexp(1.0, exponent) / self._scales.value

        def answered(answers: I64 | None) -> Step[R]:
            if answers is None:
                raise LocalError("protocol.state", "a linear query without an answer")
            return self._then(answers.astype(np.float64) * step * self._units)

        return asker.steps(self._scales.plan.query, self._rows, self._session, self._rng, answered)

    def _rows(self, start: int, stop: int) -> I32:
        """Rows [start, stop) of the long vector's queries; they may belong to several vectors."""
        out = np.zeros((len(self._units), stop - start), np.int32)
        inverse = 1.0 / self._units
        for vector, at, first, places in self._held.parts(start, stop):
            part = places + at
            if self._factors is None:
                kernels.products(
                    self._columns, self._left, self._right, inverse, self._scales.query, first, part, out
                )
            else:
                factor = self._factors[vector]
                kernels.weighted(self._columns, factor, inverse, self._scales.query, first, vector, part, out)
        return out
