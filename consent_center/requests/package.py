"""The machine-readable package for access, copy, portability, explanation: what is held of a person.

    signature   Ed25519 over "pec/consent/package/v1" 0x00 ‖ RFC 8785 JSON of the package without `signature`

It has every event with its evidence and its signed receipt, preferences, contacts made, the jobs in whose
snapshot the person was (to whom data went, GDPR 15(1)(c)), and the texts that these refer to. Raw identifiers
are not in it: the center does not have them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from pyroaring import BitMap

from consent_center import database as db
from consent_center import examine, registry
from consent_center.batch import moment
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger.note import Verifier, parse_verifier
from consent_center.ledger.verify import canonical
from consent_center.model import REASONS, DecisionRequest
from consent_center.preferences import store as preference_store
from consent_center.preferences.model import to_json
from consent_center.receipts import make as receipts
from consent_center.requests import restriction
from consent_center.requests.model import Request

Ints = npt.NDArray[np.int64]
#: codes uint8[n] of ordinals, see `preferences.consents.judge`
Judge = Callable[[sa.Connection, DecisionRequest, Ints, int], tuple[npt.NDArray[np.uint8], Ints]]

LABEL = b"pec/consent/package/v1\x00"
FORMAT = "pec.rights.package/1"


def build(
    connection: sa.Connection, keys: Keys, controller: str, request: Request, judge: Judge, now: int
) -> dict[str, Any]:
    """The signed package for an identified person; an unknown one's says that nothing is held."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "controller": controller,
        "center": keys.signer.name,
        "request": {"id": request.id, "kind": request.kind, "regulation": request.regulation},
        "generated_at": moment(now),
        "held": request.subject >= 0,
    }
    if request.subject >= 0:
        document |= _person(connection, keys, request, judge, now)
    document["signature"] = keys.signer.sign(LABEL + canonical(document)).hex()
    return document


def verify(document: dict[str, Any], key: str | Verifier) -> None:
    """ConsentError `receipt.signature` unless the center with that key signed this package."""
    known = key if isinstance(key, Verifier) else parse_verifier(key)
    body = {name: value for name, value in document.items() if name != "signature"}
    try:
        good = known.check(LABEL + canonical(body), bytes.fromhex(str(document.get("signature"))))
    except ValueError:
        good = False
    if not good:
        raise ConsentError("receipt.signature", f"the package is not signed by {known.name}")


def _person(
    connection: sa.Connection, keys: Keys, request: Request, judge: Judge, now: int
) -> dict[str, Any]:
    subject = request.subject
    told = examine.explain(connection, keys, subject)
    known = registry.load(connection)
    own = [e for e in told.events if "reason" not in e and e["action"] != "erased"]
    found: dict[str, Any] = {
        "identifier_kinds": list(told.identifiers),
        "minor_until": told.minor_until,
        "restricted": restriction.is_restricted(connection, subject),
        "consents": {"events": list(told.events), "states": list(told.states)},
        "receipts": [receipts.make(connection, keys, e["sequence"], (), now) for e in own],
        "preferences": _preferences(connection, keys, subject),
        "texts": _texts(known, told.events),
    }
    if request.kind != "portability":
        found["contacts"] = [
            {"at": moment(at), "channel": channel, "topic": topic}
            for at, channel, topic, _ in preference_store.contacts_of(connection, [subject], 0, now).get(
                subject, []
            )
        ]
        found["disclosures"] = disclosures(connection, subject)
    if request.kind in ("access", "explanation"):
        found["explanations"] = [_explain(connection, known, subject, s, judge, now) for s in told.states]
    return found


def _preferences(connection: sa.Connection, keys: Keys, subject: int) -> dict[str, Any]:
    secrets = preference_store.secrets_of(connection, keys, [subject])
    in_force, broken = preference_store.in_force(connection, secrets)
    if broken:
        raise ConsentError("ledger.corrupt", "a preference of this person was changed; run fsck")
    history = preference_store.history(connection, secrets[subject], subject)
    return {
        "in_force": [{"number": n, **to_json(wish)} for n, wish in in_force.get(subject, [])],
        "history": [{"number": n, "leaf": leaf, **to_json(wish)} for n, leaf, wish in history],
    }


def disclosures(connection: sa.Connection, subject: int) -> list[dict[str, Any]]:
    """The snapshots with the person in them: which job, for what, whom it gave what."""
    table, found = db.snapshots, []
    for row in connection.execute(sa.select(table.c.document, table.c.eligible)):
        if subject in BitMap.deserialize(row.eligible):
            document = json.loads(row.document)
            names = (
                "job_id",
                "recipient",
                "purpose",
                "purpose_version",
                "categories",
                "regulation",
                "issued_at",
            )
            found.append({"snapshot": document["id"], **{name: document[name] for name in names}})
    return sorted(found, key=lambda entry: str(entry["issued_at"]))


def _texts(known: registry.Registry, events: Any) -> dict[str, Any]:
    purposes = sorted({(e["purpose"], e["purpose_version"]) for e in events if e.get("purpose")})
    notices = sorted({(e["notice"], e["notice_version"]) for e in events if e.get("notice")})
    return {
        "purposes": [asdict(known.purposes[key]) for key in purposes if key in known.purposes],
        "notices": [asdict(known.notices[key]) for key in notices if key in known.notices],
    }


def _explain(
    connection: sa.Connection,
    known: registry.Registry,
    subject: int,
    state: dict[str, Any],
    judge: Judge,
    now: int,
) -> dict[str, Any]:
    """What a decision says of this person now, and on which event and rule it rests."""
    current = known.current.get(state["purpose"])
    asked = tuple(state["categories"]) or (current.categories if current else ())
    names = {name: state[name] for name in ("purpose", "recipient", "regulation")}
    if not asked:
        return {**names, "categories": [], "decision": "no_event", "event": state["sequence"]}
    request = DecisionRequest(state["purpose"], state["recipient"], asked, None, state["regulation"])
    codes, _ = judge(connection, request, np.array([subject], np.int64), now)
    return {
        **names,
        "categories": list(asked),
        "decision": REASONS[int(codes[0])],
        "event": state["sequence"],
        "automated": True,
        "logic": "first reason that applies, in the fixed order",
        "order": list(REASONS),
    }
