"""Φ: the provider's local transformation of its columns into numbers, and nothing leaves this module.

    numeric      median impute, then (x − mean) / deviation; a 0/1 column `name=missing` when some are missing
    categorical  one 0/1 column a level; rare levels together as `name=other`, missing ones as `name=missing`
    dropped      constant, nearly constant, all missing, looks like an identifier, too many levels: noted

A level is rare when it has fewer people than max(10, 0.5 %): a sum over the seeds of such a column would
speak of a handful of people. Other and missing people that are together still too few get no column at all.
Collinear columns are left in; the fit's ridge penalty copes.

A `Plan` is learned once, at the fit, and applied unchanged at scoring, however many withdrew in between; its
document is the provider's own and goes with the model into the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from parties.errors import PartyError
from parties.gate import Column

#: A column of Φ speaks of at least this many people, and at least this share.
MIN_PEOPLE = 10
MIN_SHARE = 0.005

#: More levels than this after grouping: the column is no category.
MAX_LEVELS = 50

#: A text column with more distinct values than this share of its rows looks like an identifier.
NEAR_UNIQUE = 0.5

#: Columns of Φ at the most; beyond it the provider must choose columns.
MAX_COLUMNS = 4096


class Readable(Protocol):
    """The part of a `ConsentedView` that features need."""

    def read(self, names: Sequence[str], rows: np.ndarray | None = None) -> Iterator[Column]: ...


@dataclass(frozen=True)
class Numeric:
    """φ = (x − mean) · scale after imputing `median`; then one indicator column if `missing`."""

    name: str
    median: float
    mean: float
    scale: float
    missing: bool
    kind: str = "numeric"

    @property
    def outputs(self) -> list[str]:
        return [self.name] + ([f"{self.name}=missing"] if self.missing else [])

    def fill(self, column: Column, out: list[np.ndarray]) -> None:
        gone = np.isnan(column.values)
        values = np.where(gone, self.median, column.values) if gone.any() else column.values
        np.multiply(values - self.mean, self.scale, out=out[0], casting="same_kind")
        if self.missing:
            out[1][:] = gone


@dataclass(frozen=True)
class Categorical:
    """One column a level in `levels`, then `other` for any other value, then `missing`."""

    name: str
    levels: tuple[str, ...]
    other: bool
    missing: bool
    kind: str = "categorical"

    @property
    def outputs(self) -> list[str]:
        extra = (["other"] if self.other else []) + (["missing"] if self.missing else [])
        return [f"{self.name}={level}" for level in (*self.levels, *extra)]

    def fill(self, column: Column, out: list[np.ndarray]) -> None:
        codes = column.values
        known = {level: position for position, level in enumerate(self.levels)}
        # position of every level of the data in `out`; -1 has none; the last entry is for missing values
        target = np.full(len(column.levels) + 1, -1, dtype=np.int32)
        for code, level in enumerate(column.levels):
            target[code] = known.get(level, len(self.levels) if self.other else -1)
        if self.missing:
            target[-1] = len(self.levels) + self.other
        elif self.other:
            target[-1] = len(self.levels)
        positions = target[codes]
        for position, column_out in enumerate(out):
            np.equal(positions, position, out=column_out, casting="unsafe")


@dataclass(frozen=True)
class Plan:
    """What Φ does, in order. `notes` says in plain words what was dropped or grouped."""

    steps: tuple[Numeric | Categorical, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each column of Φ."""
        return tuple(name for step in self.steps for name in step.outputs)

    def to_document(self) -> dict[str, Any]:
        return {"steps": [asdict(step) for step in self.steps], "notes": list(self.notes)}

    @staticmethod
    def from_document(document: dict[str, Any]) -> Plan:
        steps: list[Numeric | Categorical] = []
        for entry in document["steps"]:
            if entry["kind"] == "numeric":
                steps.append(Numeric(**entry))
            else:
                steps.append(Categorical(**{**entry, "levels": tuple(entry["levels"])}))
        return Plan(tuple(steps), tuple(document["notes"]))


def learn(view: Readable, columns: Sequence[str], rows: np.ndarray | None = None) -> Plan:
    """The plan for these columns, from the view's rows (all, or those given by view row number).

    Raises `features.none` when no column is left, `features.many` above `MAX_COLUMNS`.
    """
    steps: list[Numeric | Categorical] = []
    notes: list[str] = []
    for column in view.read(columns, rows):
        step, note = _learn_numeric(column) if column.kind == "numeric" else _learn_categorical(column)
        if step is not None:
            steps.append(step)
        if note:
            notes.append(f"{column.name}: {note}")
    plan = Plan(tuple(steps), tuple(notes))
    if not steps:
        raise PartyError("features.none", "no usable column is left: " + "; ".join(notes))
    if len(plan.names) > MAX_COLUMNS:
        raise PartyError(
            "features.many", f"{len(plan.names)} columns of Φ, {MAX_COLUMNS} allowed; choose fewer"
        )
    return plan


