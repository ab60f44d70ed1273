"""The state in memory: Roaring bitmaps of subjects, built from the database and kept up by following its
events.

A context is (controller, recipient, purpose, regulation). Per context every subject with an event is in
exactly one bitmap, that of the descriptor of the event in force; a descriptor fixes action, categories,
purpose version and notice, so whatever a decision asks is a union of few bitmaps. Ends are kept as sorted
columns beside them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from pyroaring import BitMap

from consent_center import database as db
from consent_center import registry as registry_of
from consent_center.batch import NEVER, day_start
from consent_center.events import ERASURE_CONTEXT
from consent_center.registry import Registry
from consent_center.requests import restriction
from consent_center.subjects import SubjectIndex, all_salts, is_erased

Ints = npt.NDArray[np.int64]

#: From so many subjects on, a range of the states is read instead of asking for each.
_MANY = 20_000

_EMPTY: Ints = np.empty(0, np.int64)


def bitmap(ordinals: Ints) -> BitMap:
    """int64[n] ordinals as a bitmap."""
    return (
        BitMap(memoryview(np.ascontiguousarray(ordinals, dtype=np.uint32).data))
        if len(ordinals)
        else BitMap()
    )


def ordinals_of(found: BitMap) -> Ints:
    """A bitmap's members, ascending, int64[k]."""
    if not found:
        return _EMPTY
    return np.frombuffer(found.to_array(), dtype=np.uint32).astype(np.int64)


@dataclass
class Context:
    """The current states of one (controller, recipient, purpose, regulation)."""

    controller: str
    recipient: str
    purpose: str
    regulation: str
    members: dict[int, BitMap] = field(default_factory=dict)  # descriptor -> subjects
    end_subject: Ints = field(default_factory=lambda: _EMPTY)  # ascending
    end_at: Ints = field(default_factory=lambda: _EMPTY)  # microseconds

    def put(self, subjects: Ints, descriptors: Ints, ends: Ints) -> None:
        """Replace the states of those subjects (each once)."""
        changed = bitmap(subjects)
        for held in self.members.values():
            held -= changed
        for descriptor in np.unique(descriptors).tolist():
            new = bitmap(subjects[descriptors == descriptor])
            self.members[descriptor] = self.members.get(descriptor, BitMap()) | new
        self._drop_ends(subjects)
        ending = np.flatnonzero(ends != NEVER)
        order = ending[np.argsort(subjects[ending], kind="stable")]
        at = np.searchsorted(self.end_subject, subjects[order])
        self.end_subject = np.insert(self.end_subject, at, subjects[order])
        self.end_at = np.insert(self.end_at, at, ends[order])

    def remove(self, subjects: Ints) -> None:
        gone = bitmap(subjects)
        for held in self.members.values():
            held -= gone
        self._drop_ends(subjects)

    def _drop_ends(self, subjects: Ints) -> None:
        if len(self.end_subject):
            keep = ~np.isin(self.end_subject, subjects)
            self.end_subject, self.end_at = self.end_subject[keep], self.end_at[keep]

    def ended(self, as_of: int) -> BitMap:
        """Subjects whose grant's end is at or before `as_of`."""
        return bitmap(self.end_subject[self.end_at <= as_of])

    def everyone(self) -> BitMap:
        return BitMap.union(*self.members.values()) if self.members else BitMap()


