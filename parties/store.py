"""The node's jobs in SQLite: states, stages, nonces. Every change of state goes through one table.

A job is one row a role and node; `version` grows with every change, so that a watcher knows what is new.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from parties.budget import Account, Spend
from parties.documents import Agreement
from parties.errors import NodeError

#: state -> states that may follow. A state without followers is final.
TRANSITIONS: dict[str, frozenset[str]] = {
    "draft": frozenset({"proposed", "rejected", "cancelled", "failed"}),
    "proposed": frozenset({"awaiting_approval", "approved", "rejected", "cancelled", "failed"}),
    "awaiting_approval": frozenset({"approved", "rejected", "cancelled", "failed"}),
    "approved": frozenset({"running", "rejected", "cancelled", "failed"}),
    "running": frozenset(
        {"held", "interrupted", "succeeded", "rejected", "cancelled", "failed", "stopped_by_consent"}
    ),
    "held": frozenset({"running", "interrupted", "rejected", "cancelled", "failed", "stopped_by_consent"}),
    "interrupted": frozenset({"running", "rejected", "cancelled", "failed", "stopped_by_consent"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "rejected": frozenset(),
    "cancelled": frozenset(),
    "stopped_by_consent": frozenset(),
}
FINAL = frozenset(state for state, after in TRANSITIONS.items() if not after)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY, role TEXT NOT NULL, kind TEXT NOT NULL, peer TEXT NOT NULL, state TEXT NOT NULL,
    version INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, data TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS stages (
    job_id TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, started REAL NOT NULL,
    seconds REAL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, PRIMARY KEY (job_id, position)
);
CREATE TABLE IF NOT EXISTS leaves (job_id TEXT NOT NULL, kind TEXT NOT NULL, leaf INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS leaves_by_job ON leaves (job_id);
CREATE TABLE IF NOT EXISTS spends (
    agreement TEXT NOT NULL, job_id TEXT NOT NULL, kind TEXT NOT NULL, mechanism TEXT NOT NULL,
    epsilon REAL NOT NULL, delta REAL NOT NULL, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS spends_by_agreement ON spends (agreement);
CREATE TABLE IF NOT EXISTS nonces (nonce BLOB PRIMARY KEY, job_id TEXT NOT NULL, seen REAL NOT NULL);
"""


@dataclass
class Job:
    """One job on one side. `signed` is the signed spec, `private` and `salt` the brand's secret parameters.

    `counts` are this side's people in and out by reason; `error` is {code, detail, hint, origin,
    counts}. `attempts`: how often the job was taken up again; `interrupted`: {at, code, detail} of the last
    time that it was broken off. `untold`: it has ended here, and the provider has not heard it yet.
    """

    job_id: str
    role: str
    kind: str
    peer: str
    signed: dict[str, Any]
    state: str = "draft"
    version: int = 0
    created: float = 0.0
    updated: float = 0.0
    private: dict[str, Any] = field(default_factory=dict, repr=False)
    salt: str = field(default="", repr=False)
    hold_before: str = ""
    note: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    leakage: dict[str, Any] = field(default_factory=dict)
    consent: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    run_seconds: float | None = None
    attempts: int = 0
    interrupted: dict[str, Any] | None = None
    untold: bool = False


_COLUMNS = ("job_id", "role", "kind", "peer", "state", "version", "created", "updated")
_DATA = (
    "signed",
    "private",
    "salt",
    "hold_before",
    "note",
    "counts",
    "result",
    "leakage",
    "consent",
    "error",
    "run_seconds",
    "attempts",
    "interrupted",
    "untold",
)


