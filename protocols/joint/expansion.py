"""The mean of a generalised linear model as a sum of few products. README, section 4.

    mean(location + a + b) ~ sum_k phi_k(a) psi_k(b),   psi_1 = 1

`a` is the brand's part of the score without `location`, `b` the provider's. Both sides build the same one
from the family, the rank and three small integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from protocols.errors import LocalError
from protocols.joint import kernels
from protocols.joint.kernels import F64

#: Spreads are powers of sqrt(2) from 1/4 to 64, by index; locations are halves from -20 to 20, by index.
SPREADS = 17
LOCATIONS = 81
#: Quantiles of a score's distance from its location, and what a normal one's spread is at the most of each.
#: The first is what most scores are like; the others keep few that are far out in sight.
QUANTILES = ((0.9, 1.645), (0.97, 4.0), (0.997, 30.0))
#: Scores of so many rows tell the spread.
SAMPLE_ROWS = 1 << 16
#: Points of the grid on which the functions are held; between them they are linear. Points are even in
#: asinh(score / spread) up to REACH, 60 spreads; scores beyond count as the limit.
GRID = 769
REACH = 4.8
#: The densities of a and b: normal with the announced spread, and this much of a Cauchy one for long tails.
TAILS = 0.02
#: Every so many points of the grid the singular vectors are taken from.
COARSE = 12
#: exp is not followed beyond this, so that a sum over all rows stays finite.
MOST_EXPONENT = 20.0


@dataclass(frozen=True)
class Expansion:
    """phi, psi: float64[rank, GRID] on the grids of both parts, whose spreads are `own` and `other`; the
    functions of a linear or Poisson model are known, and no grid is needed. `location` is taken off the
    brand's scores.
    """

    family: str
    location: float
    own: float
    other: float
    phi: F64
    psi: F64

    def of_brand(self, scores: F64) -> F64:
        """phi_k of each score (with location), float64[rank, n]; scores beyond the grid count as its end."""
        if self.family == "linear":
            return np.stack([scores, np.ones_like(scores)])
        if self.family == "poisson":
            return np.stack([np.zeros_like(scores), _exponential(scores)])
        return kernels.between(scores, self.location, self.own, REACH, self.phi)

    def of_provider(self, scores: F64) -> F64:
        """psi_k of each score, float64[rank, n]."""
        if self.family != "logistic":
            second = scores if self.family == "linear" else _exponential(scores)
            return np.stack([np.ones_like(scores), second])
        return kernels.between(scores, 0.0, self.other, REACH, self.psi)


def spread_index(scores: F64) -> int:
    """How far scores are from their location, rounded up to a power of sqrt(2), as an index.

    From quantiles and not from squares: of a heavy-tailed column's scores a few would decide on the latter.
    """
    size = 0.0
    if scores.size:
        sample = np.abs(scores[:: max(1, scores.size // SAMPLE_ROWS)])
        if not np.isfinite(sample).all():
            raise LocalError("joint.fit", "the scores are not finite; check the columns for extreme values")
        found = np.quantile(sample, [q for q, _ in QUANTILES])
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


@lru_cache(maxsize=32)
def expansion(family: str, rank: int, at: int, brand_spread: int, provider_spread: int) -> Expansion:
    """The expansion for these indices of location and spreads."""
    start, own, other = location(at), spread(brand_spread), spread(provider_spread)
    if family != "logistic":
        none = np.zeros((2, 0))
        return Expansion(family, start, own, other, none, none)
    place = np.linspace(-REACH, REACH, GRID)
    unit = np.sinh(place)
    density = np.exp(-0.5 * unit * unit) * np.cosh(place) + TAILS / np.cosh(place)  # of place, not of unit
    density /= density.sum()
    values = _logistic(start + own * unit[:, None] + other * unit)
    coarse = density[::COARSE]
    # What the constant 1 leaves: its singular vectors are the best functions of their number (README 4).
    rest = values[::COARSE, ::COARSE]
    rest = rest - (rest * coarse).sum(axis=1, keepdims=True) / coarse.sum()
    weights = np.sqrt(coarse)[:, None] * np.sqrt(coarse)
    left = np.linalg.svd(weights * rest, full_matrices=False)[0][:, : rank - 1]
    # Their signs are arbitrary, and both sides must choose alike: the first large entry is positive.
    first = np.argmax(np.abs(left) > 0.5 * np.abs(left).max(axis=0), axis=0)
    left = left * np.sign(left[first, np.arange(rank - 1)])
    made = (np.sqrt(coarse)[:, None] * left).T @ values[::COARSE]
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
    return Expansion(family, start, own, other, phi, np.ascontiguousarray(psi))
