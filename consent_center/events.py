"""Writing events: subjects, sealed payloads, ledger leaves and the fold, in one transaction.

The body that a leaf commits to (README, "Ledger"), integers of 8 bytes big-endian, times in microseconds:

    SHA-256(descriptor) ‖ sequence ‖ occurred_at ‖ recorded_at ‖ expires_at ‖ SHA-256(sealed)

The leaf's salt is HMAC(subject's salt key, sequence) cut to 16 bytes: pseudorandom to whoever lacks the key,
and what ties the event to its subject: a row whose subject was exchanged no longer fits. The subject's two
keys come from its random salt by HMAC under the center's data key, so destroying the salt destroys both.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent_center import database as db
from consent_center import erased, subjects
from consent_center.batch import NEVER, Batch, descriptor_hash
from consent_center.errors import ConsentError
from consent_center.hashing import as_rows, big_endian, blobs, hmac_keyed, hmac_rows
from consent_center.identifiers import OK, normalise
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.ledger.verify import SALT_SIZE
from consent_center.model import KINDS, RANK, RecordedMany
from consent_center.outbox import queue

Bytes2 = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_NONCE = 12
_EMPTY = hashlib.sha256(b"").digest()
ERASURE_CONTEXT = -1
_LAST = db.Prepared(sa.select(sa.func.max(db.events.c.sequence)))
_DESCRIPTOR = db.Prepared(
    sa.select(db.descriptors.c.id, db.descriptors.c.context).where(
        db.descriptors.c.hash == sa.bindparam("digest")
    )
)


@dataclass(frozen=True)
class Written:
    """What a batch became."""

    recorded: RecordedMany
    ignored: tuple[str, ...]


def salt_keys(keys: Keys, salts: Bytes2) -> Bytes2:
    """Per subject: the key of its leaves' salts."""
    return hmac_rows(keys.data, _labelled(b"leaf salt\x00", salts))


def seal_keys(keys: Keys, salts: Bytes2) -> Bytes2:
    """Per subject: the AES-256-GCM key of its events' private part."""
    return hmac_rows(keys.data, _labelled(b"seal\x00", salts))


def leaf_salts(keys: Keys, subject_salts: Bytes2, sequences: Ints) -> Bytes2:
    """uint8[n, 16]: the salts of events' leaves, from their subjects' salts uint8[n, 32]."""
    return np.ascontiguousarray(
        hmac_keyed(salt_keys(keys, subject_salts), big_endian(sequences))[:, :SALT_SIZE]
    )


def identifier_tags(keys: Keys, pseudonyms: Bytes2, kinds: Ints, owners: Ints) -> Bytes2:
    """uint8[n, 16]: what ties identifiers to their subjects; without the data key nobody can make one."""
    rows = np.hstack([big_endian(owners), kinds.astype(np.uint8).reshape(-1, 1), pseudonyms])
    secret = hmac.digest(keys.data, b"identifier", "sha256")
    return np.ascontiguousarray(hmac_rows(secret, rows)[:, : subjects.TAG_SIZE])


def bodies(
    descriptors: Bytes2, sequences: Ints, occurred: Ints, recorded: Ints, expires: Ints, sealed: Bytes2
) -> Bytes2:
    """uint8[n, 96]: what the leaves commit to; `descriptors` and `sealed` are hashes uint8[n, 32]."""
    times = [big_endian(column) for column in (sequences, occurred, recorded, expires)]
    return np.hstack([descriptors, *times, sealed])


def sealed_hash(sealed: bytes) -> bytes:
    """SHA-256 of an event's sealed part."""
    return hashlib.sha256(sealed).digest() if sealed else _EMPTY


def _labelled(label: bytes, rows: Bytes2) -> Bytes2:
    return np.hstack([np.broadcast_to(np.frombuffer(label, np.uint8), (len(rows), len(label))), rows])