@dataclass
class State:
    """Everything that decisions need. Use under the center's lock; `catch_up` before every decision."""

    sequence: int = -1
    registry: Registry | None = None
    subjects: SubjectIndex = field(default_factory=SubjectIndex)
    contexts: dict[int, Context] = field(default_factory=dict)
    descriptors: dict[int, dict[str, Any]] = field(default_factory=dict)
    context_of: dict[int, int] = field(default_factory=dict)
    minor_subject: Ints = field(default_factory=lambda: _EMPTY)  # ascending
    minor_until: Ints = field(default_factory=lambda: _EMPTY)  # days
    erased: BitMap = field(default_factory=BitMap)
    restricted: BitMap = field(default_factory=BitMap)
    people: int = 0  # restriction.counter when `restricted` and the index of identifiers were read

    def catch_up(self, connection: sa.Connection) -> None:
        """Read what other transactions have committed, in one consistent view."""
        newest = int(connection.execute(sa.select(sa.func.max(db.events.c.sequence))).scalar_one() or 0)
        if newest < self.sequence:  # the database was put back from a backup: what it lost must not count
            self.__init__()  # type: ignore[misc]
        people = restriction.counter(connection)
        if people != self.people:  # a restriction, or an identifier that moved to another person
            self.restricted = bitmap(np.array(restriction.subjects(connection), np.int64))
            self.subjects, self.people = SubjectIndex(), people
        version = registry_of.counter(connection)
        if self.registry is None or self.registry.version != version:
            self.registry = registry_of.load(connection)
        if newest == self.sequence:
            self.subjects.catch_up(connection)  # a preference may have made people known without an event
            return
        self._catalogue(connection)
        if self.sequence < 0:
            self._load(connection)
        else:
            self._follow(connection)
        self.sequence = newest

    def minors(self, day: int) -> BitMap:
        """Subjects who need a guardian on that day."""
        return bitmap(self.minor_subject[self.minor_until > day])

    def _catalogue(self, connection: sa.Connection) -> None:
        seen = max(self.descriptors, default=0)
        for row in connection.execute(sa.select(db.descriptors).where(db.descriptors.c.id > seen)):
            self.descriptors[int(row.id)] = json.loads(row.body)
            self.context_of[int(row.id)] = int(row.context)
        seen = max(self.contexts, default=0)
        for row in connection.execute(sa.select(db.contexts).where(db.contexts.c.id > seen)):
            self.contexts[int(row.id)] = Context(row.controller, row.recipient, row.purpose, row.regulation)

    def _load(self, connection: sa.Connection) -> None:
        self.subjects.catch_up(connection)
        self.erased = bitmap(np.flatnonzero(is_erased(all_salts(connection))))
        table = db.states
        for id in self.contexts:
            query = sa.select(table.c.subject, table.c.descriptor, table.c.expires_at)
            self._put(id, *db.columns(connection, query.where(table.c.context == id)))
        self._put_minors(connection, *db.columns(connection, sa.select(db.minors)))

    def _follow(self, connection: sa.Connection) -> None:
        self.subjects.catch_up(connection)
        table = db.events
        query = sa.select(table.c.subject, table.c.descriptor).where(table.c.sequence > self.sequence)
        subjects, descriptors = db.columns(connection, query)
        context = np.array([self.context_of[id] for id in np.unique(descriptors).tolist()], np.int64)
        context = context[np.unique(descriptors, return_inverse=True)[1].reshape(-1)]
        for id in np.unique(context).tolist():
            if id != ERASURE_CONTEXT:
                found = _states_of(connection, id, np.unique(subjects[context == id]))
                self._put(id, *found[:3])
        who = np.unique(subjects)
        minors = [
            db.columns(connection, query) for query in _among(sa.select(db.minors), db.minors.c.ordinal, who)
        ]
        self._put_minors(connection, *(np.concatenate(parts) for parts in zip(*minors, strict=True)))
        self._erase(subjects[context == ERASURE_CONTEXT])

    def _put(self, context: int, subjects: Ints, descriptors: Ints, ends: Ints) -> None:
        if len(subjects):
            self.contexts[context].put(subjects, descriptors, ends)

    def _put_minors(self, connection: sa.Connection, subjects: Ints, until: Ints) -> None:
        """Minors: their birthdays, and their grants of before it, which end on it at the latest."""
        if not len(subjects):
            return
        order = np.argsort(subjects)
        subjects, until = subjects[order], until[order]
        keep = ~np.isin(self.minor_subject, subjects)
        merged = np.concatenate([self.minor_subject[keep], subjects])
        order = np.argsort(merged, kind="stable")
        self.minor_subject = merged[order]
        self.minor_until = np.concatenate([self.minor_until[keep], until])[order]
        for id, context in self.contexts.items():
            member, descriptor, end, occurred = _states_of(connection, id, subjects)
            birthday = day_start(until[np.searchsorted(subjects, member)])
            early = occurred < birthday
            capped = np.where(early & ((end == NEVER) | (end > birthday)), birthday, end)
            if len(member):
                context.put(member, descriptor, capped)

    def _erase(self, subjects: Ints) -> None:
        if len(subjects):
            self.erased |= bitmap(subjects)
            self.subjects.remove(subjects)
            for context in self.contexts.values():
                context.remove(subjects)


def _among(query: sa.Select[Any], column: sa.Column[Any], wanted: Ints) -> list[sa.Select[Any]]:
    """Queries that together find the rows with those values (ascending), or a few more."""
    if len(wanted) > _MANY:
        return [query.where(column.between(int(wanted[0]), int(wanted[-1])))]
    return [query.where(column.in_(part)) for part in db.chunks(wanted.tolist())] or [query.where(sa.false())]


def _states_of(connection: sa.Connection, context: int, subjects: Ints) -> list[Ints]:
    """(subject, descriptor, expires_at, occurred_at) of those subjects' states in a context."""
    table = db.states
    query = sa.select(table.c.subject, table.c.descriptor, table.c.expires_at, table.c.occurred_at)
    query = query.where(table.c.context == context)
    parts = [db.columns(connection, one) for one in _among(query, table.c.subject, subjects)]
    found = [np.concatenate(column) for column in zip(*parts, strict=True)]
    keep = np.isin(found[0], subjects)
    return [column[keep] for column in found]
