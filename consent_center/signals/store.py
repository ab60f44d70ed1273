"""The table in force: a leaf of the ledger, and the number of that leaf in `meta`."""

from __future__ import annotations

import json

import sqlalchemy as sa

from consent_center import database as db
from consent_center.errors import ConsentError
from consent_center.ledger.log import append_entries
from consent_center.registry import load as load_registry
from consent_center.signals.mapping import Mapping, check, parse

LEAF_KIND = "signals.mapping"
META = "signals_mapping"


def put(connection: sa.Connection, mapping: Mapping, actor: str) -> int:
    """Put the table in force; its leaf. The same again changes nothing. ConsentError `signal.mapping`."""
    known = load_registry(connection)
    check(mapping, list(known.purposes.values()), list(known.notices.values()))
    held = db.get_meta(connection, META)
    if held is not None and get(connection).sha256 == mapping.sha256:
        return int(held)
    leaf = append_entries(connection, [(LEAF_KIND, {"mapping": mapping.to_json(), "actor": actor})])[0]
    db.set_meta(connection, META, str(leaf))
    return leaf


def get(connection: sa.Connection) -> Mapping:
    """The table in force. ConsentError `signal.mapping` if none is stored, `ledger.corrupt` if it is gone."""
    held = db.get_meta(connection, META)
    if held is None:
        raise ConsentError(
            "signal.mapping", "no table is stored; store one with `pec consent signal map FILE`"
        )
    row = connection.execute(
        sa.select(db.entries.c.kind, db.entries.c.payload).where(db.entries.c.leaf == int(held))
    ).first()
    if row is None or row.kind != LEAF_KIND:
        raise ConsentError("ledger.corrupt", f"leaf {held} is not the table of signals; run fsck")
    return parse(json.loads(row.payload)["mapping"])
