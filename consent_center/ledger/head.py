"""The log's last head, kept outside the database: a database put back from an old backup is noticed.

`keys/head.note` is the signed checkpoint of the log as this center last had it. Every write checks first that
the database still extends it, and refuses (`center.restored`) if it is shorter or another. It is written
after a commit, never before, at most every `INTERVAL`, and when a center is closed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from pathlib import Path

import sqlalchemy as sa

from consent_center.database import get_meta, set_meta
from consent_center.errors import ConsentError
from consent_center.ledger import log, tree
from consent_center.ledger.checkpoint import Checkpoint, open_checkpoint
from consent_center.ledger.note import Signer

FILE, LOCK, META = "head.note", "head.lock", "head_kept"
INTERVAL = 0.25  # seconds
_log = logging.getLogger("consent_center.ledger")


class Head:
    """The guard of one open center. Safe to use from several threads; several processes share the file."""

    def __init__(self, keys: Path, signer: Signer) -> None:
        self._folder, self._signer = keys, signer
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None  # of the file as it was last read
        self._held: Checkpoint | None = None
        self._trusted: Checkpoint | None = None  # the database was seen to extend it
        self._seen = 0
        self._written = 0.0

    # ---- checking ------------------------------------------------------------------------------------------

    def check(self, connection: sa.Connection) -> int:
        """The log's size; ConsentError `center.restored` unless it extends the head that was kept.

        A transaction that only reads must have read nothing yet: it sees the database as of its first
        statement, and others may commit, and keep a later head, right after that. So the head comes first.
        """
        with self._lock:
            held = self._read()
            kept = max(self._seen, held.size if held else 0)
            size = log.size(connection)
            if held is None and get_meta(connection, META) is not None:
                raise _restored(f"{FILE} is missing from {self._folder}")
            if size < kept:
                raise _restored(f"the log has {size} leaves and had {kept}")
            if held is not None and held != self._trusted:
                if tree.root_of(held.size, log.reader(connection)) != held.root:
                    raise _restored(f"the log's first {held.size} leaves are not those that were there")
                self._trusted = held
            self._seen = size
        return size

    def _read(self) -> Checkpoint | None:
        path = self._folder / FILE
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                note = path.read_text(encoding="utf-8")
                self._held = open_checkpoint(note, self._signer.name, [self._signer.verifier])
                self._stamp = stamp
        except FileNotFoundError:
            self._held = self._stamp = None
        except (OSError, ValueError, ConsentError) as error:
            raise _restored(f"{FILE} can't be read: {error}") from error
        return self._held

    # ---- writing -------------------------------------------------------------------------------------------

    def due(self, connection: sa.Connection, now: bool = False) -> Checkpoint | None:
        """In a transaction that is about to be committed: the head to keep afterwards, if it is time."""
        if not now and time.monotonic() - self._written < INTERVAL:
            return None
        size = log.size(connection)
        held = self._held
        if held is not None and size <= held.size:
            return None
        if held is None and get_meta(connection, META) is None:
            set_meta(connection, META, "1")
        return Checkpoint(self._signer.name, size, tree.root_of(size, log.reader(connection)))

    def keep(self, head: Checkpoint | None, force: bool = False) -> None:
        """After the commit: write the head, unless another process has kept a later one."""
        if head is None:
            return
        try:
            with self._lock, (self._folder / LOCK).open("a") as lock:
                os.fchmod(lock.fileno(), 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                held = None if force else self._read()
                if held is None or held.size < head.size:
                    self._write(head)
                self._seen = head.size if force else max(self._seen, head.size)
                self._trusted, self._written = head, time.monotonic()
        except (OSError, ConsentError) as error:
            # What was committed stays committed; the next write tries again, and checks.
            _log.warning("the log's head could not be kept in %s: %s", self._folder, error)

    def _write(self, head: Checkpoint) -> None:
        draft = self._folder / f"{FILE}.{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(head.sign(self._signer))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / FILE)
        found = (self._folder / FILE).stat()
        self._held, self._stamp = head, (found.st_mtime_ns, found.st_ino)

    def lost(self, connection: sa.Connection, now: str) -> str:
        """Before a restored database is accepted: put the old head aside; its note, "" if there was none."""
        path = self._folder / FILE
        if not path.exists():
            return ""
        note = path.read_text(encoding="utf-8", errors="replace")
        path.rename(self._folder / f"head.lost-{now.replace(':', '')}.note")
        return note

    def forget(self) -> None:
        """Start anew after a restored database was accepted."""
        with self._lock:
            self._held = self._stamp = self._trusted = None
            self._seen = 0


def _restored(what: str) -> ConsentError:
    return ConsentError(
        "center.restored",
        f"{what}: the database was put back from a backup, or rewritten; nothing is decided until "
        "`pec consent recover` (docs/consent.md, section 6)",
    )
