"""The ideal functionality of private_join: a trusted third party with the sides' noise. The tests' oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from protocols.private_join.terms import Terms
from protocols.ristretto import Bytes


def join(
    holder: Bytes,
    valuer: Bytes,
    values: npt.NDArray[np.int64],
    terms: Terms,
    holder_noise: int,
    valuer_noise: int,
    sum_noise: Sequence[int],
) -> tuple[int, int, tuple[int, ...] | None]:
    """(size for the holder, size for the valuer, sums for the one that learns them or None if withheld).

    Noises are signed, without their shift.
    """
    mine = {item.tobytes() for item in holder}
    matched = [j for j, item in enumerate(valuer) if item.tobytes() in mine]
    size = len(matched)
    if not terms.bounds or size + holder_noise + valuer_noise < terms.minimum:
        return size + valuer_noise, size + holder_noise, None
    sums = tuple(
        sum(min(int(values[j, k]), bound) for j in matched) + sum_noise[k]
        for k, bound in enumerate(terms.bounds)
    )
    return size + valuer_noise, size + holder_noise, sums
