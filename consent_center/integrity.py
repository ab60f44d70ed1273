"""The part of fsck that looks at what no event's leaf commits to: registry, snapshots, descriptors,
identifiers, birthdays, erasures, and the few values in `meta`.

Registry and snapshots are compared with their leaves; an identifier carries a tag under the data key that
ties it to its subject; a birthday also stands, encrypted, in the event that told it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from consent_center import database as db
from consent_center import dialects, events, registry, snapshot, subjects
from consent_center.batch import descriptor_hash
from consent_center.errors import ConsentError
from consent_center.events import ERASURE_CONTEXT
from consent_center.hashing import as_rows
from consent_center.keys import Keys
from consent_center.ledger.verify import canonical, disclosure
from consent_center.model import Finding
from consent_center.outbox.tables import recipients
from consent_center.signals import store as signal_store

Ints = npt.NDArray[np.int64]

#: What reading a value that somebody changed by hand may raise.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    AttributeError,
    sa.exc.NoResultFound,
)

_STEP = 100_000


def check(connection: sa.Connection, keys: Keys) -> Finding | None:
    """The first difference, in the order below. The leaves of `entries` must have been checked before."""
    parts: tuple[Callable[[sa.Connection, Keys], Finding | None], ...] = (
        _meta,
        _registry,
        _snapshots,
        _descriptors,
        _erasures,
        _identifiers,
        _minors,
    )
    for part in parts:
        try:
            found = part(connection, keys)
        except UNREADABLE as error:
            what = part.__name__.removeprefix("_")
            return Finding("changed", what, f"a value can't be read: {type(error).__name__}")
        if found is not None:
            return found
    return None


def physical(connection: sa.Connection) -> Finding | None:
    """The database's own check of its pages and indexes."""
    answer = dialects.physical(connection, db.metadata.tables)
    return None if answer is None else Finding("changed", "database", answer)


def key_checks(connection: sa.Connection) -> Any:
    """What the first leaf keeps of the keys (`keys.checks`); None if it can't be read, which fsck reports."""
    table = db.entries
    payload = connection.execute(sa.select(table.c.payload).where(table.c.leaf == 0)).scalar_one_or_none()
    try:
        return json.loads(payload or b"null").get("keys")
    except UNREADABLE:
        return None


def _entries(connection: sa.Connection, *kinds: str) -> list[tuple[int, str, dict[str, Any]]]:
    table = db.entries
    query = sa.select(table.c.leaf, table.c.kind, table.c.payload).where(table.c.kind.in_(kinds))
    rows = connection.execute(query.order_by(table.c.leaf))
    return [(int(row.leaf), str(row.kind), json.loads(row.payload)) for row in rows]


def _meta(connection: sa.Connection, keys: Keys) -> Finding | None:
    told = _entries(connection, "center")
    held = {name: db.get_meta(connection, name) for name in ("controller", "registry", "identifiers")}
    if not told or told[0][2].get("controller") != held["controller"]:
        return Finding("changed", "meta controller", "it is not the one that the log begins with")
    if int(held["registry"] or "0") != len(_entries(connection, *registry.LEAF_KINDS)):
        return Finding("changed", "meta registry", "it does not count the registry's leaves")
    last = connection.execute(sa.select(sa.func.max(db.identifiers.c.id))).scalar_one()
    if int(held["identifiers"] or "0") < int(last or 0):
        return Finding("changed", "meta identifiers", "it is below the last identifier's number")
    tables = _entries(connection, signal_store.LEAF_KIND)
    if db.get_meta(connection, signal_store.META) != (str(tables[-1][0]) if tables else None):
        # An older table, put back in force by hand, could take opt-outs for nothing.
        return Finding("changed", f"meta {signal_store.META}", "it is not the newest table's leaf")
    return None


