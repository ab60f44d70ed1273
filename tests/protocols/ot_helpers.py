"""What the tests of OT and VOLE share: ideal base OTs, which cost nothing."""

from __future__ import annotations

import hashlib

import numpy as np


class DealtReceiver:
    """An ideal base OT's receiver: what the dealer hands out follows from the choices and the session."""

    points = bytes(64 * 128)

    def __init__(self, choices, session, rng) -> None:
        self._choices, self._session = choices, session

    def keys(self, point: bytes) -> np.ndarray:
        return DealtSender(self._session, None).keys(b"", 128)[np.arange(128), self._choices]


class DealtSender:
    """An ideal base OT's sender."""

    point = bytes(32)

    def __init__(self, session, rng) -> None:
        self._session = session

    def keys(self, points: bytes, k: int) -> np.ndarray:
        dealt = hashlib.shake_256(b"dealer" + self._session).digest(32 * k)
        return np.frombuffer(dealt, dtype=np.uint8).reshape(k, 2, 16)
