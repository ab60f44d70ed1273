"""Lookalike in one pass: the brand's labels, the provider's features, one linear query. See README.md."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.lookalike.features import Features, FitResult
from protocols.lookalike.fit import scores, streamed
from protocols.lookalike.labels import Labels, LabelsResult
from protocols.lookalike.terms import Terms, padded

#: What each side learns, for the table that is shown before approval (README, section 2).
LEAKAGE = {
    "brand": ("number of columns", "scale of the noise"),
    "provider": (
        "padded seed count",
        "sum of each column over the seeds and the seed count, with the agreed noise; with bags, those of "
        "each bag's random half of the seeds instead",
        "its own model",
    ),
}

__all__ = [
    "LEAKAGE",
    "Features",
    "FitResult",
    "Labels",
    "LabelsResult",
    "Terms",
    "padded",
    "score",
    "score_columns",
]


def score(phi: npt.NDArray[np.float32], fit: FitResult) -> npt.NDArray[np.float32]:
    """Log-odds phi w + b of each row, float32[m] (rows clipped as in the fit). The provider runs it.

    Log-odds and not probabilities: they keep the order of the best rows, where float32 probabilities tie.
    """
    if phi.ndim != 2 or phi.dtype != np.float32 or phi.shape[1] != len(fit.weights):
        raise LocalError(
            "protocol.argument", f"phi is {phi.dtype}{phi.shape}; float32[m, {len(fit.weights)}] is due"
        )
    return scores(np.asfortranarray(phi), fit.weights, fit.intercept, fit.clip)


def score_columns(
    columns: Iterable[npt.NDArray[np.float32]], rows: int, fit: FitResult
) -> npt.NDArray[np.float32]:
    """`score` of a phi that is given column by column, float32[rows] each, and never held whole."""
    return streamed(columns, rows, fit.weights, fit.intercept, fit.clip)
