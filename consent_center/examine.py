"""Looking at one person, erasing one person, and checking the whole database against its ledger."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from consent_center import database as db
from consent_center import events, subjects
from consent_center.batch import NEVER, Batch, descriptor_hash, moment
from consent_center.errors import ConsentError
from consent_center.hashing import Bytes2, as_rows, blobs
from consent_center.identifiers import OK, normalise
from consent_center.keys import Keys
from consent_center.ledger import log, tree
from consent_center.ledger.verify import checkpoint as open_checkpoint
from consent_center.model import KINDS, RANK, Explanation, Finding

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
        [b""],
        {},
    )
    sequence = events.write_erasure(connection, keys, batch, subject, now)
    connection.execute(db.states.delete().where(db.states.c.subject == subject))
    subjects.destroy(connection, subject)
    return sequence


def oldest_change(connection: sa.Connection, after: int, members: Ints, now: int) -> float:
    """Seconds since the oldest event after `after` of one of those subjects was recorded; 0.0 if none."""
    if not len(members):
        return 0.0
    subject, recorded = db.columns(
        connection, "SELECT subject, recorded_at FROM events WHERE sequence > ?", after
    )
    hit = recorded[np.isin(subject, members)]
    return max(0.0, (now - int(hit.min())) / 1e6) if len(hit) else 0.0


def event_opening(connection: sa.Connection, index: int) -> dict[str, Any]:
    """The closed opening of a consent event's leaf. ConsentError `ledger.index`, `ledger.opening`."""
    stored = log.stored_hash(connection, index)
    row = connection.execute(sa.select(db.events).where(db.events.c.leaf == index)).first()
    if row is None:
        raise ConsentError("ledger.opening", f"what leaf {index} committed to is missing; run fsck")
    body = _bodies(connection, [row])
    if log.event_leaves(as_rows([row.salt], 16), body).tobytes() != stored:
        raise ConsentError("ledger.opening", f"event {row.sequence} was changed; run fsck")
    return {
        "index": index,
        "kind": log.EVENT_KIND,
        "salt": row.salt.hex(),
        "body_hash": log.event_body_hashes(body).tobytes().hex(),
        "leaf_hash": stored.hex(),
    }


def _bodies(connection: sa.Connection, rows: list[Any]) -> Bytes2:
    """What the rows of `events` should have committed to; the descriptors are hashed anew."""
    used = sorted({int(row.descriptor) for row in rows})
    table = db.descriptors
    hashes: dict[int, bytes] = {}
    for part in db.chunks(used):
        for found in connection.execute(sa.select(table.c.id, table.c.body).where(table.c.id.in_(part))):
            hashes[int(found.id)] = descriptor_hash(json.loads(found.body))
    sealed = [events.sealed_hash(row.sealed) for row in rows]
    times = [(row.sequence, row.occurred_at, row.recorded_at, row.expires_at) for row in rows]
    sequence, occurred, recorded, expires = np.array(times, np.int64).T
    described = as_rows([hashes.get(int(row.descriptor), bytes(32)) for row in rows])
    return events.bodies(described, sequence, occurred, recorded, expires, as_rows(sealed))


def fsck(connection: sa.Connection, keys: Keys, checkpoint: str) -> Finding | None:
    """Recompute everything in the order leaves, tiles, subjects, states, checkpoint; the first difference."""
    stored = log.all_hashes(connection)
    found = (
        _check_leaves(connection, keys, stored)
        or _check_tiles(connection, stored)
        or _check_states(connection)
    )
    if found is not None or not checkpoint:
        return found
    known = open_checkpoint(checkpoint, keys.signer.verifier)
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

    def place(indices: Ints, hashes: Bytes2, table: str, keys_of: list[Any]) -> Finding | None:
        for index, key in zip(indices.tolist(), keys_of, strict=True):
            if not 0 <= index < len(stored) or present[index]:
                return Finding("reordered", f"{table} {key}", f"its leaf {index} is outside the log or taken")
        expected[indices], present[indices] = hashes, True
        wrong = np.flatnonzero((hashes != stored[indices]).any(axis=1))
        names.update((int(indices[i]), f"{table} {keys_of[i]}") for i in wrong.tolist())
        return None

    leaves, hashes = log.entry_leaves(connection)
    finding = place(np.array(leaves, np.int64), as_rows(hashes), "entries", leaves)
    if finding is not None:
        return finding
    salts = subjects.all_salts(connection)
    last = 0
    while True:
        table = db.events
        rows = list(
            connection.execute(
                sa.select(table).where(table.c.sequence > last).order_by(table.c.sequence).limit(_STEP)
            )
        )
        if not rows:
            break
        sequences = np.array([row.sequence for row in rows], np.int64)
        gap = np.flatnonzero(np.diff(np.append(last, sequences)) != 1)
        if len(gap):
            missing = int(sequences[gap[0] - 1] if gap[0] else last) + 1
            return Finding("missing", f"events {missing}", "the sequence numbers have a gap")
        commitment = as_rows([row.salt for row in rows], 16)
        computed = log.event_leaves(commitment, _bodies(connection, rows))
        finding = place(np.array([r.leaf for r in rows], np.int64), computed, "events", sequences.tolist())
        if finding is not None:
            return finding
        unbound += _unbound(keys, salts, rows, sequences, commitment)
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


def _unbound(keys: Keys, salts: Bytes2, rows: list[Any], sequences: Ints, commitment: Bytes2) -> list[int]:
    """Sequence numbers of events whose salt is not their subject's (erased subjects can't be checked)."""
    who = np.array([row.subject for row in rows], np.int64)
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
    columns = db.columns(
        connection, "SELECT sequence, subject, descriptor, occurred_at, expires_at FROM events"
    )
    live = ~subjects.is_erased(subjects.all_salts(connection))
    sequence, subject, descriptor, occurred, expires = [column[live[columns[1]]] for column in columns]
    found = db.columns(
        connection,
        "SELECT context, subject, descriptor, occurred_at, expires_at, sequence FROM states "
        "ORDER BY context, subject",
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
    wanted = [column[win] for column in (contexts, subject, descriptor, occurred, expires, sequence)]
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
