"""Requests in the database: append a step, fold the steps, seal what names the person.

A step's leaf (kind "rights") has no personal data: what happened, when, by whom of the staff, and the
hash of the sealed text. What names the person (identifiers, contact, notes, evidence, letters) is sealed
under the request's own key, so that it can be destroyed while the record stays for three years.
Every function works inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent_center import database as db
from consent_center.batch import micros, moment
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.ledger.verify import canonical
from consent_center.requests import clock
from consent_center.requests.clock import ClockRule
from consent_center.requests.model import DONE, PAUSED, TASKS, Request, Task, move
from consent_center.requests.tables import rights_requests, rights_steps

LEAF_KIND = "rights"
RULES_KIND, RULES_META = "rights.rules", "rights_rules"
SWEEP_KIND = "rights.sweep"
_NONCE, _SALT = 12, 32
_NOBODY = -1


# ---- secrets -----------------------------------------------------------------------------------------------


def _key(keys: Keys, salt: bytes) -> bytes:
    return hmac.digest(keys.data, b"rights request\x00" + salt, "sha256")


def seal(keys: Keys, salt: bytes, number: int, position: int, private: Mapping[str, Any]) -> bytes:
    """nonce ‖ AES-256-GCM(request's key, JSON), bound to the step; empty for nothing to hide."""
    if not private:
        return b""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(_key(keys, salt)).encrypt(nonce, canonical(dict(private)), _bound(number, position))


def unseal(keys: Keys, salt: bytes, number: int, position: int, sealed: bytes) -> dict[str, Any]:
    """What a step hides; {} once the request was purged. `ledger.corrupt` if it was changed."""
    if not sealed or not any(salt):
        return {}
    try:
        text = AESGCM(_key(keys, salt)).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(number, position))
    except (InvalidTag, ValueError):
        raise ConsentError(
            "ledger.corrupt", f"step {position} of request {number} was changed; run fsck"
        ) from None
    found: dict[str, Any] = json.loads(text)
    return found


def _bound(number: int, position: int) -> bytes:
    return b"rights\x00" + number.to_bytes(8, "big") + position.to_bytes(4, "big")


def subject_tag(keys: Keys, salt: bytes, subject: int) -> str:
    """What the leaf keeps of whom a request is about: says nothing without the request's key."""
    return hmac.digest(_key(keys, salt), b"subject\x00" + str(subject).encode(), "sha256")[:16].hex()


# ---- rules of the clock ------------------------------------------------------------------------------------


def rules(connection: sa.Connection) -> dict[str, ClockRule]:
    """The clock rules in force: the defaults, and what the organisation has set."""
    found = dict(clock.DEFAULTS)
    held = db.get_meta(connection, RULES_META)
    for name, fields in json.loads(held or "{}").items():
        found[name] = ClockRule(**fields)
    return found


def put_rule(connection: sa.Connection, rule: ClockRule, actor: str) -> None:
    clock.check_rule(rule)
    held = json.loads(db.get_meta(connection, RULES_META) or "{}")
    held[rule.regulation] = rule.to_json()
    log.append_entries(connection, [(RULES_KIND, {"rule": rule.to_json(), "actor": actor})])
    db.set_meta(connection, RULES_META, canonical(held).decode())


# ---- steps -------------------------------------------------------------------------------------------------


def open_request(
    connection: sa.Connection,
    keys: Keys,
    kind: str,
    regulation: str,
    language: str,
    subject: int,
    received: int,
    now: int,
    actor: str,
    channel: str,
    details: Mapping[str, Any],
    private: Mapping[str, Any],
) -> Request:
    """Number a new request and write its first step."""
    number = 1 + int(connection.execute(sa.select(sa.func.max(rights_requests.c.number))).scalar_one() or 0)
    id = f"R{moment(received)[:4]}-{number:06d}"
    salt = os.urandom(_SALT)
    values = {"number": number, "id": id, "kind": kind, "state": "received", "subject": subject, "salt": salt}
    times = {"received_at": received, "due_at": 0, "done_at": _NOBODY}
    connection.execute(rights_requests.insert().values(**values, **times))
    data: dict[str, Any] = {
        "kind": kind,
        "regulation": regulation,
        "language": language,
        "channel": channel,
        "received_at": moment(received),
        "subject_tag": subject_tag(keys, salt, subject),
        "details": dict(details),
        "rule": rules(connection)[regulation].to_json(),
    }
    steps: list[tuple[str, dict[str, Any], Mapping[str, Any]]] = [("open", data, private)]
    steps += [("task.add", {"task": name}, {}) for name in TASKS[kind]]
    return _append(connection, keys, number, "", steps, now, actor)


