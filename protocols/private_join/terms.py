"""The agreement's terms, what both sides derive from them, and what a run gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

from protocols.codec import B32
from protocols.errors import LocalError
from protocols.labels import label
from protocols.private_join.noise import least_bound

PROTOCOL = "private_join"
HOLDER, VALUER = "holder", "valuer"

#: Limits of what is accepted: sets and dummies that fit in memory, sums that fit in a slot.
MOST_ITEMS = 1 << 24
MOST_DUMMIES = 1 << 16
MOST_COLUMNS = 64
MOST_VALUE = 1 << 40


@dataclass(frozen=True)
class Terms:
    """Terms of the agreement; both sides must hold the same ones.

    epsilon, delta   privacy of one person of the other side's in the size that a side learns
    bounds           largest value of each column (larger ones are clipped by the valuer); empty: a count only
    sum_to           who learns the sums, "holder" or "valuer"
    sum_epsilon      privacy of one person in all sums together, at the same delta; None: exact sums
    minimum          the sums are withheld when the size with both sides' noise is below this
    max_holder, max_valuer   largest sets, in items
    """

    epsilon: float = 1.0
    delta: float = 1e-6
    bounds: tuple[int, ...] = ()
    sum_to: str = HOLDER
    sum_epsilon: float | None = None
    minimum: int = 0
    max_holder: int = 1 << 20
    max_valuer: int = 1 << 20

    def __post_init__(self) -> None:
        checks = {
            "epsilon": 0.001 <= self.epsilon <= 10,
            "delta": 1e-15 <= self.delta <= 1e-3,
            "bounds": len(self.bounds) <= MOST_COLUMNS
            and all(isinstance(b, int) and 1 <= b <= MOST_VALUE for b in self.bounds),
            "sum_to": self.sum_to in (HOLDER, VALUER),
            "sum_epsilon": self.sum_epsilon is None or 0.001 <= self.sum_epsilon <= 100,
            "minimum": 0 <= self.minimum <= MOST_ITEMS,
            "max_holder": 0 <= self.max_holder <= MOST_ITEMS,
            "max_valuer": 0 <= self.max_valuer <= MOST_ITEMS,
        }
        for name, good in checks.items():
            if not good:
                raise LocalError(
                    "protocol.argument",
                    f"terms: {name} = {getattr(self, name)} is out of range (private_join/README.md)",
                )
        if self.size_noise.bound * 2 > MOST_DUMMIES:
            raise LocalError(
                "protocol.argument", f"terms: {self.size_noise.bound * 2} dummies; raise epsilon"
            )

    @property
    def size_noise(self) -> Noise:
        """The law of each side's number of dummies, before its shift by the bound."""
        rate = Fraction(self.epsilon)
        return Noise(rate, least_bound(rate, 1, self.delta))

    @property
    def sum_noise(self) -> tuple[Noise, ...]:
        """The law of each column's noise; k columns share epsilon and delta (README, section 5.3)."""
        if self.sum_epsilon is None:
            return tuple(Noise(Fraction(1), 0) for _ in self.bounds)
        k = len(self.bounds)
        rates = [Fraction(self.sum_epsilon) / (k * bound) for bound in self.bounds]
        return tuple(
            Noise(rate, least_bound(rate, bound, self.delta / k))
            for rate, bound in zip(rates, self.bounds, strict=True)
        )


@dataclass(frozen=True)
class Noise:
    """Truncated discrete Laplace: `rate` is 1 / scale, values lie in [-bound, bound]; bound 0 is no noise."""

    rate: Fraction
    bound: int


@dataclass(frozen=True)
class JoinResult:
    """What a side learned.

    size        people in both sets plus the other side's noise: an integer without bias, perhaps negative
    size_scale  scale of that noise (its standard deviation is about 1.4 times it)
    sums        for the side that `sum_to` names: each column's sum plus noise; None for the other side, in a
                count-only join, and when the sums were withheld
    withheld    the size with both sides' noise was below `minimum`, so nobody learned the sums
    peer_size   the other side's padded size
    """

    size: int
    size_scale: float
    sums: tuple[int, ...] | None
    withheld: bool
    peer_size: int


def binding(terms: Terms, session: bytes) -> B32:
    """32 bytes that differ when any term, what is derived from it, or the session differs."""
    values = [
        *(float(terms.epsilon), float(terms.delta), [int(b) for b in terms.bounds], terms.sum_to),
        *(None if terms.sum_epsilon is None else float(terms.sum_epsilon), terms.minimum),
        *(terms.max_holder, terms.max_valuer),
        # Two machines' mathematics could round a bound differently: then they must not go on.
        *(terms.size_noise.bound, [noise.bound for noise in terms.sum_noise]),
    ]
    text = "\x00".join(repr(value) for value in values).encode()
    return B32(hashlib.sha256(label(PROTOCOL, "both", "terms", session) + text).digest())


def withholds(terms: Terms, count: int) -> bool:
    """Whether the sums are withheld: a function of the count that both sides see (README, section 5.4)."""
    return count - 2 * terms.size_noise.bound < terms.minimum
