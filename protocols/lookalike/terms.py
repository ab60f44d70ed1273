"""The agreement's terms, and what both sides derive from them: sizes, quantisation, noise."""

from __future__ import annotations

import hashlib
import math
from dataclasses import astuple, dataclass

from protocols.errors import LocalError
from protocols.labels import label
from protocols.linear_query import Plan, Query, plan
from protocols.lookalike.noise import noise_scale
from protocols.security import PADDING_FLOOR, PADDING_MANTISSA_BITS, SEEDS_PER_COLUMN

#: Quantisation below this many bits would cost accuracy silently; the run is refused instead.
LEAST_BITS = 12
MOST_BITS = 20

#: Models of one run at the most.
MOST_BAGS = 64


@dataclass(frozen=True)
class Terms:
    """Terms of the agreement; both sides must hold the same ones.

    epsilon, delta     privacy of one seed's label in everything the provider learns; epsilon None: no noise
    clip               bound C on the Euclidean norm of a row of phi; only used with epsilon
    minimum_seeds      the brand stops below this many matched seeds
    minimum_level      without noise, a column in which fewer rows than this differ from all others is refused
    l2                 penalty (l2/2)|w|^2, equal to 1/C of scikit-learn; the intercept is not penalised
    l1                 penalty l1 |w|_1 beside it (elastic net): weights that say little become zero
    bags               models, each of a random half of the seeds and of the rows, whose scores are averaged;
                       the noise grows so that epsilon holds for all of them together
    quantisation_bits  most bits, with the sign, of a quantised feature, 12 to 20; fewer are taken when the
                       sizes require it (see `agree`)
    max_rows, max_columns  what this side accepts from the other
    """

    epsilon: float | None = 2.0
    delta: float = 1e-6
    clip: float = 5.0
    minimum_seeds: int = 100
    minimum_level: int = 10
    l2: float = 1.0
    l1: float = 0.0
    bags: int = 1
    quantisation_bits: int = MOST_BITS
    max_rows: int = 1 << 31
    max_columns: int = 4096

    @property
    def seeds_per_column(self) -> int:
        """Without noise, seeds that each column needs: every bag gives away a sum of each."""
        return SEEDS_PER_COLUMN * self.bags

    def __post_init__(self) -> None:
        checks = {
            "epsilon": self.epsilon is None or 0 < self.epsilon <= 100,
            "delta": 0 < self.delta <= 1e-3,
            "clip": math.isfinite(self.clip) and 1e-6 <= self.clip <= 1e6,
            "minimum_seeds": self.minimum_seeds >= 1,
            "minimum_level": self.minimum_level >= 1,
            "l2": math.isfinite(self.l2) and self.l2 > 0,
            "l1": math.isfinite(self.l1) and self.l1 >= 0,
            "bags": 1 <= self.bags <= MOST_BAGS,
            "quantisation_bits": LEAST_BITS <= self.quantisation_bits <= MOST_BITS,
            "max_rows": 1 <= self.max_rows <= 1 << 40,
            "max_columns": 1 <= self.max_columns <= 16_000,
        }
        for name, good in checks.items():
            if not good:
                raise LocalError(
                    "protocol.argument",
                    f"terms: {name} = {getattr(self, name)} is out of range (protocols/lookalike/README.md)",
                )


def terms_digest(terms: Terms, session: bytes) -> bytes:
    """32 bytes that differ when any term or the session differs."""
    text = "\x00".join(repr(value) for value in _canonical(terms)).encode()
    return hashlib.sha256(label("lookalike", "both", "terms", session) + text).digest()


def _canonical(terms: Terms) -> list[object]:
    """The terms with integers where a float holds one, so that 1 and 1.0 are the same term."""
    floats = {"epsilon", "delta", "clip", "l2", "l1"}
    names = list(Terms.__dataclass_fields__)
    return [
        float(value) if name in floats and value is not None else value
        for name, value in zip(names, astuple(terms), strict=True)
    ]


def padded(seeds: int) -> int:
    """The seed count that the provider is told, rounded up on the same grid as align's sizes."""
    seeds = max(seeds, PADDING_FLOOR)
    step = 1 << (seeds.bit_length() - 1 - PADDING_MANTISSA_BITS)
    return -(-seeds // step) * step


@dataclass(frozen=True)
class Agreed:
    """What follows from terms and sizes; equal on both sides.

    largest       quantised features lie in [-largest, largest]
    common_step   with noise: one real unit a quantum for all columns; None: each column has its own
    sensitivity   with noise: most by which one label moves the quantised z of one bag, Euclidean
    noise_scale   with noise: scale of the discrete Gaussian, in quanta
    """

    plan: Plan
    largest: int
    common_step: float | None
    sensitivity: float | None
    noise_scale: float | None

    @property
    def real_noise_scale(self) -> float | None:
        """The noise's scale in the units of z."""
        if self.noise_scale is None or self.common_step is None:
            return None
        return self.noise_scale * self.common_step


def agree(terms: Terms, rows: int, columns: int, padded_seeds: int) -> Agreed:
    """The finest quantisation that the linear query can prove correct and private for these sizes.

    Raises LocalError `linear_query.overflow` or `linear_query.noise` when even 12 bits don't fit.
    """
    last: LocalError | None = None
    for bits in range(terms.quantisation_bits, LEAST_BITS - 1, -1):
        try:
            return _with_bits(terms, rows, columns, padded_seeds, bits)
        except LocalError as error:
            last = error
    raise last or LocalError("linear_query.noise", "no quantisation fits these sizes")


def _with_bits(terms: Terms, rows: int, columns: int, padded_seeds: int, bits: int) -> Agreed:
    largest = (1 << (bits - 1)) - 1
    step = sensitivity = scale = None
    headroom = 0
    if terms.epsilon is not None:
        # README 5.1. |phi_i| <= C and the intercept's 1 give |(phi_i, 1)| <= sqrt(C^2 + 1); dividing by the
        # step and rounding each of d + 1 entries by at most 1/2 adds at most sqrt(d + 1) / 2; the last 1
        # covers the floating-point error of computing the norm, the quotient and this line.
        step = max(terms.clip, 1.0) / largest
        sensitivity = math.hypot(terms.clip, 1.0) / step + math.sqrt(columns + 1) / 2 + 1
        # README 5.5: a label may be in every bag, and the bags' z together are one vector.
        scale = noise_scale(terms.epsilon, terms.delta, sensitivity * math.sqrt(terms.bags))
        # Beyond 9 scales with probability below 2 exp(-81/2) < 2^-57 a coordinate; a power of two, so that a
        # last-digit difference between two machines' floats can't give two plans.
        headroom = 1 << math.ceil(math.log2(9 * scale))
    query = Query(rows, columns + 1, 1, min(padded_seeds, rows), largest, headroom)
    return Agreed(plan(query), largest, step, sensitivity, scale)
