"""Random OTs from a VOLE over bits ("silent" OT): README section 10."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.labels import label
from protocols.ot.aes import Permutation, hash_rows, public_key
from protocols.ot.results import ReceiverOts, SenderOts
from protocols.vole.results import ReceiverVole, SenderVole


def sender_ots(vole: SenderVole, session: bytes) -> SenderOts:
    """Both strings of n random OTs, for the sender of a VOLE with field gf2: H(b, i) and H(b + Δ, i)."""
    permutation = _permutation(session)
    sides = [hash_rows(permutation, rows, 0) for rows in (vole.b, vole.b ^ vole.delta)]
    return SenderOts(np.stack(sides, axis=1), vole.delta)


def receiver_ots(vole: ReceiverVole, session: bytes) -> tuple[npt.NDArray[np.uint8], ReceiverOts]:
    """(`choices: uint8[n]`, which are random, the strings that they name), for the receiver."""
    return vole.c.astype(np.uint8), ReceiverOts(hash_rows(_permutation(session), vole.a, 0))


def _permutation(session: bytes) -> Permutation:
    return Permutation(public_key(label("vole", "both", "strings", session)))
