"""The brand's noise: discrete Gaussian from OpenDP, scaled to (epsilon, delta).

OpenDP draws from its own cryptographic generator, not from a machine's `rng`; runs with noise therefore have
no known answers. README, section 5.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError


@cache
def _opendp() -> Any:
    """The parts of OpenDP that are needed, with its `contrib` features, which hold every measurement.

    Imported where noise is asked for. OpenDP's `prelude` would import scikit-learn and pandas as well: 2 s.
    """
    from opendp import combinators, domains, measurements, metrics, mod

    mod.enable_features("contrib")
    return SimpleNamespace(c=combinators, domains=domains, m=measurements, metrics=metrics)


def _measurement(scale: float) -> Any:
    dp = _opendp()
    numbers = dp.domains.vector_domain(dp.domains.atom_domain(T="i64"))
    return dp.m.make_gaussian(numbers, dp.metrics.l2_distance(T="f64"), scale=scale)


def epsilon_of(scale: float, delta: float, sensitivity: float) -> float:
    """epsilon at `delta` of the discrete Gaussian of this scale, as OpenDP proves it.

    rho = sensitivity^2 / (2 scale^2) in zero-concentrated DP (Bun and Steinke 2016; Canonne, Kamath, Steinke,
    "The discrete Gaussian for differential privacy", 2020), then OpenDP's conversion to (epsilon, delta).
    """
    profile = _opendp().c.make_zCDP_to_approxDP(_measurement(scale)).map(sensitivity)
    return float(profile.epsilon(delta))


@lru_cache(maxsize=256)
def noise_scale(epsilon: float, delta: float, sensitivity: float) -> float:
    """The least scale in quanta, to 1 in 10^4, that gives (epsilon, delta) at this L2 sensitivity."""
    # epsilon of one Gaussian depends on scale / sensitivity alone; search on the ratio.
    low, high = 1e-3, 1.0
    while epsilon_of(high * sensitivity, delta, sensitivity) > epsilon:
        low, high = high, 2 * high
        if high > 1e9:
            raise LocalError("protocol.argument", f"no noise gives epsilon {epsilon} at delta {delta}")
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        if epsilon_of(middle * sensitivity, delta, sensitivity) > epsilon:
            low = middle
        else:
            high = middle
    return high * sensitivity


def add_noise(values: npt.NDArray[np.int64], scale: float) -> npt.NDArray[np.int64]:
    """values + discrete Gaussian, int64[n], exact sampling."""
    return np.array(_measurement(scale)([int(v) for v in values]), dtype=np.int64)
