"""Documents in force (forms, sites, experiments): versioned, each a leaf of the ledger, never edited."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from consent_center.collection.tables import settings
from consent_center.dialects import Prepared
from consent_center.ledger.log import append_entries
from consent_center.ledger.verify import canonical
from consent_center.model import Finding

LEAF_KIND = "collection.setting"

# Prepared: every decision asks for the rules in force.
_FIELDS = (settings.c.body, settings.c.version, settings.c.leaf)
_QUERY = (
    sa.select(*_FIELDS)
    .where(settings.c.kind == sa.bindparam("of_kind"), settings.c.id == sa.bindparam("of_id"))
    .order_by(settings.c.version.desc())
    .limit(1)
)
_NEWEST = Prepared(_QUERY)
_VERSION = Prepared(_QUERY.where(settings.c.version == sa.bindparam("of_version")))


def put(connection: sa.Connection, kind: str, id: str, body: dict[str, Any], actor: str) -> dict[str, Any]:
    """Put a document in force; it with `version` and `leaf`. The same again changes nothing."""
    held = get(connection, kind, id)
    if held is not None and {k: v for k, v in held.items() if k not in ("version", "leaf")} == body:
        return held
    version = 1 if held is None else int(held["version"]) + 1
    payload = {"kind": kind, "id": id, "version": version, "body": body, "actor": actor}
    leaf = append_entries(connection, [(LEAF_KIND, payload)])[0]
    text = canonical(body).decode()
    connection.execute(settings.insert().values(leaf=leaf, kind=kind, id=id, version=version, body=text))
    return {**body, "version": version, "leaf": leaf}


def get(connection: sa.Connection, kind: str, id: str, version: int | None = None) -> dict[str, Any] | None:
    """The newest version of a document, or a given one; None if there is none."""
    of: dict[str, Any] = {"of_kind": kind, "of_id": id}
    if version is None:
        row = _NEWEST.first(connection, **of)
    else:
        row = _VERSION.first(connection, **of, of_version=version)
    return None if row is None else _document(*row)


def everything(connection: sa.Connection, kind: str) -> list[dict[str, Any]]:
    """The newest version of every document of a kind, by id."""
    found: dict[str, dict[str, Any]] = {}
    query = sa.select(settings).where(settings.c.kind == kind).order_by(settings.c.id, settings.c.version)
    for row in connection.execute(query):
        found[row.id] = _document(row.body, row.version, row.leaf)
    return list(found.values())


def _document(body: str, version: int, leaf: int) -> dict[str, Any]:
    return {**json.loads(body), "version": int(version), "leaf": int(leaf)}


def fsck(connection: sa.Connection, entries: sa.Table) -> Finding | None:
    """Whether every document is what its leaf says, and every leaf has its document."""
    query = sa.select(entries.c.leaf, entries.c.payload).where(entries.c.kind == LEAF_KIND)
    wanted = {int(row.leaf): json.loads(row.payload) for row in connection.execute(query)}
    held = {int(row.leaf): row for row in connection.execute(sa.select(settings))}
    for leaf in sorted({*wanted, *held}):
        if leaf not in held:
            return Finding("missing", f"settings {leaf}", "the log has it, the table does not")
        row, told = held[leaf], wanted.get(leaf)
        same = told is not None and row.body == canonical(told["body"]).decode()
        if (
            told is None
            or not same
            or (row.kind, row.id, row.version)
            != (
                told["kind"],
                told["id"],
                told["version"],
            )
        ):
            return Finding("changed", f"settings {leaf}", "it is not what its leaf says")
    return None
