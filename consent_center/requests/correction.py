"""Correction (PIPL 46, GDPR 16): which identifiers are whose. Four ways, each with its leaf.

    add      a further identifier of the person
    remove   an identifier that is not the person's, and nobody else's here
    move     an identifier that belongs to another person
    merge    two entries that are one person: the other's history is written again under the person's key with
             its own times, then the other is erased; so its events count and the ledger stays verifiable

What was recorded under a wrong identifier stays where it is: only the person can say what to make of it, and
says so by new events.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import sqlalchemy as sa

from consent_center import database as db
from consent_center import events, examine, subjects
from consent_center.batch import Batch
from consent_center.errors import ConsentError
from consent_center.events import ERASURE_CONTEXT
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.model import KINDS
from consent_center.preferences import store as preference_store
from consent_center.requests import restriction

ACTIONS = ("add", "remove", "move", "merge")
LEAF_KIND = "rights.correction"


def correct(
    connection: sa.Connection,
    keys: Keys,
    controller: str,
    subject: int,
    action: str,
    kind: str,
    value: str,
    now: int,
    actor: str,
    request: str,
    target: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Carry out one correction of `subject`. `rights.fulfil`, `event.identifier`, `subject.unknown`.

    For `move`, `target` is an identifier of the person whom (kind, value) really belongs to.
    """
    pseudonym = examine.pseudonym(keys, kind, value)
    owner = int(subjects.sql_lookup(connection, pseudonym)[0])
    if action == "add":
        if owner >= 0:
            what = "the person's already" if owner == subject else "another person's here: merge or move it"
            raise ConsentError("rights.fulfil", f"that {kind} is {what}")
        _insert(connection, keys, pseudonym, KINDS.index(kind), subject)
    elif action in ("remove", "move"):
        if owner != subject:
            raise ConsentError(
                "rights.fulfil", f"that {kind} is not an identifier of the person of this request"
            )
        if _count(connection, subject) < 2:
            raise ConsentError(
                "rights.fulfil", "it is the only identifier: without it nobody could be found; erase instead"
            )
        number = KINDS.index(kind)
        _delete(connection, pseudonym.tobytes())
        if action == "move":
            if target is None:
                raise ConsentError(
                    "rights.fulfil", "to move an identifier, name another identifier of its real owner"
                )
            to = examine.find(connection, keys, *target)
            if to == subject:
                raise ConsentError("rights.fulfil", "both identifiers are the same person's")
            _insert(connection, keys, pseudonym, number, to)
    elif action == "merge":
        if owner < 0 or owner == subject:
            raise ConsentError("rights.fulfil", f"that {kind} leads to no other person here")
        _merge(connection, keys, controller, owner, subject, now, actor)
    else:
        raise ConsentError("rights.fulfil", f"{action!r} is none of {', '.join(ACTIONS)}")
    restriction.changed(connection)
    told = {"request": request, "action": action, "kind": kind, "actor": actor}
    leaf = log.append_entries(connection, [(LEAF_KIND, told)])[0]
    return {"action": action, "kind": kind, "leaf": leaf}


def _count(connection: sa.Connection, subject: int) -> int:
    query = sa.select(sa.func.count()).select_from(db.identifiers).where(db.identifiers.c.subject == subject)
    return int(connection.execute(query).scalar_one())


def _delete(connection: sa.Connection, pseudonym: bytes) -> None:
    connection.execute(db.identifiers.delete().where(db.identifiers.c.pseudonym == pseudonym))


def _insert(connection: sa.Connection, keys: Keys, pseudonym: Any, kind: int, subject: int) -> None:
    kinds, owners = np.array([kind], np.int64), np.array([subject], np.int64)
    fresh = (pseudonym, kinds, owners)
    resolved = subjects.Resolved(owners, np.zeros(1, bool), subjects.count(connection), 0, fresh)
    empty = np.empty((0, subjects.SALT_SIZE), np.uint8)
    subjects.store(connection, resolved, empty, events.identifier_tags(keys, pseudonym, kinds, owners))


def _merge(
    connection: sa.Connection, keys: Keys, controller: str, other: int, subject: int, now: int, actor: str
) -> None:
    """Write the other's history under the person's key, move its identifiers, erase what is left."""
    _copy_events(connection, keys, other, subject, now)
    secrets = preference_store.secrets_of(connection, keys, [other])
    wishes = [wish for _, _, wish in preference_store.history(connection, secrets[other], other)]
    if wishes:
        preference_store.write_preferences(connection, keys, subject, wishes, now)
    rows = connection.execute(
        sa.select(db.identifiers.c.pseudonym, db.identifiers.c.kind)
        .where(db.identifiers.c.subject == other)
        .order_by(db.identifiers.c.id)
    ).all()
    connection.execute(db.identifiers.delete().where(db.identifiers.c.subject == other))
    for row in rows:
        hashed = np.frombuffer(row.pseudonym, np.uint8).reshape(1, -1)
        _insert(connection, keys, hashed, int(row.kind), subject)
    until = sa.select(db.minors.c.until).where(db.minors.c.ordinal == other)
    held = connection.execute(until).scalar_one_or_none()
    if held is not None:
        events.note_minors(connection, np.array([subject], np.int64), np.array([int(held)], np.int64))
    if restriction.is_restricted(connection, other):
        restriction.restrict(connection, subject, now, restriction.leaf_of(connection, other))
    examine.erase(connection, keys, other, controller, actor, now)


def _copy_events(connection: sa.Connection, keys: Keys, other: int, subject: int, now: int) -> None:
    """Every event of the other as one of the person: same descriptor, times and private part."""
    salt = subjects.salts_of(connection, np.array([other], np.int64)).tobytes()
    bodies = {
        int(r.id): (json.loads(r.body), r.context) for r in connection.execute(sa.select(db.descriptors))
    }
    query = sa.select(db.events).where(db.events.c.subject == other).order_by(db.events.c.sequence)
    rows = [r for r in connection.execute(query).all() if bodies[r.descriptor][1] != ERASURE_CONTEXT]
    for assumed in (False, True):  # the fold takes one or the other a batch
        chosen = [r for r in rows if ("reason" in bodies[r.descriptor][0]) == assumed]
        if not chosen:
            continue
        private, minors = [], []
        for row in chosen:
            told = dict(events.unseal(keys, salt, row.sequence, row.sealed))
            day = told.pop("minor_until", "")
            minors.append(int(np.datetime64(day, "D").astype(np.int64)) if day else -1)
            told["evidence"] = f"{told.get('evidence', '')} [event {row.sequence}, merged]".strip()
            private.append(json.dumps(told, ensure_ascii=False).encode())
        batch = Batch(
            [bodies[r.descriptor][0] for r in chosen],
            np.arange(len(chosen), dtype=np.int64),
            [],
            np.array([r.occurred_at for r in chosen], np.int64),
            np.array([r.expires_at for r in chosen], np.int64),
            np.array(minors, np.int64),
            private,
            {},
        )
        events.write_for(connection, keys, batch, subject, now, assumed)
