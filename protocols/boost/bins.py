"""Binning: a column's values as small numbers, and what a column of bins is. Local to each side.

An ordered column with missing values has them in bin 0; the other bins follow the order of the values. Bins
are
cut at quantiles, and none holds fewer than `least` rows, so that a sum over a bin speaks of nobody in
particular.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError

Bins = npt.NDArray[np.uint8]

#: Values of a column that can be the last of a bin, about: of more, those at even places.
CANDIDATES = 8192

#: Halvings of the width that bins may have, from 1 / B.
HALVINGS = 10


@dataclass(frozen=True)
class Table:
    """`bins` uint8[n, F] in C order; `categorical`, `missing` bool[F] (bin 0 of the column is "missing")."""

    bins: Bins
    categorical: npt.NDArray[np.bool_]
    missing: npt.NDArray[np.bool_]

    def check(self, limit: int) -> None:
        """LocalError `protocol.argument` unless shapes agree and every bin is below `limit`."""
        shape = self.bins.shape
        good = len(shape) == 2 and self.bins.dtype == np.uint8 and self.bins.flags.c_contiguous
        if not good or self.categorical.shape != shape[1:] or self.missing.shape != shape[1:]:
            raise LocalError("protocol.argument", "bins must be uint8[rows, columns] with two flags a column")
        if self.bins.size and int(self.bins.max()) >= limit:
            raise LocalError("protocol.argument", f"bin {int(self.bins.max())}, {limit} bins are agreed")


def cuts(
    values: npt.NDArray[np.float64], most: int, least: int, tails: bool = False
) -> npt.NDArray[np.float64]:
    """Upper bounds (inclusive) of all bins but the last, float64[b − 1], b ≤ most; values without NaN.

    Each distinct value has a place from 0 to 1: the share of the rows below it, itself by half, or with
    `tails` x of which 0.4·(1 − cos πx) + 0.2·x is that share. The cuts are those that make the bin whose
    values are farthest apart as narrow as can be. So a value of many rows has a bin for itself and takes none
    from the others, and few values have one each. A bin has `least` rows. Bounds lie half-way between values.
    """
    rows = len(values)
    if rows == 0 or most < 2:
        return np.zeros(0)
    ordered = np.sort(values)
    ends = np.append(np.flatnonzero(ordered[1:] > ordered[:-1]) + 1, rows)  # rows up to each distinct value
    place = _places(ends, tails)
    if len(ends) > CANDIDATES:
        near = np.searchsorted(place, np.linspace(0, 1, CANDIDATES // 2))
        ends = np.unique(ends[np.clip(np.concatenate((near, near - 1, [len(ends) - 1])), 0, len(ends) - 1)])
        place = _places(ends, tails)
    lists = place.tolist(), ends.tolist()
    low, high = 0.0, 1 / most  # the first values of two bins in a row are farther apart than the width
    found = _sweep(*lists, least, low)
    if len(found) >= most:
        found = _sweep(*lists, least, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if len(tried := _sweep(*lists, least, middle)) < most:
                high, found = middle, tried
            else:
                low = middle
    below, above = ordered[ends[found] - 1], ordered[ends[found]]
    half = below / 2 + above / 2
    bounds: npt.NDArray[np.float64] = np.where((below <= half) & (half < above), half, below)
    return bounds


def _places(ends: npt.NDArray[np.int64], tails: bool) -> npt.NDArray[np.float64]:
    """Of each distinct value, by the rows up to and with each."""
    place: npt.NDArray[np.float64] = (np.concatenate(([0], ends[:-1])) + ends) / (2 * ends[-1])
    if tails:
        x = np.linspace(0, 1, 4097)
        place = np.interp(place, 0.4 * (1 - np.cos(np.pi * x)) + 0.2 * x, x)
    return place


def _sweep(place: list[float], ends: list[int], least: int, width: float) -> list[int]:
    """The last value of every bin but the last, each taking in all values up to `width` from its first."""
    found, first, done = list[int](), 0, 0
    while True:
        last = max(bisect_right(place, place[first] + width) - 1, bisect_left(ends, done + least))
        if last >= len(ends) - 1 or ends[-1] - ends[last] < least:
            return found
        found.append(last)
        first, done = last + 1, ends[last]


def ordered(values: npt.NDArray[np.float64], bounds: npt.NDArray[np.float64], missing: bool) -> Bins:
    """uint8[n]: bin of each value; NaN is bin 0 with `missing`, and in the lowest bin without."""
    found = np.searchsorted(bounds, values, side="left").astype(np.uint8)
    gone = np.isnan(values)
    if missing:
        found += np.uint8(1)
    found[gone] = 0
    return found
