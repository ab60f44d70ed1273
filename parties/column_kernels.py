"""Compiled passes over one column of a data set, each on one core: `features` gives every core its column.

`values` are float64[n] or float32[n], as the file has them, and only read (`parallel.read_only`); arithmetic
is in double precision.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.parallel import compiled, compiled_reordering

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Values = F64 | F32


@compiled_reordering
def summary(values: Values) -> tuple[int, float, float, float]:
    """(missing, sum, least, largest) of the values that are there; 0, inf, -inf where there is none."""
    missing, total, low, high = 0, 0.0, np.inf, -np.inf
    for i in range(values.shape[0]):
        v = values[i]
        gone = v != v
        missing += gone
        total += 0.0 if gone else v
        low = v if v < low else low
        high = v if v > high else high
    return missing, total, low, high


@compiled_reordering
def spread(values: Values, fill: float, mean: float, usual: float) -> tuple[float, int]:
    """(sum of squares around `mean`, how many differ from `usual`), `fill` in the place of missing ones."""
    squares, different = 0.0, 0
    for i in range(values.shape[0]):
        v = fill if values[i] != values[i] else values[i]
        squares += (v - mean) * (v - mean)
        different += v != usual
    return squares, different


@compiled
def differing(values: Values, fill: float, mean: float, factor: float, usual: float) -> int:
    """How many rint((v - mean) * factor) differ from `usual`, `fill` in the place of missing ones."""
    different = 0
    for i in range(values.shape[0]):
        v = fill if values[i] != values[i] else values[i]
        different += np.rint((v - mean) * factor) != usual
    return different


@compiled
def standardise(values: Values, fill: float, mean: float, scale: float, out: F32) -> None:
    """out = (v - mean) * scale, `fill` in the place of missing ones."""
    for i in range(values.shape[0]):
        v = fill if values[i] != values[i] else values[i]
        out[i] = np.float32((v - mean) * scale)


@compiled
def place(values: Values, where: I64, fill: float, mean: float, scale: float, out: F32) -> None:
    """`standardise` of values[where], where int64[len(out)]: another order in the same pass."""
    for i in range(out.shape[0]):
        v = values[where[i]]
        out[i] = np.float32(((fill if v != v else v) - mean) * scale)


@compiled
def place_missing(values: Values, where: I64, out: F32) -> None:
    """out = 1 where values[where] is missing, else 0."""
    for i in range(out.shape[0]):
        v = values[where[i]]
        out[i] = np.float32(v != v)