def write(
    connection: sa.Connection,
    keys: Keys,
    batch: Batch,
    now: int,
    index: subjects.SubjectIndex | None,
    assumed: bool,
) -> Written:
    """Write every row that is not in `batch.bad`; rows found bad on the way are added to it.

    `index` is the caught-up index of identifiers, or None to look them up by SQL. `assumed` events never
    outweigh a person's own word, and one a person is enough: repeated rows are left out.
    """
    resolved, ignored = _resolve(connection, keys, batch, index, assumed)
    wanted = resolved.ordinals >= 0
    wanted[np.fromiter(batch.bad, np.int64, len(batch.bad))] = False
    at = np.flatnonzero(wanted)
    if assumed and not (np.diff(resolved.ordinals[at]) > 0).all():
        at = np.sort(at[np.unique(resolved.ordinals[at], return_index=True)[1]])
    sequence = _next_sequence(connection)
    if len(at) == 0:
        result = RecordedMany(
            sequence, log.size(connection), 0, resolved.ordinals, batch.errors(), len(ignored)
        )
        return Written(result, tuple(ignored))
    fresh_salts = os.urandom(subjects.SALT_SIZE * resolved.new_subjects)
    tags = identifier_tags(keys, *resolved.fresh)
    salts = np.frombuffer(fresh_salts, np.uint8).reshape(-1, subjects.SALT_SIZE)
    subjects.store(connection, resolved, salts, tags)
    ordinals = resolved.ordinals[at]
    salts = subjects.salts_of(connection, ordinals)
    note_minors(connection, ordinals, batch.minor_until[at])
    leaf = _insert(connection, keys, batch, at, ordinals, salts, sequence, now, assumed)
    kept = np.where(wanted, resolved.ordinals, -1)
    result = RecordedMany(int(sequence), int(leaf), len(at), kept, batch.errors(), len(ignored))
    return Written(result, tuple(ignored))


def _insert(
    connection: sa.Connection,
    keys: Keys,
    batch: Batch,
    at: Ints,
    ordinals: Ints,
    salts: Bytes2,
    first: int,
    now: int,
    assumed: bool,
) -> int:
    """Write the batch's rows `at` of known subjects: events, leaves, states. Index of the first leaf."""
    ids, hashes, contexts = _intern(connection, batch, np.flatnonzero(np.bincount(batch.descriptor[at])))
    sequences = first + np.arange(len(at), dtype=np.int64)
    descriptor = batch.descriptor[at]
    occurred, expires = batch.occurred_at[at], batch.expires_at[at]
    recorded = np.full(len(at), now, np.int64)
    commitment = leaf_salts(keys, salts, sequences)
    private = _private(batch, at)
    if private is None:
        sealed: list[bytes] | bytes = b""
        sealed_hashes = np.broadcast_to(np.frombuffer(_EMPTY, np.uint8), (len(at), 32))
    else:
        sealed = _seal(keys, salts, sequences, private)
        sealed_hashes = as_rows([sealed_hash(text) for text in sealed])
    body = bodies(hashes[descriptor], sequences, occurred, recorded, expires, sealed_hashes)
    leaf = log.append_hashes(connection, log.event_leaves(commitment, body))
    leaves = leaf + np.arange(len(at), dtype=np.int64)
    numbers = (sequences, ordinals, ids[descriptor], leaves, occurred, recorded, expires)
    db.insert_columns(connection, db.events, (*numbers, commitment, sealed))
    queue.note_events(connection, keys, batch.descriptors, descriptor, ordinals, salts, occurred, first, now)
    ranks = np.array([RANK.get(d.get("action", ""), 0) for d in batch.descriptors], np.int64)[descriptor]
    if contexts[descriptor[0]] != ERASURE_CONTEXT:
        columns = (contexts[descriptor], ordinals, ids[descriptor], ranks, occurred, expires, sequences)
        fold(connection, *columns, not assumed)
    return leaf


def write_erasure(connection: sa.Connection, keys: Keys, batch: Batch, subject: int, now: int) -> int:
    """Write the event that a subject was erased; its sequence number."""
    return write_for(connection, keys, batch, subject, now, assumed=False)


def write_for(
    connection: sa.Connection, keys: Keys, batch: Batch, subject: int, now: int, assumed: bool
) -> int:
    """Write every row of a checked batch as an event of one known subject; the first sequence number."""
    first = _next_sequence(connection)
    who = np.full(batch.rows, subject, np.int64)
    salts = subjects.salts_of(connection, who)
    note_minors(connection, who, batch.minor_until)
    _insert(connection, keys, batch, np.arange(batch.rows), who, salts, first, now, assumed)
    return first