class Store:
    """The database of one node; safe to use from several threads. One process at a time (the home's lock)."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        path.touch(mode=0o600)
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            # After a power cut the last changes may be gone; checkpoints are on disk before they count.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise NodeError("node.home", f"{path.name}: {error}", "restore it from a backup") from error
        self.changed = threading.Condition(self._lock)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            self.changed.notify_all()

    # -- jobs ------------------------------------------------------------------------------------------------

    def add(self, job: Job) -> bool:
        """Store a new job; False, and nothing stored, if its id is taken."""
        job.created = job.updated = time.time()
        with self._write() as db:
            made = db.execute(
                "INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*(getattr(job, c) for c in _COLUMNS), _data(job)),
            )
            return made.rowcount == 1

    def get(self, job_id: str) -> Job:
        """The job; `job.unknown` if there is none of that id."""
        found = self.find(job_id)
        if found is None:
            raise NodeError("job.unknown", f"there is no job {job_id[:64]!r} on this node")
        return found

    def find(self, job_id: str) -> Job | None:
        with self._lock:
            row = self._db.execute("SELECT * FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM jobs ORDER BY created DESC, job_id").fetchall()
        return [_job(row) for row in rows]

    def recent(self, role: str, kind: str, peer: str, since: float) -> list[Job]:
        """Jobs of a kind with a peer that were proposed since then (Unix time) and not refused."""
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM jobs WHERE role = ? AND kind = ? AND peer = ? AND created >= ? "
                "AND state != 'rejected' ORDER BY created",
                (role, kind, peer, since),
            ).fetchall()
        return [_job(row) for row in rows]

    def move(self, job_id: str, state: str, **changes: Any) -> Job:
        """Change the state (and other fields with it); `job.state` if the table does not allow it."""
        with self._write():
            job = self.get(job_id)
            if state not in TRANSITIONS[job.state]:
                raise NodeError("job.state", f"job {job_id} is {job.state} and can't become {state}")
            job.state = state
            return self._save(job, changes)

    def update(self, job_id: str, **changes: Any) -> Job:
        """Change fields other than the state."""
        with self._write():
            return self._save(self.get(job_id), changes)

    def _save(self, job: Job, changes: dict[str, Any]) -> Job:
        for name, value in changes.items():
            if name not in _DATA:
                raise NodeError("node.internal", f"a job has no field {name}")
            setattr(job, name, value)
        job.version += 1
        job.updated = time.time()
        self._db.execute(
            "UPDATE jobs SET state = ?, version = ?, updated = ?, data = ? WHERE job_id = ?",
            (job.state, job.version, job.updated, _data(job), job.job_id),
        )
        return job

    # -- stages, leaves --------------------------------------------------------------------------------------

    def start_stage(self, job_id: str, position: int, name: str) -> None:
        with self._write() as db:
            db.execute(
                "INSERT OR REPLACE INTO stages VALUES (?, ?, ?, ?, NULL, 0, 0)",
                (job_id, position, name, time.time()),
            )
            self._save(self.get(job_id), {})

    def end_stage(self, job_id: str, position: int, seconds: float, sent: int, received: int) -> None:
        with self._write() as db:
            db.execute(
                "UPDATE stages SET seconds = ?, bytes_sent = ?, bytes_received = ? "
                "WHERE job_id = ? AND position = ?",
                (seconds, sent, received, job_id, position),
            )
            self._save(self.get(job_id), {})

    def stages(self, job_id: str) -> list[dict[str, Any]]:
        """name, started (Unix time), seconds (None while it runs), bytes_sent, bytes_received, in order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT name, started, seconds, bytes_sent, bytes_received FROM stages "
                "WHERE job_id = ? ORDER BY position",
                (job_id,),
            ).fetchall()
        names = ("name", "started", "seconds", "bytes_sent", "bytes_received")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def add_leaf(self, job_id: str, kind: str, leaf: int) -> None:
        """Remember that the ledger's leaf `leaf` is about this job."""
        with self._write() as db:
            db.execute("INSERT INTO leaves VALUES (?, ?, ?)", (job_id, kind, leaf))

    def leaves(self, job_id: str) -> list[tuple[str, int]]:
        with self._lock:
            rows = self._db.execute("SELECT kind, leaf FROM leaves WHERE job_id = ? ORDER BY leaf", (job_id,))
            return [(kind, leaf) for kind, leaf in rows.fetchall()]

    # -- privacy spent ---------------------------------------------------------------------------------------

    def spend(self, agreement: Agreement, asked: Spend) -> Account:
        """Count `asked` under the agreement, or raise `agreement.budget`; one step, whoever else asks.

        It is on disk before this returns, so that neither a kill nor a power cut gives the noise away and
        forgets it. Nothing takes it back: the job may fail, but what it sent may have been seen.
        """
        with self._lock:
            self._db.execute("PRAGMA synchronous=FULL")
            try:
                with self._write() as db:
                    Account(agreement, _spends(db, agreement.id)).check(asked)
                    db.execute(
                        "INSERT INTO spends VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            agreement.id,
                            asked.job_id,
                            asked.kind,
                            asked.mechanism,
                            asked.epsilon,
                            asked.delta,
                            asked.at or time.time(),
                        ),
                    )
            finally:
                self._db.execute("PRAGMA synchronous=NORMAL")
            return self.account(agreement)

    def account(self, agreement: Agreement) -> Account:
        """What the agreement's jobs have spent on this node so far."""
        with self._lock:
            return Account(agreement, _spends(self._db, agreement.id))

    # -- nonces ----------------------------------------------------------------------------------------------

    def use_nonce(self, job_id: str, nonce: bytes) -> None:
        """`transport.nonce` if this node has ever seen the nonce: a recorded session must not run again."""
        with self._write() as db:
            made = db.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", (nonce, job_id, time.time()))
            if made.rowcount != 1:
                raise NodeError("transport.nonce", "the peer's session nonce was used before", share=True)


def read_account(path: Path, agreement: Agreement) -> Account:
    """The account from a node's database, without the node: it may be running or not."""
    if not path.exists():
        return Account(agreement, ())
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)
        try:
            known = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'spends'").fetchone()
            return Account(agreement, _spends(db, agreement.id) if known else ())
        finally:
            db.close()
    except sqlite3.Error as error:
        raise NodeError("node.home", f"{path.name}: {error}", "restore it from a backup") from error


def _spends(db: sqlite3.Connection, agreement: str) -> list[Spend]:
    rows = db.execute(
        "SELECT kind, mechanism, epsilon, delta, job_id, at FROM spends WHERE agreement = ? ORDER BY rowid",
        (agreement,),
    )
    return [Spend(*row) for row in rows.fetchall()]


def _data(job: Job) -> str:
    return json.dumps({name: getattr(job, name) for name in _DATA}, ensure_ascii=False)


def _job(row: tuple[Any, ...]) -> Job:
    head = dict(zip(_COLUMNS, row, strict=False))
    return Job(**head, **json.loads(row[len(_COLUMNS)]))
