"""The messages, in the order of README section 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocols.codec import B32, U8, U32, Codec, array_of
from protocols.errors import PeerError
from protocols.linear_query import ring


@dataclass(frozen=True)
class Key:
    """Brand, once: the digest of the public sizes, the seed of all uniform polynomials, and p0."""

    digest: B32
    seed: B32
    p0: bytes


@dataclass(frozen=True)
class Chunk:
    """Brand, once a chunk of N rows, in order: b_k in coefficients."""

    index: U32
    b: bytes


@dataclass(frozen=True)
class Answer:
    """Provider, once a query, in order: a'' in the NTT order and the constant coefficient of b''."""

    index: U32
    a: bytes
    b: bytes


@dataclass(frozen=True)
class Masked:
    """Brand, only when the provider learns the answer: the masked answers, uint64 below t."""

    bits: U8
    values: bytes


TO_PROVIDER = Codec(Key, Chunk, Masked)
TO_BRAND = Codec(Answer)


def pack(array: ring.U32) -> bytes:
    return np.ascontiguousarray(array, dtype="<u4").tobytes()


def residues_of(data: bytes, *shape: int) -> ring.U32:
    """uint32[4, ...] with row i below prime i, or PeerError.

    A residue out of range would break the kernels' bounds (and give a polynomial a second encoding).
    """
    array = array_of(data, "u4", ring.LIMBS, *shape)
    column = ring.PRIME_COLUMN if shape else ring.PRIME_COLUMN[:, 0]
    if bool((array >= column).any()):
        raise PeerError("linear_query.residue", "a ciphertext coefficient is not below its prime")
    return array.astype(np.uint32)  # a copy: kernels are compiled for writable arrays
