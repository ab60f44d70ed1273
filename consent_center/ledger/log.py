"""The log in the database: hashes in tiles of 256, openings of leaves that are no consent events in
`entries`.

Every function works inside the caller's transaction, so that a leaf and what it stands for are written
together.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from consent_center.database import Prepared, chunks, entries, insert_many, tiles
from consent_center.errors import ConsentError
from consent_center.hashing import as_rows, blobs, sha256_rows
from consent_center.ledger import tree
from consent_center.ledger.verify import LEAF_LABEL, SALT_SIZE, body_hash, canonical, leaf_data, leaf_hash

Bytes2 = npt.NDArray[np.uint8]

_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
EVENT_KIND = "event"
#: Kinds that only the center itself writes; from outside they could forge a registry or a snapshot.
OWN_KINDS = frozenset(
    {
        *("center", "purpose", "purpose.switch", "notice", "assessment", "snapshot", "decision", EVENT_KIND),
        *("preference", "contact.policy", "contact.term", "contact.decision", "contacts"),
        "signals.mapping",
        *("collection.setting", "collection.link"),
        "admin.action",
        *("record", "assessment.required"),
        *("center.recovered", "witness.log", "witness.added", "witness.cosigned"),
        *("recipient.switch", "webhook", "outbox", "outbox.result", "enforcement"),
        *("erasure", "rights", "rights.rules", "rights.sweep", "rights.correction"),
    }
)


_LAST_TILE = Prepared(
    sa.select(tiles.c.number, sa.func.length(tiles.c.hashes))
    .where(tiles.c.level == 0)
    .order_by(tiles.c.number.desc())
    .limit(1)
)
_AT = sa.and_(tiles.c.level == sa.bindparam("at_level"), tiles.c.number == sa.bindparam("at_number"))
_TILE, _DROP_TILE = Prepared(sa.select(tiles.c.hashes).where(_AT)), Prepared(tiles.delete().where(_AT))


def size(connection: sa.Connection) -> int:
    """Number of leaves."""
    row = _LAST_TILE.first(connection)
    return 0 if row is None else int(row[0]) * tree.TILE_WIDTH + int(row[1]) // 32


def _tile(connection: sa.Connection, level: int, number: int) -> bytes:
    """The hashes of a tile, empty if there is none."""
    row = _TILE.first(connection, at_level=level, at_number=number)
    found: bytes = b"" if row is None else row[0]
    return found


def append_hashes(connection: sa.Connection, hashes: Bytes2) -> int:
    """Append leaf hashes uint8[k, 32]; index of the first."""
    first = start = size(connection)
    level = 0
    while len(hashes):
        number, held = divmod(start, tree.TILE_WIDTH)
        if held:
            blob = _tile(connection, level, number)
            hashes = np.concatenate([np.frombuffer(blob, np.uint8).reshape(-1, 32), hashes])
            _DROP_TILE.run(connection, at_level=level, at_number=number)
        full = len(hashes) // tree.TILE_WIDTH
        cut = [
            (level, number + i, hashes[i * tree.TILE_WIDTH : (i + 1) * tree.TILE_WIDTH].tobytes())
            for i in range(-(-len(hashes) // tree.TILE_WIDTH))
        ]
        insert_many(connection, tiles, cut)
        hashes = hashes[: full * tree.TILE_WIDTH]
        if full:
            for _ in range(tree.TILE_HEIGHT):
                hashes = tree.pair_hashes(hashes)
        level, start = level + 1, number
    return first


def event_leaves(salts: Bytes2, bodies: Bytes2) -> Bytes2:
    """Leaf hashes of consent events: salts uint8[n, 16], bodies uint8[n, k]."""
    label = np.broadcast_to(np.frombuffer(LEAF_LABEL, np.uint8), (len(salts), len(LEAF_LABEL)))
    return tree.leaf_hashes(np.hstack([label, salts, event_body_hashes(bodies)]))


def event_body_hashes(bodies: Bytes2) -> Bytes2:
    """uint8[n, 32]: SHA-256("event" ‖ 0x00 ‖ body)."""
    lead = np.frombuffer(EVENT_KIND.encode() + b"\x00", np.uint8)
    return sha256_rows(np.hstack([np.broadcast_to(lead, (len(bodies), len(lead))), bodies]))


def append_entries(connection: sa.Connection, items: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
    """Append leaves of (kind, payload); their indices. ConsentError `ledger.payload`."""
    for kind, _ in items:
        if not isinstance(kind, str) or not _KIND.fullmatch(kind) or kind == EVENT_KIND:
            raise ConsentError(
                "ledger.payload", f"{kind!r} is no kind for a leaf: a-z, 0-9, and . _ - inside"
            )
    return append_bodies(connection, [(kind, canonical(payload)) for kind, payload in items])


def append_bodies(connection: sa.Connection, items: Sequence[tuple[str, bytes]]) -> list[int]:
    """`append_entries` of payloads that are canonical JSON already, of kinds that are the center's own."""
    rows, hashes = [], []
    for kind, body in items:
        salt = secrets.token_bytes(SALT_SIZE)
        rows.append((kind, salt, body))
        hashes.append(tree.leaf_hash(leaf_data(salt, body_hash(kind, body))))
    if not rows:
        return []
    first = append_hashes(connection, as_rows(hashes))
    insert_many(connection, entries, [(first + i, *row) for i, row in enumerate(rows)])
    return list(range(first, first + len(rows)))


