"""Transforms of queries that are asked again: the provider's own, in bounded memory. README section 3.6."""

from __future__ import annotations

import numpy as np

from protocols.errors import LocalError
from protocols.linear_query.parameters import Plan
from protocols.linear_query.ring import U32, N

#: Bytes that a `Transforms` holds at the most, unless it is told otherwise.
HELD_BYTES = 1 << 30


class Transforms:
    """Shared by linear queries with the same Q and the same plan, one after the other.

    limit: bytes; all fit when it is 32 KiB a prime for each group of queries and chunk. Batches of chunks are
    held in the order of their rows until the next would go beyond the limit; the others are transformed
    in each run. `made` and `reused` count polynomials modulo one prime over all runs.
    """

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self._plan: Plan | None = None
        self._held: dict[int, U32] = {}
        self.bytes = self.made = self.reused = 0

    def bind(self, agreed: Plan) -> None:
        """LocalError for another plan than the first run's: sizes, packing and primes must be the same."""
        if self._plan is not None and self._plan != agreed:
            raise LocalError("protocol.argument", "a second query over kept transforms has another plan")
        self._plan = agreed

    def find(self, first: int) -> U32 | None:
        """uint32[groups, chunks, limbs, N] of the batch that begins with this chunk, if it is held."""
        held = self._held.get(first)
        if held is not None:
            self.reused += held.size // N
        return held

    def room(self, first: int, count: int, agreed: Plan) -> U32:
        """Where to put the transforms of `count` chunks from `first`; of no groups where they don't fit."""
        shape = (agreed.groups, count, agreed.limbs, N)
        self.made += agreed.groups * count * agreed.limbs
        size = 4 * agreed.groups * count * agreed.limbs * N
        if self.bytes + size > self._limit:
            return nowhere(agreed)
        self.bytes += size
        self._held[first] = np.empty(shape, np.uint32)
        return self._held[first]


def nowhere(agreed: Plan) -> U32:
    """What `accumulate` takes for transforms that aren't to be kept."""
    return np.empty((0, 0, agreed.limbs, N), np.uint32)
