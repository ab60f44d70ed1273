"""The fit: logistic regression from its sufficient statistic z. README, section 4.

    minimise  sum_i log(1 + exp(phi_i w + b)) - z w - z_0 b + (l2/2) |w|^2

This is plain penalised logistic regression: the labels enter its likelihood through z and z_0 alone. Damped
Newton; the Hessian is taken from a sample of the rows while that converges fast enough, the gradient always
from all of them, so the minimum is that of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocols.errors import LocalError
from protocols.lookalike.rows import BLOCK, F32, F64
from protocols.parallel import compiled, parallel_reordering, prange

#: Newton steps at the most; well posed fits take 6 to 12, nearly separable ones with a tiny l2 some 30.
MAX_STEPS = 200
#: Converged when the step's predicted gain falls below this; then |w - w*| < 1e-6 / sqrt(l2).
GAIN = 1e-12
#: Rounding of the loss, relative to its terms; a gain below it can't be seen.
ROUNDING = 1e-15
#: Rows of the sampled Hessian at the least, and a column.
SAMPLE_ROWS, SAMPLE_ROWS_PER_COLUMN = 1 << 16, 64
#: Rows of a block of the Gram matrix; with a hundred columns it stays in the second-level cache.
GRAM_ROWS = 256
#: Sweeps of the coordinate descent in one step with an l1 penalty, and what a coordinate's gain must reach.
SWEEPS, SWEEP_GAIN = 2000, 1e-14
#: Rows of a block when columns are streamed.
STREAM_ROWS = 1 << 16
#: Memory for the tasks' partial sums of the Gram matrix.
PARTS_BYTES = 1 << 28


@dataclass(frozen=True)
class Solution:
    """weights float64[d], intercept, Newton steps taken."""

    weights: F64
    intercept: float
    iterations: int


@parallel_reordering
def _evaluate(columns: F32, factors: F64, steps: F64, weights: F64, intercept: float) -> F64:
    """Partial sums a block: [loss, sum p, sum p phi_1, …], float64[blocks, d + 2].

    phi is quantised here exactly as it was for the linear query, so that z and the gradient speak of the same
    numbers: a rounding error that many rows share (a level's value) would otherwise not average out.
    """
    d, m = columns.shape
    blocks = (m + BLOCK - 1) // BLOCK
    out = np.zeros((blocks, d + 2), np.float64)
    for block in prange(blocks):
        start = block * BLOCK
        n = min(BLOCK, m - start)
        eta, scale = np.zeros(n, np.float64), factors[start : start + n]
        for j in range(d):
            w, inverse, values = weights[j] * steps[j], 1 / steps[j], columns[j, start : start + n]
            for i in range(n):
                eta[i] += w * np.rint(np.float64(values[i]) * inverse * scale[i])
        loss, total = 0.0, 0.0
        for i in range(n):
            x = eta[i] + intercept
            e = math.exp(-abs(x))
            loss += max(x, 0.0) + math.log1p(e)
            p = (1.0 if x >= 0 else e) / (1.0 + e)
            total += p
            eta[i] = p
        out[block, 0], out[block, 1] = loss, total
        for j in range(d):
            inverse, values = 1 / steps[j], columns[j, start : start + n]
            s = 0.0
            for i in range(n):
                s += eta[i] * np.rint(np.float64(values[i]) * inverse * scale[i])
            out[block, 2 + j] = s * steps[j]
    return out


@parallel_reordering
def _gram(columns: F32, factors: F64, weights: F64, intercept: float, starts: Any, tasks: int) -> F64:
    """Lower half of sum p (1 - p) (phi, 1)(phi, 1)^T over BLOCK rows from each of `starts`, a part a task.

    For the Hessian only, which need not see the quantisation. A loop of its own and not BLAS, whose threads
    wait for each other at every block and come to a standstill on a busy machine. float64[tasks, d+1, d+1].
    """
    d, m = columns.shape
    parts = np.zeros((tasks, d + 1, d + 1), np.float64)
    for task in prange(tasks):
        part = parts[task]
        scaled = np.empty((d + 1, GRAM_ROWS), np.float64)
        for index in range(task * (BLOCK // GRAM_ROWS), starts.shape[0] * (BLOCK // GRAM_ROWS)):
            block, piece = index // (BLOCK // GRAM_ROWS), index % (BLOCK // GRAM_ROWS)
            start = starts[block] + piece * GRAM_ROWS
            if block % tasks != task or start >= m:
                continue
            n = min(GRAM_ROWS, m - start)
            eta, scale = np.zeros(n, np.float64), factors[start : start + n]
            for j in range(d):
                w, values = weights[j], columns[j, start : start + n]
                for i in range(n):
                    eta[i] += w * np.float64(values[i])
            last = scaled[d]
            for i in range(n):
                x = eta[i] * scale[i] + intercept
                last[i] = math.exp(-0.5 * abs(x)) / (1.0 + math.exp(-abs(x)))
                eta[i] = last[i] * scale[i]
            for j in range(d):
                values, target = columns[j, start : start + n], scaled[j]
                for i in range(n):
                    target[i] = eta[i] * np.float64(values[i])
            for j in range(d + 1):
                left = scaled[j]
                for k in range(0, j - 2, 4):
                    r0, r1, r2, r3 = scaled[k], scaled[k + 1], scaled[k + 2], scaled[k + 3]
                    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
                    for i in range(n):
                        v = left[i]
                        s0 += v * r0[i]
                        s1 += v * r1[i]
                        s2 += v * r2[i]
                        s3 += v * r3[i]
                    part[j, k] += s0
                    part[j, k + 1] += s1
                    part[j, k + 2] += s2
                    part[j, k + 3] += s3
                for k in range((j + 1) // 4 * 4, j + 1):
                    right, s = scaled[k], 0.0
                    for i in range(n):
                        s += left[i] * right[i]
                    part[j, k] += s
    return parts


@parallel_reordering
def _scores(columns: F32, weights: F64, intercept: float, clip: float) -> F32:
    """phi w + b with rows clipped to `clip` (infinity: not), float32[m]."""
    d, m = columns.shape
    out = np.empty(m, np.float32)
    for block in prange((m + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        n = min(BLOCK, m - start)
        eta, squares = np.zeros(n, np.float64), np.zeros(n, np.float64)
        for j in range(d):
            w, values = weights[j], columns[j, start : start + n]
            for i in range(n):
                v = np.float64(values[i])
                eta[i] += w * v
                squares[i] += v * v
        for i in range(n):
            norm = math.sqrt(squares[i])
            factor = clip / norm * (1 - 1e-9) if norm > clip else 1.0
            out[start + i] = np.float32(eta[i] * factor + intercept)
    return out


@dataclass(frozen=True)
class _Value:
    """Loss and gradient at a point; `size` is that of the loss's terms, which decides its rounding."""

    loss: float
    gradient: F64
    size: float


class _Objective:
    """Loss, gradient and Hessian at (w, b), in one vector [w, b] of d + 1 entries."""

    def __init__(self, phi: F32, factors: F64, steps: F64, z: F64, l2: float) -> None:
        self._columns, self._factors, self._steps, self._z = phi.T, factors, steps, z
        self.penalty = np.append(np.full(phi.shape[1], l2), 0.0)
        self.shape = phi.shape[::-1]
        blocks = -(-phi.shape[0] // BLOCK)
        self._all = np.arange(blocks, dtype=np.int64) * BLOCK
        wanted = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_COLUMN * phi.shape[1]) // BLOCK
        self.stride = max(1, blocks // wanted)

    def value(self, x: F64) -> _Value:
        sums = _evaluate(self._columns, self._factors, self._steps, x[:-1], float(x[-1])).sum(axis=0)
        gradient = np.append(sums[2:], sums[1]) - self._z + self.penalty * x
        linear, penalty = float(self._z @ x), 0.5 * float((self.penalty * x) @ x)
        return _Value(float(sums[0]) - linear + penalty, gradient, float(sums[0]) + abs(linear) + penalty)

    def hessian(self, x: F64, stride: int) -> F64:
        """From every stride-th block of rows, scaled to all."""
        d, m = self._columns.shape
        starts = np.ascontiguousarray(self._all[::stride])  # one form of the kernel for every stride
        tasks = max(1, min(16, PARTS_BYTES // (8 * (d + 1) ** 2)))
        parts = _gram(self._columns, self._factors, x[:-1], float(x[-1]), starts, tasks)
        half = parts.sum(axis=0)
        gram = half + np.tril(half, -1).T
        rows = int(np.minimum(m - starts, BLOCK).sum())
        return np.asarray(gram * (m / rows) + np.diag(self.penalty))


#: Columns up to which numpy solves a triangular system well enough, though it takes it for a general one:
#: importing scipy.linalg takes 0.2 s.
_NUMPY = 300


def _solved(lower: F64, right: F64) -> F64:
    """(L L')^-1 b."""
    if len(lower) <= _NUMPY:
        return np.asarray(np.linalg.solve(lower.T, np.linalg.solve(lower, right)))
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((lower, True), right))


def _direction(hessian: F64, gradient: F64) -> F64:
    """-H^-1 g by Cholesky, in units that make H's diagonal one; the least jitter that makes H positive."""
    scale = 1 / np.sqrt(np.maximum(np.diag(hessian), 1e-12))
    unit = hessian * scale[:, None] * scale[None, :]
    for jitter in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        try:
            factor: F64 = np.linalg.cholesky(unit + jitter * np.eye(len(unit)))  # type: ignore[assignment]
        except np.linalg.LinAlgError:
            continue
        return np.asarray(-scale * _solved(factor, scale * gradient))
    raise LocalError("lookalike.fit", "the Hessian is not positive; check the features for extreme values")


@compiled
def _descend(hessian: F64, gradient: F64, x: F64, l1: float, sweeps: int, least: float) -> F64:
    """The step s that minimises g s + s H s / 2 + l1 |x + s|_1 by coordinate descent; the last entry of
    x, the
    intercept, has no penalty. float64[d + 1].
    """
    n = len(gradient)
    step, slope = np.zeros(n, np.float64), gradient.copy()
    for _ in range(sweeps):
        most = 0.0
        for j in range(n):
            curve, old = hessian[j, j], x[j] + step[j]
            aim, pull = old - slope[j] / curve, (l1 / curve if j < n - 1 else 0.0)
            new = aim - pull if aim > pull else (aim + pull if aim < -pull else 0.0)
            change = new - old
            if change != 0.0:
                step[j] += change
                for k in range(n):
                    slope[k] += change * hessian[j, k]
                most = max(most, change * change * curve)
        if most <= least:
            break
    return step


def _sparse(objective: _Objective, x: F64, l1: float) -> Solution:
    """The minimum with l1 |w|_1 added, from x: proximal Newton steps (Lee, Sun, Saunders 2014),
    shortened until
    they gain what they promise; the gradient is of all rows, the Hessian's sample grows when steps gain
    little.
    """
    at, stride, damping = objective.value(x), objective.stride, 0.0
    hessian, last = objective.hessian(x, stride), math.inf
    unit = np.diag(np.diag(objective.hessian(np.zeros(len(x)), stride)))
    for number in range(MAX_STEPS):
        curved = hessian + damping * unit
        step = _descend(curved, at.gradient, x, l1, SWEEPS, SWEEP_GAIN)
        norm = l1 * float(np.abs(x[:-1]).sum())
        promised = float(at.gradient @ step) + l1 * float(np.abs(x[:-1] + step[:-1]).sum()) - norm
        if -promised <= max(GAIN, ROUNDING * (at.size + norm)):
            if damping <= 1e-6:
                return Solution(x[:-1].copy(), float(x[-1]), number)
            damping /= 100
            continue
        length, moved = 1.0, False
        while length > 1e-4 and not moved:
            there = x + length * step
            trial = objective.value(there)
            total = trial.loss + l1 * float(np.abs(there[:-1]).sum())
            slack = 10 * ROUNDING * (at.size + norm)
            moved = total <= at.loss + norm + 1e-4 * length * promised + slack
            length /= 2
        if not moved:
            damping = max(10 * damping, 1e-4)
            continue
        damping = damping / 10 if damping > 1e-12 else 0.0
        if -promised > 0.1 * last and last < 1 and stride > 1:
            stride = max(1, stride // 8)
        x, at, last = there, trial, -promised
        hessian = objective.hessian(x, stride)
    raise _not_converged(objective)


def _not_converged(objective: _Objective) -> LocalError:
    d, m = objective.shape
    return LocalError(
        "lookalike.fit",
        f"no convergence in {MAX_STEPS} steps on {m} rows and {d} columns; raise l2 or rescale the columns",
    )


def fit(phi: F32, factors: F64, steps: F64, z: F64, z0: float, l2: float, l1: float = 0.0) -> Solution:
    """The minimum above, with l1 |w|_1 added; phi float32[m, d] in Fortran order, z float64[d].

    phi_ij stands for steps_j * round(factors_i * phi_ij / steps_j): factors float64[m] clip the rows (ones
    leave them), steps float64[d] are the quanta that z was summed in.

    Noise can make z_0 impossible; it is brought into [1/2, m - 1/2], which costs no privacy and keeps the
    minimum finite (README 4.3). Raises LocalError `lookalike.fit` when it does not converge.
    """
    m, d = phi.shape
    z0 = min(max(z0, 0.5), m - 0.5)
    objective = _Objective(phi, factors, steps, np.append(z, z0), l2)
    x = np.zeros(d + 1)
    x[-1] = math.log(z0 / (m - z0))
    if l1 > 0:
        return _sparse(objective, x, l1)
    at = objective.value(x)
    stride, fresh, damping, last_gain = objective.stride, True, 0.0, math.inf
    hessian = objective.hessian(x, stride)
    # Where all rows are saturated the Hessian says nothing about the intercept; the damping is in its stead,
    # in units of the largest Hessian that there can be (Levenberg and Marquardt).
    unit = np.diag(objective.hessian(np.zeros(d + 1), stride))
    for step in range(MAX_STEPS):
        direction = _direction(hessian + np.diag(damping * unit), at.gradient)
        gain = -float(at.gradient @ direction)
        if gain <= max(GAIN, ROUNDING * at.size):
            if damping <= 1e-6:
                return Solution(x[:-1].copy(), float(x[-1]), step)
            damping /= 100
            continue
        predicted = gain - 0.5 * float(direction @ hessian @ direction)
        trial = objective.value(x + direction)
        actual = at.loss - trial.loss + 10 * ROUNDING * at.size
        taken = actual >= 1e-4 * predicted
        if actual < 0.25 * predicted or not taken:  # also when the trial's loss is not a number
            damping = max(10 * damping, 1e-4)
        elif actual > 0.75 * predicted:
            damping = damping / 10 if damping > 1e-12 else 0.0
        slow = not taken or gain > 0.1 * last_gain
        # Near the minimum (gain below 1) a step with a good Hessian gains orders of magnitude. A sampled one
        # that doesn't is taken from more rows; a good one is kept as long as it does.
        finer = stride > 1 and slow and last_gain < 1
        if finer:
            stride = max(1, stride // 8)
        if taken:
            x, at, last_gain = x + direction, trial, gain
        if finer or (taken and (slow or gain >= 1)) or not (taken or fresh):
            hessian, fresh = objective.hessian(x, stride), True
        else:
            fresh = fresh and not taken
    raise _not_converged(objective)


def scores(phi: F32, weights: F64, intercept: float, clip: float | None) -> F32:
    return _scores(phi.T, weights, intercept, math.inf if clip is None else clip)


def streamed(columns: Iterable[F32], rows: int, weights: F64, intercept: float, clip: float | None) -> F32:
    """`scores` from one column after the other (float32[rows] each, d of them): memory of a few columns."""
    eta, squares = np.zeros(rows), np.zeros(rows)
    for w, values in zip(weights, columns, strict=True):
        for start in range(0, rows, STREAM_ROWS):
            v = values[start : start + STREAM_ROWS].astype(np.float64)
            eta[start : start + STREAM_ROWS] += w * v
            if clip is not None:
                squares[start : start + STREAM_ROWS] += v * v
    if clip is not None:
        norm = np.sqrt(squares, out=squares)
        far = norm > clip
        eta[far] *= clip / norm[far] * (1 - 1e-9)
    eta += intercept
    return eta.astype(np.float32)
