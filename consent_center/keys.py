"""The center's secrets, each in a file of its own that only the owner can read.

pseudonym.key   32 bytes: HMAC key of identifiers. Whoever has it can test guesses of phone numbers.
data.key        32 bytes: from it and a subject's salt come the subject's keys. Back it up apart from the
                database: restoring an old database alone must not bring erased people back.
signing.key     Ed25519, as a C2SP signer key string: checkpoints and snapshots.
erased.key      32 bytes: HMAC key of the list of erased identifiers alone. A center from before this list
                gets one when it is opened.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from consent_center.errors import ConsentError
from consent_center.ledger.note import Signer, parse_signer

_SIZE = 32


@dataclass(frozen=True)
class Keys:
    """The secrets in memory; they don't print."""

    pseudonym: bytes = field(repr=False)
    data: bytes = field(repr=False)
    signer: Signer = field(repr=False)
    erased: bytes = field(repr=False)


def checks(keys: Keys) -> dict[str, str]:
    """What the log's first leaf keeps of the keys: shows later that they are the same, and nothing else."""
    named = {"pseudonym": keys.pseudonym, "data": keys.data}
    found = {name: hmac.digest(key, b"pec/consent/key check", "sha256").hex() for name, key in named.items()}
    return {**found, "verifier": keys.signer.verifier.text()}


def create_keys(folder: Path, origin: str) -> Keys:
    """Draw fresh keys and write them; the folder must not exist yet."""
    folder.mkdir(mode=0o700)
    signer = Signer(origin, secrets.token_bytes(_SIZE))
    keys = Keys(secrets.token_bytes(_SIZE), secrets.token_bytes(_SIZE), signer, secrets.token_bytes(_SIZE))
    _write(folder / "pseudonym.key", keys.pseudonym.hex())
    _write(folder / "data.key", keys.data.hex())
    _write(folder / "signing.key", signer.text())
    _write(folder / "erased.key", keys.erased.hex())
    return keys


def load_keys(folder: Path) -> Keys:
    """Read the keys; ConsentError `center.keys` when one is missing, malformed or open to others."""
    try:
        pseudonym = bytes.fromhex(_read(folder / "pseudonym.key"))
        data = bytes.fromhex(_read(folder / "data.key"))
        erased = bytes.fromhex(_erased_key(folder))
    except ValueError:
        raise ConsentError(
            "center.keys", f"a key in {folder} is not hexadecimal; restore it from backup"
        ) from None
    if not len(pseudonym) == len(data) == len(erased) == _SIZE:
        raise ConsentError("center.keys", f"a key in {folder} has not {_SIZE} bytes; restore it from backup")
    try:
        signer = parse_signer(_read(folder / "signing.key"))
    except ConsentError as error:
        raise ConsentError("center.keys", f"signing.key: {error.detail}") from None
    return Keys(pseudonym, data, signer, erased)


def _erased_key(folder: Path) -> str:
    """The key of the list of the erased; drawn here for a center that has no such list yet."""
    path = folder / "erased.key"
    if folder.is_dir() and not path.exists():
        try:
            _write(path, secrets.token_bytes(_SIZE).hex())
        except FileExistsError:
            pass  # another process has just drawn it
    return _read(path)


def _write(path: Path, text: str) -> None:
    # O_EXCL and the mode in one call: there is no moment at which another user could open the file.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConsentError("center.keys", f"{path.name} can't be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConsentError("center.keys", f"{path.name} is open to other users; run chmod 600 on it")
    return text
