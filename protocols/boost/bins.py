"""Binning: a column's values as small numbers, and what a column of bins is. Local to each side.

An ordered column with missing values has them in bin 0; the other bins follow the order of the values. Bins
are
cut at quantiles, and none holds fewer than `least` rows, so that a sum over a bin speaks of nobody in
particular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError

Bins = npt.NDArray[np.uint8]


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

    Quantiles of the values: even ones, or with `tails` 0.4·(1 − cos(πk/b)) + 0.2·k/b, closer at the ends. Of
    equal ones a single cut; a bin with fewer than `least` rows joins its neighbour.
    """
    if len(values) == 0 or most < 2:
        return np.zeros(0)
    ordered = np.sort(values)
    at = (np.arange(1, most) * len(ordered)) // most
    if tails:
        even = np.arange(1, most) / most
        at = ((0.4 * (1 - np.cos(np.pi * even)) + 0.2 * even) * len(ordered)).astype(np.int64)
    found = np.unique(ordered[np.maximum(at - 1, 0)])
    below = np.searchsorted(ordered, found, side="right")
    kept, last = [], 0
    for cut, count in zip(found.tolist(), below.tolist(), strict=True):
        if count - last >= least and len(ordered) - count >= least:
            kept.append(cut)
            last = count
    return np.array(kept)


def ordered(values: npt.NDArray[np.float64], bounds: npt.NDArray[np.float64], missing: bool) -> Bins:
    """uint8[n]: bin of each value; NaN is bin 0 with `missing`, and in the lowest bin without."""
    found = np.searchsorted(bounds, values, side="left").astype(np.uint8)
    gone = np.isnan(values)
    if missing:
        found += np.uint8(1)
    found[gone] = 0
    return found
