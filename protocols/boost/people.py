"""The brand's people and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.boost.bins import Table
from protocols.boost.terms import Learning
from protocols.errors import LocalError

#: Sums of fewer training rows than this are refused: they would tell the brand's labels apart for nothing.
LEAST_ROWS = 100


@dataclass(frozen=True)
class Labels:
    """The brand's k people.

    rows    int64[k], distinct: the provider's row of each
    y       float64[k]; only read where `train` or `held`
    train   bool[k]: in the gradients; `held`: measured after each tree. Neither: only scored
    own     the brand's columns, k rows, up to 256 bins
    """

    rows: npt.NDArray[np.int64]
    y: npt.NDArray[np.float64]
    train: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]
    own: Table

    def check(self, total: int, learning: Learning) -> None:
        """LocalError `protocol.argument` for shapes and values, `boost.rows` for too few rows of a class."""
        k = len(self.rows)
        if not (len(self.y) == len(self.train) == len(self.held) == len(self.own.bins) == k):
            raise LocalError("protocol.argument", "rows, y, train, held and own bins must have one length")
        good = not k or 0 <= self.rows.min() <= self.rows.max() < total
        if good:
            seen = np.zeros(total, dtype=bool)
            seen[self.rows] = True
            good = np.count_nonzero(seen) == k
        if not good:
            raise LocalError("protocol.argument", f"rows must be distinct and from 0 to {total - 1}")
        if (self.train & self.held).any():
            raise LocalError("protocol.argument", "a row can't be in the training and held out")
        self.own.check(256)
        used = self.y[self.train | self.held]
        train = self.y[self.train]
        if not np.isfinite(used).all():
            raise LocalError("protocol.argument", "a label in use is missing or infinite")
        if len(train) < max(LEAST_ROWS, 2 * learning.minimum_rows):
            raise LocalError(
                "boost.rows",
                f"{len(train)} training rows, {max(LEAST_ROWS, 2 * learning.minimum_rows)} are needed",
            )
        if learning.objective == "logistic":
            if not np.isin(used, (0.0, 1.0)).all():
                raise LocalError("protocol.argument", "labels of a logistic objective are 0 and 1")
            if not 0 < train.sum() < len(train):
                raise LocalError("boost.rows", "the training rows have one class only; both are needed")