def matrix(plan: Plan, view: Readable, rows: np.ndarray | None = None) -> np.ndarray:
    """Φ as float32[len(rows), d] in Fortran order; extra memory is Φ and one batch of columns."""
    phi: np.ndarray | None = None
    at = 0
    for step, column in zip(plan.steps, view.read([s.name for s in plan.steps], rows), strict=True):
        if column.kind not in (step.kind, "empty"):
            raise PartyError(
                "features.changed", f"column {step.name!r} was {step.kind} and is now {column.kind}"
            )
        if phi is None:
            phi = np.empty((len(column.values), len(plan.names)), dtype=np.float32, order="F")
        width = len(step.outputs)
        step.fill(_as(column, step.kind), [phi[:, at + i] for i in range(width)])
        at += width
    if phi is None:
        raise PartyError("features.none", "a plan without columns")
    return phi


def _as(column: Column, kind: str) -> Column:
    """A column that has lost all its values since the plan was made, in the shape that the plan expects."""
    if column.kind == kind:
        return column
    if kind == "numeric":
        return column
    return Column(column.name, "categorical", np.full(len(column.values), -1, dtype=np.int32))


def _threshold(count: int) -> int:
    return max(MIN_PEOPLE, math.ceil(MIN_SHARE * count))


def _learn_numeric(column: Column) -> tuple[Numeric | None, str]:
    values, count = column.values, len(column.values)
    least = _threshold(count)
    gone = np.isnan(values)
    missing = int(gone.sum())
    median = 0.0
    if missing:
        present = values[~gone]
        if len(present) < least:
            return None, f"dropped, only {len(present)} values"
        median = float(np.median(present))
        values = np.where(gone, median, values)
    # The most frequent value of a systematic sample: if any value fills the column, it is this one.
    sample, times = np.unique(values[:: max(1, count // 1001)], return_counts=True)
    different = count - int(np.count_nonzero(values == sample[int(np.argmax(times))]))
    indicator = least <= missing <= count - least
    if different < least and not indicator:
        return None, f"dropped, constant but for {different} of {count} people"
    whole = values[:1000]
    if (
        count >= 1000
        and np.all(whole == np.floor(whole))
        and np.min(whole) > 1e9
        and len(np.unique(whole)) > 900
    ):
        return None, "dropped, whole numbers above 10^9 look like an identifier"
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(np.mean(values)), float(np.std(values))
    if not (math.isfinite(mean) and math.isfinite(deviation)):
        return None, "dropped, values too large to standardise"
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        deviation = math.inf  # constant, and kept for the sake of its indicator
    note = (
        "" if indicator or not missing else f"{missing} missing values imputed without a column of their own"
    )
    return Numeric(column.name, median, mean, 1.0 / deviation, indicator), note


def _learn_categorical(column: Column) -> tuple[Categorical | None, str]:
    if column.kind == "unsupported":
        return None, "dropped, nested or binary"
    if column.kind == "empty":
        return None, "dropped, no value at all"
    codes, count = column.values, len(column.values)
    least = _threshold(count)
    times = np.bincount(codes + 1, minlength=len(column.levels) + 1)
    missing, times = int(times[0]), times[1:]
    distinct, present = int(np.count_nonzero(times)), count - missing
    if distinct > MAX_LEVELS and distinct > NEAR_UNIQUE * present:
        return None, f"dropped, {distinct} distinct texts in {present} rows look like an identifier"
    kept = np.flatnonzero(times >= least)
    kept = kept[np.argsort(-times[kept], kind="stable")]
    if len(kept) > MAX_LEVELS:
        return None, f"dropped, {len(kept)} levels where {MAX_LEVELS} are allowed"
    others = present - int(times[kept].sum())
    own_missing = missing >= least
    grouped = others + (0 if own_missing else missing)
    levels = tuple(column.levels[code] for code in kept)
    step = Categorical(column.name, levels, other=grouped >= least, missing=own_missing)
    if len(step.outputs) < 2 and (not levels or count - int(times[kept].sum()) < least):
        return None, "dropped, constant"
    rare = distinct - len(kept)
    return step, f"{rare} rare levels grouped as other" if rare else ""