def _registry(connection: sa.Connection, _keys: Keys) -> Finding | None:
    """The tables are the fold of their leaves."""
    wanted: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {
        "purposes": {},
        "notices": {},
        "assessments": {},
        "recipients": {},
    }
    first = _entries(connection, "center")
    required = "1" if first and first[0][2].get(registry.REQUIRED_META) is True else None
    for _, kind, payload in _entries(connection, *registry.LEAF_KINDS):
        body = {name: value for name, value in payload.items() if name != "actor"}
        if kind == "purpose":
            active = int(body.pop("active"))
            wanted["purposes"][body["id"], body["version"]] = (canonical(body).decode(), active)
        elif kind == "purpose.switch":
            key = (body["id"], body["version"])
            wanted["purposes"][key] = (wanted["purposes"][key][0], int(body["active"]))
        elif kind == "assessment.required":
            required = "1" if body["required"] else "0"
        elif kind == "recipient.switch":
            wanted["recipients"][body["id"],] = (int(body["active"]),)
        elif kind == "notice":
            wanted["notices"][body["id"], body["version"]] = (canonical(body).decode(),)
        else:
            wanted["assessments"][body["id"],] = (canonical(body).decode(),)
    if db.get_meta(connection, registry.REQUIRED_META) != required:
        return Finding("changed", f"meta {registry.REQUIRED_META}", "it is not what the log says")
    tables = ((db.purposes, 2), (db.notices, 2), (db.assessments, 1), (recipients, 1))
    for table, width in tables:
        rows = [tuple(row) for row in connection.execute(sa.select(table))]
        found = _compare(table.name, {row[:width]: row[width:] for row in rows}, wanted[table.name])
        if found is not None:
            return found
    return None


def _compare(name: str, held: dict[Any, Any], wanted: dict[Any, Any]) -> Finding | None:
    for key in [*wanted, *held]:
        if held.get(key) != wanted.get(key):
            where = f"{name} {'/'.join(str(part) for part in key)}"
            what = "missing" if key not in held else "changed"
            return Finding(what, where, "it is not what its leaf says")
    return None


def _snapshots(connection: sa.Connection, _keys: Keys) -> Finding | None:
    told = {payload["document"]["id"]: payload for _, _, payload in _entries(connection, "snapshot")}
    held: set[str] = set()
    for row in connection.execute(sa.select(db.snapshots)):
        held.add(row.id)
        where = f"snapshots {row.id}"
        payload = told.get(row.id)
        if payload is None:
            return Finding("changed", where, "the log has no such snapshot")
        document = payload["document"]
        same = row.document == canonical(document) and row.signature.hex() == payload["signature"]
        same &= (row.regulation or "") == document["regulation"]
        same &= snapshot.members_hash(row.salt, row.eligible) == payload["members"]
        if not same:
            return Finding("changed", where, "it is not what its leaf says")
        opened = json.loads(row.disclosure)
        try:
            disclosure(document, opened)
            whole = canonical(opened) == row.disclosure
        except ConsentError:
            whole = False
        table = db.snapshot_tokens
        sized = sa.select(table.c.chunk, sa.func.length(table.c.tokens)).where(table.c.snapshot == row.id)
        chunks, sizes = db.columns(connection, sized.order_by(table.c.chunk))
        if not _in_order(chunks, sizes, snapshot.CHUNK * 32, 32):
            return Finding("changed", f"snapshot_tokens {row.id}", "a row is missing or has another length")
        tokens = snapshot.load_tokens(connection, row.id)
        if not whole or len(tokens) != opened["token_count"]:
            return Finding("changed", where, "its counts are not those that were signed")
        if snapshot.token_root(tokens).hex() != document["token_root"]:
            return Finding("changed", f"snapshot_tokens {row.id}", "they do not give the signed root")
    for id in told:
        if id not in held:
            return Finding("missing", f"snapshots {id}", "the log has it, the table does not")
    return None


def _descriptors(connection: sa.Connection, _keys: Keys) -> Finding | None:
    """Each descriptor lies under the hash and in the context of its own text."""
    names = ("controller", "recipient", "purpose", "regulation")
    contexts = {
        int(row.id): tuple(getattr(row, name) for name in names)
        for row in connection.execute(sa.select(db.contexts))
    }
    for row in connection.execute(sa.select(db.descriptors)):
        body = json.loads(row.body)
        where = f"descriptors {row.id}"
        if descriptor_hash(body) != row.hash:
            return Finding("changed", where, "its hash is not that of its text")
        if body["action"] == "erased":
            fits = row.context == ERASURE_CONTEXT
        else:
            fits = contexts.get(row.context) == tuple(body[name] for name in names)
        if not fits:
            return Finding("changed", where, "its context is not that of its text")
    return None


