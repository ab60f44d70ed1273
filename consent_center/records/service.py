"""What the center offers for records: put, list, reminders, exports. Answers are plain JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center import registry
from consent_center.batch import LOCAL, moment
from consent_center.errors import ConsentError
from consent_center.ledger import log
from consent_center.model import Finding
from consent_center.outbox import queue
from consent_center.records import export, model
from consent_center.records.tables import records
from consent_center.requests import store as rights_store
from consent_center.requests.model import DONE

LEAF_KIND = "record"


@dataclass(frozen=True)
class Records:
    """One center's records."""

    controller: str
    read: Callable[[], AbstractContextManager[sa.Connection]]
    write: Callable[[], AbstractContextManager[sa.Connection]]
    now: Callable[[], int]

    def put(self, kind: str, id: str, body: Mapping[str, Any], actor: str = "") -> dict[str, Any]:
        """A new version of a record; the same again changes nothing. `record.field`."""
        checked = model.check(kind, id, dict(body))
        with self.write() as connection:
            held = _newest(connection, kind).get(id)
            if held is not None and held[1] == checked:
                return {"id": id, "version": held[0], **checked}
            version = 1 if held is None else held[0] + 1
            told = {"kind": kind, "id": id, "version": version, "record": checked, "actor": actor}
            leaf = log.append_entries(connection, [(LEAF_KIND, {**told, "at": moment(self.now())})])[0]
            connection.execute(records.insert().values(kind=kind, id=id, version=version, leaf=leaf))
        return {"id": id, "version": version, **checked}

    def listing(self, kind: str) -> list[dict[str, Any]]:
        """The newest version of every record of a kind (`assessment` too), by id. `record.field`."""
        model.check_kind(kind, tuple(model.FIELDS))
        with self.read() as connection:
            return _listed(connection, kind)

    def export(self, kind: str, form: str = "csv", language: str = "zh") -> str:
        """The register as CSV, JSON or a page."""
        return export.export(
            kind, self.listing(kind), form, language, self.controller, self._today().isoformat()
        )

    def _today(self) -> date:
        return _day_of(self.now())

    def reminders(self, within_days: int = model.REMIND_DAYS) -> list[dict[str, Any]]:
        """What lapses within so many days or has lapsed, requests too; the most urgent first."""
        with self.read() as connection:
            return _due(connection, self._today(), within_days)

    def remind(self, within_days: int = model.REMIND_DAYS) -> dict[str, Any]:
        """Queue a message (`record.reminder`) for each reminder, for webhooks that want it; how many."""
        now = self.now()
        with self.write() as connection:
            found = _due(connection, self._today(), within_days)
            sent = sum(queue.note_all(connection, "record.reminder", entry, "", now) for entry in found)
        return {"reminders": len(found), "queued": sent}


def _day_of(at: int) -> date:
    """The day in China at `at` microseconds."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).astimezone(LOCAL).date()


def _newest(connection: sa.Connection, kind: str) -> dict[str, tuple[int, dict[str, Any]]]:
    joined = records.join(db.entries, db.entries.c.leaf == records.c.leaf)
    query = sa.select(records.c.id, records.c.version, db.entries.c.payload).select_from(joined)
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for id, version, payload in connection.execute(
        query.where(records.c.kind == kind).order_by(records.c.version)
    ):
        found[id] = (int(version), json.loads(payload)["record"])
    return found


def _listed(connection: sa.Connection, kind: str) -> list[dict[str, Any]]:
    if kind == "assessment":
        known = registry.load(connection).assessments
        return [{"version": 1, **asdict(known[id])} for id in sorted(known)]
    found = _newest(connection, kind)
    return [{"id": id, "version": found[id][0], **found[id][1]} for id in sorted(found)]


def _due(connection: sa.Connection, today: date, within_days: int) -> list[dict[str, Any]]:
    if not 0 <= within_days <= 3_660:
        raise ConsentError("record.field", "within_days is 0 to 3660")
    found: list[dict[str, Any]] = []

    def add(what: str, id: str, due: str) -> None:
        left = (date.fromisoformat(due) - today).days
        if left <= within_days:
            found.append({"record": what, "id": id, "due": due, "days_left": left, "lapsed": left < 0})

    for kind, fields in model.FIELDS.items():
        for entry in _listed(connection, kind):
            for field in fields:
                withdrawn = entry.get("status", "in_force") != "in_force"
                if field.lapses and entry.get(field.name) and not withdrawn:
                    add(kind, entry["id"], str(entry[field.name]))
    for id in rights_store.ids(connection, running=True):
        request = rights_store.load(connection, id)
        if request.state not in DONE:
            add("request", id, request.due)
    return sorted(found, key=lambda entry: (entry["due"], entry["record"], entry["id"]))


def fsck(connection: sa.Connection) -> Finding | None:
    """The part of fsck for records: each row against its leaf."""
    query = sa.select(db.entries.c.leaf, db.entries.c.payload).where(db.entries.c.kind == LEAF_KIND)
    told = {}
    for leaf, payload in connection.execute(query):
        entry = json.loads(payload)
        told[entry["kind"], entry["id"], entry["version"]] = int(leaf)
    held = {(r.kind, r.id, int(r.version)): int(r.leaf) for r in connection.execute(sa.select(records))}
    for key in sorted({*told, *held}):
        if told.get(key) != held.get(key):
            what = "missing" if key not in held else "changed"
            return Finding(what, f"records {'/'.join(map(str, key))}", "it is not what its leaf says")
    return None
