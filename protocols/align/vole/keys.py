"""From items to keys of the store and their values. README, section 3."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols import okvs
from protocols.align.vole.messages import Terms
from protocols.labels import label
from protocols.okvs.store import mixed
from protocols.ristretto import Bytes, joined, sha512

U64 = npt.NDArray[np.uint64]


def locate(items: Bytes, terms: Terms) -> tuple[okvs.Located, U64]:
    """Keys in the order of their bins, and uint64[n, 2] in the same order, of which `values` makes values."""
    if not terms.malicious:
        keys = okvs.locate(okvs.hashed(items, terms.key("vole store")), terms.shape)
        return keys, keys.words
    # A malicious peer may look for items with related hashes: a random oracle, not AES with a known key.
    hashed = sha512(joined(len(items), label("align", "both", "vole key", terms.session), terms.seed, items))
    words = hashed.view("<u8").astype(np.uint64, copy=False).reshape(len(items), 8)
    keys = okvs.locate(np.ascontiguousarray(words[:, :2]), terms.shape)
    return keys, words[:, 2:4][keys.order]


def values(source: U64, terms: Terms) -> U64:
    """uint64[n, terms.words]: the value h of each key."""
    if terms.malicious:
        return source
    return np.ascontiguousarray(mixed(source, terms.key("vole value"))[:, : terms.words])
