"""Which person an identifier belongs to: keyed pseudonyms, their index in memory, new subjects.

    pseudonym = HMAC-SHA-256(pseudonym key, kind ‖ 0x00 ‖ normal form)

The index is the sorted first 8 bytes (uint64) with the places of the whole 32 bytes, which stay in the order
in which they came: a hit on the prefix is confirmed on all bytes, so two pseudonyms with one prefix can't be
mixed up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from consent_center import database as db
from consent_center import loading
from consent_center.errors import ConsentError
from consent_center.hashing import blobs, hmac_strings
from consent_center.rules.tables import regions

Bytes2 = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: Up to so many identifiers are looked up by SQL; more are worth loading the index.
SQL_LOOKUP = 256

#: Ids that are read at a time, and identifiers that are looked up in the index at a time.
_STRETCH, _AT_ONCE = 1 << 16, 1 << 20

SALT_SIZE = 32
TAG_SIZE = 16
SALTS_A_ROW = 128
#: From so many subjects on, all salts are read at once instead of one by one.
_MANY = 5_000

_CHUNK = db.Prepared(sa.select(db.salts.c.salts).where(db.salts.c.chunk == sa.bindparam("of")))
_DROP_CHUNK = db.Prepared(db.salts.delete().where(db.salts.c.chunk == sa.bindparam("of")))
_LAST_CHUNK = db.Prepared(
    sa.select(db.salts.c.chunk, sa.func.length(db.salts.c.salts)).order_by(db.salts.c.chunk.desc()).limit(1)
)


@cache
def _known(size: int) -> db.Prepared:
    """Whose so many pseudonyms are."""
    table = db.identifiers
    among: list[sa.BindParameter[bytes]] = [sa.bindparam(f"p{i}") for i in range(size)]
    return db.Prepared(sa.select(table.c.pseudonym, table.c.subject).where(table.c.pseudonym.in_(among)))


def pseudonyms(key: bytes, kind: str, values: pa.Array) -> Bytes2:
    """uint8[n, 32] of a normalised column; a null row gets the pseudonym of the empty text, so mask it."""
    return hmac_strings(key, kind.encode() + b"\x00", values)


def prefixes(rows: Bytes2) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each row, as big-endian numbers (so their order is that of the bytes)."""
    return np.ascontiguousarray(rows[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


@dataclass
class SubjectIndex:
    """Sorted pseudonyms of the whole center and their subjects' ordinals."""

    prefix: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    place: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # of each prefix among the next two
    whole: Bytes2 = field(default_factory=lambda: np.empty((0, 32), np.uint8))
    ordinal: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    last_id: int = 0
    #: What came lately, an index of its own: single events must not move millions of rows.
    recent: SubjectIndex | None = None

    def catch_up(self, connection: sa.Connection) -> None:
        """Add the identifiers that were stored since the last call."""
        found = _stored(connection, self.last_id)
        if found is not None:
            last, rows, ordinals = found
            self.add(rows, ordinals)
            self.last_id = last

    def add(self, rows: Bytes2, ordinals: Ints) -> None:
        recent = SubjectIndex() if self.recent is None else self.recent
        if len(recent.prefix) + len(rows) < len(self.prefix) // 32:
            recent.add(rows, ordinals)
            self.recent = recent
            return
        self.recent = None
        if len(recent.prefix):
            rows = np.concatenate([recent.whole, rows])
            ordinals = np.concatenate([recent.ordinal, ordinals])
        keys = prefixes(rows)
        place = np.argsort(keys)
        keys = keys[place]
        if len(self.prefix):
            place += len(self.prefix)
            at = np.searchsorted(self.prefix, keys)
            keys, place = np.insert(self.prefix, at, keys), np.insert(self.place, at, place)
            rows, ordinals = np.concatenate([self.whole, rows]), np.concatenate([self.ordinal, ordinals])
        self.prefix, self.place, self.whole, self.ordinal = keys, place, rows, ordinals

    def remove(self, subjects: Ints) -> None:
        """Forget the identifiers of erased subjects."""
        if self.recent is not None:
            self.recent.remove(subjects)
        stays = ~np.isin(self.ordinal, subjects)
        keep = stays[self.place]
        number = np.cumsum(stays) - 1  # of the rows that stay
        self.prefix, self.place = self.prefix[keep], number[self.place[keep]]
        self.whole, self.ordinal = self.whole[stays], self.ordinal[stays]

    def lookup(self, rows: Bytes2) -> Ints:
        """Ordinals int64[n] of pseudonyms uint8[n, 32]; -1 where unknown."""
        found = np.full(len(rows), -1, np.int64)
        for start in range(0, len(rows), _AT_ONCE):
            self._look(rows[start : start + _AT_ONCE], found[start : start + _AT_ONCE])
        if self.recent is not None:
            missing = np.flatnonzero(found < 0)
            found[missing] = self.recent.lookup(rows[missing])
        return found

    def _look(self, rows: Bytes2, found: Ints) -> None:
        """`lookup` of a bounded number of rows, into `found`."""
        keys = prefixes(rows)
        # In the index's order: neighbours are found side by side, instead of each far from the one before.
        left = np.argsort(keys)
        at = np.searchsorted(self.prefix, keys[left])
        while len(left):  # more than one round only where prefixes collide
            inside = at < len(self.prefix)
            left, at = left[inside], at[inside]
            same = self.prefix[at] == keys[left]
            left, at = left[same], at[same]
            place = self.place[at]
            whole = _equal(np.take(self.whole, place, axis=0), np.take(rows, left, axis=0))
            found[left[whole]] = self.ordinal[place[whole]]
            left, at = left[~whole], at[~whole] + 1


def _equal(some: Bytes2, others: Bytes2) -> npt.NDArray[np.bool_]:
    """bool[n]: which rows of uint8[n, 32] are the same; four words a row instead of 32 bytes."""
    same: npt.NDArray[np.bool_] = (some.view(np.uint64) == others.view(np.uint64)).all(axis=1)
    return same


def _stored(connection: sa.Connection, after: int) -> tuple[int, Bytes2, Ints] | None:
    """(id of the last, pseudonyms uint8[k, 32], ordinals int64[k]) of the identifiers above an id, if any.

    ConsentError `ledger.corrupt` for a pseudonym of another length.
    """
    table = db.identifiers
    newest = int(connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0)
    if newest <= after:
        return None
    # Ids of erased people are missing: what is left over at the end is never touched, and takes no memory.
    rows, ordinals = np.empty((newest - after, 32), np.uint8), np.empty(newest - after, np.int64)
    count = 0
    for start in range(after, newest, _STRETCH):
        last = min(newest, start + _STRETCH)
        among = sa.and_(table.c.id > start, table.c.id <= last)
        blobs_of, owners = db.joined(connection, table.c.pseudonym, table.c.subject, among)
        if len(blobs_of) != 32 * len(owners):  # all behind one that is too short would be other people's
            raise ConsentError("ledger.corrupt", f"identifiers {start + 1} to {last} are damaged; run fsck")
        rows[count : count + len(owners)] = blobs_of.reshape(-1, 32)
        ordinals[count : count + len(owners)] = owners
        count += len(owners)
    return newest, rows[:count], ordinals[:count]


def sql_lookup(connection: sa.Connection, rows: Bytes2) -> Ints:
    """The same answer as SubjectIndex.lookup, from the database, for a few rows."""
    wanted = blobs(rows)
    known: dict[bytes, int] = {}
    for part in db.chunks(sorted(set(wanted))):
        size = 1 << (len(part) - 1).bit_length()  # few statements: the last is asked for repeatedly
        told = {f"p{i}": part[min(i, len(part) - 1)] for i in range(size)}
        known.update((row[0], int(row[1])) for row in _known(size).run(connection, **told))
    return np.array([known.get(key, -1) for key in wanted], np.int64)


@dataclass(frozen=True)
class Resolved:
    """Subjects of a batch's rows: `ordinals` int64[n] (-1: refused), `conflict` bool[n], and what is new.

    `new_subjects` counts subjects to be created, numbered from `first_new`; `fresh` are their or others' new
    identifiers: (pseudonym uint8[k, 32], kind int64[k], subject int64[k]).
    """

    ordinals: Ints
    conflict: npt.NDArray[np.bool_]
    first_new: int
    new_subjects: int
    fresh: tuple[Bytes2, Ints, Ints]


def resolve(
    rows: Ints,
    kinds: Ints,
    found: Bytes2,
    known: Ints,
    count: int,
    usable: npt.NDArray[np.bool_],
    first_new: int,
) -> Resolved:
    """Give every usable row its subject.

    `rows`, `kinds`, `found`, `known` describe identifiers (one row of the batch may have several): the row,
    the kind's number, the pseudonym, the subject already known or -1. Rows that share an identifier are one
    person (connected components); if a component touches two known subjects, all its rows are in conflict:
    people are never merged by accident.
    """
    use = usable[rows]
    rows, kinds, found, known = rows[use], kinds[use], found[use], known[use]
    ordinals, conflict = np.full(count, -1, np.int64), np.zeros(count, bool)
    nothing = (np.empty((0, 32), np.uint8), np.empty(0, np.int64), np.empty(0, np.int64))
    if len(rows) == 0:
        return Resolved(ordinals, conflict, first_new, 0, nothing)
    one_each = bool((np.diff(rows) > 0).all())
    order = np.argsort(keys := prefixes(found))
    if one_each and bool((np.diff(keys[order]) > 0).all()):  # every row is another person
        return _each_its_own(rows, kinds, found, known, order, ordinals, conflict, first_new)
    first, identity = _distinct(found)
    if one_each:
        group = identity  # a person is a pseudonym
    else:
        # Takes a while to import, and most batches have one identifier a row.
        sparse, csgraph = loading.part_of_scipy("sparse"), loading.part_of_scipy("sparse.csgraph")
        size = count + len(first)
        graph = sparse.coo_array((np.ones(len(rows), np.int8), (rows, count + identity)), shape=(size, size))
        labels = csgraph.connected_components(graph, directed=False)[1]
        group = np.unique(labels[rows], return_inverse=True)[1].reshape(-1)
    groups = int(group.max()) + 1
    low, high = np.full(groups, np.iinfo(np.int64).max), np.full(groups, -1, np.int64)
    has = known >= 0
    np.minimum.at(low, group[has], known[has])
    np.maximum.at(high, group[has], known[has])
    clash = (high >= 0) & (low != high)
    # New subjects are numbered by their first row, so that ordinals follow the order of the input.
    opening = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(opening, group, rows)
    new = np.flatnonzero(high < 0)
    subject = high.copy()
    subject[new[np.argsort(opening[new], kind="stable")]] = first_new + np.arange(len(new))
    ordinals[rows] = np.where(clash[group], -1, subject[group])
    conflict[rows] = clash[group]
    take = first[(known[first] < 0) & ~clash[group[first]]]
    return Resolved(
        ordinals,
        conflict,
        first_new,
        len(new),
        (found[take], kinds[take], subject[group[take]].astype(np.int64)),
    )


def _each_its_own(
    rows: Ints,
    kinds: Ints,
    found: Bytes2,
    known: Ints,
    order: Ints,
    ordinals: Ints,
    conflict: npt.NDArray[np.bool_],
    first_new: int,
) -> Resolved:
    """`resolve` where each row has one identifier that no other has; `order` sorts them. What imports are."""
    new = known < 0
    fresh = int(np.count_nonzero(new))
    subject = known.copy()
    subject[new] = first_new + np.arange(fresh)
    ordinals[rows] = subject
    take = order if fresh == len(order) else order[new[order]]
    fresh_ones = (np.take(found, take, axis=0), kinds[take], subject[take])
    return Resolved(ordinals, conflict, first_new, fresh, fresh_ones)


def _distinct(found: Bytes2) -> tuple[Ints, Ints]:
    """(first int64[d]: where each distinct row stands, in the rows' order as bytes; identity int64[n])."""
    words = np.ascontiguousarray(found).view(">u8").astype(np.uint64)
    order = np.argsort(words[:, 0], kind="stable")
    if (np.diff(words[order, 0]) == 0).any():  # equal rows, or a collision of prefixes
        order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    opens = np.append(True, (words[order[1:]] != words[order[:-1]]).any(axis=1))
    identity = np.empty(len(found), np.int64)
    identity[order] = np.cumsum(opens) - 1
    return order[opens], identity


def store(connection: sa.Connection, resolved: Resolved, salts: Bytes2, tags: Bytes2) -> None:
    """Write the salts of new subjects, uint8[n, 32], and new identifiers in the order of their index.

    `tags` uint8[k, 16] are those of `resolved.fresh`.
    """
    _append_salts(connection, resolved.first_new, salts)
    found, kinds, subjects = resolved.fresh
    if not len(kinds):
        return
    # Ids are never used again, not even those of erased people: followers read those above the last seen.
    start = int(db.get_meta(connection, "identifiers") or "0") + 1
    db.set_meta(connection, "identifiers", str(start + len(kinds) - 1))
    # They are sorted: neighbours in the b-tree, which is what makes millions of inserts quick.
    ids = np.arange(start, start + len(kinds), dtype=np.int64)
    db.insert_columns(connection, db.identifiers, (ids, found, kinds, subjects, tags))


def count(connection: sa.Connection) -> int:
    """Number of subjects ever made: the next ordinal."""
    row = _LAST_CHUNK.first(connection)
    return 0 if row is None else int(row[0]) * SALTS_A_ROW + int(row[1]) // SALT_SIZE


def _append_salts(connection: sa.Connection, first: int, salts: Bytes2) -> None:
    if not len(salts):
        return
    chunk, held = divmod(first, SALTS_A_ROW)
    if held:
        salts = np.concatenate([_rows(_chunk(connection, chunk)), salts])
        _DROP_CHUNK.run(connection, of=chunk)
    pieces = range(0, len(salts), SALTS_A_ROW)
    rows = [(chunk + i, salts[start : start + SALTS_A_ROW].tobytes()) for i, start in enumerate(pieces)]
    db.insert_many(connection, db.salts, rows)


def _chunk(connection: sa.Connection, chunk: int) -> bytes:
    row = _CHUNK.first(connection, of=chunk)
    if row is None:
        raise ConsentError("ledger.corrupt", f"the salts of chunk {chunk} are missing; run fsck")
    found: bytes = row[0]
    return found


def _rows(blob: bytes) -> Bytes2:
    return np.frombuffer(blob, np.uint8).reshape(-1, SALT_SIZE)


def all_salts(connection: sa.Connection) -> Bytes2:
    """uint8[n, 32] by ordinal; an erased subject's is zero."""
    rows = connection.execute(sa.select(db.salts.c.salts).order_by(db.salts.c.chunk))
    return _rows(b"".join(row[0] for row in rows))


def _stretch(connection: sa.Connection, low: int, high: int) -> Bytes2:
    """uint8[n, 32]: the salts of the chunks low … high."""
    table = db.salts
    rows = connection.execute(
        sa.select(table.c.salts).where(table.c.chunk.between(low, high)).order_by(table.c.chunk)
    )
    found = [row[0] for row in rows]
    full = SALT_SIZE * SALTS_A_ROW
    # One that is missing or too short would give all behind it another person's.
    if len(found) != high - low + 1 or any(len(blob) != full for blob in found[:-1]):
        raise ConsentError("ledger.corrupt", f"salts of the chunks {low} to {high} are missing; run fsck")
    return _rows(b"".join(found))


def salts_of(connection: sa.Connection, ordinals: Ints) -> Bytes2:
    """uint8[n, 32]: the salts of those subjects; an erased subject's is zero."""
    if len(ordinals) > _MANY:
        low, high = int(ordinals.min()) // SALTS_A_ROW, int(ordinals.max()) // SALTS_A_ROW
        salts = _stretch(connection, low, high)
        among: Bytes2 = np.take(
            salts, ordinals - low * SALTS_A_ROW, axis=0
        )  # a sixth of the time of salts[…]
        return among
    held = {chunk: _rows(_chunk(connection, chunk)) for chunk in set((ordinals // SALTS_A_ROW).tolist())}
    found = np.empty((len(ordinals), SALT_SIZE), np.uint8)
    for i, ordinal in enumerate(ordinals.tolist()):
        found[i] = held[ordinal // SALTS_A_ROW][ordinal % SALTS_A_ROW]
    return found


def destroy(connection: sa.Connection, ordinal: int) -> None:
    """Overwrite a subject's salt and delete its identifiers: nothing can be decrypted or linked any more."""
    chunk, at = divmod(ordinal, SALTS_A_ROW)
    salts = _rows(_chunk(connection, chunk)).copy()
    salts[at] = 0
    connection.execute(db.salts.update().where(db.salts.c.chunk == chunk).values(salts=salts.tobytes()))
    connection.execute(db.identifiers.delete().where(db.identifiers.c.subject == ordinal))
    connection.execute(db.minors.delete().where(db.minors.c.ordinal == ordinal))
    connection.execute(regions.delete().where(regions.c.ordinal == ordinal))


def is_erased(salts: Bytes2) -> npt.NDArray[np.bool_]:
    """bool[n]: which salts were destroyed."""
    gone: npt.NDArray[np.bool_] = (salts == 0).all(axis=1)
    return gone
