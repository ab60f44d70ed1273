"""Preferences, policies and contacts in the database; every function works inside the caller's transaction.

A preference's leaf (kind "preference") has no personal data: its number and times, the hash of the sealed
text, the slot (keyed hash of channel and topic) and a tag, both under the subject's key, which tie it to its
subject. Erasing the subject's salt closes all of it; the leaf stays verifiable.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent_center import database as db
from consent_center import erased, events, subjects
from consent_center.batch import micros, moment
from consent_center.errors import ConsentError
from consent_center.hashing import Bytes2, blobs
from consent_center.identifiers import OK, normalise
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.ledger.verify import canonical
from consent_center.model import KINDS
from consent_center.preferences.model import (
    CHANNELS,
    Contact,
    Policy,
    Preference,
    Term,
    policy_from_json,
    preference_from_json,
    to_json,
)
from consent_center.preferences.tables import contact_policies, contacts, preference_states, preferences

Ints = npt.NDArray[np.int64]

_NONCE, _TAG = 12, 16
MADE = -1
LEAF_KINDS = ("preference", "contact.policy", "contact.term", "contact.decision", "contacts")


@dataclass(frozen=True)
class Secrets:
    """One subject's keys: of slots, tags and digests, and of the sealed texts."""

    tie: bytes
    seal: bytes

    def tag(self, label: bytes, text: bytes) -> bytes:
        return hmac.digest(self.tie, b"preference\x00" + label + b"\x00" + text, "sha256")[:_TAG]

    def slot(self, channel: str, topic: str) -> bytes:
        return self.tag(b"slot", f"{channel}\x00{topic}".encode())


def secrets_of(connection: sa.Connection, keys: Keys, ordinals: Sequence[int]) -> dict[int, Secrets]:
    """The keys of those subjects; none for an erased one."""
    who = np.array(sorted(set(ordinals)), np.int64)
    if not len(who):
        return {}
    salts = subjects.salts_of(connection, who)
    live = np.flatnonzero(~subjects.is_erased(salts))
    ties, seals = blobs(events.salt_keys(keys, salts[live])), blobs(events.seal_keys(keys, salts[live]))
    return {int(who[i]): Secrets(t, s) for i, t, s in zip(live.tolist(), ties, seals, strict=True)}


# ---- people ------------------------------------------------------------------------------------------------


