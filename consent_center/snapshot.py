"""Snapshots: the signed list of who may be in a job, as a Merkle root over per-job tokens.

    token = HMAC-SHA-256(job salt, pseudonym)     root = RFC 6962 tree over the sorted, distinct tokens

The salt is drawn for each snapshot and stays here, so tokens of two jobs can't be linked, and a root says
nothing about who is in it. `consent_center.ledger.verify.snapshot` and `.token` check documents and proofs.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from pyroaring import BitMap

from consent_center import database as db
from consent_center.errors import ConsentError
from consent_center.hashing import blobs, hmac_rows
from consent_center.ledger import log, proof, tree
from consent_center.ledger.note import Signer
from consent_center.ledger.verify import SNAPSHOT_LABEL, canonical
from consent_center.model import DecisionRequest

Bytes2 = npt.NDArray[np.uint8]

SALT_SIZE = 32
CHUNK = 1 << 15  # tokens in a row of the database: 1 MiB
_AT_ONCE = 1 << 20  # tokens that are made at a time


@dataclass(frozen=True)
class Stored:
    """A snapshot as the database has it."""

    document: dict[str, Any]
    disclosure: dict[str, Any]
    salt: bytes = field(repr=False)
    eligible: BitMap = field(repr=False)
    request: DecisionRequest


def tokens_of(salt: bytes, hashed: Bytes2) -> Bytes2:
    """Sorted, distinct tokens uint8[k, 32] of pseudonyms uint8[n, 32]."""
    tokens = np.empty((len(hashed), 32), np.uint8)
    for start in range(0, len(hashed), _AT_ONCE):
        tokens[start : start + _AT_ONCE] = hmac_rows(salt, hashed[start : start + _AT_ONCE])
    words = tokens.view(">u8")
    # Sorting by one big-endian word is many times faster than comparing 32-byte strings one by one.
    first = words[:, 0].astype(np.uint64)
    order = np.argsort(first)
    first = first[order]
    if not (first[1:] == first[:-1]).any():  # a token that is there twice, or one in 2^64 / n^2 times
        ordered: Bytes2 = np.take(tokens, order, axis=0)  # a sixth of the time of tokens[order]
        return ordered
    tokens = tokens[np.lexsort([words[:, k].astype(np.uint64) for k in (3, 2, 1, 0)])]
    distinct: Bytes2 = tokens[np.append(True, (tokens[1:] != tokens[:-1]).any(axis=1))]
    return distinct


def token_root(tokens: Bytes2) -> bytes:
    """RFC 6962 root with the tokens as leaves."""
    return tree.rows_root(tokens)


def prove_token(tokens: Bytes2, token: bytes) -> dict[str, Any]:
    """Proof that `token` is, or is not, among the sorted tokens; `ledger.verify.token` checks it.

    {"token", "entries": [{"index", "token", "path"}]}, hex: the token itself, or its neighbours.
    """
    listed = blobs(tokens)
    low, high = 0, len(listed)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if listed[middle] < token else (low, middle)
    if low < len(listed) and listed[low] == token:
        wanted = [low]
    else:
        wanted = [i for i in (low - 1, low) if 0 <= i < len(listed)]
    node = tree.reader_of(tree.levels_of(tree.leaf_hashes(tokens))) if wanted else None
    entries = []
    for index in wanted:
        path = proof.inclusion(index, len(listed), node) if node is not None else []
        entries.append({"index": index, "token": listed[index].hex(), "path": [step.hex() for step in path]})
    return {"token": token.hex(), "entries": entries}


def sign(signer: Signer, document: dict[str, Any]) -> bytes:
    """Ed25519 over the label and the canonical JSON."""
    return signer.sign(SNAPSHOT_LABEL + canonical(document))


def members_hash(salt: bytes, members: bytes) -> str:
    """Hex HMAC of the serialised ordinals: the leaf commits to them, and tells nothing without the salt."""
    return hmac.digest(salt, b"members\x00" + members, "sha256").hex()


def store(
    connection: sa.Connection,
    document: dict[str, Any],
    disclosure: dict[str, Any],
    signature: bytes,
    salt: bytes,
    request: DecisionRequest,
    eligible: BitMap,
    tokens: Bytes2,
) -> int:
    """Write a snapshot and its ledger leaf; the leaf's index."""
    members = eligible.serialize()
    connection.execute(
        db.snapshots.insert().values(
            id=document["id"],
            document=canonical(document),
            disclosure=canonical(disclosure),
            signature=signature,
            salt=salt,
            regulation=request.regulation,
            eligible=members,
        )
    )
    pieces = range(0, len(tokens), CHUNK)
    rows = ((document["id"], i, tokens[start : start + CHUNK].tobytes()) for i, start in enumerate(pieces))
    db.insert_many(connection, db.snapshot_tokens, rows)
    leaf = {"document": document, "signature": signature.hex(), "members": members_hash(salt, members)}
    return log.append_entries(connection, [("snapshot", leaf)])[0]


def load(connection: sa.Connection, id: str) -> Stored:
    """ConsentError `snapshot.unknown` for an id that this center did not issue."""
    row = connection.execute(sa.select(db.snapshots).where(db.snapshots.c.id == id)).first()
    if row is None:
        raise ConsentError("snapshot.unknown", f"no snapshot {id!r} was issued by this center")
    document = json.loads(row.document)
    request = DecisionRequest(
        document["purpose"], document["recipient"], tuple(document["categories"]), None, row.regulation
    )
    return Stored(document, json.loads(row.disclosure), row.salt, BitMap.deserialize(row.eligible), request)


def load_tokens(connection: sa.Connection, id: str) -> Bytes2:
    """The snapshot's sorted tokens uint8[k, 32]."""
    table = db.snapshot_tokens
    rows = connection.execute(sa.select(table.c.tokens).where(table.c.snapshot == id).order_by(table.c.chunk))
    return np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(-1, 32)
