"""From predictions to scores in 0–1 and grades: where somebody stands among the people of the fit.

A `Scale` is the brand's own and stays in its model, so that a new lead is measured by the same rule as the
people whom the model was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from consent_center import loading

GRADES = "ABCDE"

#: Least combined score of A, B, C, D: shares of the people of the fit who are no better.
CUTOFFS = (0.8, 0.6, 0.4, 0.2)

#: Quantiles that a scale keeps; with fewer people, all values.
POINTS = 1001

#: Parts of the held-out people; each is judged by a calibration that was learned from the others.
FOLDS = 5

#: Predictions nearer than this, relative to the largest, count as equal.
NEAR = 1e-9


@dataclass(frozen=True)
class Scale:
    """Distinct predictions in rising order, and the share of the people of the fit below each, ties half."""

    values: tuple[float, ...]
    shares: tuple[float, ...]

    @staticmethod
    def of(predictions: npt.NDArray[np.float64]) -> Scale:
        """The scale of float64[n], n ≥ 1, finite."""
        ordered = np.sort(predictions)
        if len(ordered) > POINTS:
            ordered = ordered[np.linspace(0, len(ordered) - 1, POINTS).round().astype(np.int64)]
        # Sums of the same terms in another order differ in the last bit, and are ties all the same.
        apart = NEAR * max(float(ordered[-1] - ordered[0]), float(np.abs(ordered).max()))
        first = np.flatnonzero(np.append(True, np.diff(ordered) > apart))
        count = np.diff(np.append(first, len(ordered)))
        shares = (first + count / 2) / len(ordered)
        return Scale(tuple(ordered[first].tolist()), tuple(shares.tolist()))

    def share(self, predictions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """float64[n] in 0–1, never falling with the prediction; linear between the points that are kept."""
        if len(self.values) == 1:
            only = self.values[0]
            near = np.abs(predictions - only) <= NEAR * abs(only)
            return np.where(near, self.shares[0], np.where(predictions > only, 1.0, 0.0))
        found: npt.NDArray[np.float64] = np.interp(predictions, self.values, self.shares)
        return found

    def to_document(self) -> dict[str, Any]:
        return {"values": list(self.values), "shares": list(self.shares)}

    @staticmethod
    def from_document(document: dict[str, Any]) -> Scale:
        return Scale(tuple(document["values"]), tuple(document["shares"]))


@dataclass(frozen=True)
class Calibration:
    """Chance of a yes by prediction, learned from people who were held out of the fit: isotonic regression.

    Between `values`, which rise, the chance is linear in the prediction, beyond them it stays as it is.
    """

    values: tuple[float, ...]
    chances: tuple[float, ...]

    @staticmethod
    def of(predictions: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> Calibration:
        """Pool adjacent violators over float64[n] with bool[n], n ≥ 1; equal predictions count as one."""
        optimize = loading.part_of_scipy("optimize")
        levels, where = np.unique(predictions, return_inverse=True)
        people = np.bincount(where).astype(np.float64)
        found = optimize.isotonic_regression(np.bincount(where, weights=labels) / people, weights=people).x
        # Of each block of equal chances its two ends.
        ends = np.append(True, np.diff(found) != 0) | np.append(np.diff(found) != 0, True)
        return Calibration(tuple(levels[ends].tolist()), tuple(np.clip(found[ends], 0, 1).tolist()))

    @staticmethod
    def compared(
        predictions: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]
    ) -> tuple[Calibration, float, float]:
        """(the calibration by all, Brier score of the predictions in 0–1 as they are, Brier score of chances
        that calibrations give which have not seen them); float64[n] with bool[n], n > `FOLDS`.

        With few people the steps of an isotonic regression are mostly chance, and the last is the larger.
        """
        fold, chance = np.arange(len(labels)) % FOLDS, np.empty(len(labels))
        for part in range(FOLDS):
            here = fold == part
            chance[here] = Calibration.of(predictions[~here], labels[~here]).chance(predictions[here])
        before, after = (float(np.mean((said - labels) ** 2)) for said in (predictions, chance))
        return Calibration.of(predictions, labels), before, after

    def chance(self, predictions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """float64[n] in 0–1, never falling with the prediction."""
        found: npt.NDArray[np.float64] = np.interp(predictions, self.values, self.chances)
        return found

    def to_document(self) -> dict[str, Any]:
        return {"values": list(self.values), "chances": list(self.chances)}

    @staticmethod
    def from_document(document: dict[str, Any]) -> Calibration:
        return Calibration(tuple(document["values"]), tuple(document["chances"]))


@dataclass(frozen=True)
class Grading:
    """How two predictions become a combined score and a grade.

    The combined score is the share of the people of the fit below weight · (speed's share) + (1 − weight) ·
    (value's share); grade A from `cutoffs[0]`, and so on; E below the last.
    """

    speed: Scale
    value: Scale
    combined: Scale
    weight: float
    cutoffs: tuple[float, ...]

    @staticmethod
    def of(
        speed: npt.NDArray[np.float64],
        value: npt.NDArray[np.float64],
        weight: float,
        cutoffs: Sequence[float],
    ) -> Grading:
        """Learned from the predictions float64[n] of the people of the fit, n ≥ 1."""
        scales = Scale.of(speed), Scale.of(value)
        both = weight * scales[0].share(speed) + (1 - weight) * scales[1].share(value)
        return Grading(*scales, Scale.of(both), weight, tuple(cutoffs))

    def combine(
        self, speed: npt.NDArray[np.float64], value: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
        """(combined score float64[n], grade str[n])."""
        both = self.weight * self.speed.share(speed) + (1 - self.weight) * self.value.share(value)
        # Rounded, so that the last bit of a sum doesn't decide about a grade.
        combined = np.round(self.combined.share(both), 9)
        falling = np.array(self.cutoffs)
        letters = np.array(list(GRADES))[(combined[:, None] < falling).sum(axis=1)]
        return combined, letters

    def to_document(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name).to_document() for name in ("speed", "value", "combined")},
            "weight": self.weight,
            "cutoffs": list(self.cutoffs),
        }

    @staticmethod
    def from_document(document: dict[str, Any]) -> Grading:
        speed, value, combined = (Scale.from_document(document[n]) for n in ("speed", "value", "combined"))
        return Grading(speed, value, combined, float(document["weight"]), tuple(document["cutoffs"]))


def are_cutoffs(value: Any) -> bool:
    """Four falling numbers between 0 and 1."""
    return (
        isinstance(value, list | tuple)
        and len(value) == len(GRADES) - 1
        and all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < 1 for v in value)
        and all(a > b for a, b in zip(value, value[1:], strict=False))
    )
