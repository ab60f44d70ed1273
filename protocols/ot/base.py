"""Base OTs on ristretto255, a batch at a time: README section 2. Two moves, the receiver's first.

receiver, bits c_j                                    sender
r_{j,1-c} uniform, r_{j,c} = t_j·G − H_{j,c}(r_{j,1-c})
r_{j,0}, r_{j,1}   ───────────────────────────────►
                   ◄───────────────────────────────   A = a·G
k_j = K_{j,c}(t_j·A)                                  k_{j,i} = K_{j,i}(a·(r_{j,i} + H_{j,i}(r_{j,1-i})))
"""

from __future__ import annotations

import numpy as np

from protocols.codec import array_of
from protocols.errors import PeerError
from protocols.labels import label
from protocols.ot.aes import BLOCK
from protocols.ristretto import (
    POINT,
    Bytes,
    Mask,
    Rng,
    add,
    from_uniform,
    joined,
    multiply,
    multiply_base,
    random_bytes,
    random_scalars,
    sha512,
    subtract,
)


class BaseReceiver:
    """Learns one key of each pair: `choices: uint8[k]` of zeros and ones."""

    def __init__(self, choices: Bytes, session: bytes, rng: Rng) -> None:
        k = len(choices)
        self._choices = choices
        self._session = session
        self._scalars = random_scalars(k, rng)
        other = from_uniform(random_bytes(k, 64, rng))
        chosen, good = subtract(
            multiply_base(self._scalars), _hash_to_group(session, np.arange(k), choices, other)
        )
        _must(good, "of this side's own")
        self._pairs = np.empty((k, 2, POINT), dtype=np.uint8)
        # Which of the two was computed must not show: both are uniform, and written in the same way.
        at = choices.astype(bool)[:, None]
        self._pairs[:, 0] = np.where(at, other, chosen)
        self._pairs[:, 1] = np.where(at, chosen, other)

    @property
    def points(self) -> bytes:
        """The message to the sender: 64 bytes an OT."""
        return self._pairs.tobytes()

    def keys(self, point: bytes) -> Bytes:
        """`uint8[k, 16]`, the chosen keys; PeerError ot.bad_point."""
        k = len(self._choices)
        theirs = np.repeat(array_of(point, "u1", 1, POINT), k, axis=0)
        shared, good = multiply(self._scalars, theirs)
        # The identity as A would make every key public.
        _must(good, "the sender's")
        return _derive(self._session, np.arange(k), self._choices, point, self._pairs, shared)


class BaseSender:
    """Learns both keys of each pair."""

    def __init__(self, session: bytes, rng: Rng) -> None:
        self._session = session
        self._scalar = random_scalars(1, rng)
        self.point = multiply_base(self._scalar).tobytes()

    def keys(self, points: bytes, k: int) -> Bytes:
        """`uint8[k, 2, 16]` for the receiver's `points`; PeerError ot.bad_point, protocol.malformed."""
        pairs = array_of(points, "u1", k, 2, POINT)
        flat = np.ascontiguousarray(pairs.reshape(2 * k, POINT))
        other = np.ascontiguousarray(pairs[:, ::-1].reshape(2 * k, POINT))
        index, side = np.repeat(np.arange(k), 2), np.tile(np.array([0, 1], dtype=np.uint8), k)
        # Canonical encodings only: two encodings of one element would be two different inputs of the hashes.
        masked, good = add(flat, _hash_to_group(self._session, index, side, other))
        _must(good, "the receiver's")
        shared, good = multiply(self._scalar[0], masked)
        _must(good, "the receiver's")
        both = np.repeat(pairs, 2, axis=0)
        return _derive(self._session, index, side, self.point, both, shared).reshape(k, 2, BLOCK)


def _tag(index: np.ndarray, side: Bytes) -> Bytes:
    """Index and side as five bytes: no two oracle calls of a batch share their domain (eprint 2021/682)."""
    return np.column_stack([index.astype(">u4").view(np.uint8).reshape(-1, 4), side]).astype(np.uint8)


def _hash_to_group(session: bytes, index: np.ndarray, side: Bytes, points: Bytes) -> Bytes:
    """H_{j,i}(r): uniform elements whose logarithm nobody knows (RFC 9496, section 4.3.4)."""
    prefix = label("ot", "receiver", "base mask", session)
    return from_uniform(sha512(joined(len(points), prefix, _tag(index, side), points)))


def _derive(
    session: bytes, index: np.ndarray, side: Bytes, point: bytes, pairs: Bytes, shared: Bytes
) -> Bytes:
    """K_{j,i}: the key binds everything that was sent for this OT, so that nothing can be moved or reused."""
    prefix = label("ot", "sender", "base key", session)
    flat = np.ascontiguousarray(pairs).reshape(len(shared), 2 * POINT)
    return sha512(joined(len(shared), prefix, _tag(index, side), point, flat, shared))[:, :BLOCK].copy()


def _must(good: Mask, whose: str) -> None:
    if not good.all():
        bad = np.flatnonzero(~good)
        raise PeerError(
            "ot.bad_point",
            f"{len(bad)} of {len(good)} base OT points ({whose}) are not ristretto255 elements or give the "
            f"identity, the first at index {int(bad[0])}",
        )
