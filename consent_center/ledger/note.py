"""C2SP signed notes: text, an empty line, signature lines `— name base64(key hash ‖ signature)`.

    verifier key   name+hash+base64(0x01 ‖ public key)          hash = first 4 bytes of
    signer key     PRIVATE+KEY+name+hash+base64(0x01 ‖ seed)    SHA-256(name ‖ "\\n" ‖ 0x01 ‖ public key)

Only Ed25519 (algorithm byte 0x01). Source: https://c2sp.org/signed-note; limits as in
golang.org/x/mod/sumdb/note.
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

_ED25519 = b"\x01"
_DASH = "— "
_MAX_NOTE = 1_000_000
_MAX_SIGNATURES = 100


def _valid_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def key_hash(name: str, public_key: bytes) -> bytes:
    """The four bytes that name a key in a signature line."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


@dataclass(frozen=True)
class Verifier:
    """A public key and its name."""

    name: str
    public_key: bytes

    @property
    def hash(self) -> bytes:
        return key_hash(self.name, self.public_key)

    def text(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    def check(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`; for the parser, which tries several keys."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A private key and its name."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def verifier(self) -> Verifier:
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        return Verifier(self.name, key.public_key().public_bytes_raw())

    def text(self) -> str:
        """The signer key string: a secret."""
        seed = base64.b64encode(_ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.hash.hex()}+{seed}"

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def parse_verifier(text: str) -> Verifier:
    """Parse `name+hash+key`; ConsentError `ledger.key`."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise ConsentError("ledger.key", "a verifier key has the form name+hash+key")
    verifier = Verifier(parts[0], _key_bytes(parts[2]))
    _check_hash(verifier, parts[1])
    return verifier


def parse_signer(text: str) -> Signer:
    """Parse `PRIVATE+KEY+name+hash+key`; ConsentError `ledger.key`."""
    parts = text.split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
        raise ConsentError("ledger.key", "a signer key has the form PRIVATE+KEY+name+hash+key")
    signer = Signer(parts[2], _key_bytes(parts[4]))
    _check_hash(signer.verifier, parts[3])
    return signer


def _key_bytes(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConsentError("ledger.key", "a key is not base64") from None
    if len(raw) != 33 or raw[:1] != _ED25519:
        raise ConsentError("ledger.key", "a key is not Ed25519 (0x01 and 32 bytes)")
    return raw[1:]


def _check_hash(verifier: Verifier, given: str) -> None:
    if not _valid_name(verifier.name):
        raise ConsentError("ledger.key", "a key's name is empty or has blanks or a plus sign")
    if verifier.hash.hex() != given:
        raise ConsentError("ledger.key", f"the key hash of {verifier.name} does not fit the key")


def sign_note(text: str, *signers: Signer) -> str:
    """`text` (ending in a newline) with a signature line a signer."""
    if not text.endswith("\n") or _bad_text(text):
        raise ConsentError("ledger.note", "a note's text ends in a newline and has no control characters")
    lines = []
    for signer in signers:
        if not _valid_name(signer.name):
            raise ConsentError("ledger.key", "a key's name is empty or has blanks or a plus sign")
        raw = signer.verifier.hash + signer.sign(text.encode())
        lines.append(f"{_DASH}{signer.name} {base64.b64encode(raw).decode()}\n")
    return text + "\n" + "".join(lines)


@dataclass(frozen=True)
class OpenedNote:
    """A note with at least one good signature; names of the signatures that were and weren't checked."""

    text: str
    verified: tuple[str, ...]
    unverified: tuple[str, ...]


def open_note(note: str | bytes, verifiers: Sequence[Verifier]) -> OpenedNote:
    """Check a signed note. A bad signature of a known key is an error, an unknown key is passed over.

    Raises ConsentError `ledger.note`.
    """
    if isinstance(note, bytes):
        try:
            note = note.decode()
        except UnicodeDecodeError:
            raise ConsentError("ledger.note", "malformed note: it is not UTF-8") from None
    known: dict[tuple[str, bytes], Verifier] = {}
    ambiguous: set[tuple[str, bytes]] = set()
    for verifier in verifiers:
        key = (verifier.name, verifier.hash)
        if key in known:
            ambiguous.add(key)
        known[key] = verifier
    if len(note.encode("utf-8", "surrogatepass")) > _MAX_NOTE or _bad_text(note):
        raise ConsentError("ledger.note", "malformed note: too long, or control characters in it")
    at = note.rfind("\n\n")
    if at < 0 or not note.endswith("\n"):
        raise ConsentError("ledger.note", "malformed note: no signature block")
    text, block = note[: at + 1], note[at + 2 :]
    lines = block.split("\n")[:-1]
    if not lines:
        raise ConsentError("ledger.note", "malformed note: no signature line")
    if len(lines) > _MAX_SIGNATURES:
        raise ConsentError("ledger.note", f"malformed note: more than {_MAX_SIGNATURES} signatures")
    verified: dict[tuple[str, bytes], str] = {}
    unverified: dict[tuple[str, bytes, bytes], str] = {}
    for line in lines:
        name, raw = _signature_line(line)
        key = (name, raw[:4])
        if key in ambiguous:
            raise ConsentError("ledger.note", f"ambiguous key {name}+{raw[:4].hex()}: given twice")
        if key not in known:
            unverified.setdefault((*key, raw), name)
        elif key not in verified:  # further signatures by one key are passed over, as in Go's reader
            if not known[key].check(text.encode(), raw[4:]):
                raise ConsentError("ledger.note", f"invalid signature for key {name}+{raw[:4].hex()}")
            verified[key] = name
    if not verified:
        raise ConsentError("ledger.note", "note has no verifiable signatures")
    return OpenedNote(text, tuple(verified.values()), tuple(unverified.values()))


def _bad_text(text: str) -> bool:
    return any((ord(c) < 32 and c != "\n") or 0xD800 <= ord(c) < 0xE000 for c in text)


def _signature_line(line: str) -> tuple[str, bytes]:
    name, blank, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not blank or not _valid_name(name):
        raise ConsentError("ledger.note", "malformed note: a signature line is '— name base64'")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ConsentError("ledger.note", "malformed note: a signature is not base64") from None
    if len(raw) < 5:
        raise ConsentError("ledger.note", "malformed note: a signature is too short")
    return name, raw
