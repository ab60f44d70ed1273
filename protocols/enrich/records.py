"""What an OPRF output is turned into: a tag that finds the record and a key that opens it.

tag = SHA-512(label("enrich", "sender", "tag", session) ‖ F)[:16]
key = SHA-512(label("enrich", "sender", "key", session) ‖ F)[:32]
row = tag ‖ ChaCha20-Poly1305(key, nonce 0, record)
"""

from __future__ import annotations

from protocols import ristretto
from protocols.labels import label
from protocols.machine import MAX_MESSAGE
from protocols.oprf.padding import HEADER
from protocols.ristretto import Bytes, joined, sha512
from protocols.security import LOOKUP_TAG_BYTES, RECORD_KEY_BYTES


def row_bytes(width: int) -> int:
    """Bytes of a row of the table whose records have `width` bytes."""
    return LOOKUP_TAG_BYTES + width + ristretto.TAG


#: A row must fit in one message.
MAX_WIDTH = MAX_MESSAGE - HEADER - row_bytes(0)


def tags_and_keys(outputs: Bytes, session: bytes) -> tuple[Bytes, Bytes]:
    """`uint8[k, 16]` and `uint8[k, 32]` of `outputs: uint8[k, 64]`."""
    n = len(outputs)
    tags = sha512(joined(n, label("enrich", "sender", "tag", session), outputs))
    keys = sha512(joined(n, label("enrich", "sender", "key", session), outputs))
    return tags[:, :LOOKUP_TAG_BYTES].copy(), keys[:, :RECORD_KEY_BYTES].copy()
