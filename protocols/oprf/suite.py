"""RFC 9497, mode OPRF (0x00), suite ristretto255-SHA512: the four functions of section 3.3.1, over arrays.

Inputs are `uint8[n, length]`, one row an input, all of one length; keys, scalars and elements as in
`protocols.ristretto`. The names are the RFC's.
"""

from __future__ import annotations

import numpy as np

from protocols import ristretto
from protocols.errors import LocalError, PeerError
from protocols.ristretto import Bytes, Rng, joined, sha512

IDENTIFIER = b"ristretto255-SHA512"
MODE_OPRF = b"\x00"
#: Section 3.1: "OPRFV1-" || I2OSP(mode, 1) || "-" || identifier.
CONTEXT = b"OPRFV1-" + MODE_OPRF + b"-" + IDENTIFIER
#: Section 4.1: HashToGroup is hash_to_ristretto255 with this DST.
HASH_TO_GROUP_DST = b"HashToGroup-" + CONTEXT

#: Section 5.1: inputs are shorter than 2^16 - 1 bytes.
MAX_INPUT = (1 << 16) - 2

#: Input block of SHA-512 in bytes (s_in_bytes of RFC 9380, section 5.3.1).
_BLOCK = 128


def _i2osp(value: int, length: int) -> bytes:
    return value.to_bytes(length, "big")


def hash_to_group(inputs: Bytes) -> Bytes:
    """RFC 9380, appendix B: expand_message_xmd(SHA-512) to 64 bytes, then the one-way map of RFC 9496.

    64 bytes are one block of output, so that of the expansion's loop (section 5.3.1) only b_1 is left.
    """
    n, length = len(inputs), inputs.shape[1]
    if length > MAX_INPUT:
        raise LocalError("protocol.argument", f"inputs of {length} bytes, {MAX_INPUT} allowed")
    dst_prime = HASH_TO_GROUP_DST + _i2osp(len(HASH_TO_GROUP_DST), 1)
    b_0 = sha512(joined(n, bytes(_BLOCK), inputs, _i2osp(64, 2), _i2osp(0, 1), dst_prime))
    b_1 = sha512(joined(n, b_0, _i2osp(1, 1), dst_prime))
    return ristretto.from_uniform(b_1)


def generate_key(rng: Rng) -> Bytes:
    """A fresh server key skS: a uniform scalar other than zero, `uint8[32]`."""
    return ristretto.random_scalars(1, rng).reshape(ristretto.SCALAR)


def blind(inputs: Bytes, blinds: Bytes) -> Bytes:
    """Client: blindedElement = blind · HashToGroup(input), as `uint8[n, 32]`.

    LocalError if an input hashes to the identity (the RFC's InvalidInputError; probability 2^-252).
    """
    blinded, good = ristretto.multiply(blinds, hash_to_group(inputs))
    if not good.all():
        raise LocalError("protocol.argument", "an input can't be used (RFC 9497, InvalidInputError)")
    return blinded


def blind_evaluate(key: Bytes, blinded: Bytes, first: int = 0) -> Bytes:
    """Server: evaluatedElement = skS · blindedElement.

    PeerError names the bad elements, counted from `first`. An encoding that isn't canonical could carry a
    mark, and the identity would be answered with the identity, so both are refused (RFC 9497, section 2.1,
    DeserializeElement).
    """
    evaluated, good = ristretto.multiply(key, blinded)
    _refuse_bad("blinded", good, first)
    return evaluated


def finalize(inputs: Bytes, blinds: Bytes, evaluated: Bytes, first: int = 0) -> Bytes:
    """Client: the outputs F(input), `uint8[n, 64]`; PeerError as in `blind_evaluate`."""
    unblinded, good = ristretto.multiply(ristretto.invert(blinds), evaluated)
    _refuse_bad("evaluated", good, first)
    return _hash(inputs, unblinded)


def evaluate(key: Bytes, inputs: Bytes) -> Bytes:
    """Server: the outputs F(input) of its own inputs, `uint8[n, 64]`; equal to what `finalize` gives."""
    issued, good = ristretto.multiply(key, hash_to_group(inputs))
    if not good.all():
        raise LocalError("protocol.argument", "an input can't be used (RFC 9497, InvalidInputError)")
    return _hash(inputs, issued)


def _hash(inputs: Bytes, elements: Bytes) -> Bytes:
    n, length = inputs.shape
    return sha512(joined(n, _i2osp(length, 2), inputs, _i2osp(ristretto.POINT, 2), elements, b"Finalize"))


def _refuse_bad(what: str, good: ristretto.Mask, first: int) -> None:
    if not good.all():
        bad = np.flatnonzero(~good)
        raise PeerError(
            "oprf.bad_point",
            f"{len(bad)} {what} elements are no canonical encodings of elements other than the identity, "
            f"the first at index {first + int(bad[0])}; the peer must send what RFC 9496 encodes",
        )
