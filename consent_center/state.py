"""The state in memory: Roaring bitmaps of subjects, built from the database and kept up by following its
events.

A context is (controller, recipient, purpose, regulation). Per context every subject with an event is in
exactly one bitmap, that of the descriptor of the event in force; a descriptor fixes action, categories,
purpose version and notice, so whatever a decision asks is a union of few bitmaps. `ends` has the ends beside
them; `state_file` keeps all of it on disk, so that opening needs the last events only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from pyroaring import BitMap

from consent_center import database as db
from consent_center import registry as registry_of
from consent_center import state_file
from consent_center.batch import NEVER, day_start
from consent_center.ends import Ends, bitmap, members_of
from consent_center.errors import ConsentError
from consent_center.events import ERASURE_CONTEXT
from consent_center.ledger import log, tree
from consent_center.model import Finding
from consent_center.registry import Registry
from consent_center.requests import restriction
from consent_center.state_file import Stored
from consent_center.subjects import SALT_SIZE, SALTS_A_ROW, SQL_LOOKUP, SubjectIndex, is_erased, sql_lookup

Bytes2 = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: From so many subjects on, a range of the states is read instead of asking for each.
_MANY = 20_000

#: (last sequence number, version of the registry, restriction.counter): what each decision asks first.
_PULSE = db.Prepared(
    sa.select(
        sa.select(sa.func.max(db.events.c.sequence)).scalar_subquery(),
        sa.select(db.meta.c.value).where(db.meta.c.key == "registry").scalar_subquery(),
        sa.select(db.meta.c.value).where(db.meta.c.key == restriction.META).scalar_subquery(),
    )
)
_EMPTY: Ints = np.empty(0, np.int64)
_LOG = logging.getLogger(__name__)


def ordinals_of(found: BitMap) -> Ints:
    """A bitmap's members, ascending, int64[k]."""
    return members_of(found).astype(np.int64)


@dataclass(eq=False)
class Context:
    """The current states of one (controller, recipient, purpose, regulation)."""

    controller: str
    recipient: str
    purpose: str
    regulation: str
    members: dict[int, BitMap] = field(default_factory=dict)  # descriptor -> subjects
    ends: Ends = field(default_factory=Ends)

    def put(self, subjects: Ints, descriptors: Ints, ends: Ints) -> None:
        """Replace the states of those subjects (each once)."""
        changed = bitmap(subjects)
        for held in self.members.values():
            held -= changed
        several = _among_few(descriptors)
        for descriptor in several.tolist():
            new = bitmap(subjects[descriptors == descriptor]) if len(several) > 1 else changed.copy()
            if descriptor in self.members:
                self.members[descriptor] |= new
            else:
                self.members[descriptor] = new
        self.ends.put(subjects, ends)

    def remove(self, subjects: Ints) -> None:
        gone = bitmap(subjects)
        for held in self.members.values():
            held -= gone
        self.ends.put(subjects, np.full(len(subjects), NEVER, np.int64))