#: Hashes of complete subtrees by (height, index): appending never changes one.
Nodes = dict[tuple[int, int], bytes]
_MOST_NODES = 1 << 15


def reader(connection: sa.Connection, nodes: Nodes | None = None) -> tree.NodeReader:
    """Hashes of complete subtrees, from the tiles; keeps the tiles that it has read.

    `nodes`, if given, keeps hashes from one call to the next: for proofs, which fail against the signed root
    if one is wrong. What checks the database itself must read it.
    """
    held: dict[tuple[int, int], Bytes2] = {}

    def kept(height: int, index: int) -> bytes:
        found = nodes.get((height, index)) if nodes is not None else None
        if found is None:
            found = node(height, index)
            if nodes is not None:
                if len(nodes) >= _MOST_NODES:
                    nodes.clear()
                nodes[height, index] = found
        return found

    def node(height: int, index: int) -> bytes:
        level, inside = divmod(height, tree.TILE_HEIGHT)
        start = index << inside
        number, offset = divmod(start, tree.TILE_WIDTH)
        if (level, number) not in held:
            held[level, number] = np.frombuffer(_tile(connection, level, number), np.uint8).reshape(-1, 32)
        hashes = held[level, number][offset : offset + (1 << inside)]
        if len(hashes) != 1 << inside:
            raise ConsentError("ledger.corrupt", f"tile {level}/{number} is missing or too short")
        return tree.fold(hashes)

    return node if nodes is None else kept


def all_hashes(connection: sa.Connection) -> Bytes2 | None:
    """uint8[n, 32]: every leaf hash, in order; None if the tiles are not full and numbered from 0."""
    query = sa.select(tiles.c.number, tiles.c.hashes).where(tiles.c.level == 0).order_by(tiles.c.number)
    rows = connection.execute(query).all()
    sizes = [len(row.hashes) if isinstance(row.hashes, bytes) else -1 for row in rows]
    full = 32 * tree.TILE_WIDTH
    whole = all(row.number == i for i, row in enumerate(rows)) and all(size == full for size in sizes[:-1])
    if not whole or (rows and not (0 < sizes[-1] <= full and sizes[-1] % 32 == 0)):
        return None
    return np.frombuffer(b"".join(row.hashes for row in rows), np.uint8).reshape(-1, 32)


def stored_hash(connection: sa.Connection, index: int) -> bytes:
    """The hash of leaf `index`; ConsentError `ledger.index`."""
    if not 0 <= index < size(connection):
        raise ConsentError("ledger.index", f"the log has no leaf {index}")
    return reader(connection)(0, index)


def entry_opening(connection: sa.Connection, index: int) -> dict[str, Any] | None:
    """Opening of a leaf that `append_entries` wrote, or None if it is an event's."""
    row = connection.execute(sa.select(entries).where(entries.c.leaf == index)).first()
    if row is None:
        return None
    opening = {
        "index": index,
        "kind": row.kind,
        "salt": row.salt.hex(),
        "payload": json.loads(row.payload),
        "leaf_hash": stored_hash(connection, index).hex(),
    }
    leaf_hash(opening)
    return opening


def entry_leaves(connection: sa.Connection) -> tuple[list[int], list[bytes]]:
    """(index, recomputed leaf hash) of every entry, for fsck."""
    indices, hashes = [], []
    for row in connection.execute(sa.select(entries).order_by(entries.c.leaf)):
        indices.append(int(row.leaf))
        # A salt of another length (somebody changed it) gives a hash that fits no leaf.
        hashes.append(tree.leaf_hash(LEAF_LABEL + row.salt + body_hash(row.kind, row.payload)))
    return indices, hashes


def check_tiles(connection: sa.Connection, hashes: Bytes2) -> str | None:
    """The first tile above level 0 that is not what the leaf hashes give, or None."""
    level, below = 1, hashes
    while len(below) >= tree.TILE_WIDTH:
        below = below[: len(below) // tree.TILE_WIDTH * tree.TILE_WIDTH]
        for _ in range(tree.TILE_HEIGHT):
            below = tree.pair_hashes(below)
        rows = connection.execute(
            sa.select(tiles.c.number, tiles.c.hashes).where(tiles.c.level == level).order_by(tiles.c.number)
        ).all()
        wanted = [b"".join(part) for part in chunks(blobs(below), tree.TILE_WIDTH)]
        for number, expected in enumerate(wanted):
            if number >= len(rows) or rows[number] != (number, expected):
                return f"{level}/{number}"
        if len(rows) > len(wanted):
            return f"{level}/{len(wanted)}"
        level += 1
    extra = connection.execute(sa.select(tiles.c.level).where(tiles.c.level >= level).limit(1)).first()
    return None if extra is None else f"{level}/0"