def step(
    connection: sa.Connection,
    keys: Keys,
    request: Request,
    name: str,
    data: Mapping[str, Any],
    private: Mapping[str, Any],
    now: int,
    actor: str,
) -> Request:
    """One step further; ConsentError `rights.state` for one that the state does not allow."""
    move(request.state, name)
    number = _row(connection, request.id).number
    return _append(connection, keys, number, request.state, [(name, dict(data), private)], now, actor)


def _append(
    connection: sa.Connection,
    keys: Keys,
    number: int,
    state: str,
    steps: Sequence[tuple[str, dict[str, Any], Mapping[str, Any]]],
    now: int,
    actor: str,
) -> Request:
    row = connection.execute(sa.select(rights_requests).where(rights_requests.c.number == number)).one()
    table = rights_steps
    last = sa.select(sa.func.max(table.c.position)).where(table.c.request == number)
    position = 1 + int(connection.execute(last).scalar_one() or 0)
    entries, rows = [], []
    for place, (name, data, private) in enumerate(steps, position):
        state = (
            "received" if name == "open" or not state else state if name == "task.add" else move(state, name)
        )
        sealed = seal(keys, row.salt, number, place, private)
        payload = {
            "request": row.id,
            "position": place,
            "step": name,
            "state": state,
            "at": moment(now),
            "actor": actor,
            "data": data,
            "sealed": hashlib.sha256(sealed).hexdigest() if sealed else "",
        }
        entries.append((LEAF_KIND, payload))
        rows.append((number, place, sealed))
    leaves = log.append_entries(connection, entries)
    for leaf, (_, place, sealed) in zip(leaves, rows, strict=True):
        connection.execute(table.insert().values(request=number, position=place, leaf=leaf, sealed=sealed))
    made = load(connection, row.id)
    done = micros_of(made.done_at) if made.done_at else _NOBODY
    changed = {"state": made.state, "due_at": made.due_at, "done_at": done, "subject": made.subject}
    connection.execute(rights_requests.update().where(rights_requests.c.number == number).values(**changed))
    return made


def micros_of(text: str) -> int:
    """Microseconds of an ISO 8601 time."""
    return micros(datetime.fromisoformat(text))


def number_of(connection: sa.Connection, id: str) -> int:
    """The number under which a request's steps are kept."""
    return int(_row(connection, id).number)


# ---- reading -----------------------------------------------------------------------------------------------


def _row(connection: sa.Connection, id: str) -> Any:
    row = connection.execute(sa.select(rights_requests).where(rights_requests.c.id == id)).first()
    if row is None:
        raise ConsentError("rights.unknown", f"no request {id!r} is known here")
    return row


def payloads(connection: sa.Connection, number: int) -> list[dict[str, Any]]:
    """What the leaves of a request's steps say, in order, each with its leaf's number."""
    joined = rights_steps.join(db.entries, db.entries.c.leaf == rights_steps.c.leaf)
    query = (
        sa.select(rights_steps.c.leaf, db.entries.c.payload)
        .select_from(joined)
        .where(rights_steps.c.request == number)
        .order_by(rights_steps.c.position)
    )
    return [{**json.loads(payload), "leaf": int(leaf)} for leaf, payload in connection.execute(query)]


def load(connection: sa.Connection, id: str) -> Request:
    """A request; ConsentError `rights.unknown`."""
    row = _row(connection, id)
    return fold(payloads(connection, row.number), int(row.subject))


def ids(connection: sa.Connection, running: bool = False) -> list[str]:
    """Ids of all requests, or of those that are not done, the most urgent first."""
    query = sa.select(rights_requests.c.id).order_by(rights_requests.c.due_at, rights_requests.c.number)
    if running:
        query = query.where(rights_requests.c.state.not_in(sorted(DONE)))
    return [row[0] for row in connection.execute(query)]


