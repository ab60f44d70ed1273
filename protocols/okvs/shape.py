"""Sizes of a store: how many bins, how many positions a bin, so that encoding fails with 2^-40 at most."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, floor, lgamma, log, log1p, log2

from protocols.errors import LocalError
from protocols.security import (
    OKVS_BIN,
    OKVS_SLOPE,
    OKVS_START,
    OKVS_THRESHOLD,
    STATISTICAL_BITS,
)


@dataclass(frozen=True)
class Shape:
    """Layout of a store for `items` keys: `bins` times (`sparse` positions, then `dense` ones)."""

    items: int
    bins: int
    #: Keys that a bin can hold; more than that come into some bin with 2^-40 at most.
    capacity: int
    sparse: int
    dense: int

    @property
    def stride(self) -> int:
        return self.sparse + self.dense

    @property
    def size(self) -> int:
        """Entries of the whole vector."""
        return self.bins * self.stride

    @classmethod
    def of(cls, items: int) -> Shape:
        """The shape for this many keys, the same on both sides."""
        if not 1 <= items <= 1 << 32:
            raise LocalError("protocol.argument", f"a store of {items} keys; 1 to 2^32 are allowed")
        return _shape(items)


@lru_cache(maxsize=64)
def _shape(items: int) -> Shape:
    bins = -(-items // OKVS_BIN)
    # Half of the statistical error for a full bin, half for a bin that can't be solved.
    capacity = bin_capacity(items, bins, STATISTICAL_BITS + 1)
    bits = STATISTICAL_BITS + 1 + (bins - 1).bit_length()
    slope = 2.0 ** (OKVS_SLOPE * log2(capacity) + OKVS_START)
    expansion = OKVS_THRESHOLD + (bits + 9.2) / slope
    sparse = max(floor(expansion * capacity), 8)
    gap = max(floor(bits / log2(sparse)), 1)
    return Shape(items, bins, capacity, sparse, gap + bits)


def bin_capacity(items: int, bins: int, bits: int) -> int:
    """Least c so that `items` balls thrown into `bins` bins fill one above c with 2^-bits at most.

    Union bound over the bins of the binomial tail, which falls faster than a geometric series.
    """
    if bins == 1:
        return items
    p = 1.0 / bins
    low, high = items // bins, items
    while low < high:
        middle = (low + high) // 2
        if log(bins) + _log_tail(items, p, middle) <= -bits * log(2):
            high = middle
        else:
            low = middle + 1
    return low


def _log_tail(n: int, p: float, c: int) -> float:
    """Upper bound of ln P[Binomial(n, p) > c] for c ≥ n p."""
    k = c + 1
    if k > n:
        return float("-inf")
    term = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log1p(-p)
    ratio = (n - k) / (k + 1) * p / (1 - p)
    return term - (log1p(-ratio) if ratio < 1 else log(exp(-40)))
