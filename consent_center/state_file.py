"""The state on disk, `state.bitmaps` in the center's directory: opening reads it instead of all states.

    file    magic ‖ length of head (8 bytes, big-endian) ‖ head ‖ parts
    head    RFC 8785 JSON {sequence, size, root, parts: [[name, bytes, MAC]], mac}
    MAC     BLAKE2b-256 under a key derived from the data key, over name ‖ 0x00 ‖ part
    mac     the same over the head without it, name "head"

It is a shortcut, never a source: it holds the fold of the first `sequence` events, and counts only if the
ledger still begins with the `size` leaves of root `root`. Whatever is not exactly so is ignored, and the
tables are read. fsck compares it with the fold. It holds ordinals and times, no identifiers. Written beside
and renamed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consent_center.ledger.verify import canonical

NAME = "state.bitmaps"
#: From so many events on it is worth writing anew: whoever opens a center for long, or has imported, does so.
KEEP_AFTER = 100_000

_MAGIC = b"pec state 1\n"
_MAX_HEAD = 64 << 20
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True)
class Stored:
    """An authentic file: its parts are read, and checked, one by one."""

    path: Path
    sequence: int
    size: int
    root: bytes
    places: dict[str, tuple[int, int, str]]  # name -> offset, bytes, MAC
    key: bytes = field(repr=False)
    handle: int

    def read(self, name: str) -> bytes:
        """One part. ValueError if it is not what was written."""
        offset, length, expected = self.places[name]
        data = b"".join(_pieces(self.handle, offset, length))
        if not hmac.compare_digest(_mac(self.key, name, [data]), expected):
            raise ValueError(f"{self.path.name}: {name} was changed")
        return data

    def names(self, start: str) -> list[str]:
        """The parts whose name begins so."""
        return [name for name in self.places if name.startswith(start)]


def secret(data_key: bytes) -> bytes:
    """The key of the MACs."""
    return hmac.digest(data_key, b"pec/consent/state file", "sha256")


def write(
    home: Path, key: bytes, sequence: int, size: int, root: bytes, parts: Iterable[tuple[str, bytes]]
) -> None:
    """Write the file anew; readers of the one before keep theirs."""
    held = list(parts)
    listed = [[name, len(data), _mac(key, name, [data])] for name, data in held]
    head: dict[str, Any] = {"sequence": sequence, "size": size, "root": root.hex(), "parts": listed}
    head["mac"] = _mac(key, "head", [canonical(head)])
    text = canonical(head)
    handle, work = tempfile.mkstemp(prefix=".state-", dir=home)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + len(text).to_bytes(8, "big") + text)
            for _, data in held:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(work).replace(home / NAME)
    except BaseException:
        Path(work).unlink(missing_ok=True)
        raise


def open_file(home: Path, key: bytes) -> Stored | None:
    """The file, its head checked; None if there is none. ValueError if it is not ours."""
    path = home / NAME
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{NAME} can't be opened: {error.strerror}") from error
    try:
        return _opened(path, handle, key)
    except _UNREADABLE as error:
        os.close(handle)
        raise ValueError(f"{NAME} can't be read: {error}") from error


def _opened(path: Path, handle: int, key: bytes) -> Stored:
    start = os.pread(handle, len(_MAGIC) + 8, 0)
    length = int.from_bytes(start[len(_MAGIC) :], "big")
    if len(start) != len(_MAGIC) + 8 or start[: len(_MAGIC)] != _MAGIC or length > _MAX_HEAD:
        raise ValueError("it has another format")
    text = b"".join(_pieces(handle, len(start), length))
    head = json.loads(text)
    mac = head.pop("mac")
    right = _mac(key, "head", [canonical(head)])
    if canonical({**head, "mac": mac}) != text or not hmac.compare_digest(right, mac):
        raise ValueError("its head was changed, or it is another center's")
    places, offset = {}, len(start) + length
    for name, size, expected in head["parts"]:
        places[name] = (offset, size, expected)
        offset += size
    if os.fstat(handle).st_size != offset:
        raise ValueError("it has another length")
    stored = Stored(path, head["sequence"], head["size"], bytes.fromhex(head["root"]), places, key, handle)
    weakref.finalize(stored, os.close, handle)  # a column may be read much later, from this very file
    return stored


def _pieces(handle: int, offset: int, length: int) -> Iterator[bytes]:
    while length:
        piece = os.pread(handle, min(length, 1 << 30), offset)  # one call reads less than 2 GiB
        if not piece:
            raise ValueError("it ends too early")
        yield piece
        offset, length = offset + len(piece), length - len(piece)


def _mac(key: bytes, name: str, parts: Iterable[bytes]) -> str:
    hashed = hashlib.blake2b(name.encode() + b"\x00", key=key, digest_size=32)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
