"""C2SP tlog-checkpoints: a note whose text is origin, tree size, base64 root, and optional extension lines.

Source: https://c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from consent_center.errors import ConsentError
from consent_center.ledger.note import Signer, Verifier, open_note, sign_note


@dataclass(frozen=True)
class Checkpoint:
    """A log's size and root. `rest` is what follows the third line, as it stands."""

    origin: str
    size: int
    root: bytes
    rest: str = ""

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n{self.rest}"

    def sign(self, *signers: Signer) -> str:
        return sign_note(self.text(), *signers)


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse a checkpoint's body (without signatures); ConsentError `ledger.checkpoint`."""
    lines = text.split("\n", 3)
    if len(lines) != 4 or not lines[0]:
        raise ConsentError("ledger.checkpoint", "a checkpoint has origin, size and root, each on a line")
    origin, digits, encoded, rest = lines
    # Python's int() raises on more than 4,300 digits: the length first.
    known = digits.isascii() and digits.isdigit() and len(digits) <= 20
    if not known or str(int(digits)) != digits or int(digits) >> 64:
        raise ConsentError(
            "ledger.checkpoint", "a checkpoint's size is a 64-bit number without leading zeros"
        )
    try:
        root = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ConsentError("ledger.checkpoint", "a checkpoint's root is not base64") from None
    return Checkpoint(origin, int(digits), root, rest)


def open_checkpoint(note: str, origin: str, verifiers: Sequence[Verifier]) -> Checkpoint:
    """Check signature and origin of a signed checkpoint; ConsentError `ledger.note`, `ledger.checkpoint`."""
    checkpoint = parse_checkpoint(open_note(note, verifiers).text)
    if checkpoint.origin != origin:
        # Another log's checkpoint, signed by a key that serves both, must not pass for this log's.
        raise ConsentError("ledger.checkpoint", f"the checkpoint is of {checkpoint.origin!r}, not {origin!r}")
    if len(checkpoint.root) != 32:
        raise ConsentError("ledger.checkpoint", "a checkpoint's root is not 32 bytes long")
    return checkpoint
