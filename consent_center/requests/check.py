"""The part of fsck for rights requests: rows against steps, steps against leaves, restrictions, the erased.

The leaves of `entries` must have been checked before.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center import erased, subjects
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger.verify import canonical
from consent_center.model import Finding
from consent_center.requests import store
from consent_center.requests.tables import restrictions, rights_requests, rights_steps

_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ConsentError)


def fsck(connection: sa.Connection, keys: Keys) -> Finding | None:
    """The first difference, or None."""
    parts = (("rights_requests", _requests), ("restrictions", _restrictions), ("rights_rules", _rules))
    for name, part in parts:
        try:
            found = part(connection, keys)
        except _UNREADABLE as error:
            return Finding("changed", name, f"a value can't be read: {type(error).__name__}")
        if found is not None:
            return found
    return erased.check(connection)


def _told(connection: sa.Connection, kind: str) -> dict[int, dict[str, Any]]:
    table = db.entries
    query = sa.select(table.c.leaf, table.c.payload).where(table.c.kind == kind).order_by(table.c.leaf)
    return {int(leaf): json.loads(payload) for leaf, payload in connection.execute(query)}


def _requests(connection: sa.Connection, keys: Keys) -> Finding | None:
    told = _told(connection, store.LEAF_KIND)
    dropped = {id for payload in _told(connection, store.SWEEP_KIND).values() for id in payload["dropped"]}
    wanted = {(p["request"], p["position"]): leaf for leaf, p in told.items() if p["request"] not in dropped}
    for row in connection.execute(sa.select(rights_requests).order_by(rights_requests.c.number)).all():
        name = f"rights_requests {row.id}"
        steps = connection.execute(
            sa.select(rights_steps)
            .where(rights_steps.c.request == row.number)
            .order_by(rights_steps.c.position)
        ).all()
        payloads = []
        for step in steps:
            payload = told.get(step.leaf)
            if payload is None or wanted.pop((row.id, step.position), None) != step.leaf:
                return Finding("reordered", f"{name}/{step.position}", f"leaf {step.leaf} is not this step's")
            hashed = hashlib.sha256(step.sealed).hexdigest() if step.sealed else ""
            if hashed != payload["sealed"]:
                return Finding(
                    "changed", f"{name}/{step.position}", "its sealed part is not what the leaf says"
                )
            payloads.append(payload)
        made = store.fold(payloads, int(row.subject))
        done = store.micros_of(made.done_at) if made.done_at else -1
        if (made.kind, made.state, made.due_at, done) != (row.kind, row.state, row.due_at, row.done_at):
            return Finding("changed", name, "it is not the fold of its steps")
        if any(row.salt) and not _tied(keys, row, payloads):
            return Finding("changed", name, "it is about another person than its steps say")
        if any(row.salt) == (row.state == "purged"):
            return Finding("changed", name, "its key was destroyed without a step, or was not")
    if wanted:
        id, position = min(wanted)
        return Finding("missing", f"rights_requests {id}/{position}", "the step of this leaf is not stored")
    return None


def _tied(keys: Keys, row: Any, payloads: list[dict[str, Any]]) -> bool:
    tags = [p["data"]["subject_tag"] for p in payloads if "subject_tag" in p["data"]]
    return bool(tags) and tags[-1] == store.subject_tag(keys, row.salt, int(row.subject))


def _restrictions(connection: sa.Connection, _keys: Keys) -> Finding | None:
    """Restricted is whoever's last step of the kind is a fulfilled restriction and not its end."""
    whose = {row.id: int(row.subject) for row in connection.execute(sa.select(rights_requests))}
    kinds, wanted = {}, {}
    leaves = set()
    for leaf, payload in _told(connection, store.LEAF_KIND).items():
        if payload["step"] == "open":
            kinds[payload["request"]] = payload["data"]["kind"]
        if kinds.get(payload["request"]) != "restriction" or payload["step"] not in ("fulfil", "lift"):
            continue
        leaves.add(leaf)
        if payload["request"] in whose:
            wanted[whose[payload["request"]]] = (
                payload["step"] == "fulfil" and payload["data"]["result"]["held"]
            )
    gone = subjects.is_erased(subjects.all_salts(connection))
    held = {int(row.subject): int(row.leaf) for row in connection.execute(sa.select(restrictions))}
    for subject, leaf in held.items():
        if leaf not in leaves or wanted.get(subject) is False:
            return Finding("changed", f"restrictions {subject}", "no request says so")
    for subject, restricted in wanted.items():
        if restricted and subject not in held and not gone[subject]:
            return Finding(
                "missing", f"restrictions {subject}", "a request says that the person is restricted"
            )
    return None


def _rules(connection: sa.Connection, _keys: Keys) -> Finding | None:
    rules = {p["rule"]["regulation"]: p["rule"] for p in _told(connection, store.RULES_KIND).values()}
    if (db.get_meta(connection, store.RULES_META) or "{}") != canonical(rules).decode():
        return Finding("changed", f"meta {store.RULES_META}", "they are not the rules that the log says")
    return None
