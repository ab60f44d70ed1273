"""Every random draw of the protocol, from seeded AES-256-CTR streams.

A stream's key is SHA-256(label(protocol, role, usage, session) ‖ seed), its counter starts at the index of
what is drawn. Secret draws take a seed of 32 fresh bytes from the machine's `rng`; public ones (the uniform
halves `a` of the ciphertexts) take the seed that the brand announces, so both sides draw the same.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.labels import label
from protocols.linear_query.kernels import keep_below
from protocols.linear_query.ring import I64, PRIMES, U32, N
from protocols.security import RLWE_ERROR_ETA

PROTOCOL = "linear_query"


class Stream:
    """AES-256-CTR keystream; `index` separates up to 2^32 streams of one key (2^96 blocks apart)."""

    def __init__(self, seed: bytes, role: str, usage: str, session: bytes, index: int = 0) -> None:
        key = hashlib.sha256(label(PROTOCOL, role, usage, session) + seed).digest()
        nonce = index.to_bytes(4, "big") + bytes(12)
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()

    def bytes(self, count: int) -> bytes:
        return self._encryptor.update(bytes(count))

    def words(self, count: int, dtype: str) -> npt.NDArray[Any]:
        kind = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self.bytes(count * kind.itemsize), dtype=kind)


def uniform(seed: bytes, usage: str, session: bytes, index: int, limbs: int) -> U32:
    """uint32[limbs, N], each row exactly uniform below its prime (rejection, so free of bias).

    Public: both sides call it with the brand's announced seed. The result is read in the NTT order, which
    is as uniform as the coefficients are.
    """
    stream = Stream(seed, "brand", usage, session, index)
    out = np.empty((limbs, N), dtype=np.uint32)
    for row, prime in zip(out, PRIMES[:limbs], strict=True):
        filled = 0
        while filled < N:
            filled = keep_below(stream.words(N + 64, "u4"), np.uint32(prime), row, filled)
    return out


def errors(stream: Stream, count: int) -> I64:
    """int64[count], centred binomial: sum of 21 bits minus sum of 21 others."""
    words = stream.words(count, "u8")
    mask = np.uint64((1 << RLWE_ERROR_ETA) - 1)
    plus = np.bitwise_count(words & mask).astype(np.int64)
    minus = np.bitwise_count((words >> np.uint64(RLWE_ERROR_ETA)) & mask).astype(np.int64)
    return np.asarray(plus - minus)


def ternary(stream: Stream, count: int) -> I64:
    """int64[count], exactly uniform in {-1, 0, 1}: bytes below 255 = 3 * 85, modulo 3."""
    parts, have = [], 0
    while have < count:
        drawn = stream.words(count - have + 64, "u1")
        kept = drawn[drawn < 255][: count - have]
        parts.append(kept)
        have += len(kept)
    return np.asarray(np.concatenate(parts) % 3, dtype=np.int64) - 1


def integer_below(stream: Stream, bound: int) -> int:
    """Exactly uniform in [0, bound), by rejection; bound may have any size."""
    bits = (bound - 1).bit_length()
    size = (bits + 7) // 8
    while True:
        value = int.from_bytes(stream.bytes(size), "big") >> (8 * size - bits)
        if value < bound:
            return value
