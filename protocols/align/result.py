"""What the receiver of align learns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class AlignResult:
    """`rows: int64[n]`, the sender's row of item i or -1; `sender_rows` is the sender's size m."""

    rows: npt.NDArray[np.int64]
    sender_rows: int