def write_known(
    connection: sa.Connection, keys: Keys, batch: Batch, ordinals: Ints, now: int
) -> tuple[int, int]:
    """Write a checked batch about people who are known already; (first sequence number, first leaf).

    For callers that hold a person's ordinal and no identifier (a signed link). Nobody erased may be among
    them.
    """
    first = _next_sequence(connection)
    salts = subjects.salts_of(connection, ordinals)
    if subjects.is_erased(salts).any():
        raise ConsentError("subject.unknown", "that person was erased")
    note_minors(connection, ordinals, batch.minor_until)
    at = np.arange(batch.rows, dtype=np.int64)
    return first, _insert(connection, keys, batch, at, ordinals, salts, first, now, assumed=False)


def _next_sequence(connection: sa.Connection) -> int:
    row = _LAST.first(connection)
    return 1 + int((row and row[0]) or 0)


def fold(
    connection: sa.Connection,
    contexts: Ints,
    ordinals: Ints,
    descriptors: Ints,
    ranks: Ints,
    occurred: Ints,
    expires: Ints,
    sequences: Ints,
    explicit: bool,
) -> None:
    """Bring the states up to date: per (context, subject) the greatest (explicit, occurred_at, rank,
    sequence).

    A maximum does not depend on the order of arrival: a late upload of an old grant can't undo a withdrawal.
    """
    if (np.diff(contexts) == 0).all() and (np.diff(ordinals) > 0).all():
        win: Ints | slice = slice(None)  # each subject once, and in the order of the table
    else:
        order = np.lexsort((sequences, ranks, occurred, ordinals, contexts))
        # The last of each run is its maximum.
        win = order[np.append((np.diff(contexts[order]) != 0) | (np.diff(ordinals[order]) != 0), True)]
    columns = (
        contexts,
        ordinals,
        descriptors,
        np.full(len(contexts), int(explicit)),
        ranks,
        occurred,
        expires,
        sequences,
    )
    by = ("explicit", "occurred_at", "rank", "sequence")
    db.insert_columns(connection, db.states, [column[win] for column in columns], by)


def _resolve(
    connection: sa.Connection, keys: Keys, batch: Batch, index: subjects.SubjectIndex | None, assumed: bool
) -> tuple[subjects.Resolved, list[str]]:
    rows, kinds, found, known, ignored = [], [], [], [], []
    usable = np.zeros(batch.rows, bool)
    for kind, column in batch.identifiers:
        normal = normalise(column, kind)
        good = np.flatnonzero(normal.status == OK)
        ignored += [kind] * int(np.count_nonzero(normal.status > 1))
        values = normal.values.take(good) if len(good) < batch.rows else normal.values
        hashed = subjects.pseudonyms(keys.pseudonym, kind, values)
        usable[good] = True
        rows.append(good.astype(np.int64))
        kinds.append(np.full(len(good), KINDS.index(kind), np.int64))
        found.append(hashed)
        known.append(index.lookup(hashed) if index is not None else subjects.sql_lookup(connection, hashed))
    batch.refuse(np.flatnonzero(~usable), "event.identifier", "no identifier of the row can be used")
    _refuse_erased(connection, keys, batch, rows, found, known, assumed)
    usable[np.fromiter(batch.bad, np.int64, len(batch.bad))] = False
    resolved = subjects.resolve(
        np.concatenate(rows),
        np.concatenate(kinds),
        np.concatenate(found),
        np.concatenate(known),
        batch.rows,
        usable,
        subjects.count(connection),
    )
    batch.refuse(
        np.flatnonzero(resolved.conflict),
        "event.identifier_conflict",
        "the identifiers belong to different people; send an event for each",
    )
    return resolved, ignored


def _refuse_erased(
    connection: sa.Connection,
    keys: Keys,
    batch: Batch,
    rows: list[Ints],
    found: list[Bytes2],
    known: list[Ints],
    assumed: bool,
) -> None:
    """An old event must not bring an erased person back; nor may anybody assume that one agrees."""
    if not erased.any_erased(connection):
        return
    at, new = np.concatenate(rows), np.concatenate(known) < 0
    gone = erased.erased_at(connection, keys, np.concatenate(found)[new])
    if assumed:
        hit = at[new][gone != erased.NOT_ERASED]
    else:
        hit = at[new][(gone != erased.NOT_ERASED) & (batch.occurred_at[at[new]] <= gone)]
    batch.refuse(
        np.unique(hit), "event.erased", "the person was erased after this; only what was said later counts"
    )


