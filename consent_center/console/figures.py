"""Figures of the dashboard and the lists of jobs and acts, read once and then only what is new.

Both the events and the ledger only ever grow, so a process keeps sums up to the last number that it has seen.
The first page after a start reads everything (a second for a few million events), later ones almost nothing.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.analytics.service import LEAST
from consent_center.collection.asking import is_outdated
from consent_center.console.base import zone
from consent_center.model import GRANTS
from consent_center.outbox.service import Outbox
from consent_center.room import Room

DAY = 86_400_000_000  # microseconds
_JOB_KINDS = ("job.state", "job.snapshot", "job.recheck", "job.stage", "job.closing", "snapshot")
_KEPT_ACTS, _KEPT_JOBS = 500, 10_000
_IN_FORCE_SECONDS, _ENFORCED_SECONDS = 60, 15


@dataclass
class Job:
    """One job or other use of a snapshot, as the ledger tells it. `checks` are its lease checks."""

    id: str
    role: str = ""
    peer: str = ""
    first: int = 0  # leaf
    states: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)  # signed documents
    checks: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    stages: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    closing: int | None = None

    @property
    def state(self) -> str:
        return str(self.states[-1][1].get("state", "")) if self.states else ""

    @property
    def dropped(self) -> int:
        return max((int(check.get("dropped", 0)) for _, check in self.checks), default=0)


@dataclass(frozen=True)
class Days:
    """Counts a day: `days` oldest first; `grants` and `withdrawals` by purpose, one number a day."""

    days: list[date]
    grants: dict[str, list[int]]
    withdrawals: dict[str, list[int]]


class Figures:
    """One a process; safe from several threads."""

    def __init__(self, room: Room) -> None:
        self._room, self._lock = room, threading.Lock()
        self._sequence, self._leaf = 0, -1
        self._days: dict[tuple[str, str, int], int] = {}  # (purpose, action, day) -> events
        self._descriptors: dict[int, dict[str, Any]] = {}
        self._jobs: dict[str, Job] = {}
        self._acts: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_KEPT_ACTS)
        self._checked: tuple[int, dict[str, Any]] | None = None
        self._enforced: tuple[int, dict[str, Any]] = (-(1 << 62), {})
        self._in_force: tuple[int, list[dict[str, Any]]] = (-1, [])

    # ---- catching up ---------------------------------------------------------------------------------------

    def _caught_up(self) -> None:
        with self._room.read() as connection:
            self._read_events(connection)
            self._read_leaves(connection)

    def _read_events(self, connection: sa.Connection) -> None:
        table = db.events
        newest = connection.execute(sa.select(sa.func.max(table.c.sequence))).scalar_one() or 0
        if newest <= self._sequence:
            return
        shift = int(_offset().total_seconds() * 1e6)
        day = ((table.c.occurred_at + shift) // DAY).label("day")
        query = (
            sa.select(table.c.descriptor, day, sa.func.count().label("n"))
            .where(table.c.sequence > self._sequence, table.c.sequence <= newest)
            .group_by(table.c.descriptor, sa.text("day"))
        )
        found = connection.execute(query).all()
        known = self._catalogue(connection, {int(row.descriptor) for row in found})
        for row in found:
            told = known[int(row.descriptor)]
            if told.get("method") == "assumed":
                continue  # nobody's word
            key = (str(told.get("purpose", "")), str(told.get("action", "")), int(row.day))
            self._days[key] = self._days.get(key, 0) + int(row.n)
        self._sequence = int(newest)

    def _catalogue(self, connection: sa.Connection, wanted: set[int]) -> dict[int, dict[str, Any]]:
        missing = sorted(wanted - set(self._descriptors))
        for part in db.chunks(missing):
            query = sa.select(db.descriptors).where(db.descriptors.c.id.in_(part))
            for row in connection.execute(query):
                self._descriptors[int(row.id)] = json.loads(row.body)
        return self._descriptors

    def _read_leaves(self, connection: sa.Connection) -> None:
        table = db.entries
        query = (
            sa.select(table.c.leaf, table.c.kind, table.c.payload)
            .where(table.c.leaf > self._leaf, table.c.kind.in_((*_JOB_KINDS, "admin.action")))
            .order_by(table.c.leaf)
        )
        for row in connection.execute(query):
            self._take(int(row.leaf), str(row.kind), json.loads(row.payload))
            self._leaf = int(row.leaf)

    def _take(self, leaf: int, kind: str, payload: dict[str, Any]) -> None:
        if kind == "admin.action":
            self._acts.appendleft((leaf, payload))
            if payload.get("action") == "ledger.check":
                self._checked = (leaf, payload)
            return
        id = str(payload["document"]["job_id"] if kind == "snapshot" else payload.get("job", ""))
        if not id:
            return
        job = self._jobs.get(id)
        if job is None:
            while len(self._jobs) >= _KEPT_JOBS:
                del self._jobs[next(iter(self._jobs))]
            job = self._jobs[id] = Job(id, first=leaf)
        if kind == "snapshot":
            job.snapshots.append(payload["document"])
        elif kind == "job.state":
            job.states.append((leaf, payload))
            job.role, job.peer = str(payload.get("role", "")), str(payload.get("peer", ""))
        elif kind == "job.recheck":
            job.checks.append((leaf, payload))
        elif kind == "job.stage":
            job.stages.append((leaf, payload))
        elif kind == "job.closing":
            job.closing = leaf

    def _ask(self, question: Callable[[], Any]) -> Any:
        with self._lock:
            self._caught_up()
            return question()

    # ---- answers -------------------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """Newest first."""
        found: list[Job] = self._ask(lambda: sorted(self._jobs.values(), key=lambda job: -job.first))
        return found

    def job(self, id: str) -> Job | None:
        found: Job | None = self._ask(lambda: self._jobs.get(id))
        return found

    def acts(self) -> list[tuple[int, dict[str, Any]]]:
        """(leaf, payload) of the newest acts of administration."""
        found: list[tuple[int, dict[str, Any]]] = self._ask(lambda: list(self._acts))
        return found

    def checked(self) -> tuple[int, dict[str, Any]] | None:
        """The last check of the database against the ledger: its leaf, its outcome."""
        found: tuple[int, dict[str, Any]] | None = self._ask(lambda: self._checked)
        return found

    def enforcement(self, outbox: Outbox) -> dict[str, Any]:
        """Times from withdrawal to enforcement by jobs and webhooks, at most a quarter of a minute old."""
        now = self._room.now()
        with self._lock:
            if not 0 <= now - self._enforced[0] < _ENFORCED_SECONDS * 1_000_000:
                self._enforced = (now, outbox.enforcement())
            return self._enforced[1]

    def days(self, count: int) -> Days:
        """Events of the last `count` days."""
        today = (self._room.now() + int(_offset().total_seconds() * 1e6)) // DAY

        def tally() -> Days:
            grants, gone = dict[str, list[int]](), dict[str, list[int]]()
            for (purpose, action, day), n in self._days.items():
                at = day - (today - count + 1)
                if 0 <= at < count and (action in GRANTS or action == "withdrawn"):
                    side = grants if action in GRANTS else gone
                    side.setdefault(purpose, [0] * count)[at] += n
            listed = [date(1970, 1, 1) + timedelta(days=today - count + 1 + i) for i in range(count)]
            return Days(listed, grants, gone)

        found: Days = self._ask(tally)
        return found

    def totals(self) -> dict[str, dict[str, int | None]]:
        """Events of all time: {purpose: {action: n}}, assumed consent left out; None: few."""

        def tally() -> dict[str, dict[str, int | None]]:
            found: dict[str, dict[str, int]] = {}
            for (purpose, action, _), n in self._days.items():
                row = found.setdefault(purpose, {})
                row[action] = row.get(action, 0) + n
            return {
                purpose: {action: None if n < LEAST else n for action, n in row.items()}
                for purpose, row in found.items()
            }

        answer: dict[str, dict[str, int | None]] = self._ask(tally)
        return answer

    def in_force(self) -> list[dict[str, Any]]:
        """Consents by purpose and recipient, a minute old at most: people whose consent is in force, and
        those who must be asked again because the purpose or its notice has changed (None: few).
        """
        now = self._room.now()
        with self._lock:
            if now - self._in_force[0] < _IN_FORCE_SECONDS * 1_000_000 and self._in_force[0] >= 0:
                return self._in_force[1]
            table = db.states
            with self._room.read() as connection:
                query = (
                    sa.select(table.c.descriptor, sa.func.count().label("n"))
                    .where(sa.or_(table.c.expires_at == -1, table.c.expires_at > now))
                    .group_by(table.c.descriptor)
                )
                found = connection.execute(query).all()
                known = self._catalogue(connection, {int(row.descriptor) for row in found})
                registered = self._room.registry(connection)
            sums: dict[tuple[str, str], list[int]] = {}
            for row in found:
                told = known[int(row.descriptor)]
                if told["action"] in GRANTS and told.get("method") != "assumed":
                    both = sums.setdefault((str(told["purpose"]), str(told["recipient"])), [0, 0])
                    both[is_outdated(registered, told)] += int(row.n)
            listed = [
                {
                    "purpose": purpose,
                    "recipient": recipient,
                    "people": None if 0 < both[0] < LEAST else both[0],
                    "outdated": None if 0 < both[1] < LEAST else both[1],
                }
                for (purpose, recipient), both in sorted(
                    sums.items(), key=lambda item: (-sum(item[1]), item[0])
                )
            ]
            self._in_force = (now, listed)
            return listed

    def people(self) -> int:
        """People ever recorded, erased ones included."""
        with self._room.read() as connection:
            newest = connection.execute(sa.select(sa.func.max(db.events.c.subject))).scalar_one()
        return 0 if newest is None else int(newest) + 1


def _offset() -> timedelta:
    """The console's offset from UTC today: days are cut there."""
    from datetime import datetime

    return datetime.now(zone()).utcoffset() or timedelta(0)
