"""Proportions and their comparison. Pure functions; sources at the formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from consent_center import loading

ALPHA, POWER = 0.05, 0.8
#: Below this expected count in any cell the normal approximation is not used (Cochran 1954).
_LEAST_EXPECTED = 5.0
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Proportion:
    """`successes` of `trials`."""

    successes: int
    trials: int

    @property
    def rate(self) -> float:
        return self.successes / self.trials

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Wilson's score interval (Wilson 1927); right also near 0 and 1."""
        z = -_NORMAL.inv_cdf(alpha / 2)
        n, p = self.trials, self.rate
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # At 0 and 1 the formula gives the end up to rounding.
        low = 0.0 if self.successes == 0 else max(0.0, middle - half)
        high = 1.0 if self.successes == n else min(1.0, middle + half)
        return low, high


@dataclass(frozen=True)
class Comparison:
    """b minus a. `test` is "two-proportion z" or "Fisher exact"; `interval` is Newcombe's (1998,
    method 10).
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    test: str

    @property
    def significant(self) -> bool:
        return self.p_value < ALPHA


def compare(a: Proportion, b: Proportion, alpha: float = ALPHA) -> Comparison:
    """Two-sided test that the two rates are equal."""
    pooled = (a.successes + b.successes) / (a.trials + b.trials)
    least = min(n * p for n in (a.trials, b.trials) for p in (pooled, 1 - pooled))
    difference = b.rate - a.rate
    if least < _LEAST_EXPECTED:
        stats = loading.part_of_scipy("stats")  # takes a second to import, and few comparisons are so small
        table = [[one.successes, one.trials - one.successes] for one in (a, b)]
        p_value, test = float(stats.fisher_exact(table).pvalue), "Fisher exact"
    else:
        error = math.sqrt(pooled * (1 - pooled) * (1 / a.trials + 1 / b.trials))
        p_value, test = math.erfc(abs(difference) / error / math.sqrt(2)), "two-proportion z"
    (a_low, a_high), (b_low, b_high) = a.interval(alpha), b.interval(alpha)
    low = difference - math.hypot(b.rate - b_low, a_high - a.rate)
    high = difference + math.hypot(b_high - b.rate, a.rate - a_low)
    return Comparison(difference, (max(-1.0, low), min(1.0, high)), min(1.0, p_value), test)


def sample_size(base: float, effect: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """People per arm to find a change of `effect` from `base` (Fleiss, Levin, Paik 2003, 4.14). None:
    impossible.
    """
    other = base + effect
    if effect == 0 or not 0 < other < 1 or not 0 < base < 1:
        return None
    mean = (base + other) / 2
    z_alpha, z_power = -_NORMAL.inv_cdf(alpha / 2), _NORMAL.inv_cdf(power)
    spread = z_alpha * math.sqrt(2 * mean * (1 - mean))
    spread += z_power * math.sqrt(base * (1 - base) + other * (1 - other))
    return math.ceil((spread / effect) ** 2)
