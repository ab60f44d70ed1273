"""The brand's own weights after a joint fit: fitted once more with every level, given the provider's part.

A joint fit groups rare levels and leaves columns out, as each sum of its gradients would speak of few
people of the provider. Once the brand has the provider's part of its people's scores it needs none of these
sums: all that is left is a convex fit of own columns to own labels, with that part as an offset. Nothing is
sent.

Levels are positions in a table and no columns, so their number costs no memory. Newton's method, each step by
conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parties import column_texts, features
from parties.gate import Column

#: Newton steps, and steps of conjugate gradients within one, at the most.
MOST_STEPS, MOST_WITHIN = 30, 300
#: It ends at a squared step in the metric of the information that is this small; 1: a standard error.
NEAR = 1e-6
#: Part of the gradient that a Newton step may leave; the least curvature of a row, a part of the average.
LEFT, FLOOR = 1e-2, 1e-3


@dataclass(frozen=True)
class OwnPart:
    """The brand's side of a model. `people` who have a level or a number, of each of `weights` in turn."""

    plan: features.Plan
    weights: dict[str, float]
    intercept: float
    people: tuple[int, ...] = field(repr=False)
    own: np.ndarray = field(repr=False)


class _Block:
    """What one step of a plan makes of a column: float32 columns, or positions in a table of weights."""

    def __init__(self, step: features.Step, column: Column) -> None:
        n, self.size = len(column.values), len(step.outputs)
        self.table = isinstance(step, features.Categorical)
        if isinstance(step, features.Categorical):
            self.at = step.positions(column) + 1  # 0 has no weight
            return
        self.columns = [np.empty(n, dtype=np.float32) for _ in step.outputs]
        step.fill(column, self.columns)

    def take(self, rows: np.ndarray) -> _Block:
        out = object.__new__(_Block)
        out.size, out.table = self.size, self.table
        if self.table:
            out.at = self.at[rows]
        else:
            out.columns = [column[rows] for column in self.columns]
        return out

    def forward(self, weights: np.ndarray, out: np.ndarray) -> None:
        """Add the columns times their weights to out float64[n]."""
        if self.table:
            out += np.append(0.0, weights)[self.at]
        else:
            for weight, column in zip(weights, self.columns, strict=True):
                out += weight * column.astype(np.float64)

    def back(self, rows: np.ndarray, power: int = 1) -> np.ndarray:
        """The sum over the rows of each column, to that power, times `rows`: float64[size]."""
        if self.table:
            return np.bincount(self.at, rows, minlength=self.size + 1)[1:]
        return np.array([rows @ column.astype(np.float64) ** power for column in self.columns])


class _Design:
    """All own columns and the constant 1, which comes last."""

    def __init__(self, blocks: Sequence[_Block], rows: int) -> None:
        self.blocks, self.rows = blocks, rows
        self.ends = np.cumsum([0, *(block.size for block in blocks)])

    def forward(self, weights: np.ndarray) -> np.ndarray:
        out = np.full(self.rows, weights[-1], dtype=np.float64)
        for block, start, end in zip(self.blocks, self.ends, self.ends[1:], strict=False):
            block.forward(weights[start:end], out)
        return out

    def back(self, rows: np.ndarray, power: int = 1) -> np.ndarray:
        return np.concatenate([*(block.back(rows, power) for block in self.blocks), [rows.sum()]])


def settle(
    columns: Iterable[Column],
    rows: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    family: str,
    l2: float,
    start: Mapping[str, float],
) -> OwnPart | None:
    """Own weights given `offset`, what the provider's part adds to the score of each of `rows`.

    columns  of all own people, as a view reads them; rows: int64[n], positions among them of those of the fit
    labels   float64[n], of a linear model standardised as the joint fit had them
    start    weights by name to begin with, of the joint fit; only the time depends on them

    None when no column is left. `own` of the result is float64 of all own people.
    """
    found: list[tuple[str, features.Step | None, str]] = []
    blocks: list[_Block] = []
    people = 0
    for read in columns:
        column = column_texts.measured(read)
        people = len(column.values) if column.kind != "unsupported" else people
        name, step, note = features.every(column.take(rows))
        if step is not None and sum(block.size for block in blocks) + len(step.outputs) > features.MAX_OWN:
            step, note = None, f"dropped, with it there were more than {features.MAX_OWN} weights"
        found.append((name, step, note))
        if step is not None:
            blocks.append(_Block(step, features.matching(step, read)))
    if not blocks:
        return None
    steps = tuple(step for _, step, _ in found if step is not None)
    plan = features.Plan(steps, tuple(f"{name}: {note}" for name, _, note in found if note))
    names = [name for step in steps for name in step.outputs]
    begin = [start.get(n, start.get(f"{s.name}=other", 0.0)) for s in steps for n in s.outputs]
    design = _Design([block.take(rows) for block in blocks], len(rows))
    at = np.append(begin, start.get("", 0.0)).astype(np.float64)
    at = _newton(design, labels, offset, family, l2, at)
    ones = design.back(np.ones(len(rows)), 0)[:-1].astype(np.int64).tolist()
    weights = dict(zip(names, at[:-1].tolist(), strict=True))
    return OwnPart(plan, weights, float(at[-1]), tuple(ones), _Design(blocks, people).forward(at))


