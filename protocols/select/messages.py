"""The messages of select, and what both sides derive; README, section 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.codec import U64, Codec
from protocols.errors import LocalError
from protocols.labels import label
from protocols.ot.aes import Permutation, hash_rows, public_key

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

#: Rows of one segment of the oblivious transfer.
SEGMENT = 1 << 20

#: Bytes of masked values in one message.
PIECE = 1 << 19

#: A mask is one block of AES.
MOST_WIDTH = 16


@dataclass(frozen=True)
class Transfer:
    """Either side: a message of the oblivious transfer."""

    data: bytes


@dataclass(frozen=True)
class Masked:
    """Holder: masked values of the rows from `first` on."""

    first: U64
    data: bytes


TO_HOLDER = Codec(Transfer)
TO_CHOOSER = Codec(Transfer, Masked)


def sizes(rows: int) -> list[int]:
    """Rows of each segment."""
    return [min(SEGMENT, rows - start) for start in range(0, rows, SEGMENT)]


def check_width(width: int) -> None:
    if not 1 <= width <= MOST_WIDTH:
        raise LocalError("protocol.argument", f"values of {width} bytes; 1 to {MOST_WIDTH} are possible")


def masks(words: Words, first: int, width: int, session: bytes) -> Bytes:
    """uint8[n, width]: H(words_j, first + j) cut to `width` bytes."""
    permutation = Permutation(public_key(label("select", "both", "mask", session)))
    hashed = np.ascontiguousarray(hash_rows(permutation, words, first)).astype("<u8", copy=False)
    return hashed.view(np.uint8).reshape(len(words), 16)[:, :width]
