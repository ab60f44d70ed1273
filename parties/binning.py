"""Columns of a view as bins, for trees; local to each side, and nothing leaves this module.

    ordered      numbers, dates, amounts of money in text: cut at quantiles; missing values in bin 0
    categorical  the most frequent levels a bin each; all others and missing values together in the last one

No bin holds fewer people than `features.MIN_PEOPLE` or `MIN_SHARE` of them, so that a sum over a bin speaks
of
nobody in particular; columns that don't allow two such bins are left out and noted. A `BinPlan` is learned
once and
applied unchanged when other people are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from parties import features
from parties.errors import PartyError
from parties.features import Readable
from parties.gate import Column
from protocols import boost


@dataclass(frozen=True)
class Ordered:
    """Upper bounds (inclusive) of all bins but the last; `missing`: bin 0 is for missing values."""

    name: str
    bounds: tuple[float, ...]
    missing: bool
    kind: str = "ordered"

    def bins(self, column: Column) -> np.ndarray:
        read = features.measured(column)
        if read.kind == "categorical":
            raise PartyError("features.changed", f"column {self.name!r} was of numbers and is now of text")
        values = read.values if read.kind == "numeric" else np.full(len(column.values), np.nan)
        return boost.ordered(values, np.array(self.bounds), self.missing)


@dataclass(frozen=True)
class Levels:
    """A bin a level; `other` is that of any other value and of missing ones (the last, or a level's own)."""

    name: str
    levels: tuple[str, ...]
    other: int
    kind: str = "levels"

    def bins(self, column: Column) -> np.ndarray:
        known = {level: position for position, level in enumerate(self.levels)}
        target = np.full(len(column.levels) + 1, self.other, dtype=np.uint8)
        for code, level in enumerate(column.levels):
            target[code] = known.get(level, self.other)
        if column.kind == "numeric":
            raise PartyError("features.changed", f"column {self.name!r} was of text and is now of numbers")
        codes = column.values if column.kind == "categorical" else np.full(len(column.values), -1)
        found: np.ndarray = target[codes]
        return found


@dataclass(frozen=True)
class BinPlan:
    """How each column is binned, in order; `notes` says in plain words what was left out."""

    steps: tuple[Ordered | Levels, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    def to_document(self) -> dict[str, Any]:
        return {"steps": [asdict(step) for step in self.steps], "notes": list(self.notes)}

    @staticmethod
    def from_document(document: dict[str, Any]) -> BinPlan:
        steps: list[Ordered | Levels] = []
        for entry in document["steps"]:
            if entry["kind"] == "ordered":
                steps.append(Ordered(**{**entry, "bounds": tuple(entry["bounds"])}))
            else:
                steps.append(Levels(**{**entry, "levels": tuple(entry["levels"])}))
        return BinPlan(tuple(steps), tuple(document["notes"]))


def learn(
    view: Readable, columns: Sequence[str], rows: np.ndarray, most: int, *, tails: bool = False
) -> BinPlan:
    """The plan for these columns, up to `most` bins each; `features.none` when none is left and some were
    asked. `tails`: bins are finer where few values are, as trees want them.
    """
    steps: list[Ordered | Levels] = []
    notes: list[str] = []
    least = max(features.MIN_PEOPLE, math.ceil(features.MIN_SHARE * len(rows)))
    for read in view.read(columns, rows):
        column = features.measured(read)
        if column.kind == "numeric":
            step: Ordered | Levels | None = _ordered(column, most, least, tails)
        else:
            step = _levels(column, most, least)
        if step is None:
            notes.append(f"{read.name}: dropped, its values don't make two groups of {least} people or more")
        else:
            steps.append(step)
    if columns and not steps:
        raise PartyError("features.none", "no usable column is left: " + "; ".join(notes))
    return BinPlan(tuple(steps), tuple(notes))


def _ordered(column: Column, most: int, least: int, tails: bool) -> Ordered | None:
    gone = np.isnan(column.values)
    missing = int(gone.sum())
    # Few missing values share the lowest bin: a bin of their own would name them.
    apart = missing >= least
    bounds = boost.cuts(column.values[~gone], most - int(apart), least, tails)
    present = len(column.values) - missing
    if not len(bounds) and not (apart and present >= least):
        return None
    return Ordered(column.name, tuple(bounds.tolist()), apart)


def _levels(column: Column, most: int, least: int) -> Levels | None:
    if column.kind != "categorical":
        return None
    counts = np.bincount(column.values + 1, minlength=len(column.levels) + 1)
    order = sorted(range(len(column.levels)), key=lambda code: (-counts[code + 1], column.levels[code]))
    kept = [code for code in order[: most - 1] if counts[code + 1] >= least]
    rest = len(column.values) - int(sum(counts[code + 1] for code in kept))
    if rest < least:  # the others are too few for a bin of their own
        if len(kept) < 2:
            return None
        return Levels(column.name, tuple(column.levels[code] for code in kept), len(kept) - 1)
    if not kept:
        return None
    return Levels(column.name, tuple(column.levels[code] for code in kept), len(kept))


def table(plan: BinPlan, view: Readable, rows: np.ndarray) -> boost.Table:
    """uint8[len(rows), F] with its flags. Raises `features.changed` for a column of another kind than
    learned."""
    bins = np.zeros((len(rows), len(plan.steps)), dtype=np.uint8)
    for position, (step, column) in enumerate(zip(plan.steps, view.read(plan.names, rows), strict=True)):
        bins[:, position] = step.bins(column)
    categorical = np.array([step.kind == "levels" for step in plan.steps], dtype=bool)
    missing = np.array([isinstance(step, Ordered) and step.missing for step in plan.steps], dtype=bool)
    return boost.Table(bins, categorical, missing)
