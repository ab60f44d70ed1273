"""The part of fsck for preferences, policies and contacts: each row against its leaf, its subject, the fold.

The leaves of `entries` must have been checked before.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger.verify import canonical
from consent_center.model import Finding
from consent_center.preferences import store
from consent_center.preferences.model import Preference
from consent_center.preferences.tables import contact_policies, contacts, preference_states, preferences

_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, ConsentError)


def fsck(connection: sa.Connection, keys: Keys) -> Finding | None:
    """The first difference, or None."""
    for part in (_preferences, _policies, _contacts):
        try:
            found = part(connection, keys)
        except _UNREADABLE as error:
            return Finding(
                "changed", part.__name__.lstrip("_"), f"a value can't be read: {type(error).__name__}"
            )
        if found is not None:
            return found
    return None


def _payloads(connection: sa.Connection, *kinds: str) -> dict[int, dict[str, Any]]:
    table = db.entries
    query = sa.select(table.c.leaf, table.c.payload).where(table.c.kind.in_(kinds)).order_by(table.c.leaf)
    return {int(leaf): json.loads(payload) for leaf, payload in connection.execute(query)}


def _preferences(connection: sa.Connection, keys: Keys) -> Finding | None:
    payloads = _payloads(connection, "preference")
    secrets = store.secrets_of(
        connection, keys, [int(r[0]) for r in connection.execute(sa.select(preferences.c.subject).distinct())]
    )
    best: dict[tuple[int, bytes], tuple[tuple[int, bool, int], int]] = {}
    expected = 1
    for row in connection.execute(sa.select(preferences).order_by(preferences.c.number)):
        name = f"preferences {row.number}"
        if row.number != expected:
            return Finding("missing", f"preferences {expected}", "the numbers have a gap")
        expected += 1
        told, secret = payloads.pop(row.leaf, None), secrets.get(row.subject)
        if told is None:
            return Finding("reordered", name, f"leaf {row.leaf} is not a preference's, or another's")
        tag = bytes.fromhex(told["tag"]) if secret is None else store.row_tag(secret, row.number)
        if store.leaf_payload(tag, row._asdict()) != told:
            return Finding("changed", name, f"it is not what leaf {row.leaf} committed to")
        if secret is not None:
            wish: Preference = store.unseal(secret, row.number, row.sealed)
            if secret.slot(wish.channel, wish.topic) != row.slot:
                return Finding("changed", name, "its slot is not that of its channel and topic")
            rank = store.rank(row.occurred_at, wish, row.number)
            key = (row.subject, row.slot)
            best[key] = max(best.get(key, (rank, row.number)), (rank, row.number))
    if payloads:
        return Finding("missing", f"ledger {min(payloads)}", "the preference of this leaf is not stored")
    held = {
        (row.subject, row.slot): row.number
        for row in connection.execute(sa.select(preference_states))
        if row.subject in secrets or not _erased(connection, keys, row.subject)
    }
    wanted = {key: number for key, (_, number) in best.items()}
    if held != wanted:
        subject = min(key[0] for key, _ in set(held.items()) ^ set(wanted.items()))
        return Finding(
            "changed", f"preference_states {subject}", "it is not the fold of the person's preferences"
        )
    return None


def _erased(connection: sa.Connection, keys: Keys, subject: int) -> bool:
    known = connection.execute(
        sa.select(preferences.c.number).where(preferences.c.subject == subject).limit(1)
    ).first()
    return known is not None and not store.secrets_of(connection, keys, [subject])


def _policies(connection: sa.Connection, _keys: Keys) -> Finding | None:
    payloads = _payloads(connection, "contact.policy", "contact.term")
    for row in connection.execute(sa.select(contact_policies).order_by(contact_policies.c.number)):
        told = payloads.pop(row.leaf, None)
        if told is None or canonical(told["body"]).decode() != row.body:
            return Finding(
                "changed", f"contact_policies {row.number}", f"it is not what leaf {row.leaf} says"
            )
    if payloads:
        return Finding("missing", f"ledger {min(payloads)}", "the policy of this leaf is not stored")
    return None


def _contacts(connection: sa.Connection, keys: Keys) -> Finding | None:
    payloads = _payloads(connection, "contacts")
    made = sa.select(contacts).where(contacts.c.expires_at == store.MADE)
    subjects = [int(r[0]) for r in connection.execute(sa.select(contacts.c.subject).distinct())]
    secrets = store.secrets_of(connection, keys, subjects)
    by_leaf: dict[int, list[tuple[bytes, bytes]]] = {leaf: [] for leaf in payloads}
    for row in connection.execute(made.order_by(contacts.c.leaf, contacts.c.id)):
        name, secret = f"contacts {row.id.hex()[:16]}", secrets.get(row.subject)
        if row.leaf not in by_leaf:
            return Finding("reordered", name, f"leaf {row.leaf} is no report of contacts")
        if secret is not None:
            right = store.contact_digest(secret, row.id, row.at, row.channel, row.topic, row.sender)
            if right != row.digest:
                return Finding("changed", name, "it is not what was reported, or another person's")
        by_leaf[row.leaf].append((row.id, row.digest))
    for leaf, rows in by_leaf.items():
        told = payloads[leaf]
        if len(rows) != told["count"] or store.rows_hash(rows) != told["rows_hash"]:
            what = "missing" if len(rows) < told["count"] else "changed"
            return Finding(what, f"ledger {leaf}", "the contacts stored for this leaf are not those reported")
    return None
