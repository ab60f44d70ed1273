"""The provider: its own columns, and no idea of who matched. README sections 3 and 5.

States: WaitOpening, WaitPoint, and between two points those of the linear queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.joint import expansion as means
from protocols.joint import kernels, messages
from protocols.joint.exchange import Held, Rng, WaitScale, hold
from protocols.joint.kernels import F32, F64
from protocols.joint.messages import CURVATURE, END, GRADIENT, TO_BRAND, TO_PROVIDER
from protocols.joint.metric import Metric, renewed, second_moments, with_diagonal
from protocols.joint.mixing import History, Mix
from protocols.joint.terms import (
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
from protocols.lookalike.features import refuse_rare
from protocols.machine import Done, Machine, Step
from protocols.security import ROWS_PER_COLUMN


@dataclass(frozen=True)
class ProviderResult:
    """The provider's part of the model.

    weights      float64[d], of its columns as they were given
    steps        gradients that were taken
    padded_rows  training rows, as the brand announced them
    """

    weights: F64
    steps: int
    padded_rows: int

    def part(self, columns: npt.NDArray[np.float32]) -> F64:
        """The provider's part of the linear predictor of rows: columns float32[m, d] to float64[m]."""
        return kernels.scores(np.ascontiguousarray(columns.T), self.weights, len(columns))


class Provider(Machine[ProviderResult]):
    """columns: float32[m, d], finite, best in Fortran order (another costs a copy); names: one a column.

    Raises LocalError `joint.columns` when a level is too rare. Progress is that of the linear query at work.
    """

    def __init__(
        self,
        columns: npt.NDArray[np.float32],
        names: Sequence[str],
        session: bytes,
        terms: Terms,
        rng: Rng,
    ) -> None:
        if columns.ndim != 2 or columns.dtype != np.float32 or columns.shape[1] != len(names):
            raise LocalError(
                "protocol.argument",
                f"columns are {columns.dtype}{columns.shape} with {len(names)} names; float32[m, d] is due",
            )
        m, d = columns.shape
        if not (1 <= m <= terms.max_rows and 1 <= d <= terms.max_columns):
            raise LocalError("protocol.argument", f"{m} rows and {d} columns; none, or too many")
        columns = np.asfortranarray(columns)
        finite = np.isfinite(kernels.largest_of(columns.T))
        if not finite.all():
            name = names[int(np.argmin(finite))]
            raise LocalError(
                "protocol.argument", f"missing or infinite values in column {name!r}; fill them first"
            )
        refuse_rare(
            columns, names, terms.minimum_level, "joint.columns", "drop the column or merge its level"
        )
        run = _Run(columns.T, session, terms, rng)
        super().__init__(Step((), WaitOpening(run)))


class _Run:
    """Everything that the provider's states share."""

    def __init__(self, columns: F32, session: bytes, terms: Terms, rng: Rng) -> None:
        self.columns, self.session, self.terms, self.rng = columns, session, terms, rng
        d, m = columns.shape
        self.held = Held(np.arange(m, dtype=np.int64), m)
        self.here = self.held
        self.largest = kernels.largest_of(columns)
        self.penalty = np.full(d, terms.l2)
        self.history = History(np.zeros(d))
        self.metric: Metric | None = None
        self.rank, self.most_steps = terms.rank_for(m), terms.steps_for(m)
        self.padded, self.theirs, self.taken = 0, 0, 0
        self.levels: tuple[int, ...] = (m,)
        self.level, self.taken_here = 0, 0
        #: Curvature of each column over the rows of the fit at the start, by its square over all rows.
        self.matched: F64 = np.ones(d)
        self.at_start = 1.0
        self.found: means.Expansion | None = None

    def begin(self, padded_rows: int, theirs: int) -> None:
        self.padded, self.theirs = padded_rows, theirs
        self.levels = levels(self.held.total, padded_rows, max(len(self.columns), theirs + 1))

    def enter(self, level: int) -> None:
        self.level, self.taken_here = level, 0
        self.here = self.held.first(self.levels[level])

    def scales(self, vectors: int, queries: int, sparse_queries: bool = False) -> Scales:
        counted = min(self.padded, self.here.total)
        return scales(vectors, self.here.total, queries, counted, sparse_queries)

    def curvature(self) -> Step[ProviderResult]:
        """Learn each column's curvature over the training rows; correlations are those of all rows."""

        def then(diagonal: F64) -> Step[ProviderResult]:
            whole = diagonal * (self.held.total / self.here.total)
            every = second_moments(self.columns)
            own = np.diag(every)
            self.matched = np.maximum(whole, 0.0) / np.where(own > 0, own, 1.0)
            self.metric = Metric(with_diagonal(every, whole), self.penalty)
            return Step((), WaitPoint(self))

        return Step((), self._ask(1, None, query_session(self.session, "curvature", 0), then))

    def _ask(
        self,
        vectors: int,
        factors: F64 | None,
        session: bytes,
        then: Callable[[F64], Step[ProviderResult]],
    ) -> WaitScale[ProviderResult]:
        agreed = self.scales(vectors, len(self.columns))
        return WaitScale(
            True, agreed, factors, self.columns, self.largest, self.here, session, self.rng, then
        )

    def add(self, metric: Metric, sums: F64, again: bool) -> bytes:
        """Take a gradient; the message with the products of its step, of all steps in a new metric."""
        gradient = sums * (self.held.total / self.here.total) + self.penalty * self.history.at
        self.taken, self.taken_here = self.taken + 1, self.taken_here + 1
        if again:
            self.history.again(gradient)
        else:
            products = self.history.add(gradient, metric)
        if again or renews(self.terms.family, self.taken):
            products = self.history.renew(self.renewed(metric))
        return TO_BRAND.encode(messages.Products(messages.pack(products)))

    def renewed(self, metric: Metric) -> Metric:
        """The metric at the present point: as at the start, changed as the curvature has over all rows."""
        if self.found is None or self.terms.family == "linear":
            return metric
        every = renewed(self.columns, self.history.at, self.found.slope_of_provider) / self.at_start
        self.metric = Metric(with_diagonal(every, np.diag(every) * self.matched), self.penalty)
        return self.metric

    def first_gradient(self, metric: Metric, point: messages.Point) -> Step[ProviderResult]:
        """All own scores are still 0: the brand's vector times the own columns is the gradient."""
        start = means.expansion(
            self.terms.family, self.rank, point.location, (point.below, point.above), (0, 0)
        )
        self.at_start = float(start.slope_of_provider(np.zeros(1))[0])

        def asked(sums: F64) -> Step[ProviderResult]:
            return Step((self.add(metric, sums, again=False),), WaitPoint(self))

        ones = np.ones((1, self.here.total))
        use = query_session(self.session, "provider's gradient", 0)
        return Step((), self._ask(1, ones, use, asked))

    def gradient(self, metric: Metric, point: messages.Point, again: bool) -> Step[ProviderResult]:
        """Announce the spread, ask with psi_k times the own columns, then hold psi_2, psi_3, …"""
        scores = kernels.scores(self.columns, self.history.at, self.here.total)
        own = means.spread_indices(scores)
        found = self.found = means.expansion(
            self.terms.family, self.rank, point.location, (point.below, point.above), own
        )
        psi = found.of_provider(scores)
        back = query_session(self.session, "brand's gradient", self.taken)

        def asked(sums: F64) -> Step[ProviderResult]:
            said = self.add(metric, sums, again)
            return hold(
                None,
                False,
                self.scales(self.rank - 1, self.theirs + 1, sparse_queries=True),
                psi[1:],
                self.here,
                back,
                self.rng,
                lambda masked: Step((masked, said), WaitPoint(self)),
            )

        use = query_session(self.session, "provider's gradient", self.taken)
        state = self._ask(self.rank, psi, use, asked)
        return Step((TO_BRAND.encode(messages.Spread(*own)),), state)  # type: ignore[arg-type]


