"""Looking at one person, erasing one person, and checking the whole database against its ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from consent_center import database as db
from consent_center import erased, events, integrity, subjects
from consent_center.batch import NEVER, Batch, descriptor_hash, moment
from consent_center.errors import ConsentError
from consent_center.hashing import Bytes2, as_rows, blobs
from consent_center.identifiers import OK, normalise
from consent_center.keys import Keys
from consent_center.ledger import log, tree
from consent_center.ledger.verify import SALT_SIZE
from consent_center.ledger.verify import checkpoint as open_checkpoint
from consent_center.model import KINDS, RANK, Explanation, Finding
from consent_center.requests import restriction

Ints = npt.NDArray[np.int64]

_STEP = 200_000


def pseudonym(keys: Keys, kind: str, value: str) -> Bytes2:
    """uint8[1, 32]; ConsentError `event.identifier` if the value is no identifier of that kind."""
    normal = normalise(pa.array([value], pa.string()), kind)
    if normal.status[0] != OK:
        raise ConsentError("event.identifier", f"the value is no {kind} identifier; check kind and spelling")
    return subjects.pseudonyms(keys.pseudonym, kind, normal.values)


def find(connection: sa.Connection, keys: Keys, kind: str, value: str) -> int:
    """The ordinal of the person with that identifier; ConsentError `subject.unknown`."""
    found = int(subjects.sql_lookup(connection, pseudonym(keys, kind, value))[0])
    if found < 0:
        raise ConsentError("subject.unknown", f"no person with that {kind} is known here")
    return found


def explain(connection: sa.Connection, keys: Keys, subject: int) -> Explanation:
    """All events with their private part, and the states in force."""
    salt = subjects.salts_of(connection, np.array([subject], np.int64)).tobytes()
    catalogue = {int(r.id): json.loads(r.body) for r in connection.execute(sa.select(db.descriptors))}
    told = []
    query = sa.select(db.events).where(db.events.c.subject == subject).order_by(db.events.c.sequence)
    for row in connection.execute(query):
        private = events.unseal(keys, salt, row.sequence, row.sealed)
        told.append(
            {
                "sequence": row.sequence,
                "leaf": row.leaf,
                **catalogue[row.descriptor],
                **_times(row),
                "recorded_at": moment(row.recorded_at),
                **{name: text for name, text in private.items() if text},
            }
        )
    states = []
    for row in connection.execute(sa.select(db.states).where(db.states.c.subject == subject)):
        states.append({"sequence": row.sequence, **catalogue[row.descriptor], **_times(row)})
    kinds = connection.execute(sa.select(db.identifiers.c.kind).where(db.identifiers.c.subject == subject))
    until = connection.execute(
        sa.select(db.minors.c.until).where(db.minors.c.ordinal == subject)
    ).scalar_one_or_none()
    birthday = "" if until is None else str(np.datetime64(int(until), "D"))
    return Explanation(
        subject, tuple(sorted(KINDS[int(r[0])] for r in kinds)), birthday, tuple(told), tuple(states)
    )


def _times(row: Any) -> dict[str, str]:
    return {"occurred_at": moment(row.occurred_at), "expires_at": moment(row.expires_at)}


def erase(connection: sa.Connection, keys: Keys, subject: int, controller: str, actor: str, now: int) -> int:
    """Record the erasure, then destroy the salt and every link from an identifier to the subject."""
    descriptor = {"action": "erased", "controller": controller, "actor": actor}
    batch = Batch(
        [descriptor],
        np.zeros(1, np.int64),
        [],
        np.array([now]),
        np.array([NEVER]),
        np.array([NEVER]),
        None,
        {},
    )
    sequence = events.write_erasure(connection, keys, batch, subject, now)
    erased.remember(connection, keys, subject, sequence, now)
    restriction.lift(connection, subject)
    connection.execute(db.states.delete().where(db.states.c.subject == subject))
    subjects.destroy(connection, subject)
    return sequence


def oldest_change(connection: sa.Connection, after: int, members: Ints, now: int) -> float:
    """Seconds since the oldest event after `after` of one of those subjects was recorded; 0.0 if none."""
    if not len(members):
        return 0.0
    table = db.events
    query = sa.select(table.c.subject, table.c.recorded_at).where(table.c.sequence > after)
    subject, recorded = db.columns(connection, query)
    hit = recorded[np.isin(subject, members)]
    return max(0.0, (now - int(hit.min())) / 1e6) if len(hit) else 0.0


def event_opening(connection: sa.Connection, index: int) -> dict[str, Any]:
    """The closed opening of a consent event's leaf. ConsentError `ledger.index`, `ledger.opening`."""
    stored = log.stored_hash(connection, index)
    row = _rows(connection, sa.select(db.events).where(db.events.c.leaf == index).limit(1))
    if not row.salts:
        raise ConsentError("ledger.opening", f"what leaf {index} committed to is missing; run fsck")
    body = _bodies(connection, row)
    if log.event_leaves(_fixed(row.salts), body).tobytes() != stored:
        raise ConsentError("ledger.opening", f"event {row.sequence[0]} was changed; run fsck")
    return {
        "index": index,
        "kind": log.EVENT_KIND,
        "salt": row.salts[0].hex(),
        "body_hash": log.event_body_hashes(body).tobytes().hex(),
        "leaf_hash": stored.hex(),
    }


