"""The messages, in the order of README section 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocols.codec import B32, U8, U32, Codec, array_of
from protocols.errors import PeerError
from protocols.linear_query import kernels, ring
from protocols.linear_query.parameters import RESIDUE_BITS


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
    """Provider, once a group of queries, in order: a'' and b'', rounded to k bits (README 3.4).

    a: N coefficients of k bits without gaps; b: 16 bytes, little-endian, for each query of the group.
    """

    index: U32
    a: bytes
    b: bytes


@dataclass(frozen=True)
class Masked:
    """Brand, only when the provider learns the answer: the masked answers, uint64 below t."""

    bits: U8
    values: bytes


#: Bytes of one number of b'' in an Answer.
NUMBER_BYTES = 16

TO_PROVIDER = Codec(Key, Chunk, Masked)
TO_BRAND = Codec(Answer)


def pack(residues: ring.U32) -> bytes:
    """uint32[limbs, N] of residues in 30 bits each, without gaps."""
    return words_of(kernels.pack(residues.reshape(1, -1), RESIDUE_BITS))


def residues_of(data: bytes, level: ring.Level) -> ring.U32:
    """uint32[limbs, N] with row i below prime i, or PeerError.

    A residue out of range would break the kernels' bounds (and give a polynomial a second encoding).
    """
    shape = level.limbs, ring.N
    packed = array_of(data, "u4", level.limbs * ring.N * RESIDUE_BITS // 32)
    residues = kernels.unpack(packed.astype(np.uint32), level.limbs * ring.N, RESIDUE_BITS).reshape(shape)
    if bool((residues >= level.column).any()):
        raise PeerError("linear_query.residue", "a ciphertext coefficient is not below its prime")
    return residues


def words_of(words: ring.U32) -> bytes:
    return np.ascontiguousarray(words, dtype="<u4").tobytes()


def polynomial_of(data: bytes, bits: int) -> ring.U32:
    """uint32[words, N], the lowest word first, of N coefficients of `bits` bits; PeerError on another length.

    Every string of this length is one: each coefficient is below 2^bits by its place.
    """
    packed = array_of(data, "u4", ring.N * bits // 32)
    return kernels.unpack(packed.astype(np.uint32), ring.N, bits)


def pack_numbers(numbers: list[int]) -> bytes:
    return b"".join(number.to_bytes(NUMBER_BYTES, "little") for number in numbers)


def numbers_of(data: bytes, count: int, bits: int) -> list[int]:
    """`count` integers below 2^bits, or PeerError."""
    if len(data) != count * NUMBER_BYTES:
        raise PeerError("protocol.malformed", f"{len(data)} bytes where {count} numbers were due")
    starts = range(0, len(data), NUMBER_BYTES)
    numbers = [int.from_bytes(data[at : at + NUMBER_BYTES], "little") for at in starts]
    if any(number >> bits for number in numbers):
        # A second encoding of the same answer would be a covert channel beside it.
        raise PeerError("linear_query.residue", f"an answer's number is not below 2^{bits}")
    return numbers
