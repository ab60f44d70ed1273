"""A tag: an output of the OPRF, bound to the session and cut; and numbers for who has the output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.labels import label
from protocols.ristretto import Bytes, joined, sha512
from protocols.security import STATISTICAL_BITS

#: Bytes of a row's number in a numbered run: row numbers below 2^40.
NUMBER_BYTES = 5

#: Where a row's mask stands in the hash: behind the longest tag, so that both are independent.
_MASK_AT = 32


def tag_bytes(size: int, rows: int, runs: int = 1) -> int:
    """⌈(40 + log2(size · rows · runs)) / 8⌉: over all runs a false match has a probability of 2^-40."""
    bits = STATISTICAL_BITS + (max(size * rows * runs, 1) - 1).bit_length()
    return -(-bits // 8)


def tags_of(outputs: Bytes, session: bytes, width: int) -> Bytes:
    """SHA-512(label(session) ‖ F), its first `width` bytes, for each row of `outputs: uint8[k, 64]`."""
    return _hashed(outputs, session)[:, :width].copy()


def tags_and_masks(outputs: Bytes, session: bytes, width: int) -> tuple[Bytes, Bytes]:
    """The tags, and the bytes 32 … 36 of the same hashes: the masks of the rows' numbers."""
    hashed = _hashed(outputs, session)
    return hashed[:, :width].copy(), hashed[:, _MASK_AT : _MASK_AT + NUMBER_BYTES].copy()


def _hashed(outputs: Bytes, session: bytes) -> Bytes:
    return sha512(joined(len(outputs), label("align", "sender", "tag", session), outputs))


def number_bytes(numbers: npt.ArrayLike, rows: int) -> Bytes:
    """`numbers: integers[rows]` as uint8[rows, 5], little-endian; LocalError for others than 0 … 2^40 - 1."""
    array = np.asarray(numbers)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise LocalError(
            "protocol.argument", f"numbers: {array.dtype}{list(array.shape)}, one a row is needed"
        )
    if rows and (int(array.min()) < 0 or int(array.max()) >= 1 << 8 * NUMBER_BYTES):
        raise LocalError("protocol.argument", "numbers: some are not below 2^40")
    return array.astype("<u8").view(np.uint8).reshape(rows, 8)[:, :NUMBER_BYTES].copy()


def numbers_of(data: Bytes) -> npt.NDArray[np.int64]:
    """The reverse of `number_bytes`."""
    wide = np.zeros((len(data), 8), dtype=np.uint8)
    wide[:, :NUMBER_BYTES] = data
    return wide.view("<u8").reshape(len(data)).astype(np.int64)
