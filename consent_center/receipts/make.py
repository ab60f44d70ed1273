"""Making a receipt of one event, inside a read transaction of the center's database."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from consent_center import database as db
from consent_center import events, examine, registry, subjects
from consent_center.errors import ConsentError
from consent_center.hashing import as_rows
from consent_center.identifiers import normalise
from consent_center.keys import Keys
from consent_center.ledger import log, proof, tree
from consent_center.ledger.checkpoint import Checkpoint
from consent_center.receipts import record as records
from consent_center.receipts.verify import LEDGER, SIGNATURE, leaf_hash, signed_bytes


def make(
    connection: sa.Connection, keys: Keys, sequence: int, identifiers: Sequence[tuple[str, str]], now: int
) -> dict[str, Any]:
    """The signed receipt of event `sequence`.

    The person appears as a pseudonym that is the same in all its receipts here and is derived from its own
    salt, so that erasure cuts the link; `identifiers` (kind, value) are put in only when the person asks, and
    must be the person's. Raises ConsentError `receipt.event`, `receipt.identifier`, `ledger.corrupt`,
    `identifier.kind`, `event.identifier`.
    """
    row = connection.execute(sa.select(db.events).where(db.events.c.sequence == sequence)).first()
    if row is None:
        raise ConsentError("receipt.event", f"no event {sequence} is recorded here")
    body = sa.select(db.descriptors.c.body).where(db.descriptors.c.id == row.descriptor)
    descriptor: dict[str, Any] = json.loads(connection.execute(body).scalar_one())
    salt = subjects.salts_of(connection, np.array([row.subject], np.int64))
    if descriptor["action"] not in records.STATUS or subjects.is_erased(salt)[0]:
        raise ConsentError("receipt.event", f"the person of event {sequence} was erased")
    if "reason" in descriptor:
        # Assumed consent must never look like a person's word.
        raise ConsentError("receipt.event", f"event {sequence} is assumed consent, not a person's")
    opening = {
        "index": int(row.leaf),
        "salt": row.salt.hex(),
        "sequence": int(row.sequence),
        "occurred_at": int(row.occurred_at),
        "recorded_at": int(row.recorded_at),
        "expires_at": int(row.expires_at),
        "descriptor": descriptor,
        "sealed_hash": events.sealed_hash(row.sealed).hex(),
    }
    if leaf_hash(opening) != log.stored_hash(connection, opening["index"]):
        raise ConsentError("ledger.corrupt", f"event {sequence} is not what its leaf committed to; run fsck")
    center = keys.signer.name
    record = records.core(opening, center)
    known = registry.load(connection)
    records.describe(
        record,
        known.purposes.get((descriptor["purpose"], descriptor["purpose_version"])),
        known.notices.get((descriptor["notice"], descriptor["notice_version"])),
    )
    record["dpv:hasDataSubject"] = _subject(connection, keys, int(row.subject), salt.tobytes(), identifiers)
    receipt: dict[str, Any] = {
        "@context": dict(records.CONTEXT),
        "@id": records.urn("receipt", center, sequence),
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": f"{center}/{sequence}",
        "dct:conformsTo": records.RECEIPT_SCHEMA,
        "dct:created": records.moment(now),
        "dct:publisher": records.urn("party", descriptor["controller"]),
        "schema:recipient": "dpv:DataSubject",
        "dpv:hasRecordOfActivity": record,
        LEDGER: {
            "opening": opening,
            "tlogProof": _inclusion(connection, keys, opening["index"]),
            "verifierKey": keys.signer.verifier.text(),
        },
    }
    receipt[SIGNATURE] = keys.signer.sign(signed_bytes(receipt)).hex()
    return receipt


def _inclusion(connection: sa.Connection, keys: Keys, index: int) -> str:
    size, reader = log.size(connection), log.reader(connection)
    note = Checkpoint(keys.signer.name, size, tree.root_of(size, reader)).sign(keys.signer)
    return proof.TlogProof(index, tuple(proof.inclusion(index, size, reader)), note).text()


def _subject(
    connection: sa.Connection,
    keys: Keys,
    subject: int,
    salt: bytes,
    identifiers: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    secret = events.salt_keys(keys, as_rows([salt])).tobytes()
    pseudonym = hmac.digest(secret, b"pec/consent/receipt subject", "sha256")[:16].hex()
    person: dict[str, Any] = {"@id": records.urn("subject", pseudonym), "@type": "dpv:DataSubject"}
    shown = []
    for kind, value in identifiers:
        try:
            same = examine.find(connection, keys, kind, value) == subject
        except ConsentError as error:
            if error.code != "subject.unknown":
                raise
            same = False
        if not same:
            raise ConsentError("receipt.identifier", f"that {kind} is not known here for the event's person")
        normal = normalise(pa.array([value], pa.string()), kind).values[0].as_py()
        shown.append({"@type": "pec:Identifier", "pec:kind": kind, "rdf:value": normal})
    if shown:
        person["dct:identifier"] = shown
    return person