def _erasures(connection: sa.Connection, _keys: Keys) -> Finding | None:
    """Salts stand in their places; a subject has none exactly if an event says that it was erased."""
    full = subjects.SALTS_A_ROW * subjects.SALT_SIZE
    sized = sa.select(db.salts.c.chunk, sa.func.length(db.salts.c.salts)).order_by(db.salts.c.chunk)
    chunks, sizes = db.columns(connection, sized)
    if not _in_order(chunks, sizes, full, subjects.SALT_SIZE):
        return Finding("changed", "salts", "its rows are not numbered from 0 or have another length")
    joined = db.events.join(db.descriptors, db.descriptors.c.id == db.events.c.descriptor)
    query = sa.select(db.events.c.subject).select_from(joined)
    told = np.unique(db.columns(connection, query.where(db.descriptors.c.context == ERASURE_CONTEXT))[0])
    gone = np.flatnonzero(subjects.is_erased(subjects.all_salts(connection)))
    odd = np.setxor1d(told, gone)
    if len(odd):
        return Finding("changed", f"salts of subject {int(odd[0])}", "erased without an event, or not erased")
    return None


def _identifiers(connection: sa.Connection, keys: Keys) -> Finding | None:
    """Each identifier leads to the subject that it was stored for, and each living subject has one."""
    gone = subjects.is_erased(subjects.all_salts(connection))
    known = np.zeros(len(gone), bool)
    last = 0
    while True:
        table = db.identifiers
        after = sa.select(table.c.id, table.c.kind, table.c.subject).where(table.c.id > last)
        after = after.order_by(table.c.id).limit(_STEP)
        ids, kinds, whose = db.columns(connection, after)
        if not len(ids):
            break
        cursor = db.raw(connection, after.with_only_columns(table.c.pseudonym, table.c.tag))
        hashed, tags = zip(*cursor, strict=True)
        fits = (whose >= 0) & (whose < len(known)) & (kinds >= 0) & (kinds < 256)
        fits &= np.array(
            [len(p) == 32 and len(t) == subjects.TAG_SIZE for p, t in zip(hashed, tags, strict=True)]
        )
        if fits.all():
            wanted = events.identifier_tags(keys, as_rows(list(hashed)), kinds, whose)
            fits = (wanted == as_rows(list(tags), subjects.TAG_SIZE)).all(axis=1) & ~gone[whose]
        if not fits.all():
            first = int(ids[np.flatnonzero(~fits)[0]])
            return Finding("changed", f"identifiers {first}", "it belongs to another subject or was erased")
        known[whose] = True
        last = int(ids[-1])
    lost = np.flatnonzero(~known & ~gone)
    if len(lost):
        return Finding("missing", f"identifiers of subject {int(lost[0])}", "no identifier leads to it")
    return None


def _in_order(numbers: Ints, sizes: Ints, full: int, unit: int) -> bool:
    """Whether pieces are numbered from 0, all but the last are full, and the last holds whole units."""
    if not len(numbers):
        return True
    last = int(sizes[-1])
    right = (numbers == np.arange(len(numbers))).all() and (sizes[:-1] == full).all()
    return bool(right) and 0 < last <= full and last % unit == 0


def _minors(connection: sa.Connection, keys: Keys) -> Finding | None:
    """The birthdays kept are the latest that the events of living subjects tell."""
    salts = subjects.all_salts(connection)
    gone = subjects.is_erased(salts)
    wanted: dict[int, int] = {}
    table = db.events
    query = sa.select(table.c.sequence, table.c.subject, table.c.sealed)
    rows = db.raw(connection, query.where(sa.func.length(table.c.sealed) > 0))
    while part := rows.fetchmany(_STEP):
        live = [row for row in part if not gone[row[1]]]
        if not live:
            continue
        secrets = events.seal_keys(keys, salts[[row[1] for row in live]])
        for (sequence, subject, sealed), key in zip(live, secrets, strict=True):
            told = events.open_sealed(key.tobytes(), sequence, sealed).get("minor_until")
            if told:
                day = int(np.datetime64(told, "D").astype(np.int64))
                wanted[subject] = max(day, wanted.get(subject, day))
    held = {int(row.ordinal): int(row.until) for row in connection.execute(sa.select(db.minors))}
    for subject in sorted({*held, *wanted}):
        if held.get(subject) != wanted.get(subject):
            what = "missing" if subject not in held else "changed"
            return Finding(what, f"minors {subject}", "it is not the birthday that the events tell")
    return None
