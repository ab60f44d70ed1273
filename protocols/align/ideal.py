"""The ideal functionality of align: what a trusted third party would answer. The tests' oracle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.oprf.padding import padded_size
from protocols.oprf.sender import SenderResult
from protocols.ristretto import Bytes


def align(receiver: Bytes, sender: Bytes) -> tuple[npt.NDArray[np.int64], SenderResult]:
    """The rows of the receiver's items, and what the sender learns."""
    row = {item.tobytes(): j for j, item in enumerate(sender)}
    rows = [row.get(item.tobytes(), -1) for item in receiver]
    return np.array(rows, dtype=np.int64), SenderResult(padded_size(len(receiver)))
