"""The brand: holds which rows are seeds. README section 3. States: WaitShape, then the linear query's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.linear_query import brand
from protocols.linear_query.ring import I64
from protocols.lookalike.bags import bag_session, half
from protocols.lookalike.messages import TO_BRAND, TO_PROVIDER, Opening, Shape
from protocols.lookalike.noise import add_noise
from protocols.lookalike.terms import Terms, agree, padded, terms_digest
from protocols.machine import Machine, Step


@dataclass(frozen=True)
class LabelsResult:
    """noise_scale: scale of the noise on each entry of z, in the units of z, or None."""

    noise_scale: float | None
    padded_seeds: int
    columns: int


class Labels(Machine[LabelsResult]):
    """Seeds in, nothing but the noise's scale out; the scores come from the provider in a later stage.

    seed_rows: int64[s], the provider's row numbers of the matched seeds, each in [0, rows); duplicates count
    once. Raises LocalError `lookalike.seeds` below the terms' minimum. Progress is counted in answers.
    """

    def __init__(
        self,
        seed_rows: npt.NDArray[np.int64],
        rows: int,
        session: bytes,
        terms: Terms,
        rng: Callable[[int], bytes],
    ) -> None:
        if not 1 <= rows <= terms.max_rows:
            raise LocalError("protocol.argument", f"{rows} rows; 1 to {terms.max_rows} are agreed")
        seeds = np.unique(np.asarray(seed_rows, dtype=np.int64))
        if seeds.size and not 0 <= int(seeds[0]) <= int(seeds[-1]) < rows:
            raise LocalError(
                "protocol.argument", f"a seed's row is outside 0 to {rows - 1}; drop unmatched seeds"
            )
        if len(seeds) < terms.minimum_seeds:
            raise LocalError(
                "lookalike.seeds",
                f"{len(seeds)} matched seeds, {terms.minimum_seeds} are agreed; use a longer seed list",
            )
        y = np.zeros(rows, dtype=np.int8)
        y[seeds] = 1
        size = padded(len(seeds))
        opening = Opening(terms_digest(terms, session), rows, size)  # type: ignore[arg-type]
        state = WaitShape(y, len(seeds), size, session, terms, rng)
        super().__init__(Step((TO_PROVIDER.encode(opening),), state))


class WaitShape:
    def __init__(
        self,
        y: npt.NDArray[np.int8],
        seeds: int,
        size: int,
        session: bytes,
        terms: Terms,
        rng: Callable[[int], bytes],
    ) -> None:
        self._y, self._seeds, self._size = y, seeds, size
        self._session, self._terms, self._rng = session, terms, rng

    def receive(self, message: bytes) -> Step[LabelsResult]:
        shape = TO_BRAND.decode(message, Shape)
        terms = self._terms
        if shape.digest != terms_digest(terms, self._session):
            # The provider could otherwise have the labels answered under weaker terms than this side signed.
            raise PeerError("protocol.binding", "the provider holds other terms or another session")
        if not 1 <= shape.columns <= terms.max_columns:
            raise PeerError(
                "protocol.too_large", f"{shape.columns} columns announced, 1 to {terms.max_columns} agreed"
            )
        if terms.epsilon is None and self._seeds < terms.seeds_per_column * shape.columns:
            # Exact sums of as many columns as there are seeds can be solved for the seeds (arXiv 2205.04166).
            raise LocalError(
                "lookalike.columns",
                f"{self._seeds} seeds for {shape.columns} columns; without noise {terms.seeds_per_column} "
                "seeds a column are needed (ten for each bag): agree on an epsilon, use more seeds or fewer "
                "columns",
            )
        agreed = agree(terms, len(self._y), shape.columns, self._size)
        result = LabelsResult(agreed.real_noise_scale, self._size, shape.columns)

        def ask(bag: int) -> Step[LabelsResult]:
            y = self._y
            if terms.bags > 1:  # README 4.6: each seed by a coin of its own, whatever the other bags have
                y = y.copy()
                seeds = np.flatnonzero(y)
                y[seeds] = half(len(seeds), self._rng)

            def then(answers: I64) -> Step[LabelsResult]:
                if agreed.noise_scale is not None:
                    answers = add_noise(answers, agreed.noise_scale)
                if bag + 1 == terms.bags:
                    return brand.masked_step(answers, agreed.plan, result)
                following = ask(bag + 1)
                first = brand.masked(answers, agreed.plan)
                return Step(chain((first,), following.send), following.then, following.progress)

            def values(start: int, stop: int) -> I64:
                return y[start:stop].astype(np.int64)

            session = bag_session(self._session, terms.bags, bag)
            return brand.steps(agreed.plan.query, values, session, self._rng, then)

        return ask(0)
