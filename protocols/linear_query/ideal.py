"""The ideal functionality: what a trusted third party would compute; the tests' oracle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.linear_query.ring import I64


def linear_query(y: I64, matrix: npt.NDArray[np.integer]) -> I64:
    """Q^T y over the integers, int64[queries]; to the party that the Query names, nothing to the other."""
    return np.asarray(matrix.astype(np.int64).T @ y, dtype=np.int64)
