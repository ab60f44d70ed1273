"""The privacy account of an agreement: what its jobs have spent of its total, and whether one more fits.

Jobs compose at one Rényi order α that follows from the total alone (protocols/lookalike/README.md, 5.4). Both
nodes keep their own account, in the database and in the ledger, and each refuses by its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from parties.documents import Agreement
from parties.errors import NodeError

#: Relative slack of the comparison with the total: two machines' floats differ in the last digits.
SLACK = 1e-9

#: A count of jobs above this is told as "no practical limit".
MANY = 1_000_000


@dataclass(frozen=True)
class Spend:
    """What one job spends. `mechanism`: `gaussian` for the (discrete) Gaussian, whose Rényi divergence grows
    with the order, `laplace` for any other (ε, δ) mechanism. `at`: Unix time, 0 for one that is only asked.
    """

    kind: str
    mechanism: Literal["gaussian", "laplace"]
    epsilon: float
    delta: float
    job_id: str = ""
    at: float = 0.0

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def overhead(order: float, delta: float) -> float:
    """What turning a Rényi divergence of this order into (ε, δ) adds (Canonne, Kamath, Steinke 2020)."""
    return math.log1p(-1 / order) - (math.log(order) + math.log(delta)) / (order - 1)


@lru_cache(maxsize=1024)
def best_order(epsilon: float, delta: float) -> float:
    """The order at which (ε, δ) holds most Gaussian noise: it maximises `(ε - overhead) / order`."""

    return _search(lambda order: -(epsilon - overhead(order, delta)) / order)[0]


def gaussian_rho(epsilon: float, delta: float) -> float:
    """The ρ of zero-concentrated DP that a Gaussian with this (ε, δ) has at the most."""
    order = best_order(epsilon, delta)
    return max(0.0, (epsilon - overhead(order, delta)) / order)


def epsilon_of(rho: float, delta: float) -> float:
    """The least ε at δ that ρ gives; the inverse of `gaussian_rho`. 0 for no noise's worth."""
    if rho <= 0:
        return 0.0
    return _least(lambda order: order * rho + overhead(order, delta))


def cost(spend: Spend, order: float) -> float:
    """The Rényi divergence of this order that the job has at the most, for `laplace` up to its δ."""
    if spend.mechanism == "gaussian":
        return order * gaussian_rho(spend.epsilon, spend.delta)
    return min(order * spend.epsilon**2 / 2, spend.epsilon)


def _least(value: Callable[[float], float]) -> float:
    return max(0.0, _search(value)[1])


def _search(value: Callable[[float], float]) -> tuple[float, float]:
    """(order, value) of the least value over orders from 1.001 to a million: a grid, then golden section."""

    def at(u: float) -> float:
        return value(1 + math.exp(u))

    middle = min((-7 + 0.05 * i for i in range(421)), key=at)
    low, high = middle - 0.05, middle + 0.05
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if at(left) <= at(right) else (left, high)
    return 1 + math.exp((low + high) / 2), at((low + high) / 2)


class Account:
    """The spends under one agreement against its total; `total` None keeps the books and refuses nothing."""

    def __init__(self, agreement: Agreement, spends: Sequence[Spend]) -> None:
        self.agreement, self.spends = agreement, tuple(spends)
        total = agreement.privacy_total
        if total is not None:
            # Joins have a δ of their own, which must be set aside before anything is known of them.
            joins = "private_join" in agreement.suites
            self._delta = total.delta / 2 if joins else total.delta
            self._aside = total.delta - self._delta
            self._order = best_order(total.epsilon, self._delta)
            self._room = total.epsilon - overhead(self._order, self._delta)

    def _used(self) -> tuple[float, float]:
        """(divergence, δ of mechanisms that are not Gaussian) of all spends."""
        return (
            math.fsum(cost(s, self._order) for s in self.spends),
            math.fsum(s.delta for s in self.spends if s.mechanism != "gaussian"),
        )

    def jobs_left(self, asked: Spend) -> int | None:
        """How many jobs like this one still fit; None without a total."""
        if self.agreement.privacy_total is None:
            return None
        divergence, delta = self._used()
        room = self._room * (1 + SLACK) - divergence
        each = cost(asked, self._order)
        count = room / each if each > 0 else MANY
        if asked.mechanism != "gaussian":
            count = min(count, (self._aside * (1 + SLACK) - delta) / asked.delta)
        return int(min(max(count, 0.0), MANY))

    def epsilon_spent(self) -> float:
        """ε of all spends together, at the total's δ (without a total: at the sum of their own δ)."""
        plain = math.fsum(s.epsilon for s in self.spends)
        total = self.agreement.privacy_total
        if total is None or not self.spends:
            return plain
        composed = _least(
            lambda order: math.fsum(cost(s, order) for s in self.spends) + overhead(order, self._delta)
        )
        fits = math.fsum(s.delta for s in self.spends) <= total.delta * (1 + SLACK)
        return min(plain, composed) if fits else composed

    def epsilon_left(self, delta: float) -> float | None:
        """The largest ε, at this δ, that one more lookalike may have; None without a total."""
        if self.agreement.privacy_total is None:
            return None
        return epsilon_of((self._room - self._used()[0]) / self._order, delta)

    def check(self, asked: Spend) -> None:
        """`agreement.budget` if the job does not fit any more."""
        total = self.agreement.privacy_total
        if total is None or (self.jobs_left(asked) or 0) >= 1:
            return
        smaller = ""  # a join takes the agreement's ε
        if asked.mechanism == "gaussian":
            name = f'privacy={{"epsilon": …, "delta": {asked.delta:g}}}'
            smaller = f"ask for a smaller ε (--param '{name}'), or "
        raise NodeError(
            "agreement.budget",
            f"agreement {self.agreement.id} has a total of ε {total.epsilon:g}, δ {total.delta:g}; "
            f"{len(self.spends)} jobs have spent ε {self.epsilon_spent():.4g} of it; this job asks for "
            f"ε {asked.epsilon:g}, δ {asked.delta:g}, and one lookalike of ε "
            f"{self.epsilon_left(asked.delta):.3g} at that δ would still fit",
            f"{smaller}sign a new agreement with a larger privacy_total",
            share=True,
        )

    def to_document(self) -> dict[str, Any]:
        """total, spent, left and the spends, as `pec node agreement show` prints them."""
        total, privacy = self.agreement.privacy_total, self.agreement.privacy
        out: dict[str, Any] = {
            "agreement": self.agreement.id,
            "total": None if total is None else total.to_json(),
            "epsilon_spent": self.epsilon_spent(),
            "epsilon_left": None if privacy is None else self.epsilon_left(privacy.delta),
            # The same noise has a larger ε at a smaller δ, so without this number `epsilon_left` of a fresh
            # account may look larger than its total.
            "epsilon_left_delta": None if privacy is None or total is None else privacy.delta,
            "jobs_left": None,
            "share_spent": None if total is None else min(1.0, self._used()[0] / self._room),
            "spends": [s.to_document() for s in self.spends],
        }
        if privacy is not None:
            out["jobs_left"] = self.jobs_left(Spend("lookalike", "gaussian", privacy.epsilon, privacy.delta))
        return out