class State:
    """Everything that decisions need. Use under the center's lock; `catch_up` before every decision."""

    def __init__(self, stored: Callable[[], Stored | None] = lambda: None) -> None:
        """`stored()` gives the file that an earlier process has left, if there is one."""
        self._stored = stored
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next `catch_up` reads it anew."""
        self.sequence = -1
        self.file_sequence = 0  # up to where the file has it
        self.registry: Registry | None = None
        self.contexts: dict[int, Context] = {}
        self.descriptors: dict[int, dict[str, Any]] = {}
        self.context_of: dict[int, int] = {}
        self.minor_subject: Ints = _EMPTY  # ascending
        self.minor_until: Ints = _EMPTY  # days
        self.erased = BitMap()
        self.restricted = BitMap()
        self.people = 0  # restriction.counter when `restricted` and the index of identifiers were read
        self._index = SubjectIndex()
        self._unindexed = BitMap()  # erased already when the index was read last

    def catch_up(self, connection: sa.Connection) -> None:
        """Read what other transactions have committed, in one consistent view."""
        newest, version, people = (int(number or 0) for number in _PULSE.first(connection) or ())
        if newest < self.sequence:  # the database was put back from a backup: what it lost must not count
            self.reset()
        if people != self.people:  # a restriction, or an identifier that moved to another person
            self.restricted = bitmap(np.array(restriction.subjects(connection), np.int64))
            self._index, self._unindexed, self.people = SubjectIndex(), BitMap(), people
        if self.registry is None or self.registry.version != version:
            self.registry = registry_of.load(connection)
        if newest == self.sequence:
            return
        self._catalogue(connection)
        if self.sequence < 0 and not self._restore(connection, newest):
            self._load(connection)
        elif newest > self.sequence:
            self._follow(connection)
        self.sequence = newest

    def lookup(self, connection: sa.Connection, hashed: Bytes2) -> Ints:
        """Ordinals int64[n] of pseudonyms uint8[n, 32], -1 where unknown; after `catch_up`."""
        if len(hashed) <= SQL_LOOKUP:
            return sql_lookup(connection, hashed)
        return self.index(connection).lookup(hashed)

    def index(self, connection: sa.Connection) -> SubjectIndex:
        """Every identifier in memory, caught up: worth it for many look-ups only. `catch_up` comes before."""
        self._index.catch_up(connection)
        gone = self.erased - self._unindexed
        if gone:
            self._index.remove(ordinals_of(gone))
            self._unindexed = self.erased.copy()
        return self._index

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

    def _restore(self, connection: sa.Connection, newest: int) -> bool:
        """Begin with the file, if it is authentic and tells of this ledger; whether it did."""
        try:
            stored = self._stored()
            if stored is None:
                return False
            if stored.sequence > newest or stored.size > log.size(connection):
                raise ValueError("it is newer than the database")
            if tree.root_of(stored.size, log.reader(connection)) != stored.root:
                raise ValueError("it tells of another ledger")
            self._read_parts(stored)
        except ValueError as error:
            _LOG.warning("the stored state is not used, the tables are read instead: %s", error)
            return False
        self.sequence = self.file_sequence = stored.sequence
        return True

    def _read_parts(self, stored: Stored) -> None:
        erased = BitMap.deserialize(stored.read("erased"))
        minors = [np.frombuffer(stored.read(f"minors/{name}"), "<i8") for name in ("subject", "until")]
        members: dict[int, dict[int, BitMap]] = {}
        for name in stored.names("members/"):
            _, context, descriptor = name.split("/")
            members.setdefault(int(context), {})[int(descriptor)] = BitMap.deserialize(stored.read(name))
        ends = {
            int(name.split("/")[1]): Ends(BitMap.deserialize(stored.read(name)), _column(stored, name))
            for name in stored.names("ending/")
        }
        if not {*members, *ends} <= self.contexts.keys():
            raise ValueError("it has contexts that the database does not know")
        self.erased, (self.minor_subject, self.minor_until) = erased, minors
        for id, by_descriptor in members.items():
            self.contexts[id].members = by_descriptor
        for id, held in ends.items():
            self.contexts[id].ends = held

    def parts(self) -> Iterator[tuple[str, bytes]]:
        """What the file holds: (name, bytes)."""
        yield "erased", _packed(self.erased)
        yield "minors/subject", self.minor_subject.astype("<i8").tobytes()
        yield "minors/until", self.minor_until.astype("<i8").tobytes()
        for id, context in self.contexts.items():
            for descriptor, members in context.members.items():
                if members:
                    yield f"members/{id}/{descriptor}", _packed(members)
            ending, at = context.ends.merged()
            if ending:
                yield f"ending/{id}", _packed(ending)
                yield f"ends/{id}", at.astype("<i8").tobytes()

    def _load(self, connection: sa.Connection) -> None:
        salts = sa.select(db.salts.c.chunk, db.salts.c.salts).order_by(db.salts.c.chunk)
        for chunk, held in db.raw(connection, salts):
            gone = np.flatnonzero(is_erased(np.frombuffer(held, np.uint8).reshape(-1, SALT_SIZE)))
            self.erased.update((gone + int(chunk) * SALTS_A_ROW).tolist())
        table = db.states
        for id in self.contexts:
            query = sa.select(table.c.subject, table.c.descriptor, table.c.expires_at)
            self._put(id, *db.columns(connection, query.where(table.c.context == id)))
        self._put_minors(connection, *db.columns(connection, sa.select(db.minors)))

    def _follow(self, connection: sa.Connection) -> None:
        table = db.events
        query = sa.select(table.c.subject, table.c.descriptor).where(table.c.sequence > self.sequence)
        subjects, descriptors = db.columns(connection, query)
        of = {id: self.context_of[id] for id in _among_few(descriptors).tolist()}
        table_of = np.zeros(max(of, default=0) + 1, np.int64)
        table_of[list(of)] = list(of.values())
        context = table_of[descriptors]
        for id in sorted(set(of.values())):
            if id != ERASURE_CONTEXT:
                found = _states_of(connection, id, _ascending(subjects[context == id]), occurred=False)
                self._put(id, *found)
        who = _ascending(subjects)
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
            member, descriptor, end, occurred = _states_of(connection, id, subjects, occurred=True)
            birthday = day_start(until[np.searchsorted(subjects, member)])
            early = occurred < birthday
            capped = np.where(early & ((end == NEVER) | (end > birthday)), birthday, end)
            if len(member):
                context.put(member, descriptor, capped)

    def _erase(self, subjects: Ints) -> None:
        if len(subjects):
            self.erased |= bitmap(subjects)
            for context in self.contexts.values():
                context.remove(subjects)


def check_file(connection: sa.Connection, home: Path, key: bytes) -> Finding | None:
    """Whether the stored state, with the events since, is the state that the tables give; for fsck."""
    try:
        stored = state_file.open_file(home, key)
        if stored is None:
            return None
        restored, fresh = State(lambda: stored), State()
        restored.catch_up(connection)
        if restored.file_sequence == 0:
            raise ValueError("it tells of another or a newer ledger: was an older database put back?")
        fresh.catch_up(connection)
        if dict(restored.parts()) != dict(fresh.parts()):
            raise ValueError("it is not the fold of the events")
    except (ValueError, KeyError, ConsentError) as error:
        return Finding("changed", state_file.NAME, str(error))
    return None


def _packed(found: BitMap) -> bytes:
    small = found.copy()
    small.run_optimize()
    return bytes(small.serialize())


def _column(stored: Stored, ending: str) -> Callable[[], Ints]:
    """The ends of a context, read from the file when first needed."""

    def read() -> Ints:
        try:
            return np.frombuffer(stored.read(ending.replace("ending", "ends")), "<i8")
        except (OSError, ValueError) as error:
            raise ConsentError("ledger.corrupt", f"the stored state can't be read: {error}") from error

    return read


def _among(query: sa.Select[Any], column: sa.Column[Any], wanted: Ints) -> list[sa.Select[Any]]:
    """Queries that together find the rows with those values (ascending), or a few more."""
    if len(wanted) > _MANY:
        return [query.where(column.between(int(wanted[0]), int(wanted[-1])))]
    return [query.where(column.in_(part)) for part in db.chunks(wanted.tolist())] or [query.where(sa.false())]


def _states_of(connection: sa.Connection, context: int, subjects: Ints, occurred: bool) -> list[Ints]:
    """(subject, descriptor, expires_at), with `occurred` also occurred_at, of those subjects' states in a
    context; `subjects` ascend.
    """
    table = db.states
    columns = (table.c.subject, table.c.descriptor, table.c.expires_at, table.c.occurred_at)
    query = sa.select(*columns[: 4 if occurred else 3]).where(table.c.context == context)
    parts = [db.columns(connection, one) for one in _among(query, table.c.subject, subjects)]
    found = [np.concatenate(column) for column in zip(*parts, strict=True)]
    if np.array_equal(found[0], subjects):
        return found
    keep = np.isin(found[0], subjects)
    return [column[keep] for column in found]


def _ascending(values: Ints) -> Ints:
    """The distinct values in order. Of millions just imported they are that already, and sorting costs more
    than reading them.
    """
    return values if (np.diff(values) > 0).all() else np.unique(values)


def _among_few(numbers: Ints) -> Ints:
    """The distinct ones among small numbers (of descriptors), ascending."""
    return np.flatnonzero(np.bincount(numbers)) if len(numbers) else _EMPTY
