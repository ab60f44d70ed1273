"""The brand: labels, its own columns, and the course of the fit. README sections 3 and 5.

States: WaitShape, then for the curvature and for each gradient the linear queries' with WaitSpread,
WaitScale and WaitProducts between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.joint import expansion as means
from protocols.joint import kernels, local, messages
from protocols.joint.exchange import Held, Rng, WaitScale, hold
from protocols.joint.kernels import F32, F64
from protocols.joint.messages import CURVATURE, END, GRADIENT, TO_BRAND, TO_PROVIDER
from protocols.joint.metric import Metric, floored, renewed, second_moments
from protocols.joint.mixing import History, Mix, Mixer
from protocols.joint.terms import (
    LEVEL_EVENTS_PER_COLUMN,
    LEVEL_NEAR,
    LEVEL_ROWS,
    LEVEL_STEPS,
    Scales,
    Terms,
    levels,
    padded,
    query_session,
    renews,
    scales,
    terms_digest,
)
from protocols.machine import Done, Machine, Step
from protocols.security import ROWS_PER_COLUMN


@dataclass(frozen=True)
class BrandResult:
    """The brand's part of the model.

    weights, intercept  of its own columns: float64[d]. A row's score is `score(own part, provider's part)`
    scale, offset       a linear model's labels were standardised by these
    steps               gradients that were taken
    sizes               squared steps in the metric, one a gradient: how far from the minimum
    converged           whether it ended at the minimum, and not because no more gradients were agreed
    columns             the provider's number of columns
    """

    weights: F64
    intercept: float
    scale: float
    offset: float
    steps: int
    sizes: tuple[float, ...] = field(repr=False)
    converged: bool
    columns: int

    def score(self, columns: F32, provider_part: F64) -> F64:
        """Linear predictor of rows, float64[n]: columns float32[n, d] of the brand's, the provider's part."""
        return np.asarray(self.offset + self.scale * (self.own(columns) + provider_part))

    def own(self, columns: F32) -> F64:
        """The brand's part of the linear predictor, float64[n]; quickest in Fortran order."""
        return kernels.scores(np.ascontiguousarray(columns.T), self.weights, len(columns)) + self.intercept


class Brand(Machine[BrandResult]):
    """rows: int64[n], distinct rows of the provider's; columns: float32[n, d], finite; labels: float64[n].

    Logistic labels are 0 and 1, both present; Poisson labels are counts. Raises LocalError `joint.rows` when
    the rows are fewer than agreed, `joint.labels` for labels that the family can't have. Progress is that
    of the linear query at work.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.float32],
        labels: npt.NDArray[np.float64],
        total: int,
        session: bytes,
        terms: Terms,
        rng: Rng,
    ) -> None:
        n = len(rows)
        if columns.ndim != 2 or columns.dtype != np.float32 or len(columns) != n or labels.shape != (n,):
            raise LocalError(
                "protocol.argument",
                f"{n} rows, columns {columns.dtype}{columns.shape}, labels {labels.shape}",
            )
        if not 1 <= total <= terms.max_rows or columns.shape[1] > terms.max_columns:
            raise LocalError("protocol.argument", f"{total} rows and {columns.shape[1]} columns; too many")
        order = np.argsort(rows, kind="stable")
        rows = np.asarray(rows, np.int64)[order]
        if n and (rows[0] < 0 or rows[-1] >= total or bool((np.diff(rows) == 0).any())):
            raise LocalError("protocol.argument", f"rows must be distinct and from 0 to {total - 1}")
        if n < terms.minimum_rows:
            raise LocalError(
                "joint.rows", f"{n} labelled rows that both sides have, {terms.minimum_rows} are agreed"
            )
        if not np.isfinite(columns).all():
            raise LocalError("protocol.argument", "missing or infinite values in a column; fill them first")
        _check_labels(labels, terms.family)
        run = _Run(
            Held(rows, total), np.ascontiguousarray(columns[order].T), labels[order], session, terms, rng
        )
        super().__init__(run.opening())


def _check_labels(labels: F64, family: str) -> None:
    if not np.isfinite(labels).all():
        raise LocalError("joint.labels", "a label is missing or infinite; leave its row out")
    if family == "logistic" and set(np.unique(labels)) != {0.0, 1.0}:
        raise LocalError("joint.labels", "logistic labels must be 0 and 1, and both must occur")
    if family == "poisson" and (bool((labels < 0).any()) or not labels.any()):
        raise LocalError("joint.labels", "Poisson labels are counts: none below 0, not all 0")
    if family == "linear" and float(np.std(labels)) <= 1e-12 * float(np.abs(labels).max()):
        raise LocalError("joint.labels", "all labels are equal; there is nothing to fit")


class _Run:
    """Everything that the brand's states share."""

    def __init__(self, held: Held, columns: F32, labels: F64, session: bytes, terms: Terms, rng: Rng) -> None:
        self.held, self.session, self.terms, self.rng = held, session, terms, rng
        n = len(labels)
        self.columns = np.concatenate([columns, np.ones((1, n), np.float32)])
        self.offset, self.scale = 0.0, 1.0
        if terms.family == "linear":
            self.offset, self.scale = float(labels.mean()), float(labels.std())
        self.labels = (labels - self.offset) / self.scale
        average = float(self.labels.mean())
        at = np.zeros(len(self.columns))
        if terms.family == "logistic":
            at[-1] = math.log(average / (1 - average))
        elif terms.family == "poisson":
            at[-1] = math.log(average)
        penalty = np.full(len(self.columns), terms.l2)
        penalty[-1] = 0.0
        self.penalty = penalty
        at = local.start(self.columns, self.labels, terms.family, penalty, at)
        found = means.mean(terms.family)(kernels.scores(self.columns, at, n))
        self.curvature = floored(local.slope(found, terms.family))
        self.metric = Metric(n * second_moments(self.columns, self.curvature), penalty)
        self.largest = kernels.largest_of(self.columns)
        self.history, self.mixer = History(at), Mixer()
        self.theirs, self.taken = 0, 0
        self.padded = padded(n)
        self.most_steps = terms.steps_for(held.total)
        self.rank = terms.rank_for(held.total)
        #: Gradients are taken over the first rows of the provider's, more of them level after level.
        self.levels: tuple[int, ...] = (held.total,)
        self.level, self.taken_here, self.again = 0, 0, False
        self.found: means.Expansion | None = None
        self.here = held

    def opening(self) -> Step[BrandResult]:
        own = len(self.columns) - 1
        opening = messages.Opening(
            terms_digest(self.terms, self.session),  # type: ignore[arg-type]
            self.held.total,  # type: ignore[arg-type]
            self.padded,  # type: ignore[arg-type]
            own,  # type: ignore[arg-type]
        )
        return Step((TO_PROVIDER.encode(opening),), WaitShape(self))

    def begin(self, columns: int) -> Step[BrandResult]:
        self.theirs = columns
        wider = max(columns, len(self.columns))
        # No more sums than unknown labels, however many steps are agreed (README 6).
        self.most_steps = max(2, min(self.most_steps, len(self.labels) // wider))
        small, linear = self.terms.size_for(self.held.total), self.terms.family == "linear"
        self.mixer = Mixer(small * self.weights, self.terms.exact, linear)
        self.levels = levels(self.held.total, self.padded, wider)
        self.enter(next(k for k in range(len(self.levels)) if self.enough(k)))
        point = messages.Point(CURVATURE, self.level, b"", 0, 0, 0)  # type: ignore[arg-type]
        return hold(
            TO_PROVIDER.encode(point),
            True,
            self.scales(1, columns),
            self.curvature[None, : len(self.here.rows)],
            self.here,
            query_session(self.session, "curvature", 0),
            self.rng,
            self._with_curvature,
        )

    @property
    def weights(self) -> int:
        """Number of weights of both sides together, with the intercept."""
        return self.theirs + len(self.columns)

    def enough(self, level: int) -> bool:
        """Whether the training rows of a level, and what happens in them, are enough to begin with."""
        if level == len(self.levels) - 1:
            return True
        y = self.labels[: len(self.held.first(self.levels[level]).rows)]
        events = len(y)
        if self.terms.family != "linear":
            events = int(np.count_nonzero(y))
        if self.terms.family == "logistic":
            events = min(events, len(y) - events)
        return 2 * len(y) >= LEVEL_ROWS and events >= LEVEL_EVENTS_PER_COLUMN * self.weights

    def enter(self, level: int) -> None:
        self.level, self.taken_here = level, 0
        self.here = self.held.first(self.levels[level])

    def scales(self, vectors: int, queries: int, sparse_queries: bool = False) -> Scales:
        counted = min(self.padded, self.here.total)
        return scales(vectors, self.here.total, queries, counted, sparse_queries)

    def _with_curvature(self, masked: bytes) -> Step[BrandResult]:
        following = self.next_point(None)
        return Step(chain((masked,), following.send), following.then, following.progress)

    def next_point(self, mix: Mix | None) -> Step[BrandResult]:
        """Say where the next gradient is taken, or that this was the last one; None: where it was."""
        said = b"" if mix is None else messages.pack(np.append(mix.weights, mix.length))
        if mix is not None:
            self.history.move(mix)
        last = self.level == len(self.levels) - 1
        if mix is not None and last and (self.taken_here >= self.most_steps or self.mixer.converged):
            end = messages.Point(END, self.level, said, 0, 0, 0)  # type: ignore[arg-type]
            return Step((TO_PROVIDER.encode(end),), Done(self.result()))
        self.again = mix is None and self.taken > 0
        scores = kernels.scores(self.columns, self.history.at, len(self.here.rows))
        middle = means.location_index(means.middle(scores))
        wide = means.spread_indices(scores - means.location(middle))
        if not self.taken:
            return self.first_gradient(scores, middle, wide)
        point = messages.Point(GRADIENT, self.level, said, middle, *wide)  # type: ignore[arg-type]
        return Step((TO_PROVIDER.encode(point),), WaitSpread(self, scores, middle, wide))

    def result(self) -> BrandResult:
        at = self.history.at
        return BrandResult(
            weights=at[:-1].copy(),
            intercept=float(at[-1]),
            scale=self.scale,
            offset=self.offset,
            steps=self.taken,
            sizes=tuple(self.mixer.sizes),
            converged=self.mixer.converged,
            columns=self.theirs,
        )

    def first_gradient(self, scores: F64, middle: int, wide: tuple[int, int]) -> Step[BrandResult]:
        """The provider's part is still 0: one vector gives its gradient, and the own one needs no query."""
        residual = means.mean(self.terms.family)(scores) - self.labels[: len(scores)]
        point = messages.Point(GRADIENT, self.level, b"", middle, *wide)  # type: ignore[arg-type]

        def then(masked: bytes) -> Step[BrandResult]:
            return Step((masked,), WaitProducts(self, kernels.dots(self.columns, residual)))

        return hold(
            TO_PROVIDER.encode(point),
            True,
            self.scales(1, self.theirs),
            residual[None, :],
            self.here,
            query_session(self.session, "provider's gradient", 0),
            self.rng,
            then,
        )

    def gradient(
        self, scores: F64, middle: int, wide: tuple[int, int], theirs: tuple[int, int]
    ) -> Step[BrandResult]:
        """Hold phi_k (the label taken off the first one), then ask with phi_k times the own columns."""
        found = self.found = means.expansion(self.terms.family, self.rank, middle, wide, theirs)
        phi = found.of_brand(scores)
        use = query_session(self.session, "provider's gradient", self.taken)
        phi[0] -= self.labels[: len(scores)]  # the queries need the others only

        def then(masked: bytes) -> Step[BrandResult]:
            # psi_1 = 1: its part, and the labels', the brand sums on its own.
            known = kernels.dots(self.columns, phi[0])

            def asked(sums: F64) -> Step[BrandResult]:
                return Step((), WaitProducts(self, sums + known))

            state = WaitScale(
                False,
                self.scales(self.rank - 1, len(self.columns), sparse_queries=True),
                phi[1:],
                self.columns,
                self.largest,
                self.here,
                query_session(self.session, "brand's gradient", self.taken),
                self.rng,
                asked,
            )
            return Step((masked,), state)

        return hold(None, True, self.scales(self.rank, self.theirs), phi, self.here, use, self.rng, then)

    def add(self, sums: F64, products: Callable[[int], F64]) -> Step[BrandResult]:
        part = self.held.total / self.here.total
        gradient = part * sums + self.penalty * self.history.at
        self.taken, self.taken_here = self.taken + 1, self.taken_here + 1
        if self.again:
            self.history.again(gradient)
        else:
            own = self.history.add(gradient, self.metric)
        if self.again or renews(self.terms.family, self.taken):
            self.renew(sums)
            own = self.history.renew(self.metric)
            mix = self.mixer.choose_among(own + products(own.size).reshape(own.shape))
        else:
            mix = self.mixer.choose(own + products(len(own)))
        if self.level < len(self.levels) - 1:
            # Nearer than the sample is to all rows: the rest is for the next level.
            near = self.mixer.sizes[-1] <= LEVEL_NEAR * self.weights * part
            if near or self.taken_here >= LEVEL_STEPS:
                self.enter(self.level + 1)
                return self.next_point(None)
        return self.next_point(mix)

    def renew(self, sums: F64) -> None:
        """The metric at the point where the gradient has just been taken."""
        if self.found is None or self.terms.family == "linear":
            return
        factor = float(len(self.labels))
        if self.terms.family == "poisson":
            # The intercept's gradient says what the expected counts add up to, and so by what the provider's
            # part multiplies the own ones.
            n = len(self.here.rows)
            own = self.found.slope_of_brand(kernels.scores(self.columns, self.history.at, n))
            factor *= max(float(sums[-1] + self.labels[:n].sum()), 1e-3 * float(own.sum())) / float(own.sum())
        self.metric = Metric(
            factor * renewed(self.columns, self.history.at, self.found.slope_of_brand), self.penalty
        )


class WaitShape:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[BrandResult]:
        run = self._run
        shape = TO_BRAND.decode(message, messages.Shape)
        if shape.digest != terms_digest(run.terms, run.session):
            # The provider could otherwise be answered under weaker terms than this side signed.
            raise PeerError("protocol.binding", "the provider holds other terms or another session")
        if not 1 <= shape.columns <= run.terms.max_columns:
            raise PeerError(
                "protocol.too_large",
                f"{shape.columns} columns announced, 1 to {run.terms.max_columns} agreed",
            )
        n, d = len(run.labels), max(shape.columns, len(run.columns))
        if n < ROWS_PER_COLUMN * d:
            raise LocalError(
                "joint.rows",
                f"{n} labelled rows for {d} columns of one side; {ROWS_PER_COLUMN} rows a column are needed: "
                "use more rows or fewer columns",
            )
        return run.begin(shape.columns)


class WaitSpread:
    def __init__(self, run: _Run, scores: F64, middle: int, wide: tuple[int, int]) -> None:
        self._run, self._scores, self._middle, self._wide = run, scores, middle, wide

    def receive(self, message: bytes) -> Step[BrandResult]:
        said = TO_BRAND.decode(message, messages.Spread)
        if max(said.below, said.above) >= means.SPREADS:
            raise PeerError(
                "protocol.malformed",
                f"spreads {said.below}, {said.above}; {means.SPREADS - 1} is the largest",
            )
        return self._run.gradient(self._scores, self._middle, self._wide, (said.below, said.above))


class WaitProducts:
    def __init__(self, run: _Run, sums: F64) -> None:
        self._run, self._sums = run, sums

    def receive(self, message: bytes) -> Step[BrandResult]:
        data = TO_BRAND.decode(message, messages.Products).values
        return self._run.add(self._sums, lambda count: messages.floats(data, count))