class WaitOpening:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run = self._run
        opening = TO_PROVIDER.decode(message, messages.Opening)
        digest, (d, m) = terms_digest(run.terms, run.session), run.columns.shape
        if opening.digest != digest:
            raise PeerError("protocol.binding", "the brand holds other terms or another session")
        if opening.rows != m:
            # Vectors over another number of rows would be multiplied with the wrong people.
            raise PeerError("protocol.binding", f"the brand counts on {opening.rows} rows, there are {m}")
        if opening.columns > run.terms.max_columns:
            raise PeerError(
                "protocol.too_large", f"{opening.columns} columns, {run.terms.max_columns} are agreed"
            )
        most = padded(m)
        if opening.padded_rows > most or opening.padded_rows != padded(opening.padded_rows):
            # An unrounded number would tell more about the brand than the README says.
            raise PeerError("joint.rows", f"{opening.padded_rows} training rows of {m} are announced")
        if opening.padded_rows < max(padded(run.terms.minimum_rows), padded(ROWS_PER_COLUMN * d)):
            raise PeerError(
                "joint.rows",
                f"at most {opening.padded_rows} training rows; {run.terms.minimum_rows} are agreed and "
                f"{ROWS_PER_COLUMN} for each of {d} columns are needed",
            )
        run.begin(opening.padded_rows, opening.columns)
        shape = messages.Shape(digest, d)  # type: ignore[arg-type]
        return Step((TO_BRAND.encode(shape),), WaitPoint(run))


class WaitPoint:
    """What the brand asks for next."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run = self._run
        point = TO_PROVIDER.decode(message, messages.Point)
        if point.level >= len(run.levels):
            raise PeerError("protocol.malformed", f"level {point.level} of {len(run.levels)}")
        if run.metric is None:
            if point.what != CURVATURE or point.mix:
                raise PeerError("protocol.unexpected", "the curvature comes before any gradient")
            run.enter(point.level)
            return run.curvature()
        if point.what not in (GRADIENT, END):
            raise PeerError("protocol.unexpected", f"point {point.what} is not due")
        if point.location >= means.LOCATIONS or max(point.below, point.above) >= means.SPREADS:
            raise PeerError("protocol.malformed", "the point's location or a spread is out of range")
        again = point.level == run.level + 1 and bool(run.taken)
        if point.level != run.level and not again:
            raise PeerError("protocol.unexpected", f"level {point.level} after level {run.level}")
        kept = len(run.history)
        if kept and not again:
            values = messages.floats(point.mix, kept + 1, largest=1e3)
            if not 0 < values[-1] <= 1:
                raise PeerError("protocol.malformed", f"a step's length of {values[-1]}")
            run.history.move(Mix(values[:-1], float(values[-1])))
        elif point.mix or point.what == END:
            raise PeerError("protocol.unexpected", "a first point has nothing to combine")
        if point.what == END:
            weights = run.history.at.copy()
            return Step((), Done(ProviderResult(weights, run.taken, run.padded)))
        if again:
            run.enter(point.level)
        most = run.most_steps if run.level == len(run.levels) - 1 else LEVEL_STEPS
        if run.taken_here >= most:
            # Each gradient is a set of sums over the training rows; more than agreed are not asked for.
            raise PeerError("protocol.unexpected", f"more than the agreed {most} steps")
        if not run.taken:
            return run.first_gradient(run.metric, point)
        return run.gradient(run.metric, point, again)
