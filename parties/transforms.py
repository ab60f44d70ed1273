"""Shapes of numeric columns in Φ beyond a straight line: quantile bins, hinges, products of pairs.

A job chooses one for all its numeric columns (`params.features`). None looks at a label. Every made
column speaks
of at least `least` people on either side: bins and hinges that would not are merged, values beyond the
`least`-th
from either end are drawn in, products that fail are not made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from parties.gate import Column

#: `linear`: one standardised column. `crosses` is `splines` with products of pairs.
FORMS = ("linear", "bins", "splines", "crosses")

#: Bins, or hinges, of a column at the most; with noise fewer, as every column brings its own.
BINS, BINS_NOISY = 10, 5
HINGES, HINGES_NOISY = 5, 2

#: Products of pairs in Φ at the most, and columns that they are chosen among.
PRODUCTS, PRODUCTS_NOISY = 32, 8
CANDIDATES = 24

#: A smaller deviation has no square. A column in a small unit is as good as any other.
SMALLEST = 1e-150

#: A column of which less than this share of the variance is left when others are known is not worth making.
NEW = 0.05


@dataclass(frozen=True)
class Bins:
    """One 0/1 column a bin: below `edges[0]`, from there to below `edges[1]`, …, from the last one on;
    missing
    values have their own column or fall into bin `impute`.
    """

    name: str
    edges: tuple[float, ...]
    impute: int
    missing: bool
    kind: str = "bins"

    @property
    def outputs(self) -> list[str]:
        first = [f"{self.name}<{self.edges[0]:g}"]
        rest = [f"{self.name}≥{edge:g}" for edge in self.edges]
        return first + rest + ([f"{self.name}=missing"] if self.missing else [])

    def fill(self, column: Column, out: list[np.ndarray]) -> None:
        gone = np.isnan(column.values)
        where = np.searchsorted(np.asarray(self.edges), column.values, side="right")
        where[gone] = len(self.edges) + 1 if self.missing else self.impute
        for position, target in enumerate(out):
            np.equal(where, position, out=target, casting="unsafe")


@dataclass(frozen=True)
class Splines:
    """Piecewise linear: x and max(0, x − knot) for each knot, all standardised, x drawn into [low,
    high] first;
    `median` for missing values, which have a column of their own if `missing`.
    """

    name: str
    low: float
    high: float
    median: float
    knots: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    missing: bool
    kind: str = "splines"

    @property
    def outputs(self) -> list[str]:
        hinges = [f"{self.name}>{knot:g}" for knot in self.knots]
        return [self.name, *hinges] + ([f"{self.name}=missing"] if self.missing else [])

    def fill(self, column: Column, out: list[np.ndarray]) -> None:
        gone = np.isnan(column.values)
        values = np.where(gone, self.median, column.values) if gone.any() else column.values
        values = np.clip(values, self.low, self.high)
        for j, (mean, scale) in enumerate(zip(self.means, self.scales, strict=True)):
            shaped = values if j == 0 else np.maximum(values - self.knots[j - 1], 0.0)
            np.multiply(shaped - mean, scale, out=out[j], casting="same_kind")
        if self.missing:
            out[-1][:] = gone


@dataclass(frozen=True)
class Product:
    """φ_left · φ_right of two columns of Φ (positions), standardised."""

    left: int
    right: int
    mean: float
    scale: float

    def fill(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        np.multiply(left, right, out=out)
        out -= np.float32(self.mean)
        out *= np.float32(self.scale)


def binned(column: Column, median: float, missing: bool, least: int, noisy: bool) -> Bins | None:
    """The bins of a numeric column; None when no cut leaves `least` people on both sides."""
    values = column.values[~np.isnan(column.values)]
    inside = _cuts(values, BINS_NOISY if noisy else BINS, least)
    if not inside:
        return None
    return Bins(column.name, inside, int(np.searchsorted(inside, median, side="right")), missing)


def hinged(column: Column, median: float, missing: bool, least: int, noisy: bool) -> Splines | None:
    """The hinges of a numeric column; None when it has too few different values for one."""
    gone = np.isnan(column.values)
    values = np.where(gone, median, column.values)
    ordered = np.partition(values, (least - 1, len(values) - least))
    low, high = float(ordered[least - 1]), float(ordered[len(values) - least])
    values = np.clip(values, low, high)
    knots = tuple(
        k for k in _cuts(values[~gone], 1 + (HINGES_NOISY if noisy else HINGES), least) if low < k < high
    )
    means, scales, kept = [], [], []
    for j, knot in enumerate((-np.inf, *knots)):
        shaped = values if j == 0 else np.maximum(values - knot, 0.0)
        deviation = float(np.std(shaped))
        if deviation <= max(1e-9 * max(abs(high), abs(low)), SMALLEST):
            if j == 0:
                return None
            continue
        means.append(float(np.mean(shaped)))
        scales.append(1.0 / deviation)
        kept.append(knot)
    if len(kept) < 2:
        return None
    return Splines(
        column.name, low, high, median, tuple(map(float, kept[1:])), tuple(means), tuple(scales), missing
    )


def _cuts(values: np.ndarray, pieces: int, least: int) -> tuple[float, ...]:
    """Quantiles that cut the values in at most `pieces` pieces, none with fewer than `least` of them.

    A piece is from its cut up to below the next one.
    """
    ordered = np.sort(values)
    cuts: list[float] = []
    before = 0
    for i in range(1, pieces):
        cut = float(ordered[min(len(ordered) - 1, round(i * len(ordered) / pieces))])
        at = int(np.searchsorted(ordered, cut, side="left"))
        if at - before >= least and len(ordered) - at >= least:
            cuts.append(cut)
            before = at
    return tuple(cuts)


def products(phi: np.ndarray, most: int, least: int, sample_rows: int, finest: int) -> list[Product]:
    """The products of two columns of Φ (float32[m, d]) that say most beyond the columns and each other.

    Chosen from a sample by what is left of each product's variance when everything chosen is known (pivoted
    Cholesky), among `CANDIDATES` columns that themselves say most. Labels play no part.
    """
    m, d = phi.shape
    if most < 1 or d < 2:
        return []
    sample = phi[:: max(1, m // sample_rows)].astype(np.float64)
    centred = sample - sample.mean(axis=0)
    some = _pivots(centred, np.zeros((len(sample), 0)), CANDIDATES)
    pairs = [(a, b) for i, a in enumerate(some) for b in some[i + 1 :]]
    made = (
        np.stack([sample[:, a] * sample[:, b] for a, b in pairs], axis=1)
        if pairs
        else np.zeros((len(sample), 0))
    )
    made -= made.mean(axis=0)
    out: list[Product] = []
    for position in _pivots(made, centred, most):
        a, b = pairs[position]
        whole = phi[:, a] * phi[:, b]
        mean, deviation = float(np.mean(whole, dtype=np.float64)), float(np.std(whole, dtype=np.float64))
        if deviation > 1e-9 and _speaks_of(whole - np.float32(mean), least, finest) >= least:
            out.append(Product(a, b, mean, 1.0 / deviation))
    return out


def _pivots(among: np.ndarray, known: np.ndarray, most: int) -> list[int]:
    """Positions of columns of `among` (centred), one after the other that which has most of its own left."""
    length = np.sqrt((among * among).sum(axis=0))
    rest = among / np.where(length > 0, length, 1.0)
    if known.shape[1]:
        basis = np.linalg.qr(known / np.maximum(np.sqrt((known * known).sum(axis=0)), 1e-300))[0]
        rest = rest - basis @ (basis.T @ rest)
    chosen: list[int] = []
    for _ in range(min(most, rest.shape[1])):
        own = (rest * rest).sum(axis=0)
        own[chosen] = 0.0
        best = int(np.argmax(own.round(9)))  # of equals the first, whatever the order of the rows
        if own[best] < NEW:
            break
        chosen.append(best)
        unit = rest[:, best] / np.sqrt(own[best])
        rest = rest - np.outer(unit, unit @ rest)
    return chosen


def _speaks_of(values: np.ndarray, least: int, finest: int) -> int:
    """How many people's values differ from the commonest one in the finest quantisation, at the least."""
    near = np.rint(values * (finest / max(float(np.max(np.abs(values))), 1e-30)))
    # If fewer than k differ from a common value, that value is the median of any 2k - 1 of them.
    some = np.sort(near[: 2 * least - 1])
    return len(values) - int(np.count_nonzero(near == some[len(some) // 2]))


#: A step's class by its `kind`, for documents.
KINDS: dict[str, Any] = {"bins": Bins, "splines": Splines}
