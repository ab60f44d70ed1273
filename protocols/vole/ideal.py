"""The ideal functionality: a dealer that hands both sides their correlated values. For tests and oracles."""

from __future__ import annotations

import numpy as np

from protocols.errors import LocalError
from protocols.ot.field import WIDTH, Words, multiply_add
from protocols.ristretto import Rng, random_bytes
from protocols.vole.results import ReceiverVole, SenderVole


def vole(n: int, rng: Rng, field: str = "gf64") -> tuple[ReceiverVole, SenderVole]:
    """n uniform correlations a = b + Δ·c with c in `field`: the receiver's half and the sender's."""
    if field not in WIDTH:
        raise LocalError("protocol.argument", f"field is {field!r}; gf2, gf64 and gf128 are allowed")
    delta = _words(1, 2, rng)[0]
    b = _words(n, 2, rng)
    c = _words(n, max(1, WIDTH[field]), rng)
    c = c[:, 0].copy() if WIDTH[field] < 2 else c
    if field == "gf2":
        c &= np.uint64(1)
        b[:, 0] &= ~np.uint64(1)
        delta[0] |= np.uint64(1)
    a = b.copy()
    multiply_add(a, delta, c)
    return ReceiverVole(a, c), SenderVole(b, delta)


def _words(n: int, width: int, rng: Rng) -> Words:
    return random_bytes(n, 8 * width, rng).view("<u8").astype(np.uint64).reshape(n, width)
