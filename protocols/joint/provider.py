"""The provider: its own columns, and no idea of who matched. README sections 3 and 5.

States: WaitOpening, WaitPoint, and between two points those of the linear queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.joint import expansion as means
from protocols.joint import kernels, messages
from protocols.joint.exchange import Held, Rng, WaitScale, hold
from protocols.joint.kernels import F32, F64
from protocols.joint.messages import CURVATURE, END, GRADIENT, TO_BRAND, TO_PROVIDER
from protocols.joint.metric import Metric, second_moments, with_diagonal
from protocols.joint.mixing import History, Mix
from protocols.joint.terms import Terms, padded, query_session, scales, terms_digest
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
        return kernels.scores(np.ascontiguousarray(columns.T), self.weights)


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
        self.penalty = np.full(d, terms.l2)
        self.history = History(np.zeros(d))
        self.metric: Metric | None = None
        self.rank, self.most_steps = terms.rank_for(m), terms.steps_for(m)
        self.padded, self.theirs, self.taken = 0, 0, 0

    @property
    def nonzero(self) -> int:
        return min(self.padded, self.held.total)

    def curvature(self) -> Step[ProviderResult]:
        """Learn each column's curvature over the training rows; correlations are those of all rows."""

        def then(diagonal: F64) -> Step[ProviderResult]:
            self.metric = Metric(with_diagonal(second_moments(self.columns), diagonal), self.penalty)
            return Step((), WaitPoint(self))

        state = WaitScale(
            True,
            scales(1, self.held.total, len(self.columns), self.nonzero),
            None,
            self.columns,
            self.held,
            query_session(self.session, "curvature", 0),
            self.rng,
            then,
        )
        return Step((), state)

    def gradient(self, metric: Metric, point: messages.Point) -> Step[ProviderResult]:
        """Announce the spread, ask with psi_k times the own columns, then hold psi_2, psi_3, …"""
        scores = kernels.scores(self.columns, self.history.at)
        own = means.spread_index(scores)
        found = means.expansion(self.terms.family, self.rank, point.location, point.spread, own)
        psi = found.of_provider(scores)

        def asked(sums: F64) -> Step[ProviderResult]:
            gradient = sums + self.penalty * self.history.at
            products = self.history.add(gradient, metric.step(gradient))
            return hold(
                None,
                False,
                scales(self.rank - 1, self.held.total, self.theirs + 1, self.nonzero),
                psi[1:],
                self.held,
                query_session(self.session, "brand's gradient", self.taken),
                self.rng,
                lambda masked: answered(masked, products),
            )

        def answered(masked: bytes, products: F64) -> Step[ProviderResult]:
            self.taken += 1
            said = TO_BRAND.encode(messages.Products(messages.pack(products)))
            return Step((masked, said), WaitPoint(self))

        state = WaitScale(
            True,
            scales(self.rank, self.held.total, len(self.columns), self.nonzero),
            psi,
            self.columns,
            self.held,
            query_session(self.session, "provider's gradient", self.taken),
            self.rng,
            asked,
        )
        return Step((TO_BRAND.encode(messages.Spread(own)),), state)  # type: ignore[arg-type]


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
        run.padded, run.theirs = opening.padded_rows, opening.columns
        shape = messages.Shape(digest, d)  # type: ignore[arg-type]
        return Step((TO_BRAND.encode(shape),), WaitPoint(run))


class WaitPoint:
    """What the brand asks for next."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[ProviderResult]:
        run = self._run
        point = TO_PROVIDER.decode(message, messages.Point)
        if run.metric is None:
            if point.what != CURVATURE or point.mix:
                raise PeerError("protocol.unexpected", "the curvature comes before any gradient")
            return run.curvature()
        if point.what not in (GRADIENT, END):
            raise PeerError("protocol.unexpected", f"point {point.what} is not due")
        if point.location >= means.LOCATIONS or point.spread >= means.SPREADS:
            raise PeerError("protocol.malformed", "the point's location or spread is out of range")
        kept = len(run.history)
        if kept:
            values = messages.floats(point.mix, kept + 1, largest=1e3)
            if not 0 < values[-1] <= 1:
                raise PeerError("protocol.malformed", f"a step's length of {values[-1]}")
            run.history.move(Mix(values[:-1], float(values[-1])))
        elif point.mix or point.what == END:
            raise PeerError("protocol.unexpected", "a first point has nothing to combine")
        if point.what == END:
            weights = run.history.at.copy()
            return Step((), Done(ProviderResult(weights, run.taken, run.padded)))
        if run.taken >= run.most_steps:
            # Each gradient is a set of sums over the training rows; more than agreed are not asked for.
            raise PeerError("protocol.unexpected", f"more than the agreed {run.most_steps} steps")
        return run.gradient(run.metric, point)
