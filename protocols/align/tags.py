"""A tag: an output of the OPRF, bound to the session and cut."""

from __future__ import annotations

from protocols.labels import label
from protocols.ristretto import Bytes, joined, sha512
from protocols.security import STATISTICAL_BITS


def tag_bytes(size: int, rows: int) -> int:
    """⌈(40 + log2(size · rows)) / 8⌉: with so many pairs a false match has a probability of 2^-40."""
    bits = STATISTICAL_BITS + (max(size * rows, 1) - 1).bit_length()
    return -(-bits // 8)


def tags_of(outputs: Bytes, session: bytes, width: int) -> Bytes:
    """SHA-512(label(session) ‖ F), its first `width` bytes, for each row of `outputs: uint8[k, 64]`."""
    prefix = label("align", "sender", "tag", session)
    return sha512(joined(len(outputs), prefix, outputs))[:, :width].copy()
