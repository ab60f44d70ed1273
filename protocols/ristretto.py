"""ristretto255 (RFC 9496), SHA-512 and ChaCha20-Poly1305 (RFC 8439) over whole arrays.

Points and scalars are rows of `uint8[n, 32]` in the RFC's encoding; scalars are below the group's order
L = 2^252 + 27742317777372353535851937790883648493, little-endian. All functions are libsodium's, which run in
constant time in their secrets. Where an element comes from the peer the function returns a mask of the rows
that are good; `oprf` turns a bad one into a PeerError.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from protocols._native import At, each
from protocols.errors import LocalError

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: The source of randomness that every machine takes: n → n bytes. `os.urandom`, or a fixed stream in a test.
Rng = Callable[[int], bytes]

POINT = 32
SCALAR = 32
WIDE = 64
TAG = 16


def rows(data: npt.ArrayLike, width: int) -> Bytes:
    """`data` as contiguous `uint8[n, width]` that C may read; LocalError if it isn't of that shape."""
    array = np.asarray(data)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != width:
        raise LocalError(
            "protocol.argument", f"uint8[n, {width}] is needed, {array.dtype}{list(array.shape)} was given"
        )
    return np.ascontiguousarray(array)


def multiply(scalars: Bytes, points: Bytes) -> tuple[Bytes, Mask]:
    """scalar · point, row by row, or one scalar (`uint8[32]`) for all; and which rows are good.

    A row is bad, and its product zero, if the point is no canonical encoding or if the product is the
    identity; in a group of prime order that means that the point was the identity or the scalar zero.
    """
    points = rows(points, POINT)
    n = len(points)
    stride = 0 if scalars.ndim == 1 else SCALAR
    scalars = np.ascontiguousarray(scalars) if stride == 0 else rows(scalars, SCALAR)
    if scalars.shape[-1] != SCALAR or (stride and len(scalars) != n):
        raise LocalError("protocol.argument", f"{len(scalars)} scalars for {n} points")
    out = np.zeros((n, POINT), dtype=np.uint8)
    status = each("crypto_scalarmult_ristretto255", n, At(out, POINT), At(scalars, stride), At(points, POINT))
    good = status == 0
    out[~good] = 0
    return out, good


def multiply_base(scalars: Bytes) -> Bytes:
    """scalar · the group's generator, row by row; none of the scalars may be zero."""
    scalars = rows(scalars, SCALAR)
    out = np.zeros((len(scalars), POINT), dtype=np.uint8)
    bad = each("crypto_scalarmult_ristretto255_base", len(scalars), At(out, POINT), At(scalars, SCALAR))
    if bad.any():
        raise LocalError("protocol.argument", "a scalar of zero gives the identity")
    return out


def add(left: Bytes, right: Bytes) -> tuple[Bytes, Mask]:
    """left + right, row by row, and which rows are good: both are canonical encodings (the identity is)."""
    return _combine("crypto_core_ristretto255_add", left, right)


def subtract(left: Bytes, right: Bytes) -> tuple[Bytes, Mask]:
    """left − right, as `add`."""
    return _combine("crypto_core_ristretto255_sub", left, right)


def _combine(function: str, left: Bytes, right: Bytes) -> tuple[Bytes, Mask]:
    left, right = rows(left, POINT), rows(right, POINT)
    if len(left) != len(right):
        raise LocalError("protocol.argument", f"{len(left)} points and {len(right)}")
    out = np.zeros((len(left), POINT), dtype=np.uint8)
    good = each(function, len(left), At(out, POINT), At(left, POINT), At(right, POINT)) == 0
    out[~good] = 0
    return out, good


def is_valid(points: Bytes) -> Mask:
    """Which rows are canonical encodings of elements (RFC 9496, section 4.3.1); the identity is one."""
    points = rows(points, POINT)
    status = each("crypto_core_ristretto255_is_valid_point", len(points), At(points, POINT))
    return np.equal(status, 1)


def from_uniform(uniform: Bytes) -> Bytes:
    """`uint8[n, 64]` of uniform bytes to elements (RFC 9496, section 4.3.4: two maps and an addition)."""
    uniform = rows(uniform, WIDE)
    out = np.zeros((len(uniform), POINT), dtype=np.uint8)
    each("crypto_core_ristretto255_from_hash", len(uniform), At(out, POINT), At(uniform, WIDE))
    return out


def random_bytes(n: int, width: int, rng: Rng) -> Bytes:
    """`uint8[n, width]` from `rng`; LocalError if it gives another number of bytes than it was asked for."""
    drawn = rng(n * width) if n else b""
    if len(drawn) != n * width:
        raise LocalError("protocol.argument", f"rng gave {len(drawn)} bytes, {n * width} were asked for")
    return np.frombuffer(drawn, dtype=np.uint8).reshape(n, width).copy()