def note_minors(connection: sa.Connection, ordinals: Ints, until: Ints) -> None:
    """Keep the latest birthday given for a person: of two claims, the one that protects longer."""
    told = np.flatnonzero(until != NEVER)
    if len(told):
        latest: dict[int, int] = {}
        for ordinal, day in zip(ordinals[told].tolist(), until[told].tolist(), strict=True):
            latest[ordinal] = max(day, latest.get(ordinal, day))
        db.upsert_many(connection, db.minors, latest.items(), ("until",))


def _intern(connection: sa.Connection, batch: Batch, used: Ints) -> tuple[Ints, Bytes2, Ints]:
    """The batch's descriptors in the database: ids int64[d], hashes uint8[d, 32], contexts int64[d]."""
    count = len(batch.descriptors)
    ids, contexts = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    hashes = np.zeros((count, 32), np.uint8)
    table = db.descriptors
    for number in used.tolist():
        descriptor = batch.descriptors[number]
        digest = descriptor_hash(descriptor)
        hashes[number] = np.frombuffer(digest, np.uint8)
        row = _DESCRIPTOR.first(connection, digest=digest)
        if row is None:
            erased = descriptor["action"] == "erased"
            context = ERASURE_CONTEXT if erased else _context(connection, descriptor)
            text = json.dumps(descriptor, ensure_ascii=False)
            connection.execute(table.insert().values(hash=digest, context=context, body=text))
            row = _DESCRIPTOR.first(connection, digest=digest)
        if row is None:
            raise ConsentError("ledger.corrupt", "a descriptor that was written can't be read; run fsck")
        ids[number], contexts[number] = int(row[0]), int(row[1])
    return ids, hashes, contexts


def _context(connection: sa.Connection, descriptor: dict[str, Any]) -> int:
    table = db.contexts
    key = {name: descriptor[name] for name in ("controller", "recipient", "purpose", "regulation")}
    query = sa.select(table.c.id).filter_by(**key)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        connection.execute(table.insert().values(**key))
        found = connection.execute(query).scalar_one()
    return int(found)


def _private(batch: Batch, at: Ints) -> list[bytes] | None:
    """What only the subject's key opens: evidence, actor, and a minor's birthday, so that the leaf commits to
    it and fsck can tell whether somebody removed it from `minors`."""
    told = np.flatnonzero(batch.minor_until[at] != NEVER)
    if batch.private is None and not len(told):
        return None
    texts = [b""] * len(at) if batch.private is None else [batch.private[row] for row in at.tolist()]
    for row in told.tolist():
        fields = json.loads(texts[row] or b"{}")
        fields["minor_until"] = str(np.datetime64(int(batch.minor_until[at[row]]), "D"))
        texts[row] = json.dumps(fields, ensure_ascii=False).encode()
    return texts


def _seal(keys: Keys, salts: Bytes2, sequences: Ints, texts: list[bytes]) -> list[bytes]:
    """nonce ‖ AES-256-GCM(seal key, text), bound to the sequence number; empty stays empty."""
    filled = [i for i, text in enumerate(texts) if text]
    if not filled:
        return texts
    sealed = list(texts)
    secret = blobs(seal_keys(keys, salts[filled]))
    bound = blobs(big_endian(sequences[filled]))
    nonces = secrets.token_bytes(_NONCE * len(filled))
    for i, (row, key, context) in enumerate(zip(filled, secret, bound, strict=True)):
        nonce = nonces[_NONCE * i : _NONCE * (i + 1)]
        sealed[row] = nonce + AESGCM(key).encrypt(nonce, texts[row], context)
    return sealed


def unseal(keys: Keys, subject_salt: bytes, sequence: int, sealed: bytes) -> dict[str, str]:
    """The private part of an event; ConsentError `ledger.corrupt` if it was tampered with."""
    if not sealed:
        return {}
    return open_sealed(seal_keys(keys, as_rows([subject_salt])).tobytes(), sequence, sealed)


def open_sealed(key: bytes, sequence: int, sealed: bytes) -> dict[str, str]:
    """The private part of an event, by its seal key; ConsentError `ledger.corrupt`."""
    try:
        text = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], big_endian([sequence]).tobytes())
    except InvalidTag:
        raise ConsentError(
            "ledger.corrupt", f"the sealed part of event {sequence} was changed; run fsck"
        ) from None
    loaded: dict[str, str] = json.loads(text)
    return loaded
