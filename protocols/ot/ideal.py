"""The ideal functionality: a dealer that hands out random or correlated strings. For tests and oracles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.ot.results import ReceiverOts, SenderOts
from protocols.ristretto import Rng, random_bytes


def ots(choices: npt.NDArray[np.uint8], rng: Rng, correlated: bool = False) -> tuple[ReceiverOts, SenderOts]:
    """(what the receiver with these `choices: uint8[n]` gets, what the sender gets)."""
    n = len(choices)
    delta = random_bytes(1, 16, rng).view("<u8").astype(np.uint64)[0]
    strings = random_bytes(2 * n, 16, rng).view("<u8").astype(np.uint64).reshape(n, 2, 2)
    if correlated:
        strings[:, 1] = strings[:, 0] ^ delta
    return ReceiverOts(strings[np.arange(n), choices]), SenderOts(strings, delta)
