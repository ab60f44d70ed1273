"""One number a row for whoever has the row's key: the provider's parts of the scores. README, section 7.

`keys` uint8[m, 32] come from align: of each row the provider has one, the brand has those of its own people.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.labels import label
from protocols.ristretto import Bytes, joined, sha512

#: Bytes of a sealed number: a float64.
WIDTH = 8
#: Rows that are hashed at once.
BLOCK = 1 << 16


def _pad(keys: Bytes, session: bytes) -> npt.NDArray[np.uint64]:
    """uint64[k]: SHA-512(label(session) ‖ key) cut to 8 bytes; used once, since both are of one job."""
    prefix = label("joint", "provider", "seal", session)
    out = np.empty(len(keys), np.uint64)
    for at in range(0, len(keys), BLOCK):
        part = keys[at : at + BLOCK]
        words = np.ascontiguousarray(sha512(joined(len(part), prefix, part))[:, :WIDTH])
        out[at : at + len(part)] = words.view("<u8").reshape(-1)
    return out


def seal(values: npt.NDArray[np.float64], keys: Bytes, session: bytes) -> npt.NDArray[np.uint64]:
    """uint64[m] for float64[m] and uint8[m, 32]; NaN says that a row has no value any more."""
    if values.shape != (len(keys),):
        raise LocalError("protocol.argument", f"{values.shape} values for {len(keys)} keys")
    return np.asarray(values.astype("<f8").view("<u8").astype(np.uint64) ^ _pad(keys, session))


def unseal(sealed: npt.NDArray[np.uint64], keys: Bytes, session: bytes) -> npt.NDArray[np.float64]:
    """float64[k] of rows whose keys one has; PeerError for infinite values."""
    if sealed.shape != (len(keys),):
        raise LocalError("protocol.argument", f"{sealed.shape} sealed values for {len(keys)} keys")
    values = (sealed ^ _pad(keys, session)).astype("<u8").view("<f8").astype(np.float64)
    if np.isinf(values).any():
        raise PeerError("protocol.malformed", "an infinite score came from the provider")
    return values
