"""The correlation under OT extension and VOLE: Q_j = T_j ⊕ Δ_j·x for 128 columns j, README section 3.

The receiver has x and T, the sender Δ and Q; columns and x are `uint64` words, bit i of a column is bit i
mod 64 of word i // 64. With `checked` the last two words of x are random, and both sides compare a
universal hash of all columns, so that a receiver that uses different x in different columns is found out.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from protocols.codec import array_of
from protocols.errors import LocalError, PeerError
from protocols.labels import label
from protocols.ot.aes import Bytes, Streams, Words
from protocols.ot.field import tables
from protocols.parallel import compiled
from protocols.ristretto import Rng, random_bytes
from protocols.security import OT_COLUMNS

#: Words at the end of x that hide it in the check.
PADDING = 2


class ColumnReceiver:
    """Holds both keys of each base OT: `keys: uint8[128, 2, 16]`."""

    def __init__(self, keys: Bytes, session: bytes, rng: Rng) -> None:
        self._zero = Streams(keys[:, 0])
        self._one = Streams(keys[:, 1])
        self._session = session
        self._rng = rng
        self._blocks = 0

    def mask(self, x: Words, checked: bool) -> tuple[Words, bytes, bytes]:
        """(T: uint64[128, w], the columns to send, the check to send) for `x: uint64[w]`, w even.

        With `checked`, T has two words more than x.
        """
        if checked:
            x = np.concatenate([x, random_bytes(PADDING, 8, self._rng).view("<u8").reshape(-1)])
        t = self._zero.take(len(x))
        sent = ((t ^ self._one.take(len(x))) ^ x).astype("<u8").tobytes()
        check = b""
        if checked:
            table = _challenge(self._session, self._blocks, sent)
            check = (
                np.concatenate([_digests(x.reshape(1, -1), table), _digests(t, table)])
                .astype("<u8")
                .tobytes()
            )
        self._blocks += 1
        return t, sent, check


class ColumnSender:
    """Holds one key of each base OT (`keys: uint8[128, 16]`), chosen by the bits of `delta: uint64[2]`."""

    def __init__(self, delta: Words, keys: Bytes, session: bytes) -> None:
        self._delta = bits(delta)
        self._streams = Streams(keys)
        self._session = session
        self._blocks = 0

    def unmask(self, words: int, sent: bytes, check: bytes, checked: bool) -> Words:
        """Q: uint64[128, w] for what `mask` gave; PeerError protocol.malformed, ot.check."""
        words += PADDING if checked else 0
        theirs = array_of(sent, "u8", OT_COLUMNS, words)
        digests = array_of(check, "u8", OT_COLUMNS + 1 if checked else 0, 2)
        chosen = np.where(self._delta.astype(bool), ~np.uint64(0), np.uint64(0))[:, None]
        q = self._streams.take(words) ^ (theirs & chosen)
        if checked:
            own = _digests(q, _challenge(self._session, self._blocks, sent))
            if not np.array_equal(own, digests[1:] ^ (digests[0] & chosen)):
                # Different x in different columns would let the receiver learn bits of Δ from what follows.
                raise PeerError(
                    "ot.check", "the receiver's columns are not of one vector; it is faulty or hostile"
                )
        self._blocks += 1
        return q


def bits(delta: Words) -> Bytes:
    """`uint8[128]`: the bits of `uint64[2]`, least significant first."""
    return np.unpackbits(delta.astype("<u8").view(np.uint8), bitorder="little")


def _challenge(session: bytes, block: int, sent: bytes) -> Words:
    """Look-up tables of the point at which columns are hashed: it comes after them (Fiat–Shamir)."""
    prefix = label("ot", "both", f"column check {block}", session)
    point = hashlib.sha256(prefix + hashlib.sha256(sent).digest()).digest()[:16]
    return tables(np.frombuffer(point, dtype="<u8").astype(np.uint64))


@compiled
def _evaluate(columns: Any, table: Any, out: Any) -> None:  # pragma: no cover (compiled)
    """Each column's words as coefficients in GF(2^128), two words each, evaluated by Horner's rule."""
    for j in range(columns.shape[0]):
        u = v = np.uint64(0)
        for k in range(0, columns.shape[1], 2):
            p, q = columns[j, k], columns[j, k + 1]
            for byte in range(8):
                low = u & np.uint64(255)
                high = v & np.uint64(255)
                u >>= np.uint64(8)
                v >>= np.uint64(8)
                p ^= table[byte, low, 0] ^ table[byte + 8, high, 0]
                q ^= table[byte, low, 1] ^ table[byte + 8, high, 1]
            u, v = p, q
        out[j, 0], out[j, 1] = u, v


def _digests(columns: Words, table: Words) -> Words:
    if columns.shape[1] % 2:
        raise LocalError(
            "protocol.argument", f"columns of {columns.shape[1]} words; an even number is needed"
        )
    out = np.zeros((len(columns), 2), dtype=np.uint64)
    _evaluate(np.require(columns, np.uint64, ["C", "W"]), table, out)
    return out


@compiled
def _transpose(columns: Any, out: Any) -> None:  # pragma: no cover (compiled)
    """Blocks of 64 × 64 bits, halves swapped at distances 32, 16, …, 1 (Hacker's Delight, section 7-3)."""
    block = np.empty(64, dtype=np.uint64)
    for half in range(2):
        for w in range(columns.shape[1]):
            for j in range(64):
                block[j] = columns[64 * half + j, w]
            distance = 32
            mask = np.uint64(0x00000000FFFFFFFF)
            while distance:
                shift = np.uint64(distance)
                for group in range(0, 64, 2 * distance):
                    for j in range(group, group + distance):
                        swap = ((block[j] >> shift) ^ block[j + distance]) & mask
                        block[j] ^= swap << shift
                        block[j + distance] ^= swap
                distance >>= 1
                mask ^= mask << np.uint64(max(distance, 1))
            for j in range(64):
                out[64 * w + j, half] = block[j]


def transpose(columns: Words) -> Words:
    """`uint64[128, w]` to `uint64[64 w, 2]`: row i has bit i of every column, column 0 in its lowest bit."""
    out = np.empty((64 * columns.shape[1], 2), dtype=np.uint64)
    _transpose(np.require(columns, np.uint64, ["C", "W"]), out)
    return out
