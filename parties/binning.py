"""Columns of a view as bins, for trees; local to each side, and nothing leaves this module.

    ordered      numbers, dates, amounts of money in text: cut at quantiles; missing values in bin 0
    categorical  the most frequent levels a bin each; all others and missing values together in the last one;
                 with `spread` the next frequent levels in further columns of bins

No bin holds fewer people than `features.MIN_PEOPLE` or `MIN_SHARE` of them, so that a sum over a bin speaks
of nobody in particular; only numbers of a side that sums them itself (`own`) have finer ones. Columns that
don't allow two such bins are left out and noted. A `BinPlan` is learned once and applied unchanged when other
people are scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from parties import column_texts, features
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
        read = column_texts.measured(column)
        if read.kind == "categorical":
            raise PartyError("features.changed", f"column {self.name!r} was of numbers and is now of text")
        values = read.values if read.kind == "numeric" else np.full(len(column.values), np.nan)
        return boost.ordered(values, np.array(self.bounds), self.missing)


@dataclass(frozen=True)
class Levels:
    """A bin a level; `other` is that of any other value and of missing ones (the last, or a level's own).

    `source` is the column that is read, where it has more levels than one such step has bins.
    """

    name: str
    levels: tuple[str, ...]
    other: int
    kind: str = "levels"
    source: str = ""

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

    @property
    def sources(self) -> tuple[str, ...]:
        """The column that each step reads."""
        return tuple(getattr(step, "source", "") or step.name for step in self.steps)

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
    view: Readable,
    columns: Sequence[str],
    rows: np.ndarray,
    most: int,
    *,
    tails: bool = False,
    spread: int = 1,
    own: bool = False,
) -> BinPlan:
    """The plan for these columns, up to `most` bins each; `features.none` when none is left and some were
    asked. `tails`: bins are finer where few values are, as trees want them. `spread`: a column of text with
    more frequent levels than bins becomes up to so many columns of bins, each with the next frequent ones.
    `own`: the bins stay with this side; one of numbers may hold a single person, and no column need be left.
    """
    steps: list[Ordered | Levels] = []
    notes: list[str] = []
    least = (
        features.MIN_PEOPLE if own else max(features.MIN_PEOPLE, math.ceil(features.MIN_SHARE * len(rows)))
    )
    for read in view.read(columns, rows):
        column = column_texts.measured(read)
        few = 1 if own and column.kind == "numeric" else least
        if column.kind == "numeric":
            step: Ordered | Levels | None = _ordered(column, most, few, tails)
        else:
            step = _levels(column, most, few)
        if isinstance(step, Levels) and spread > 1:
            steps.extend(_spread(column, step, most, few, spread, set(columns)))
        elif step is None:
            why = "everybody has the same value" if few == 1 else f"no two groups of {few} people or more"
            notes.append(f"{read.name}: {column_texts.unusable(column) or f'dropped, {why}'}")
        else:
            steps.append(step)
        slips = column_texts.mostly_numbers(column, features.MIN_PEOPLE) if isinstance(step, Levels) else ""
        if slips:
            notes.append(f"{read.name}: {slips}")
    if columns and not steps and not own:
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


def _spread(
    column: Column, first: Levels, most: int, least: int, spread: int, taken: set[str]
) -> list[Levels]:
    """`first` and what follows it of a column's levels with `least` people or more, `most` − 1 at a time."""
    counts = np.bincount(column.values + 1, minlength=len(column.levels) + 1)
    order = sorted(range(len(column.levels)), key=lambda code: (-counts[code + 1], column.levels[code]))
    left = [
        column.levels[c] for c in order if counts[c + 1] >= least and column.levels[c] not in first.levels
    ]
    parts = [first]
    while left and len(parts) < spread and most > 2:
        name = f"{column.name} ({len(parts) + 1})"
        if name in taken:
            break
        parts.append(Levels(name, tuple(left[: most - 1]), len(left[: most - 1]), source=column.name))
        left = left[most - 1 :]
    return parts


def _each(plan: BinPlan, view: Readable, rows: np.ndarray) -> Iterator[Column]:
    """The column of each step; one that several steps in a row read is read once."""
    sources = plan.sources
    distinct = [name for at, name in enumerate(sources) if not at or sources[at - 1] != name]
    for column in view.read(distinct, rows):
        for name in sources:
            if name == column.name:
                yield column


def table(plan: BinPlan, view: Readable, rows: np.ndarray) -> boost.Table:
    """uint8[len(rows), F] with its flags. Raises `features.changed` for a column of another kind than
    learned."""
    bins = np.zeros((len(rows), len(plan.steps)), dtype=np.uint8)
    for position, (step, column) in enumerate(zip(plan.steps, _each(plan, view, rows), strict=True)):
        bins[:, position] = step.bins(column)
    categorical = np.array([step.kind == "levels" for step in plan.steps], dtype=bool)
    missing = np.array([isinstance(step, Ordered) and step.missing for step in plan.steps], dtype=bool)
    return boost.Table(bins, categorical, missing)
