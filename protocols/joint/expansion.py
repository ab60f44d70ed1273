"""The mean of a generalised linear model as a sum of few products. README, section 4.

    mean(location + a + b) ~ sum_k phi_k(a) psi_k(b),   psi_1 = 1

`a` is the brand's part of the score without `location`, `b` the provider's. Both sides build the same one
from the family, the rank and five small integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from protocols.errors import LocalError
from protocols.joint import kernels
from protocols.joint.kernels import F64

#: Spreads are powers of sqrt(2) from 1/4 to 64, by index; locations are halves from -20 to 20, by index.
SPREADS = 17
LOCATIONS = 81
#: Quantiles of a score's distance from its location, to either side, and what a normal one's spread is at the
#: most of each. The first is what most scores are like; the others keep few that are far out in sight.
QUANTILES = ((0.9, 1.645), (0.97, 4.0), (0.997, 30.0))
#: Scores of so many rows tell the spread.
SAMPLE_ROWS = 1 << 16
#: Points of the grid on which the functions are held; between them they are linear. Points are even in
#: asinh(score / UNIT) up to a score of FARTHEST; scores beyond count as it.
GRID = 1025
UNIT, FARTHEST = 0.5, 5000.0
REACH = math.asinh(FARTHEST / UNIT)
#: The densities of a and b: to either side half of a normal one with the announced spread, and this much of a
#: Cauchy one for long tails; the latter from MANY functions on, which are enough for both.
TAILS, TAILS_OF_MANY, MANY = 0.05, 0.3, 12
#: Every so many points of the grid the singular vectors are taken from.
COARSE = 8
#: exp is not followed beyond this, so that a sum over all rows stays finite.
MOST_EXPONENT = 20.0


@dataclass(frozen=True)
class Expansion:
    """phi, psi: float64[rank, GRID] on the grids of both parts, which are equal; the functions of a linear or
    Poisson model are known, and no grid is needed. `location` is taken off the brand's scores.
    slopes: float64[2, GRID], the mean's slope at each point of either grid, on average over the other one.
    """

    family: str
    location: float
    phi: F64
    psi: F64
    slopes: F64 = field(repr=False)

    def slope_of_brand(self, scores: F64) -> F64:
        """A row's curvature as far as the brand knows it, float64[n]: the slope of the mean at its score, on
        average over the provider's part. Of a Poisson model up to a factor.
        """
        if self.family == "logistic":
            return np.asarray(kernels.between(scores, self.location, UNIT, REACH, self.slopes[:1])[0])
        return np.ones_like(scores) if self.family == "linear" else _exponential(scores)

    def slope_of_provider(self, scores: F64) -> F64:
        """The same as far as the provider knows it, over the brand's part."""
        if self.family == "logistic":
            return np.asarray(kernels.between(scores, 0.0, UNIT, REACH, self.slopes[1:])[0])
        return np.ones_like(scores) if self.family == "linear" else _exponential(scores)

    def of_brand(self, scores: F64) -> F64:
        """phi_k of each score (with location), float64[rank, n]; scores beyond the grid count as its end."""
        if self.family == "linear":
            return np.stack([scores, np.ones_like(scores)])
        if self.family == "poisson":
            return np.stack([np.zeros_like(scores), _exponential(scores)])
        return kernels.between(scores, self.location, UNIT, REACH, self.phi)

    def of_provider(self, scores: F64) -> F64:
        """psi_k of each score, float64[rank, n]."""
        if self.family != "logistic":
            second = scores if self.family == "linear" else _exponential(scores)
            return np.stack([np.ones_like(scores), second])
        return kernels.between(scores, 0.0, UNIT, REACH, self.psi)


