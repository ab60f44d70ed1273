"""Filling the outbox, in the transaction of what is told. No message has an identifier.

A person is a pseudonym that is the receiver's own: HMAC-SHA-256(webhook's key, subject's salt), 16 bytes. Two
receivers can't compare theirs, and after an erasure nobody can make it again. A receiver hears of events for
itself alone, unless it is registered for all (`*`: the organisation's own systems).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from consent_center import database as db
from consent_center.batch import moment
from consent_center.hashing import Bytes2, hmac_rows
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.outbox.tables import outbox, webhooks

Ints = npt.NDArray[np.int64]

LEAF_KIND, HOOK_KIND, RESULT_KIND = "outbox", "webhook", "outbox.result"
EVERYBODY = "*"
#: Actions of events that can be subscribed to, by the kind of message.
EVENT_KINDS = {
    "withdrawn": "consent.withdrawn",
    "denied": "consent.denied",
    "expired": "consent.expired",
    "granted": "consent.granted",
    "renewed": "consent.granted",
    "guardian_granted": "consent.granted",
    "erased": "subject.erased",
}
KINDS = (
    *dict.fromkeys(EVENT_KINDS.values()),
    *(
        "subject.restricted",
        "subject.unrestricted",
        "purpose.switched",
        "recipient.switched",
        "record.reminder",
    ),
)
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind not in ("consent.granted", "record.reminder"))
PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"
_ACTIVE = db.Prepared(  # every event asks
    sa.select(webhooks.c.id, webhooks.c.body, webhooks.c.salt).where(webhooks.c.active == 1)
)


@dataclass(frozen=True)
class Webhook:
    """A registered receiver."""

    id: str
    url: str
    recipient: str
    kinds: tuple[str, ...]
    private: bool
    salt: bytes = field(repr=False)


def active(connection: sa.Connection) -> list[Webhook]:
    """The receivers that are switched on."""
    rows = _ACTIVE.run(connection).fetchall()
    return sorted((_hook(*row) for row in rows), key=lambda hook: hook.id)


def _hook(id: str, body: str, salt: bytes) -> Webhook:
    told = json.loads(body)
    return Webhook(id, told["url"], told["recipient"], tuple(told["kinds"]), bool(told["private"]), salt)


def persons(keys: Keys, hook: str, salts: Bytes2) -> list[str]:
    """The receiver's own pseudonyms of subjects, by their salts."""
    key = hmac.digest(keys.data, b"webhook person\x00" + hook.encode(), "sha256")
    return [bytes(row[:16]).hex() for row in hmac_rows(key, np.ascontiguousarray(salts))]


def note_events(
    connection: sa.Connection,
    keys: Keys,
    descriptors: Sequence[dict[str, Any]],
    which: Ints,
    ordinals: Ints,
    salts: Bytes2,
    occurred: Ints,
    first: int,
    now: int,
) -> None:
    """Queue what receivers have subscribed to; row i is event `first + i` with descriptor `which[i]`."""
    items: list[tuple[str, str, dict[str, Any]]] = []
    for hook in active(connection):
        wanted = np.array([_wants(hook, d) for d in descriptors], bool)[which]
        if hook.recipient != EVERYBODY:
            gone = np.array([d.get("action") == "erased" for d in descriptors], bool)[which]
            for i in np.flatnonzero(wanted & gone).tolist():
                wanted[i] = _concerns(connection, int(ordinals[i]), hook.recipient)
        rows = np.flatnonzero(wanted)
        if not len(rows):
            continue
        for i, person in zip(rows.tolist(), persons(keys, hook.id, salts[rows]), strict=True):
            told = descriptors[which[i]]
            data = {"person": person, "sequence": first + i, "occurred_at": moment(int(occurred[i]))}
            data |= {n: told[n] for n in ("purpose", "recipient", "categories", "regulation") if n in told}
            items.append((hook.id, EVENT_KINDS[told["action"]], data))
    enqueue(connection, items, now)


def _wants(hook: Webhook, descriptor: dict[str, Any]) -> bool:
    kind = EVENT_KINDS.get(descriptor.get("action", ""))
    if kind not in hook.kinds or "reason" in descriptor:  # assumed consent is nobody's word
        return False
    return hook.recipient in (EVERYBODY, descriptor.get("recipient")) or kind == "subject.erased"


def _concerns(connection: sa.Connection, subject: int, recipient: str) -> bool:
    """Whether anything was ever recorded of that person for that recipient."""
    joined = db.events.join(db.descriptors, db.descriptors.c.id == db.events.c.descriptor).join(
        db.contexts, db.contexts.c.id == db.descriptors.c.context
    )
    query = sa.select(db.events.c.sequence).select_from(joined)
    query = query.where(db.events.c.subject == subject, db.contexts.c.recipient == recipient).limit(1)
    return connection.execute(query).first() is not None


def note_subject(
    connection: sa.Connection, keys: Keys, subject: int, salt: Bytes2, kind: str, now: int
) -> None:
    """Queue that something holds for a person as a whole."""
    items: list[tuple[str, str, dict[str, Any]]] = []
    for hook in active(connection):
        if kind in hook.kinds and (
            hook.recipient == EVERYBODY or _concerns(connection, subject, hook.recipient)
        ):
            items.append((hook.id, kind, {"person": persons(keys, hook.id, salt)[0]}))
    enqueue(connection, items, now)


def note_all(connection: sa.Connection, kind: str, data: dict[str, Any], recipient: str, now: int) -> int:
    """Queue a message about no person, for those that it concerns ("": all); how many."""
    items = [
        (hook.id, kind, data)
        for hook in active(connection)
        if kind in hook.kinds and (hook.recipient == EVERYBODY or recipient in ("", hook.recipient))
    ]
    enqueue(connection, items, now)
    return len(items)


def enqueue(connection: sa.Connection, items: Sequence[tuple[str, str, dict[str, Any]]], now: int) -> None:
    """Write messages (webhook, kind, data) and one leaf that commits to them."""
    if not items:
        return
    first = 1 + int(connection.execute(sa.select(sa.func.max(outbox.c.number))).scalar_one() or 0)
    rows = []
    for number, (hook, kind, data) in enumerate(items, first):
        body = {"type": kind, "number": number, "timestamp": moment(now), "data": data}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        rows.append((number, hook, text))
    told = {"first": first, "count": len(rows), "sha256": rows_hash(rows), "at": moment(now)}
    leaf = log.append_entries(connection, [(LEAF_KIND, told)])[0]
    db.insert_many(
        connection,
        outbox,
        ((number, hook, leaf, now, text, PENDING, 0, now, -1, "") for number, hook, text in rows),
    )


def rows_hash(rows: Sequence[tuple[int, str, str]]) -> str:
    """SHA-256 (hex) over number, webhook and body, in the order of the numbers."""
    hashed = hashlib.sha256()
    for number, hook, text in rows:
        for part in (str(number), hook, text):
            hashed.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return hashed.hexdigest()