#: The columns of an event that its leaf commits to, and those that place it.
_NUMBERS = ("sequence", "subject", "descriptor", "leaf", "occurred_at", "recorded_at", "expires_at")


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows of `events` as columns."""

    sequence: Ints
    subject: Ints
    descriptor: Ints
    leaf: Ints
    occurred: Ints
    recorded: Ints
    expires: Ints
    salts: list[bytes]
    sealed: list[bytes]


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> _Rows:
    table = db.events
    numbers = db.columns(connection, query.with_only_columns(*(table.c[name] for name in _NUMBERS)))
    pairs = db.raw(connection, query.with_only_columns(table.c.salt, table.c.sealed)).fetchall()
    a, b, c, d, e, f, g = numbers
    return _Rows(a, b, c, d, e, f, g, [pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _bodies(connection: sa.Connection, rows: _Rows) -> Bytes2:
    """What the rows of `events` should have committed to; the descriptors are hashed anew."""
    distinct, where = np.unique(rows.descriptor, return_inverse=True)
    table = db.descriptors
    hashes: dict[int, bytes] = {}
    for part in db.chunks(distinct.tolist()):
        for found in connection.execute(sa.select(table.c.id, table.c.body).where(table.c.id.in_(part))):
            hashes[int(found.id)] = descriptor_hash(json.loads(found.body))
    described = as_rows([hashes.get(number, bytes(32)) for number in distinct.tolist()])[where.reshape(-1)]
    sealed = as_rows([events.sealed_hash(text) for text in rows.sealed])
    return events.bodies(described, rows.sequence, rows.occurred, rows.recorded, rows.expires, sealed)


def fsck(connection: sa.Connection, keys: Keys, checkpoint: str) -> Finding | None:
    """Recompute leaves, tiles, subjects, states, records, pages, checkpoint; the first difference, or None.

    ConsentError `ledger.note`, `ledger.checkpoint` for a checkpoint that is not this log's.
    """
    known = open_checkpoint(checkpoint, keys.signer.verifier) if checkpoint else None
    stored = log.all_hashes(connection)
    if stored is None:
        return Finding("changed", "tiles 0", "its rows are not numbered from 0 or have another length")
    steps: tuple[Callable[[], Finding | None], ...] = (
        lambda: _check_leaves(connection, keys, stored),
        lambda: _check_tiles(connection, stored),
        lambda: _check_states(connection),
        lambda: integrity.check(connection, keys),
        lambda: integrity.physical(connection),
    )
    for name, step in zip(("ledger", "tiles", "states", "records", "database"), steps, strict=True):
        try:
            found = step()
        except integrity.UNREADABLE as error:
            return Finding("changed", name, f"a value can't be read: {type(error).__name__}")
        if found is not None:
            return found
    if known is None:
        return None
    if known.size > len(stored):
        return Finding("missing", f"ledger {len(stored)}", f"the checkpoint has {known.size} leaves")
    if tree.tree_hash(stored[: known.size]) != known.root:
        return Finding(
            "changed", f"ledger 0-{known.size - 1}", "the log is not the one that the checkpoint signed"
        )
    return None


def _check_tiles(connection: sa.Connection, stored: Bytes2) -> Finding | None:
    tile = log.check_tiles(connection, stored)
    return (
        None
        if tile is None
        else Finding("changed", f"tiles {tile}", "its hashes are not those of its leaves")
    )


def _check_leaves(connection: sa.Connection, keys: Keys, stored: Bytes2) -> Finding | None:
    expected = np.zeros_like(stored)
    names: dict[int, str] = {}
    present = np.zeros(len(stored), bool)
    unbound: list[int] = []

    def place(indices: Ints, hashes: Bytes2, table: str, keys_of: Ints) -> Finding | None:
        inside = (indices >= 0) & (indices < len(stored))
        strange = np.flatnonzero(~inside | present[np.where(inside, indices, 0)])
        if len(strange):
            key, leaf = int(keys_of[strange[0]]), int(indices[strange[0]])
            return Finding("reordered", f"{table} {key}", f"its leaf {leaf} is outside the log or taken")
        expected[indices], present[indices] = hashes, True
        wrong = np.flatnonzero((hashes != stored[indices]).any(axis=1))
        names.update((int(indices[i]), f"{table} {int(keys_of[i])}") for i in wrong.tolist())
        return None

    leaves, hashes = log.entry_leaves(connection)
    numbered = np.array(leaves, np.int64)
    finding = place(numbered, as_rows(hashes), "entries", numbered)
    if finding is not None:
        return finding
    salts = subjects.all_salts(connection)
    last = 0
    while True:
        table = db.events
        query = sa.select(table).where(table.c.sequence > last).order_by(table.c.sequence).limit(_STEP)
        rows = _rows(connection, query)
        sequences = rows.sequence
        if not len(sequences):
            break
        gap = np.flatnonzero(np.diff(np.append(last, sequences)) != 1)
        if len(gap):
            missing = int(sequences[gap[0] - 1] if gap[0] else last) + 1
            return Finding("missing", f"events {missing}", "the sequence numbers have a gap")
        commitment = _fixed(rows.salts)
        computed = log.event_leaves(commitment, _bodies(connection, rows))
        finding = place(rows.leaf, computed, "events", sequences)
        if finding is not None:
            return finding
        unbound += _unbound(keys, salts, rows, commitment)
        last = int(sequences[-1])
    if not present.all():
        index = int(np.flatnonzero(~present)[0])
        return Finding("missing", f"ledger {index}", "nothing is stored for this leaf")
    if names:
        index = min(names)
        elsewhere = expected[index].tobytes() in set(blobs(stored))
        what = "reordered" if elsewhere else "changed"
        return Finding(what, names[index], f"it is not what leaf {index} committed to")
    if unbound:
        return Finding("changed", f"events {unbound[0]}", "it belongs to another subject than its row says")
    return None


def _fixed(salts: list[bytes]) -> Bytes2:
    """uint8[n, 16]; a salt of another length (somebody changed it) becomes zeros, which fit no leaf."""
    return as_rows([salt if len(salt) == SALT_SIZE else bytes(SALT_SIZE) for salt in salts], SALT_SIZE)


def _unbound(keys: Keys, salts: Bytes2, rows: _Rows, commitment: Bytes2) -> list[int]:
    """Sequence numbers of events whose salt is not their subject's (erased subjects can't be checked)."""
    who, sequences = rows.subject, rows.sequence
    inside = (who >= 0) & (who < len(salts))
    found: list[int] = sequences[~inside].tolist()
    live = np.flatnonzero(inside)
    live = live[~subjects.is_erased(salts[who[live]])]
    if len(live):
        wrong = (events.leaf_salts(keys, salts[who[live]], sequences[live]) != commitment[live]).any(axis=1)
        found += sequences[live][wrong].tolist()
    return sorted(found)


def _check_states(connection: sa.Connection) -> Finding | None:
    """States equal the fold of the events of all subjects that are not erased."""
    names = ("sequence", "subject", "descriptor", "occurred_at", "expires_at")
    columns = db.columns(connection, sa.select(*(db.events.c[name] for name in names)))
    live = ~subjects.is_erased(subjects.all_salts(connection))
    sequence, subject, descriptor, occurred, expires = [column[live[columns[1]]] for column in columns]
    found = db.columns(
        connection,
        sa.select(db.states).order_by(db.states.c.context, db.states.c.subject),
    )
    catalogue = list(connection.execute(sa.select(db.descriptors)))
    size = max((int(row.id) for row in catalogue), default=0) + 1
    context, rank, explicit = np.zeros(size, np.int64), np.zeros(size, np.int64), np.ones(size, np.int64)
    for row in catalogue:
        body = json.loads(row.body)
        context[row.id], rank[row.id] = row.context, RANK[body["action"]]
        explicit[row.id] = int("reason" not in body)
    contexts = context[descriptor]
    order = np.lexsort((sequence, rank[descriptor], occurred, explicit[descriptor], subject, contexts))
    last = np.append(
        (np.diff(contexts[order]) != 0) | (np.diff(subject[order]) != 0), np.ones(int(len(order) > 0), bool)
    )
    win = order[last]
    said = (explicit[descriptor], rank[descriptor])
    wanted = [column[win] for column in (contexts, subject, descriptor, *said, occurred, expires, sequence)]
    count = min(len(win), len(found[0]))
    wrong = np.zeros(count, bool)
    for held, right in zip(found, wanted, strict=True):
        wrong |= held[:count] != right[:count]
    if wrong.any() or len(win) != len(found[0]):
        at = int(np.flatnonzero(wrong)[0]) if wrong.any() else count
        source = wanted if at < len(win) else found
        where = f"states {int(source[0][at])}/{int(source[1][at])}"
        what = "changed" if wrong.any() else "missing" if len(win) > len(found[0]) else "changed"
        return Finding(what, where, "it is not the fold of the subject's events")
    return None