def spread_indices(scores: F64) -> tuple[int, int]:
    """How far scores are below and above their location, which is 0, as indices of powers of sqrt(2).

    From quantiles and not from squares: of a heavy-tailed column's scores a few would decide on the latter.
    To either side, as amounts of money have a long tail to one.
    """
    sample = scores[:: max(1, scores.size // SAMPLE_ROWS)]
    if not np.isfinite(sample).all():
        raise LocalError("joint.fit", "the scores are not finite; check the columns for extreme values")
    return _spread_index(-sample[sample < 0]), _spread_index(sample[sample > 0])


def _spread_index(distances: F64) -> int:
    """Rounded up."""
    size = 0.0
    if distances.size:
        found = np.quantile(distances, [q for q, _ in QUANTILES])
        size = float(max(found / [unit for _, unit in QUANTILES]))
    return min(max(math.ceil(2 * math.log2(max(size, 2.0**-20))) + 4, 0), SPREADS - 1)


def spread(index: int) -> float:
    return float(2.0 ** ((index - 4) / 2))


def middle(scores: F64) -> float:
    """Median, from a sample: what `location_index` is asked with."""
    return float(np.median(scores[:: max(1, scores.size // SAMPLE_ROWS)])) if scores.size else 0.0


def location_index(value: float) -> int:
    return min(max(round(2 * value) + LOCATIONS // 2, 0), LOCATIONS - 1)


def location(index: int) -> float:
    return (index - LOCATIONS // 2) / 2


def mean(family: str) -> Callable[[F64], F64]:
    """The inverse link."""
    return {"logistic": _logistic, "linear": _identity, "poisson": _exponential}[family]


def _logistic(x: F64) -> F64:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1.0 + e))


def _identity(x: F64) -> F64:
    return x


def _exponential(x: F64) -> F64:
    return np.asarray(np.exp(np.minimum(x, MOST_EXPONENT)))


def _density(unit: F64, spreads: tuple[int, int], tails: float) -> F64:
    """Of the points of a grid at the scores `unit`, half to either side; sums to 1."""
    out = np.zeros(len(unit))
    for index, side in zip(spreads, (unit < 0, unit >= 0), strict=True):
        score = unit / spread(index)
        between = np.sqrt(unit * unit + UNIT * UNIT) * side  # points are even in another scale
        for share, density in ((1 - tails, np.exp(-0.5 * score * score)), (tails, 1 / (1 + score * score))):
            out += share / 2 * density * between / float((density * between).sum())
    return out


@lru_cache(maxsize=32)
def expansion(
    family: str, rank: int, at: int, brand_spreads: tuple[int, int], provider_spreads: tuple[int, int]
) -> Expansion:
    """The expansion for these indices of location and spreads."""
    start = location(at)
    if family != "logistic":
        none = np.zeros((2, 0))
        return Expansion(family, start, none, none, none)
    place = np.linspace(-REACH, REACH, GRID)
    unit = UNIT * np.sinh(place)
    tails = TAILS_OF_MANY if rank >= MANY else TAILS
    density, own_density = _density(unit, provider_spreads, tails), _density(unit, brand_spreads, tails)
    values = _logistic(start + unit[:, None] + unit)
    slope = values * (1 - values)
    slopes = np.stack([slope @ density, own_density @ slope])
    coarse, own_coarse = density[::COARSE], own_density[::COARSE]
    # What the constant 1 leaves: its singular vectors are the best functions of their number (README 4).
    rest = values[::COARSE, ::COARSE]
    rest = rest - (rest * coarse).sum(axis=1, keepdims=True) / coarse.sum()
    weights = np.sqrt(own_coarse)[:, None] * np.sqrt(coarse)
    left = np.linalg.svd(weights * rest, full_matrices=False)[0][:, : rank - 1]
    # Their signs are arbitrary, and both sides must choose alike: the first large entry is positive.
    first = np.argmax(np.abs(left) > 0.5 * np.abs(left).max(axis=0), axis=0)
    left = left * np.sign(left[first, np.arange(rank - 1)])
    made = (np.sqrt(own_coarse)[:, None] * left).T @ values[::COARSE]
    columns = np.concatenate([np.ones((1, GRID)), made]).T
    root = np.sqrt(density)[:, None]
    # Orthonormal under the density, so that the best phi is a projection. What is numerically dependent on
    # the columns before it becomes an arbitrary direction here, and its phi is then zero to rounding.
    q, r = np.linalg.qr(root * columns)
    psi = (q * np.where(np.diag(r) < 0, -1.0, 1.0) / root).T
    phi = (psi * density) @ values.T
    # Both are quantised: what is large in one and small in the other is shared out.
    share = np.sqrt(np.abs(phi[1:]).max(axis=1) / np.abs(psi[1:]).max(axis=1))[:, None]
    share = np.maximum(share, 1e-9)
    phi[1:], psi[1:] = phi[1:] / share, psi[1:] * share
    return Expansion(family, start, phi, np.ascontiguousarray(psi), slopes)