def ordinals_of(
    connection: sa.Connection, keys: Keys, people: Sequence[tuple[str, str]]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(ordinal int64[n], -1 where unknown; valid bool[n]) of (kind, value) pairs."""
    found, valid = np.full(len(people), -1, np.int64), np.zeros(len(people), bool)
    kinds = np.array([KINDS.index(kind) for kind, _ in people], np.int64)
    for number, kind in enumerate(KINDS):
        at = np.flatnonzero(kinds == number)
        if len(at):
            rows, hashed = _hashed(keys, kind, [people[i][1] for i in at.tolist()])
            valid[at[rows]] = True
            found[at[rows]] = subjects.sql_lookup(connection, hashed)
    return found, valid


def _hashed(keys: Keys, kind: str, values: Sequence[str]) -> tuple[Ints, Bytes2]:
    normal = normalise(pa.array(values, pa.string()), kind)
    rows = np.flatnonzero(normal.status == OK).astype(np.int64)
    return rows, subjects.pseudonyms(keys.pseudonym, kind, normal.values.take(rows))


def subject_for(
    connection: sa.Connection, keys: Keys, identifiers: Sequence[tuple[str, str]], said_at: int | None = None
) -> int:
    """The one person with those identifiers, made if new. `event.identifier`, `.identifier_conflict`, and
    `event.erased` for who was erased after `said_at` (microseconds; None: it is said now).
    """
    kinds, found = [], []
    for kind, value in identifiers:
        if kind not in KINDS:
            raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
        rows, hashed = _hashed(keys, kind, [value])
        if len(rows):
            kinds.append(KINDS.index(kind))
            found.append(hashed)
    if not kinds:
        raise ConsentError(
            "event.identifier", "no identifier of the person can be used; check kind and spelling"
        )
    all_found = np.concatenate(found)
    known = subjects.sql_lookup(connection, all_found)
    if said_at is not None and (erased.erased_at(connection, keys, all_found[known < 0]) >= said_at).any():
        raise ConsentError(
            "event.erased", "the person was erased after this; only what was said later counts"
        )
    resolved = subjects.resolve(
        np.zeros(len(kinds), np.int64),
        np.array(kinds, np.int64),
        all_found,
        known,
        1,
        np.ones(1, bool),
        subjects.count(connection),
    )
    if resolved.conflict[0]:
        raise ConsentError(
            "event.identifier_conflict",
            "the identifiers belong to different people; send a preference for each",
        )
    fresh = np.frombuffer(os.urandom(subjects.SALT_SIZE * resolved.new_subjects), np.uint8)
    tags = events.identifier_tags(keys, *resolved.fresh)
    subjects.store(connection, resolved, fresh.reshape(-1, subjects.SALT_SIZE), tags)
    return int(resolved.ordinals[0])


def birthdays(connection: sa.Connection, ordinals: Iterable[int]) -> dict[int, int]:
    """The day (since 1970) that ends the need for a guardian, of those for whom one is known."""
    found: dict[int, int] = {}
    table = db.minors
    for part in db.chunks(sorted(set(ordinals))):
        query = sa.select(table.c.ordinal, table.c.until).where(table.c.ordinal.in_(part))
        found.update((int(row[0]), int(row[1])) for row in connection.execute(query))
    return found


# ---- preferences -------------------------------------------------------------------------------------------


def seal(secret: Secrets, number: int, wish: Preference) -> bytes:
    """nonce ‖ AES-256-GCM(seal key, JSON); bound to the number and, by its label, to no consent event."""
    nonce = os.urandom(_NONCE)
    text = canonical(to_json(wish))
    return nonce + AESGCM(secret.seal).encrypt(nonce, text, _bound(number))


def unseal(secret: Secrets, number: int, sealed: bytes) -> Preference:
    """ConsentError `ledger.corrupt` if it was changed."""
    try:
        text = AESGCM(secret.seal).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(number))
    except (InvalidTag, ValueError):
        raise ConsentError("ledger.corrupt", f"preference {number} was changed; run fsck") from None
    return preference_from_json(json.loads(text))


def _bound(number: int) -> bytes:
    return b"preference\x00" + number.to_bytes(8, "big")


def leaf_payload(secret_tag: bytes, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the leaf of a row of `preferences` says."""
    return {
        "number": row["number"],
        "tag": secret_tag.hex(),
        "slot": row["slot"].hex(),
        "sealed": hashlib.sha256(row["sealed"]).hexdigest(),
        "occurred_at": moment(row["occurred_at"]),
        "recorded_at": moment(row["recorded_at"]),
    }


def row_tag(secret: Secrets, number: int) -> bytes:
    """Ties a row to its subject: another subject's key gives another tag."""
    return secret.tag(b"row", number.to_bytes(8, "big"))


def write_preferences(
    connection: sa.Connection, keys: Keys, subject: int, wishes: Sequence[Preference], now: int
) -> tuple[int, list[int]]:
    """Append and fold; (number of the first, their leaves). Every wish has its `occurred_at`."""
    secret = secrets_of(connection, keys, [subject])[subject]
    first = 1 + int(connection.execute(sa.select(sa.func.max(preferences.c.number))).scalar_one() or 0)
    rows: list[dict[str, Any]] = []
    for number, wish in enumerate(wishes, first):
        occurred = micros(wish.occurred_at) if wish.occurred_at else now
        rows.append(
            {
                "number": number,
                "subject": subject,
                "slot": secret.slot(wish.channel, wish.topic),
                "occurred_at": occurred,
                "recorded_at": now,
                "sealed": seal(secret, number, wish),
            }
        )
    payloads = [("preference", leaf_payload(row_tag(secret, row["number"]), row)) for row in rows]
    leaves = log.append_entries(connection, payloads)
    for row, leaf, wish in zip(rows, leaves, wishes, strict=True):
        connection.execute(preferences.insert().values(leaf=leaf, **row))
        _fold(connection, secret, row, wish)
    return first, leaves


def _fold(connection: sa.Connection, secret: Secrets, row: Mapping[str, Any], wish: Preference) -> None:
    table = preference_states
    where = sa.and_(table.c.subject == row["subject"], table.c.slot == row["slot"])
    joined = table.join(preferences, preferences.c.number == table.c.number)
    held = connection.execute(sa.select(preferences).select_from(joined).where(where)).first()
    if held is None:
        values = {"subject": row["subject"], "slot": row["slot"], "number": row["number"]}
        connection.execute(table.insert().values(**values))
        return
    old = unseal(secret, held.number, held.sealed)
    if rank(held.occurred_at, old, held.number) < rank(row["occurred_at"], wish, row["number"]):
        connection.execute(table.update().where(where).values(number=row["number"]))


def rank(occurred: int, wish: Preference, number: int) -> tuple[int, bool, int]:
    """The fold is a maximum, so it does not depend on the order of arrival; at one time a refusal wins."""
    return occurred, wish.allowed is False, number


def in_force(
    connection: sa.Connection, secrets: Mapping[int, Secrets]
) -> tuple[dict[int, list[tuple[int, Preference]]], set[int]]:
    """({subject: [(number, preference)]}, subjects with one that can't be read) of those subjects."""
    found: dict[int, list[tuple[int, Preference]]] = {}
    broken: set[int] = set()
    table = preference_states
    joined = table.outerjoin(preferences, preferences.c.number == table.c.number)
    columns = (table.c.subject, table.c.slot, table.c.number, preferences.c.sealed)
    for part in db.chunks(sorted(secrets)):
        query = (
            sa.select(*columns).select_from(joined).where(table.c.subject.in_(part)).order_by(table.c.number)
        )
        for subject, slot, number, sealed in connection.execute(query):
            try:
                wish = unseal(secrets[subject], number, sealed or b"")
                # A pointer to another person's or key's preference must not pass for this one.
                if not hmac.compare_digest(secrets[subject].slot(wish.channel, wish.topic), slot):
                    raise ConsentError("ledger.corrupt", f"preference {number} stands for another key")
                found.setdefault(subject, []).append((number, wish))
            except ConsentError:
                broken.add(subject)
    return found, broken


def history(connection: sa.Connection, secret: Secrets, subject: int) -> list[tuple[int, int, Preference]]:
    """Every preference of one person, oldest first: (number, leaf, preference)."""
    query = sa.select(preferences).where(preferences.c.subject == subject).order_by(preferences.c.number)
    return [(r.number, r.leaf, unseal(secret, r.number, r.sealed)) for r in connection.execute(query)]


# ---- policies and declarations -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Rulebook:
    """What the organisation says: policies in force, declared channels and topics."""

    policies: tuple[Policy, ...]
    channels: dict[str, Term]
    topics: dict[str, Term]

    def digest(self) -> str:
        """SHA-256 (hex) of all of it, for the leaf of a decision."""
        terms = [*self.channels.values(), *self.topics.values()]
        body = {
            "policies": [to_json(policy) for policy in self.policies],
            "terms": [[t.kind, t.id, t.active] for t in terms],
        }
        return hashlib.sha256(canonical(body)).hexdigest()


def rulebook(connection: sa.Connection) -> Rulebook:
    """Read anew in each transaction: another process's change counts at once."""
    policies: dict[tuple[str, str], Policy] = {}
    channels = {id: Term("channel", id, title) for id, title in CHANNELS.items()}
    topics: dict[str, Term] = {}
    query = sa.select(contact_policies.c.kind, contact_policies.c.body).order_by(contact_policies.c.number)
    for kind, text in connection.execute(query):
        body = json.loads(text)
        if kind == "policy":
            policy = policy_from_json(body)
            policies[policy.channel, policy.topic] = policy
        else:
            term = Term(**body)
            (channels if term.kind == "channel" else topics)[term.id] = term
    return Rulebook(tuple(policies[key] for key in sorted(policies)), channels, topics)


def put_policy(connection: sa.Connection, policy: Policy, actor: str) -> Policy:
    """Add a version; the same again changes nothing."""
    held = [
        p for p in rulebook(connection).policies if (p.channel, p.topic) == (policy.channel, policy.topic)
    ]
    version = held[0].version if held else 0
    if held and held[0] == replace(policy, version=version):
        return held[0]
    made = replace(policy, version=version + 1)
    _append(connection, "policy", "contact.policy", to_json(made), actor)
    return made


def put_term(connection: sa.Connection, term: Term, actor: str) -> Term:
    """Declare a channel or topic, or change its titles or whether it is in use."""
    book = rulebook(connection)
    if (book.channels if term.kind == "channel" else book.topics).get(term.id) != term:
        body = {"kind": term.kind, "id": term.id, "title": dict(term.title), "active": term.active}
        _append(connection, "term", "contact.term", body, actor)
    return term


def _append(connection: sa.Connection, kind: str, leaf_kind: str, body: dict[str, Any], actor: str) -> None:
    leaf = log.append_entries(connection, [(leaf_kind, {"body": body, "actor": actor})])[0]
    text = canonical(body).decode()
    connection.execute(contact_policies.insert().values(leaf=leaf, kind=kind, body=text))


# ---- contacts ----------------------------------------------------------------------------------------------


def contact_key(keys: Keys, sender: str, contact_id: str) -> bytes:
    """The stored form of a sender's contact id, which may itself name a person."""
    return hmac.digest(keys.pseudonym, f"contact\x00{sender}\x00{contact_id}".encode(), "sha256")


def contact_digest(secret: Secrets, id: bytes, at: int, channel: str, topic: str, sender: str) -> bytes:
    """What a leaf commits to for one contact."""
    text = "\x00".join((str(at), channel, topic, sender)).encode()
    return secret.tag(b"contact", id + text)


def contacts_of(
    connection: sa.Connection, ordinals: Iterable[int], since: int, now: int
) -> dict[int, list[tuple[int, str, str, bytes]]]:
    """{subject: [(time, channel, topic, id)]} ascending, with the reservations that still hold."""
    found: dict[int, list[tuple[int, str, str, bytes]]] = {}
    table = contacts
    live = sa.or_(table.c.expires_at == MADE, table.c.expires_at > now)
    for part in db.chunks(sorted(set(ordinals))):
        columns = (table.c.subject, table.c.at, table.c.channel, table.c.topic, table.c.id)
        query = sa.select(*columns).where(table.c.subject.in_(part), table.c.at >= since, live)
        for subject, at, channel, topic, id in connection.execute(query.order_by(table.c.at)):
            found.setdefault(subject, []).append((at, channel, topic, id))
    return found


def known_contacts(connection: sa.Connection, ids: Iterable[bytes]) -> dict[bytes, Any]:
    """Rows of those ids, made or reserved."""
    found: dict[bytes, Any] = {}
    for part in db.chunks(sorted(set(ids))):
        for row in connection.execute(sa.select(contacts).where(contacts.c.id.in_(part))):
            found[row.id] = row
    return found


def reserve(
    connection: sa.Connection,
    id: bytes,
    subject: int,
    at: int,
    key: tuple[str, str],
    sender: str,
    expires: int,
) -> None:
    """Take a slot, or keep the one that this id has."""
    connection.execute(contacts.delete().where(contacts.c.id == id))
    channel, topic = key
    values = {"channel": channel, "topic": topic, "sender": sender, "leaf": -1, "digest": b""}
    connection.execute(contacts.insert().values(id=id, subject=subject, at=at, expires_at=expires, **values))


def drop_reservations(
    connection: sa.Connection, ids: Iterable[bytes] = (), expired: int | None = None
) -> int:
    """Give back the slots of those ids, or all that ended by `expired`; how many."""
    dropped = 0
    if expired is not None:
        over = sa.and_(contacts.c.expires_at != MADE, contacts.c.expires_at <= expired)
        dropped += connection.execute(contacts.delete().where(over)).rowcount
    for part in db.chunks(sorted(set(ids))):
        chosen = sa.and_(contacts.c.expires_at != MADE, contacts.c.id.in_(part))
        dropped += connection.execute(contacts.delete().where(chosen)).rowcount
    return dropped


def write_contacts(
    connection: sa.Connection, keys: Keys, rows: Sequence[tuple[bytes, int, Contact]], now: int
) -> None:
    """Write made contacts (id, subject, contact), each id once, with one leaf for all of them."""
    secrets = secrets_of(connection, keys, [subject for _, subject, _ in rows])
    drop_reservations(connection, [id for id, _, _ in rows])
    written = []
    for id, subject, c in rows:
        at = micros(c.at)
        digest = contact_digest(secrets[subject], id, at, c.channel, c.topic, c.sender)
        written.append((id, subject, at, c.channel, c.topic, c.sender, digest))
    payload = {
        "count": len(rows),
        "senders": sorted({c.sender for _, _, c in rows}),
        "rows_hash": rows_hash([(row[0], row[6]) for row in written]),
        "recorded_at": moment(now),
    }
    leaf = log.append_entries(connection, [("contacts", payload)])[0]
    db.insert_many(connection, contacts, [(*row[:6], leaf, row[6], MADE) for row in written])


def rows_hash(rows: Iterable[tuple[bytes, bytes]]) -> str:
    """SHA-256 (hex) over (id, digest), in the order of the ids."""
    hashed = hashlib.sha256()
    for id, digest in sorted(rows):
        hashed.update(id + digest)
    return hashed.hexdigest()
