"""The list of the erased: tags of identifiers whose person was erased, under a key that serves nothing else.

    tag = HMAC-SHA-256(erased key, pseudonym)

It names nobody and links to no event. It is there so that an old grant, imported once more, does not silently
bring an erased person back: rows from before the erasure are refused, what the person says after it counts.
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from consent_center import database as db
from consent_center.batch import moment
from consent_center.hashing import Bytes2, as_rows, blobs, hmac_rows
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.model import Finding
from consent_center.requests.tables import erased_identifiers

Ints = npt.NDArray[np.int64]

#: What is not in the list: earlier than any event.
NOT_ERASED = -1
LEAF_KIND = "erasure"
#: From so many identifiers on, the whole list is read instead of looking up each.
_MANY = 2_000
_ANY = db.Prepared(sa.select(erased_identifiers.c.erased_at).limit(1))  # every event asks


def remember(connection: sa.Connection, keys: Keys, subject: int, sequence: int, now: int) -> int:
    """Add a subject's identifiers, before they are deleted, with a leaf that commits to them; its number."""
    table = db.identifiers
    query = sa.select(table.c.pseudonym).where(table.c.subject == subject)
    found = [bytes(row[0]) for row in connection.execute(query)]
    tags = sorted(blobs(hmac_rows(keys.erased, as_rows(found)))) if found else []
    told = {"sequence": sequence, "tags": [tag.hex() for tag in tags], "at": moment(now)}
    leaf = log.append_entries(connection, [(LEAF_KIND, told)])[0]
    for tag in tags:
        connection.execute(erased_identifiers.insert().values(tag=tag, leaf=leaf, erased_at=now))
    return leaf


def check(connection: sa.Connection) -> Finding | None:
    """The list is what its leaves say: the part of fsck for it."""
    entries = db.entries
    query = sa.select(entries.c.leaf, entries.c.payload).where(entries.c.kind == LEAF_KIND)
    told = {int(leaf): json.loads(payload) for leaf, payload in connection.execute(query)}
    held: dict[int, list[str]] = {leaf: [] for leaf in told}
    for row in connection.execute(sa.select(erased_identifiers)):
        if row.leaf not in told or moment(row.erased_at) != told[row.leaf]["at"]:
            return Finding("changed", f"erased_identifiers {row.leaf}", "its leaf does not say this")
        held[row.leaf].append(row.tag.hex())
    for leaf, tags in held.items():
        if sorted(tags) != told[leaf]["tags"]:
            what = "missing" if len(tags) < len(told[leaf]["tags"]) else "changed"
            return Finding(what, f"erased_identifiers {leaf}", "they are not those that the leaf commits to")
    return None


def any_erased(connection: sa.Connection) -> bool:
    """Whether anybody was ever erased."""
    return _ANY.first(connection) is not None


def erased_at(connection: sa.Connection, keys: Keys, pseudonyms: Bytes2) -> Ints:
    """int64[n]: when each identifier's person was last erased (microseconds), or NOT_ERASED."""
    found = np.full(len(pseudonyms), NOT_ERASED, np.int64)
    table = erased_identifiers
    if not len(pseudonyms) or not any_erased(connection):
        return found
    tags = blobs(hmac_rows(keys.erased, np.ascontiguousarray(pseudonyms)))
    query = sa.select(table.c.tag, table.c.erased_at).order_by(table.c.erased_at)  # the last one counts
    known: dict[bytes, int] = {}
    if len(tags) > _MANY:
        known.update((bytes(row[0]), int(row[1])) for row in connection.execute(query))
    else:
        for part in db.chunks(sorted(set(tags))):
            known.update(
                (bytes(r[0]), int(r[1])) for r in connection.execute(query.where(table.c.tag.in_(part)))
            )
    if known:
        found[:] = [known.get(tag, NOT_ERASED) for tag in tags]
    return found
