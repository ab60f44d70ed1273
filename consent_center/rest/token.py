"""The service token: 256 random bits in a file that only its owner can read; the server compares hashes."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

from consent_center.errors import ConsentError

FILE = "rest.token"


def ensure_token(home: Path) -> str:
    """The token of the center in `home`, made once. Raises `center.keys` if others can read it."""
    path = home / FILE
    try:
        # O_EXCL: two servers that start at once must not end up with two tokens.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _wait_written(path)
        return read_token(path)
    except OSError as error:
        raise ConsentError("center.keys", f"{path} can't be written: {error.strerror}") from error
    token = secrets.token_urlsafe(32)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")
    return token


def _wait_written(path: Path, seconds: float = 10.0) -> None:
    """Another server may have made the file a moment ago, and not have written into it yet."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while path.stat().st_size == 0 and time.monotonic() < deadline:
            time.sleep(0.02)


def read_token(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise ConsentError("center.keys", f"{path} is open to other users: chmod 600 {path}")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConsentError("center.keys", f"the token file {path} can't be read: {error}") from error
    if len(token) < 32:
        raise ConsentError(
            "center.keys", f"the token file {path} is damaged: delete it and start the server again"
        )
    return token


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def matches(header: str | None, expected: bytes) -> bool:
    """Whether an Authorization header carries the token; hashes are compared, so the time tells nothing."""
    scheme, _, token = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(digest(token.strip()), expected)
