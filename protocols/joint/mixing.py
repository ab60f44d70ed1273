"""Which combination of the points so far comes next: Anderson acceleration. README, section 5.

Both sides keep their own points and steps (-H^-1 gradient); the brand sees the inner products of all steps in
the metric H, summed over both sides, and says how to combine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.joint.kernels import F64
from protocols.joint.metric import Metric

#: Points that are kept: more of them have a say where the curvature isn't that of the present one any more.
HISTORY = 6
#: First step's length, and that after a step that made it worse, for each such step in a row.
FIRST, CAREFUL = 0.7, 0.5
#: A point whose step is this much larger (squared, in the metric) than the best one's is a setback.
SETBACK = 4.0
#: Relative ridge of the combination, against combining what only noise tells apart, and the largest sum of
#: absolute weights of one. A linear model's gradient is one affine map everywhere, so it can be extrapolated
#: much further: columns that are collinear across the sides, which neither metric knows of, need that.
RIDGE, LINEAR_RIDGE = 1e-3, 1e-5
LARGEST_MIX, LINEAR_LARGEST_MIX = 10.0, 100.0
#: Squared step, relative to the first one's, at which it ends; where weights are compared with their errors
#: (but not a linear model's: what rounding leaves of its steps may be more than that).
CONVERGED, CONVERGED_EXACTLY = 1e-6, 1e-9


@dataclass(frozen=True)
class Mix:
    """Next point: sum of weights_i (point_i + length * step_i); points of weight 0 are forgotten."""

    weights: F64
    length: float


class History:
    """One side's points and steps, newest last."""

    def __init__(self, start: F64) -> None:
        self._points: list[F64] = []
        self._steps: list[F64] = []
        self._gradients: list[F64] = []
        self.at = start

    def __len__(self) -> int:
        return len(self._points)

    def add(self, gradient: F64, metric: Metric) -> F64:
        """Take the gradient at the present point; products of its step with all, float64[len]."""
        step = metric.step(gradient)
        self._points.append(self.at)
        self._steps.append(step)
        self._gradients.append(gradient)
        return np.array([-float(step @ other) for other in self._gradients])

    def again(self, gradient: F64) -> None:
        """The newest point once more, over more rows; `renew` has to follow.

        The other points would differ by about as much, so theirs are moved by the difference.
        """
        difference = gradient - self._gradients[-1]
        self._gradients = [other + difference for other in self._gradients]

    def renew(self, metric: Metric) -> F64:
        """All steps anew, in another metric; all products, float64[len, len]."""
        self._steps = [metric.step(gradient) for gradient in self._gradients]
        return -np.array(self._steps) @ np.array(self._gradients).T

    def move(self, mix: Mix) -> None:
        if len(mix.weights) != len(self._points):
            raise LocalError("joint.fit", "a combination of another number of points")
        moved = np.zeros_like(self.at)
        for weight, point, step in zip(mix.weights, self._points, self._steps, strict=True):
            moved = moved + weight * (point + mix.length * step)
        kept = [i for i, weight in enumerate(mix.weights) if weight != 0.0][-(HISTORY - 1) :]
        for name in ("_points", "_steps", "_gradients"):
            values = getattr(self, name)
            setattr(self, name, [values[i] for i in kept])
        self.at = moved


class Mixer:
    """The brand's choice of combinations. `small` is a squared step at which it ends in any case."""

    def __init__(self, small: float = 0.0, exact: bool = False, linear: bool = False) -> None:
        self._small, self._part = small, CONVERGED_EXACTLY if exact and not linear else CONVERGED
        self._bounds = (LINEAR_RIDGE, LINEAR_LARGEST_MIX) if linear else (RIDGE, LARGEST_MIX)
        self._linear = linear
        self._gram: npt.NDArray[np.float64] = np.zeros((0, 0))
        self._setbacks = 0
        self.sizes: list[float] = []

    def choose(self, products: F64) -> Mix:
        """`products`: of the newest step with all kept ones and itself (last), summed over both sides."""
        n = len(products)
        gram = np.zeros((n, n))
        gram[:-1, :-1] = self._gram
        gram[-1, :] = gram[:, -1] = products
        return self.choose_among(gram)

    def choose_among(self, gram: npt.NDArray[np.float64]) -> Mix:
        """The same from all products, float64[n, n], newest last."""
        n, gram = len(gram), (gram + gram.T) / 2
        own = np.maximum(np.diag(gram), 0.0)
        self.sizes.append(float(own[-1]))
        if not np.isfinite(gram).all():
            raise LocalError("joint.fit", "the gradient is not finite; check the columns for extreme values")
        # The point of a setback says more about the curvature than any other: it is combined like them.
        best = int(np.argmin(own))
        self._setbacks = self._setbacks + 1 if own[-1] > SETBACK * own[best] else 0
        if self._setbacks and self._linear:  # the curvature is the same everywhere: it was rounding
            weights, length = np.where(np.arange(n) == best, 1.0, 0.0), CAREFUL
        else:
            weights = _combine(gram, *self._bounds)
            length = FIRST if n == 1 else CAREFUL**self._setbacks
        kept = np.flatnonzero(weights)[-(HISTORY - 1) :]
        self._gram = gram[np.ix_(kept, kept)]
        return Mix(weights, length)

    @property
    def converged(self) -> bool:
        return self.sizes[-1] <= max(self._part * self.sizes[0], self._small)


def _combine(gram: F64, relative_ridge: float, largest: float) -> F64:
    """Weights that sum to 1 and make the combined step smallest; the oldest go until they are tame."""
    n = len(gram)
    for first in range(n):
        part = gram[first:, first:]
        ridge = relative_ridge * part[-1, -1] + 1e-10 * float(np.trace(part)) + 1e-300
        found = np.linalg.solve(part + ridge * np.eye(len(part)), np.ones(len(part)))
        total = float(found.sum())
        if len(part) == 1:
            break
        if total > 0 and float(np.abs(found).sum()) <= largest * total:
            return np.concatenate([np.zeros(first), found / total])
    return np.append(np.zeros(n - 1), 1.0)
