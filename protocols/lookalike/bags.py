"""Bags: random halves of the seeds at the brand and of the rows at the provider. README, section 4.6."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from protocols.labels import label
from protocols.linear_query.ring import I64

Rng = Callable[[int], bytes]


def half(count: int, rng: Rng) -> npt.NDArray[np.bool_]:
    """Each of `count` with probability 1/2 and on its own, bool[count]."""
    bits = np.frombuffer(rng(-(-count // 8)), dtype=np.uint8)
    return np.unpackbits(bits, count=count).astype(np.bool_)


def half_of_rows(count: int, rng: Rng) -> I64:
    """The row numbers of such a half, never none, int64[n] rising."""
    while True:
        rows = np.flatnonzero(half(count, rng))
        if rows.size:
            return rows


def bag_session(session: bytes, bags: int, bag: int) -> bytes:
    """A session of its own for each bag's linear query; a job without bags has its own."""
    if bags == 1:
        return session
    return hashlib.sha256(label("lookalike", "both", f"bag {bag}", session)).digest()
