"""The provider: holds the features, learns z and fits. README sections 3 and 4.

States: WaitOpening, then the linear query's; the fit runs when the last message has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.linear_query import Transforms, provider
from protocols.linear_query.ring import I64
from protocols.lookalike import rows as kernels
from protocols.lookalike.bags import bag_session, half_of_rows
from protocols.lookalike.fit import Solution, fit
from protocols.lookalike.messages import TO_BRAND, TO_PROVIDER, Opening, Shape
from protocols.lookalike.rows import F32, F64, I32
from protocols.lookalike.terms import Agreed, Terms, agree, padded, terms_digest
from protocols.machine import Done, Machine, Step

#: Of the transforms of queries, between bags: all of 1,000,000 rows and 63 columns, 0.6 of those of 100.
KEPT_BYTES = 1 << 30

#: What to do about a level that is too rare for exact sums.
INSTEAD = "drop the column, merge its level, or agree on an epsilon"


@dataclass(frozen=True)
class FitResult:
    """The provider's model.

    weights        float64[d], of the columns of phi as they were given
    intercept      float
    z              float64[d + 1]: sums of phi over the seeds (clipped, quantised, noisy), last the seed
                   count; with bags float64[bags, d + 1], over the seeds of each
    iterations     Newton steps of the fit, of all bags
    noise_scale    scale of the noise on each entry of z in its units, None without noise
    padded_seeds   what the brand announced
    clip           bound on the norm of a row that the model was fitted with, None without noise
    quantisation_bits  bits that were used, with the sign
    bags           models that `weights` and `intercept` are the average of
    spread         float64[d], standard deviation of each weight over the bags; None without bags
    """

    weights: F64
    intercept: float
    z: F64
    iterations: int
    noise_scale: float | None
    padded_seeds: int
    clip: float | None
    quantisation_bits: int
    bags: int = 1
    spread: F64 | None = None


class Features(Machine[FitResult]):
    """phi: float32[m, d], finite, best in Fortran order (another order costs a copy); names: one a column.

    Raises LocalError `lookalike.columns` when a level is too rare for a run without noise. Progress is
    counted in chunks of 8192 rows.
    """

    def __init__(
        self,
        phi: npt.NDArray[np.float32],
        names: Sequence[str],
        session: bytes,
        terms: Terms,
        rng: Callable[[int], bytes],
    ) -> None:
        if phi.ndim != 2 or phi.dtype != np.float32 or phi.shape[1] != len(names):
            raise LocalError(
                "protocol.argument",
                f"phi is {phi.dtype}{phi.shape} with {len(names)} names; float32[m, d] is due",
            )
        m, d = phi.shape
        if not (1 <= m <= terms.max_rows and 1 <= d <= terms.max_columns):
            raise LocalError(
                "protocol.argument",
                f"{m} rows and {d} columns; 1 to {terms.max_rows} and 1 to {terms.max_columns} are agreed",
            )
        phi = np.asfortranarray(phi)
        ranges = kernels.column_ranges(phi.T)
        bad = [name for name, largest in zip(names, ranges, strict=True) if not np.isfinite(largest)]
        if bad:
            raise LocalError(
                "protocol.argument", f"missing or infinite values in column {bad[0]!r}; fill them first"
            )
        if terms.epsilon is None:
            refuse_rare(phi, names, terms.minimum_level)
        super().__init__(Step((), WaitOpening(phi, ranges, session, terms, rng)))


def refuse_rare(
    phi: F32, names: Sequence[str], least: int, code: str = "lookalike.columns", instead: str = INSTEAD
) -> None:
    """Refuse a column that is constant but for a few rows: its exact sum would tell those rows' labels.

    If fewer than k rows differ from a common value, that value is the median of any 2k - 1 rows; so a few
    rows show the candidate and one pass counts.
    """
    sample = phi[: 2 * least - 1]
    usual = np.sort(sample, axis=0)[len(sample) // 2].astype(np.float32)
    counts = kernels.differing(phi.T, usual)
    for name, count in zip(names, counts, strict=True):
        if 0 < count < least:
            raise LocalError(
                code, f"in column {name!r} only {count} rows differ from the others; {least} must; {instead}"
            )


class WaitOpening:
    def __init__(
        self, phi: F32, ranges: F64, session: bytes, terms: Terms, rng: Callable[[int], bytes]
    ) -> None:
        self._phi, self._ranges, self._session, self._terms, self._rng = phi, ranges, session, terms, rng

    def receive(self, message: bytes) -> Step[FitResult]:
        opening = TO_PROVIDER.decode(message, Opening)
        terms, (m, d) = self._terms, self._phi.shape
        digest = terms_digest(terms, self._session)
        if opening.digest != digest:
            raise PeerError("protocol.binding", "the brand holds other terms or another session")
        if opening.rows != m:
            # Labels over another number of rows would be multiplied with the wrong people.
            raise PeerError("linear_query.size", f"the brand counts on {opening.rows} rows, there are {m}")
        if opening.padded_seeds < terms.minimum_seeds:
            raise PeerError(
                "lookalike.seeds",
                f"{opening.padded_seeds} seeds at the most, {terms.minimum_seeds} are agreed",
            )
        if opening.padded_seeds > padded(m) or opening.padded_seeds != padded(opening.padded_seeds):
            # Off the grid it would say more about the seeds than agreed, or be a range that overflows.
            raise PeerError("linear_query.size", f"{opening.padded_seeds} seeds announced for {m} rows")
        if terms.epsilon is None and opening.padded_seeds < terms.seeds_per_column * d:
            raise PeerError(
                "lookalike.columns",
                f"{opening.padded_seeds} seeds at the most for {d} columns; without noise "
                f"{terms.seeds_per_column} seeds a column are needed (ten for each bag): agree on an epsilon "
                "or use fewer columns",
            )
        agreed = agree(terms, m, d, opening.padded_seeds)
        shape = TO_BRAND.encode(Shape(digest, d))  # type: ignore[arg-type]
        inner = _Run(self._phi, self._ranges, terms, agreed, opening.padded_seeds, self._session, self._rng)
        step = inner.ask()
        return Step((shape,), step.then, step.progress)


class _Run:
    """Quantised rows for the linear query, and the fit at its end."""

    def __init__(
        self,
        phi: F32,
        ranges: F64,
        terms: Terms,
        agreed: Agreed,
        seeds: int,
        session: bytes,
        rng: Callable[[int], bytes],
    ) -> None:
        self._phi, self._terms, self._agreed, self._seeds = phi, terms, agreed, seeds
        self._session, self._rng = session, rng
        #: One z a bag; the bags ask the same queries, whose transforms are kept for that.
        self._z: list[F64] = []
        self.transforms = Transforms(KEPT_BYTES) if terms.bags > 1 else None
        d = phi.shape[1]
        if agreed.common_step is None:
            self._factors = np.ones(len(phi))
            # README 4.2: each column has its own step, its largest value over the largest integer.
            steps = np.where(ranges > 0, ranges, 1.0) / agreed.largest
            self._intercept = 1
            self._steps = np.append(steps, 1.0)
        else:
            self._factors = kernels.clip_factors(phi.T, terms.clip)
            self._steps = np.full(d + 1, agreed.common_step)
            self._intercept = round(1 / agreed.common_step)
            # The intercept's own step makes its sum a count again, whatever the rounding of 1 / step.
            self._steps[d] = 1 / self._intercept

    def queries(self, start: int, stop: int) -> I32:
        return kernels.quantise(
            self._phi.T,
            start,
            stop,
            self._factors,
            1 / self._steps[:-1],
            self._agreed.largest,
            self._intercept,
        )

    def ask(self) -> Step[FitResult]:
        """The next bag's linear query."""
        session = bag_session(self._session, self._terms.bags, len(self._z))
        query = self._agreed.plan.query
        return provider.steps(query, self.queries, session, self._rng, self.answered, self.transforms)

    def answered(self, answers: I64 | None) -> Step[FitResult]:
        if answers is None:
            raise LocalError("protocol.state", "the linear query ended without an answer for this side")
        self._z.append(answers.astype(np.float64) * self._steps)
        if len(self._z) < self._terms.bags:
            return self.ask()
        self.transforms = None  # the fits need the room
        return self.finish()

    def _solved(self, z: F64) -> Solution:
        terms, steps, z0 = self._terms, self._steps[:-1], float(z[-1])
        if terms.bags == 1:
            return fit(self._phi, self._factors, steps, z[:-1], z0, terms.l2, terms.l1)
        # README 4.6: half of the rows with half of the seeds, so half of the penalty is the same model.
        rows = half_of_rows(len(self._phi), self._rng)
        phi = kernels.some_rows(self._phi, rows)
        return fit(phi, self._factors[rows], steps, z[:-1], z0, terms.l2 / 2, terms.l1 / 2)

    def finish(self) -> Step[FitResult]:
        solved = [self._solved(z) for z in self._z]
        weights = np.array([one.weights for one in solved])
        noisy = self._agreed.noise_scale is not None
        result = FitResult(
            # Log-odds are linear in the weights: their average over the bags is one more linear model.
            weights=weights.mean(axis=0),
            intercept=float(np.mean([one.intercept for one in solved])),
            z=self._z[0] if len(self._z) == 1 else np.array(self._z),
            iterations=sum(one.iterations for one in solved),
            noise_scale=self._agreed.real_noise_scale,
            padded_seeds=self._seeds,
            clip=self._terms.clip if noisy else None,
            quantisation_bits=self._agreed.largest.bit_length() + 1,
            bags=len(solved),
            spread=weights.std(axis=0, ddof=1) if len(solved) > 1 else None,
        )
        return Step((), Done(result))