def part(
    plan: features.Plan, columns: Iterable[Column], people: int, weights: Mapping[str, float]
) -> np.ndarray:
    """The plan's columns of Φ times their weights, float64[people]; `columns` as a view reads `plan.used`."""
    out = np.zeros(people)
    own = np.zeros(sum(len(step.outputs) for step in plan.steps))
    own[slice(None) if plan.kept is None else list(plan.kept)] = features.weights_of(plan, weights)
    start = 0
    for step, read in zip(plan.steps, columns, strict=True):
        block = _Block(step, features.matching(step, read))
        block.forward(own[start : start + block.size], out)
        start += block.size
    return out


def _newton(
    design: _Design, labels: np.ndarray, offset: np.ndarray, family: str, l2: float, at: np.ndarray
) -> np.ndarray:
    """The minimum of the penalised negative log-likelihood; no step makes it worse."""
    penalty = np.append(np.full(len(at) - 1, l2), 0.0)

    def loss(eta: np.ndarray, weights: np.ndarray) -> float:
        return float(np.sum(_whole(eta, family) - labels * eta) + 0.5 * (penalty * weights) @ weights)

    eta = offset + design.forward(at)
    least = loss(eta, at)
    for _ in range(MOST_STEPS):
        expected = _mean(eta, family)
        gradient = design.back(expected - labels) + penalty * at
        curvature = _slope(expected, family)
        curvature = np.maximum(curvature, FLOOR * max(float(curvature.mean()), 1e-12))
        step = _conjugate(design, curvature, penalty, -gradient)
        size, length = -float(gradient @ step), 1.0
        further = design.forward(step)
        while not (better := loss(eta + length * further, at + length * step)) <= least and length > 1e-6:
            length /= 2
        if not better <= least:
            break
        at, eta, least = at + length * step, eta + length * further, better
        if size < NEAR:
            break
    return at


def _conjugate(design: _Design, curvature: np.ndarray, penalty: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(X'diag(curvature)X + diag(penalty)) solution = right, preconditioned by its diagonal."""
    diagonal = np.maximum(design.back(curvature, 2) + penalty, 1e-12)
    found, rest = np.zeros_like(right), right.copy()
    scaled = rest / diagonal
    direction, size = scaled, float(rest @ scaled)
    end = LEFT**2 * size
    for _ in range(MOST_WITHIN):
        if size <= end or size <= 1e-300:
            break
        turned = design.back(curvature * design.forward(direction)) + penalty * direction
        along = size / float(direction @ turned)
        found, rest = found + along * direction, rest - along * turned
        scaled = rest / diagonal
        size, before = float(rest @ scaled), size
        direction = scaled + size / before * direction
    return found


def _mean(eta: np.ndarray, family: str) -> np.ndarray:
    if family == "linear":
        return eta
    if family == "poisson":
        return np.asarray(np.exp(np.minimum(eta, 50.0)))
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * eta)))


def _slope(expected: np.ndarray, family: str) -> np.ndarray:
    if family == "logistic":
        return np.asarray(expected * (1 - expected))
    return expected if family == "poisson" else np.ones_like(expected)


def _whole(eta: np.ndarray, family: str) -> np.ndarray:
    """What the mean is the derivative of."""
    if family == "logistic":
        return np.asarray(np.logaddexp(0.0, eta))
    return eta * eta / 2 if family == "linear" else _mean(eta, family)