def random_scalars(n: int, rng: Rng) -> Bytes:
    """n scalars, each from 64 bytes of `rng` reduced modulo L: within 2^-259 of uniform.

    LocalError if one is zero, which no working source of randomness gives (probability 2^-252).
    """
    wide = random_bytes(n, WIDE, rng)
    out = np.zeros((n, SCALAR), dtype=np.uint8)
    each("crypto_core_ristretto255_scalar_reduce", n, At(out, SCALAR), At(wide, WIDE))
    if n and not out.any(axis=1).all():
        raise LocalError("protocol.argument", "rng gave a scalar of zero: it is not a source of randomness")
    return out


def invert(scalars: Bytes) -> Bytes:
    """The inverse of each scalar modulo L; none may be zero.

    One inversion for all (Montgomery 1987, section 10.3.1): a tree of pairwise products goes up to the
    product of all, its inverse comes down again; a child's inverse is its parent's times its sibling.
    """
    scalars = rows(scalars, SCALAR)
    n = len(scalars)
    leaves = np.zeros((1 << max(n - 1, 0).bit_length(), SCALAR), dtype=np.uint8)
    leaves[:, 0] = 1
    leaves[:n] = scalars
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = np.zeros((len(below) // 2, SCALAR), dtype=np.uint8)
        _products(len(above), At(above, SCALAR), _left(below), _right(below))
        levels.append(above)
    inverse = np.zeros((1, SCALAR), dtype=np.uint8)
    bad = each("crypto_core_ristretto255_scalar_invert", 1, At(inverse, SCALAR), At(levels.pop(), SCALAR))
    if bad.any():
        raise LocalError("protocol.argument", "a scalar of zero has no inverse")
    while levels:
        below = levels.pop()
        out = np.zeros_like(below)
        _products(len(inverse), _left(out), At(inverse, SCALAR), _right(below))
        _products(len(inverse), _right(out), At(inverse, SCALAR), _left(below))
        inverse = out
    return inverse[:n].copy()


def _left(scalars: Bytes) -> At:
    return At(scalars, 2 * SCALAR, 0, SCALAR)


def _right(scalars: Bytes) -> At:
    return At(scalars, 2 * SCALAR, SCALAR, SCALAR)


def _products(n: int, out: At, left: At, right: At) -> None:
    each("crypto_core_ristretto255_scalar_mul", n, out, left, right)


def sha512(messages: Bytes) -> Bytes:
    """SHA-512 of each row of `uint8[n, length]`, as `uint8[n, 64]`."""
    messages = np.ascontiguousarray(messages)
    n, length = messages.shape
    out = np.zeros((n, 64), dtype=np.uint8)
    each("crypto_hash_sha512", n, At(out, 64), At(messages, length), length)
    return out


def joined(n: int, *parts: bytes | Bytes) -> Bytes:
    """n rows that are the parts one after the other; a part is the same bytes for all, or `uint8[n, w]`."""
    widths = [len(p) if isinstance(p, bytes) else p.shape[1] for p in parts]
    out = np.empty((n, sum(widths)), dtype=np.uint8)
    at = 0
    for part, width in zip(parts, widths, strict=True):
        out[:, at : at + width] = np.frombuffer(part, dtype=np.uint8) if isinstance(part, bytes) else part
        at += width
    return out


def seal(keys: Bytes, records: Bytes) -> Bytes:
    """ChaCha20-Poly1305 of each row under its own key, as `uint8[n, width + 16]`.

    The nonce is zero: whoever calls uses every key for exactly one record.
    """
    keys, records = rows(keys, 32), np.ascontiguousarray(records)
    n, width = records.shape
    out = np.zeros((n, width + TAG), dtype=np.uint8)
    nonce = np.zeros(12, dtype=np.uint8)
    # c, clen_p, m, mlen, ad, adlen, nsec, npub, k
    each(
        "crypto_aead_chacha20poly1305_ietf_encrypt",
        *(n, At(out, width + TAG), 0, At(records, width), width, 0, 0, 0, At(nonce, 0), At(keys, 32)),
    )
    return out


def unseal(keys: Bytes, sealed: Bytes) -> tuple[Bytes, Mask]:
    """The records of `seal`, and which of them are authentic; the others are zero."""
    keys, sealed = rows(keys, 32), np.ascontiguousarray(sealed)
    n, width = len(sealed), sealed.shape[1] - TAG
    out = np.zeros((n, width), dtype=np.uint8)
    nonce = np.zeros(12, dtype=np.uint8)
    # m, mlen_p, nsec, c, clen, ad, adlen, npub, k
    status = each(
        "crypto_aead_chacha20poly1305_ietf_decrypt",
        *(n, At(out, width), 0, 0, At(sealed, width + TAG), width + TAG, 0, 0, At(nonce, 0), At(keys, 32)),
    )
    good = status == 0
    out[~good] = 0
    return out, good