def history(connection: sa.Connection, keys: Keys, id: str) -> list[dict[str, Any]]:
    """All steps with what they hide, for staff."""
    row = _row(connection, id)
    sealed = {
        int(s.position): s.sealed
        for s in connection.execute(sa.select(rights_steps).where(rights_steps.c.request == row.number))
    }
    found = []
    for payload in payloads(connection, row.number):
        private = unseal(keys, row.salt, row.number, payload["position"], sealed[payload["position"]])
        found.append({**payload, "private": private})
    return found


def set_subject(connection: sa.Connection, keys: Keys, id: str, subject: int) -> str:
    """Note whom a request is about once that is known; the tag for the leaf."""
    row = _row(connection, id)
    connection.execute(
        rights_requests.update().where(rights_requests.c.number == row.number).values(subject=subject)
    )
    return subject_tag(keys, row.salt, subject)


def forget(connection: sa.Connection, id: str) -> None:
    """Destroy the request's key: what named the person can't be read any more."""
    connection.execute(rights_requests.update().where(rights_requests.c.id == id).values(salt=bytes(_SALT)))


def fold(steps: Sequence[Mapping[str, Any]], subject: int) -> Request:
    """The request that its steps make; ConsentError `ledger.corrupt` for steps that can't follow."""
    if not steps or steps[0]["step"] != "open":
        raise ConsentError("ledger.corrupt", "a request has no first step; run fsck")
    first = steps[0]["data"]
    rule = ClockRule(**first["rule"])
    received = micros_of(first["received_at"])
    request = Request(
        id=steps[0]["request"],
        kind=first["kind"],
        regulation=first["regulation"],
        language=first["language"],
        state="received",
        subject=subject,
        received_at=first["received_at"],
        due="",
        due_at=0,
        details=first["details"],
    )
    for told in steps[1:]:
        request = _apply(request, told)
        if request.state != told["state"]:
            raise ConsentError("ledger.corrupt", f"request {request.id}: a step does not follow; run fsck")
    last = micros_of(steps[-1]["at"])
    due, provisional = clock.deadline(rule, received, request.extensions, request.pauses, last)
    return replace(request, due=due.isoformat(), due_at=clock.end_of(rule, due), provisional=provisional)


def rule_of(connection: sa.Connection, id: str) -> ClockRule:
    """The clock rule that was in force when the request came in."""
    return ClockRule(**payloads(connection, _row(connection, id).number)[0]["data"]["rule"])


def _apply(request: Request, told: Mapping[str, Any]) -> Request:
    name, data, at = told["step"], told["data"], told["at"]
    state = request.state if name == "task.add" and request.state == "received" else move(request.state, name)
    changes: dict[str, Any] = {"state": state}
    if name == "task.add":
        changes["tasks"] = (*request.tasks, Task(data["task"], at))
    elif name == "task.done":
        changes["tasks"] = tuple(
            replace(task, done_at=at, actor=told["actor"], skipped=bool(data["skipped"]))
            if task.name == data["task"] and not task.done_at
            else task
            for task in request.tasks
        )
    elif name == "assign":
        changes["assigned_to"] = data["to"]
    elif name in ("identity.pass", "identity.fail"):
        changes["identity_attempts"] = request.identity_attempts + 1
        if name == "identity.pass":
            changes["method"] = data["method"]
    elif name == "extend":
        changes["extensions"] = request.extensions + 1
    elif name in ("pause", "resume"):
        when = micros_of(at)
        if name == "pause":
            changes["pauses"] = (*request.pauses, (when, -1))
        else:
            changes["pauses"] = (*request.pauses[:-1], (request.pauses[-1][0], when))
    elif name in ("grant", "refuse"):
        changes |= {"outcome": data["outcome"], "grounds": tuple(data["grounds"]), "decided_at": at}
    elif name == "fulfil":
        changes["fulfilled_at"] = at
    if request.state in PAUSED and state not in PAUSED and request.pauses and request.pauses[-1][1] < 0:
        start = changes.get("pauses", request.pauses)[-1][0]
        changes["pauses"] = (*request.pauses[:-1], (start, micros_of(at)))
    if state in DONE and not request.done_at:
        changes["done_at"] = at
    return replace(request, **changes)
