"""The part of fsck for witnesses: whose logs are cosigned, how far, and by whom the own one is.

The leaves of `entries` must have been checked before.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.model import Finding
from consent_center.witness.service import LEAF_KINDS
from consent_center.witness.tables import witnessed_logs, witnesses


def fsck(connection: sa.Connection) -> Finding | None:
    """The first difference, or None."""
    table = db.entries
    query = (
        sa.select(table.c.kind, table.c.payload).where(table.c.kind.in_(LEAF_KINDS)).order_by(table.c.leaf)
    )
    keys: dict[str, str] = {}
    sizes: dict[str, int] = {}
    added: dict[str, tuple[Any, ...]] = {}
    for kind, payload in connection.execute(query):
        told = json.loads(payload)
        if kind == "witness.log":
            keys[told["origin"]] = told["key"]
        elif kind == "witness.cosigned":
            sizes[told["origin"]] = told["size"]
        else:
            added[told["name"]] = (told["key"], told["url"])
    held = {row.origin: (row.key, row.size) for row in connection.execute(sa.select(witnessed_logs))}
    wanted = {origin: (key, sizes.get(origin, 0)) for origin, key in keys.items()}
    for origin in sorted({*held, *wanted}):
        if held.get(origin) != wanted.get(origin):
            # A size that was set back would let a fork be cosigned.
            what = "missing" if origin not in held else "changed"
            return Finding(what, f"witnessed_logs {origin}", "it is not what its leaves say")
    mine = {row.name: (row.key, row.url) for row in connection.execute(sa.select(witnesses))}
    for name in sorted({*mine, *added}):
        if mine.get(name) != added.get(name):
            what = "missing" if name not in mine else "changed"
            return Finding(what, f"witnesses {name}", "it is not what its leaf says")
    return None
