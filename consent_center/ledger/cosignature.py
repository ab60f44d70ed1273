"""C2SP tlog-cosignatures (Ed25519, `cosignature/v1`): a witness's statement that a log only grew.

    key id       first 4 bytes of SHA-256(name ‖ "\\n" ‖ 0x04 ‖ public key)
    key text     name+hash+base64(0x04 ‖ public key)
    signature    8 bytes big-endian seconds ‖ Ed25519 over the text below
    text         "cosignature/v1\\ntime <seconds>\\n" ‖ the note's text

Source: https://c2sp.org/tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consent_center.errors import ConsentError

_ALGORITHM = b"\x04"
_SIZE = 4 + 8 + 64


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n".encode() + text.encode()


@dataclass(frozen=True)
class Cosigner:
    """A witness's name and public key."""

    name: str
    public_key: bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _ALGORITHM + self.public_key).digest()[:4]

    def text(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ALGORITHM + self.public_key).decode()}"

    def check(self, text: str, raw: bytes) -> int | None:
        """The time (seconds) of a good cosignature of the note's `text`, or None."""
        if len(raw) != _SIZE or raw[:4] != self.id:
            return None
        seconds = int.from_bytes(raw[4:12], "big")
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(raw[12:], _message(text, seconds))
        except (InvalidSignature, ValueError):
            return None
        return seconds if seconds < 1 << 63 else None


@dataclass(frozen=True)
class CosignerKey:
    """A witness's private key."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def cosigner(self) -> Cosigner:
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        return Cosigner(self.name, key.public_key().public_bytes_raw())

    def line(self, text: str, seconds: int) -> str:
        """The signature line of this witness for a note's `text` (its final newline included)."""
        signed = Ed25519PrivateKey.from_private_bytes(self.seed).sign(_message(text, seconds))
        raw = self.cosigner.id + seconds.to_bytes(8, "big") + signed
        return f"— {self.name} {base64.b64encode(raw).decode()}\n"


def parse_cosigner(text: str) -> Cosigner:
    """Parse `name+hash+key`; ConsentError `ledger.key`."""
    parts = text.strip().split("+", 2)
    try:
        raw = base64.b64decode(parts[2], validate=True)
    except (IndexError, binascii.Error, ValueError):
        raise ConsentError("ledger.key", "a witness's key has the form name+hash+key") from None
    if len(raw) != 33 or raw[:1] != _ALGORITHM:
        raise ConsentError("ledger.key", "a witness's key is Ed25519 for cosignatures (0x04 and 32 bytes)")
    found = Cosigner(parts[0], raw[1:])
    if not found.name or any(c.isspace() for c in found.name) or found.id.hex() != parts[1]:
        raise ConsentError("ledger.key", f"the key hash of {found.name!r} does not fit the key")
    return found


def cosigned(note: str, cosigners: Sequence[Cosigner]) -> dict[str, int]:
    """{name: seconds} of those whose good cosignature a note carries; others' lines are passed over."""
    text, found = note[: note.rfind("\n\n") + 1], dict[str, int]()
    for line in note[len(text) + 1 :].split("\n"):
        name, blank, encoded = line.removeprefix("— ").partition(" ")
        if not line.startswith("— ") or not blank:
            continue
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        for cosigner in cosigners:
            seconds = cosigner.check(text, raw) if cosigner.name == name else None
            if seconds is not None:
                found[name] = max(seconds, found.get(name, 0))
    return found
