"""Truncated discrete Laplace noise: an exact sampler on `rng`, and the delta that truncation costs.

The law with rate e (a `Fraction`) and bound tau: P[z] proportional to exp(-e |z|) for integers |z| <= tau.
README, section 5, proves what it gives.
"""

from __future__ import annotations

import math
from fractions import Fraction

from protocols.errors import LocalError
from protocols.ristretto import Rng

#: Above this, a bound makes no sense for sets that this protocol is for.
MOST = 1 << 62


def below(bound: int, rng: Rng) -> int:
    """Exactly uniform in [0, bound), by rejection."""
    bits = (bound - 1).bit_length()
    size = -(-bits // 8)
    while True:
        value = int.from_bytes(drawn(size, rng), "big") >> (8 * size - bits)
        if value < bound:
            return value


def drawn(size: int, rng: Rng) -> bytes:
    """`size` bytes of `rng`; LocalError if it gives another number."""
    data = rng(size) if size else b""
    if len(data) != size:
        raise LocalError("protocol.argument", f"rng gave {len(data)} bytes, {size} were asked for")
    return data


def truncation_delta(rate: float, sensitivity: int, bound: int) -> float:
    """Probability of the `sensitivity` outermost values on one side, the delta of README section 5.

    With a = exp(-rate): a^(tau - s + 1) (1 - a^s) / (1 + a - 2 a^(tau + 1)); tau >= s.
    """
    total = -math.expm1(-rate * (bound + 1)) - math.exp(-rate) * math.expm1(-rate * bound)
    return math.exp(-rate * (bound - sensitivity + 1)) * -math.expm1(-rate * sensitivity) / total


def least_bound(rate: Fraction, sensitivity: int, delta: float) -> int:
    """The least tau >= sensitivity for which `truncation_delta` is at most delta."""

    def fits(bound: int) -> bool:
        # The margin covers the floating-point error of the line above.
        return truncation_delta(float(rate), sensitivity, bound) <= delta * (1 - 1e-6)

    low, high = sensitivity - 1, max(sensitivity, 1)
    while not fits(high):
        low, high = high, 2 * high
        if high > MOST:
            raise LocalError("protocol.argument", f"no noise below {MOST} gives delta {delta}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def sample(rate: Fraction, bound: int, rng: Rng) -> int:
    """One draw in [-bound, bound], exactly of the law above: discrete Laplace, again if it is beyond."""
    while True:
        value = _discrete_laplace(rate, rng)
        if abs(value) <= bound:
            return value


def _discrete_laplace(rate: Fraction, rng: Rng) -> int:
    """P[z] proportional to exp(-rate |z|), in integers: algorithm 2 of Canonne, Kamath, Steinke (2020)."""
    s, t = rate.numerator, rate.denominator
    while True:
        u = below(t, rng)
        if not _bernoulli_exp(u, t, rng):
            continue
        v = 0
        while _bernoulli_exp(1, 1, rng):
            v += 1
        y = (u + t * v) // s
        negative = below(2, rng) == 1
        if not (negative and y == 0):
            return -y if negative else y


def _bernoulli_exp(numerator: int, denominator: int, rng: Rng) -> bool:
    """True with probability exp(-numerator / denominator), a fraction in [0, 1]; their algorithm 1."""
    k = 1
    while below(denominator * k, rng) < numerator:
        k += 1
    return k % 2 == 1
