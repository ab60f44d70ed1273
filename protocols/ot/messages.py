"""Messages of OT extension: README section 5."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protocols.codec import B32, U32, U64, Codec
from protocols.errors import LocalError
from protocols.labels import label

#: Most OTs in one message: 512 KiB of columns.
BLOCK = (1 << 15) - 128


@dataclass(frozen=True)
class Opening:
    """Sender: the base OT receiver's points, 64 bytes for each of the 128."""

    binding: B32
    points: bytes


@dataclass(frozen=True)
class Setup:
    """Receiver: the base OT sender's point."""

    binding: B32
    point: B32


@dataclass(frozen=True)
class Columns:
    """Receiver: masked choices of the OTs `first` … `first` + `count` - 1, and (malicious) their check."""

    first: U64
    count: U32
    columns: bytes
    check: bytes


TO_RECEIVER = Codec(Opening)
TO_SENDER = Codec(Setup, Columns)


def binding(correlated: bool, malicious: bool, session: bytes) -> B32:
    """32 bytes that differ between sessions and settings."""
    if len(session) != 32:
        raise LocalError("protocol.argument", f"a session has 32 bytes, {len(session)} were given")
    kind = "correlated" if correlated else "random"
    settings = f"{kind} {'malicious' if malicious else 'semi-honest'}"
    return B32(hashlib.sha256(label("ot", "both", settings, session)).digest())


def padded_words(count: int) -> int:
    """Words of x for `count` bits, an even number."""
    return 2 * -(-count // 128)
