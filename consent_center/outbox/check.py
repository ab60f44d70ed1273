"""The part of fsck for the outbox: receivers and messages against their leaves.

The leaves of `entries` must have been checked before.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.ledger.verify import canonical
from consent_center.model import Finding
from consent_center.outbox import queue
from consent_center.outbox.tables import outbox, webhooks

_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def fsck(connection: sa.Connection) -> Finding | None:
    """The first difference, or None."""
    for name, part in (("webhooks", _webhooks), ("outbox", _messages)):
        try:
            found = part(connection)
        except _UNREADABLE as error:
            return Finding("changed", name, f"a value can't be read: {type(error).__name__}")
        if found is not None:
            return found
    return None


def _told(connection: sa.Connection, kind: str) -> dict[int, dict[str, Any]]:
    table = db.entries
    query = sa.select(table.c.leaf, table.c.payload).where(table.c.kind == kind).order_by(table.c.leaf)
    return {int(leaf): json.loads(payload) for leaf, payload in connection.execute(query)}


def _webhooks(connection: sa.Connection) -> Finding | None:
    """A receiver whose address was exchanged by hand would get what is not for it."""
    wanted = {
        told["id"]: (canonical(told["webhook"]).decode(), int(told["active"]))
        for told in _told(connection, queue.HOOK_KIND).values()
    }
    held = {row.id: (row.body, row.active) for row in connection.execute(sa.select(webhooks))}
    for id in sorted({*wanted, *held}):
        if wanted.get(id) != held.get(id):
            what = "missing" if id not in held else "changed"
            return Finding(what, f"webhooks {id}", "it is not what its leaf says")
    return None


def _messages(connection: sa.Connection) -> Finding | None:
    rows: dict[int, list[tuple[int, str, str]]] = {}
    columns = (outbox.c.leaf, outbox.c.number, outbox.c.webhook, outbox.c.body)
    for leaf, number, hook, body in connection.execute(sa.select(*columns).order_by(outbox.c.number)):
        rows.setdefault(int(leaf), []).append((int(number), hook, body))
    for leaf, told in _told(connection, queue.LEAF_KIND).items():
        held = rows.pop(leaf, [])
        if queue.rows_hash(held) != told["sha256"]:
            what = "missing" if len(held) < told["count"] else "changed"
            return Finding(what, f"outbox {told['first']}", f"its messages are not those of leaf {leaf}")
    if rows:
        return Finding("changed", f"outbox {rows[min(rows)][0][0]}", "no leaf says so")
    delivered: set[int] = set()
    for told in _told(connection, queue.RESULT_KIND).values():
        delivered |= {entry["number"] for entry in told.get("delivered", ())}
    claimed = sa.select(outbox.c.number).where(outbox.c.state == queue.DELIVERED)
    forged = {int(row[0]) for row in connection.execute(claimed)} - delivered
    if forged:
        return Finding("changed", f"outbox {min(forged)}", "it was not delivered, as far as the ledger says")
    return None
