"""AES-128 over arrays: a permutation under a fixed key, key streams, and the hash that breaks correlations.

All of it is OpenSSL's (through `cryptography`), which uses the processor's instructions: no look-up in a
table depends on a secret. Arrays are `uint64[…, 2]`, little-endian words, so that 16 bytes are one element.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB

from protocols.errors import LocalError

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

#: Bytes of a block and of a key.
BLOCK = 16

#: `update_into` wants this much room behind what it writes; it never touches it.
SLACK = BLOCK

_LARGEST = 1 << 30


def room(shape: tuple[int, ...]) -> Words:
    """An uninitialised `uint64` array of this shape, with the room behind it that `apply` needs."""
    size = int(np.prod(shape, dtype=np.int64))
    return np.empty(size + SLACK // 8, dtype=np.uint64)[:size].reshape(shape)


def with_room(array: Words) -> Bytes:
    """The bytes of an array that `room` made, and of the room behind it."""
    base = array.base
    if base is None or base.nbytes != array.nbytes + SLACK:
        raise LocalError("protocol.argument", "an array without room behind it")
    return base.view(np.uint8)


class Permutation:
    """AES-128 under one public key, as a permutation of 16-byte blocks."""

    def __init__(self, key: bytes) -> None:
        # ECB is the bare permutation; nothing is kept confidential by it.
        self._encryptor = Cipher(AES(key), ECB()).encryptor()  # noqa: S305

    def apply(self, blocks: Words, out: Bytes) -> None:
        """out[: blocks.nbytes] = π(blocks); `out` is flat, with SLACK bytes more than that."""
        flat = blocks.reshape(-1).view(np.uint8)
        for at in range(0, len(flat), _LARGEST):
            part = flat[at : at + _LARGEST]
            self._encryptor.update_into(part.data, out[at:].data)

    def image(self, blocks: Words) -> Words:
        """π(blocks) as a new array."""
        flat = np.empty(blocks.nbytes + SLACK, dtype=np.uint8)
        self.apply(np.ascontiguousarray(blocks), flat)
        return flat[: blocks.nbytes].view("<u8").astype(np.uint64, copy=False).reshape(blocks.shape)


def public_key(label: bytes) -> bytes:
    """16 bytes for a key that both sides derive from a label."""
    return hashlib.sha256(label).digest()[:BLOCK]


def keystream(key: bytes, size: int) -> Bytes:
    """`size` bytes of AES-128-CTR under `key`, counter from 0."""
    return _take(Cipher(AES(key), CTR(bytes(BLOCK))).encryptor(), size)


class Streams:
    """One pseudo-random stream a key, read in step: `keys: uint8[k, 16]`."""

    def __init__(self, keys: Bytes) -> None:
        if keys.ndim != 2 or keys.shape[1] != BLOCK or keys.dtype != np.uint8:
            raise LocalError("protocol.argument", f"keys are uint8[k, 16], {list(keys.shape)} was given")
        self._encryptors = [Cipher(AES(key.tobytes()), CTR(bytes(BLOCK))).encryptor() for key in keys]

    def take(self, words: int) -> Words:
        """The next `uint64[k, words]`; `words` is even."""
        out = np.empty((len(self._encryptors), 8 * words + SLACK), dtype=np.uint8)
        zeros = bytes(8 * words)
        for encryptor, row in zip(self._encryptors, out, strict=True):
            encryptor.update_into(zeros, row.data)
        return np.ascontiguousarray(out[:, : 8 * words]).view("<u8").astype(np.uint64, copy=False)


def _take(encryptor: object, size: int) -> Bytes:
    out = np.empty(size + SLACK, dtype=np.uint8)
    encryptor.update_into(bytes(size), out.data)  # type: ignore[attr-defined]
    return out[:size]


def hash_rows(permutation: Permutation, rows: Words, first: int) -> Words:
    """H(x, i) = π(π(x) ⊕ i) ⊕ π(x) of `rows: uint64[n, 2]`, i = first, first + 1, …

    TMMO of Guo, Katz, Wang, Yu, eprint 2019/074: tweakable and circular correlation robust,
    which is what an OT extension against malicious parties needs.
    """
    inner = permutation.image(rows)
    tweaked = inner.copy()
    tweaked[:, 0] ^= np.arange(first, first + len(rows), dtype=np.uint64)
    return permutation.image(tweaked) ^ inner
