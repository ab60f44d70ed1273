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
#: Scores beyond so many spreads count as the limit.
REACH = 6.0
#: Points of the grid on which the functions are held; between them they are linear.
GRID = 769
#: The densities of a and b: normal with the announced spread, above a floor that keeps the tails in sight.
FLOOR = 0.01
#: Every so many points of the grid the singular vectors are taken from.
COARSE = 16
#: exp is not followed beyond this, so that a sum over all rows stays finite.
MOST_EXPONENT = 20.0


@dataclass(frozen=True)
class Expansion:
    """phi, psi: float64[rank, GRID] on even grids; `location` is taken off the brand's scores."""

    location: float
    brand_grid: F64
    provider_grid: F64
    phi: F64
    psi: F64

    def of_brand(self, scores: F64) -> F64:
        """phi_k of each score (with location), float64[rank, n]; scores beyond the grid count as its end."""
        return kernels.between(scores, self.location, float(self.brand_grid[-1]), self.phi)

    def of_provider(self, scores: F64) -> F64:
        """psi_k of each score, float64[rank, n]."""
        return kernels.between(scores, 0.0, float(self.provider_grid[-1]), self.psi)


def spread_index(scores: F64) -> int:
    """Root mean square of scores around their location, rounded up to a power of sqrt(2), as an index."""
    size = math.sqrt(float(np.mean(scores * scores))) if scores.size else 0.0
    if not math.isfinite(size):
        raise LocalError("joint.fit", "the scores are not finite; check the columns for extreme values")
    return min(max(math.ceil(2 * math.log2(max(size, 2.0**-20))) + 4, 0), SPREADS - 1)


def spread(index: int) -> float:
    return float(2.0 ** ((index - 4) / 2))


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


def _density(grid: F64, size: float) -> F64:
    density = np.exp(-0.5 * (grid / size) ** 2) + FLOOR
    return np.asarray(density / density.sum())


@lru_cache(maxsize=32)
def expansion(family: str, rank: int, at: int, brand_spread: int, provider_spread: int) -> Expansion:
    """The expansion for these indices of location and spreads."""
    start, own, other = location(at), spread(brand_spread), spread(provider_spread)
    a, b = np.linspace(-REACH * own, REACH * own, GRID), np.linspace(-REACH * other, REACH * other, GRID)
    if family == "linear":
        return Expansion(start, a, b, np.stack([start + a, np.ones(GRID)]), np.stack([np.ones(GRID), b]))
    if family == "poisson":
        left, right = _exponential(start + a), _exponential(b)
        return Expansion(start, a, b, np.stack([np.zeros(GRID), left]), np.stack([np.ones(GRID), right]))
    outer, inner = _density(a, own), _density(b, other)
    weights = np.sqrt(outer[::COARSE])[:, None] * np.sqrt(inner[::COARSE])
    values = _logistic(start + a[:, None] + b)
    # What the constant 1 leaves: its singular vectors are the best functions of their number (README 4).
    rest = values[::COARSE, ::COARSE]
    rest = rest - (rest * inner[::COARSE]).sum(axis=1, keepdims=True) / inner[::COARSE].sum()
    left = np.linalg.svd(weights * rest, full_matrices=False)[0][:, : rank - 1]
    # Their signs are arbitrary, and both sides must choose alike: the first large entry is positive.
    first = np.argmax(np.abs(left) > 0.5 * np.abs(left).max(axis=0), axis=0)
    left = left * np.sign(left[first, np.arange(rank - 1)])
    made = (np.sqrt(outer[::COARSE])[:, None] * left).T @ values[::COARSE]
    columns = np.concatenate([np.ones((1, GRID)), made]).T
    root = np.sqrt(inner)[:, None]
    # Orthonormal under the density, so that the best phi is a projection. What is numerically dependent on
    # the columns before it becomes an arbitrary direction here, and its phi is then zero to rounding.
    q, r = np.linalg.qr(root * columns)
    psi = (q * np.where(np.diag(r) < 0, -1.0, 1.0) / root).T
    phi = (psi * inner) @ values.T
    return Expansion(start, a, b, phi, np.ascontiguousarray(psi))
