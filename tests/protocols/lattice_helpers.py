"""A fixed random source, and a pump that keeps the transcript, for linear query and lookalike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from protocols.machine import Machine

SESSION = bytes(range(32))


def fixed_rng(name: str) -> Callable[[int], bytes]:
    """A deterministic stream of bytes; two sources with different names are unrelated."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name}/{count}".encode()).digest(size)

    return draw


def fractions(words: np.ndarray, bits: int) -> np.ndarray:
    """float64[n] in [0, 1): numbers of `bits` bits, uint32[words, n] with the lowest first, over 2^bits."""
    return sum(np.ldexp(word.astype(np.float64), 32 * w - bits) for w, word in enumerate(words))


def transcript(
    left: Machine[Any],
    right: Machine[Any],
    change: Callable[[str, int, bytes], bytes] = lambda side, index, message: message,
) -> list[tuple[str, bytes]]:
    """Run both to the end; `change(side, index, message)` may tamper with the index-th message of all."""
    log: list[tuple[str, bytes]] = []
    queue = [("left", m) for m in left.start()] + [("right", m) for m in right.start()]
    while queue:
        side, message = queue.pop(0)
        message = change(side, len(log), message)
        log.append((side, message))
        receiver, answerer = (right, "right") if side == "left" else (left, "left")
        queue.extend((answerer, m) for m in receiver.receive(message))
    return log
