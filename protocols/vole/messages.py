"""Messages of the VOLE: README section 3."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protocols.codec import B16, B32, Codec
from protocols.errors import LocalError
from protocols.labels import label
from protocols.ot.field import WIDTH
from protocols.security import VOLE_LPN

#: Largest length: above it, a caller runs several.
MOST = 1 << 26


@dataclass(frozen=True)
class Opening:
    """Sender: the base OT receiver's points, 64 bytes for each of the 128."""

    binding: B32
    points: bytes


@dataclass(frozen=True)
class Request:
    """Receiver: the base OT sender's point, the 128 columns, and (malicious) their check."""

    binding: B32
    point: B32
    columns: bytes
    check: bytes


@dataclass(frozen=True)
class Answer:
    """Sender: masked sums of both sides of every level of every tree, and the leaves' sums."""

    sums: bytes
    leaves: bytes


@dataclass(frozen=True)
class Challenge:
    """Receiver, malicious: the point χ at which both vectors are evaluated."""

    point: B16


@dataclass(frozen=True)
class Proof:
    """Sender, malicious: the hash of its evaluation."""

    digest: B32


TO_RECEIVER = Codec(Opening, Answer, Proof)
TO_SENDER = Codec(Request, Challenge)


def binding(n: int, field: str, malicious: bool, session: bytes) -> B32:
    """32 bytes that differ between sessions and between all settings that both sides must share."""
    if len(session) != 32:
        raise LocalError("protocol.argument", f"a session has 32 bytes, {len(session)} were given")
    if field not in WIDTH:
        raise LocalError("protocol.argument", f"field is {field!r}; gf2, gf64 and gf128 are allowed")
    if not 1 <= n <= MOST:
        raise LocalError("protocol.argument", f"n is {n}; 1 to {MOST} is allowed")
    settings = f"{n} {field} {'malicious' if malicious else 'semi-honest'} {tuple(VOLE_LPN)}"
    return B32(hashlib.sha256(label("vole", "both", settings, session)).digest())
