"""Purposes, notices and references of impact assessments: versioned, append-only but for the on/off switch.

Every change is a leaf of the ledger and raises the registry's counter, by which other processes notice it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.errors import ConsentError
from consent_center.ledger.log import append_entries
from consent_center.ledger.verify import canonical
from consent_center.model import LATER_FIELDS, Assessment, Notice, Purpose
from consent_center.outbox.tables import recipients

#: Names of purposes, recipients, categories, channels ... : any script, no blanks, nothing that could bundle.
NAME = re.compile(r"[^\s,;|*+\x00-\x1f\x7f]{1,128}")
_MAX_TEXT = 100_000

#: Kinds of the leaves that change the registry; each raises its counter by one.
LEAF_KINDS = (
    *("purpose", "purpose.switch", "notice", "assessment", "recipient.switch"),
    "assessment.required",
)
#: Whether a job for another organisation needs an assessment in force: "1" in every new center (its first
#: leaf says so), absent in one from before that was the default, until somebody decides.
REQUIRED_META = "assessments_required"
#: By what `Registry.assessments_required` is, if not True.
UNASSESSED = {
    False: "jobs for other organisations run without an impact assessment (PIPL 55): that was switched off; "
    "on again: pec consent assessment require",
    None: "this center is from before impact assessments were asked for by default, so jobs for other "
    "organisations run without one (PIPL 55): file them (pec consent assessment put), then run "
    "pec consent assessment require",
}
_LATER_ASSESSMENT = {"recipient": "", "valid_until": "", "status": "in_force"}


def is_name(text: object) -> bool:
    """Whether `text` can name one purpose, recipient, category, channel or method.

    Two names that look the same must be the same: a withdrawal for "provider" with a zero-width blank inside
    would leave the consent for "provider" in force. So no invisible characters, and composed forms only.
    """
    return (
        isinstance(text, str)
        and NAME.fullmatch(text) is not None
        and text.isprintable()
        and unicodedata.is_normalized("NFC", text)
    )


@dataclass(frozen=True)
class Registry:
    """The registry at one moment. `current` has the newest version of each purpose."""

    version: int
    current: dict[str, Purpose]
    purposes: dict[tuple[str, int], Purpose]
    notices: dict[tuple[str, int], Notice]
    assessments: dict[str, Assessment]
    off: frozenset[str] = frozenset()  # recipients that are switched off
    assessments_required: bool | None = None  # None: nobody has decided, a center from before the default

    def assessment(self, purpose: str, recipient: str, day: str) -> Assessment | None:
        """The assessment in force on a day (ISO date); one for the recipient alone before one for all."""
        found = [
            a
            for a in self.assessments.values()
            if a.purpose == purpose
            and a.recipient in ("", recipient)
            and a.status == "in_force"
            and a.approved_on <= day
            and (not a.valid_until or a.valid_until >= day)
        ]
        return max(found, key=lambda a: (bool(a.recipient), a.approved_on, a.id), default=None)

    def lacks_assessment(self, controller: str, purpose: str, recipient: str, day: str) -> bool:
        """Whether a job may not start or go on: for another organisation, and no assessment is in force."""
        if not self.assessments_required or recipient == controller:
            return False
        return self.assessment(purpose, recipient, day) is None

    def notice_stands(self, notice: str, seen: int) -> bool:
        """Whether consent given under version `seen` of a notice still stands: no material newer version."""
        return not any(
            other.id == notice and other.version > seen and other.material for other in self.notices.values()
        )

    def notices_hash(self, purpose: str) -> str:
        """SHA-256 (hex) over the hashes of the purpose's notices."""
        listed = sorted(
            [n.id, n.version, n.hash, n.material] for n in self.notices.values() if n.purpose == purpose
        )
        return hashlib.sha256(canonical({"notices": listed})).hexdigest()


def load(connection: sa.Connection) -> Registry:
    """Read the whole registry (small)."""
    purposes: dict[tuple[str, int], Purpose] = {}
    current: dict[str, Purpose] = {}
    # Sorted here: databases differ in how they order text.
    rows = sorted(connection.execute(sa.select(db.purposes)), key=lambda row: (row.id, row.version))
    for row in rows:
        body = json.loads(row.body)
        for name in ("categories", "recipient_kinds", "methods", "recipients", "sensitive"):
            body[name] = tuple(body.get(name, ()))
        purpose = Purpose(**body, active=bool(row.active))
        purposes[purpose.id, purpose.version] = current[purpose.id] = purpose
    notices = [Notice(**json.loads(row.body)) for row in connection.execute(sa.select(db.notices))]
    found = [Assessment(**json.loads(row.body)) for row in connection.execute(sa.select(db.assessments))]
    return Registry(
        counter(connection),
        current,
        purposes,
        {(notice.id, notice.version): notice for notice in sorted(notices, key=lambda n: (n.id, n.version))},
        {assessment.id: assessment for assessment in found},
        frozenset(name for name, active in switched_recipients(connection).items() if not active),
        assessments_required(connection),
    )


def switched_recipients(connection: sa.Connection) -> dict[str, bool]:
    """The recipients that were ever switched, and whether they are on; all others are."""
    return {row.id: bool(row.active) for row in connection.execute(sa.select(recipients))}


def switch_recipient(connection: sa.Connection, id: str, active: bool, actor: str) -> None:
    """Switch a recipient off or on; jobs for it notice at their next stage. `registry.recipient`."""
    _names([id], "the recipient", "registry.recipient")
    held = switched_recipients(connection)
    if held.get(id, True) == active:
        return
    if id in held:
        connection.execute(recipients.update().where(recipients.c.id == id).values(active=int(active)))
    else:
        connection.execute(recipients.insert().values(id=id, active=int(active)))
    _changed(connection, "recipient.switch", {"id": id, "active": active}, actor)


def counter(connection: sa.Connection) -> int:
    """Rises with every change of the registry."""
    return int(db.get_meta(connection, "registry") or "0")


def _changed(connection: sa.Connection, kind: str, payload: dict[str, Any], actor: str) -> None:
    append_entries(connection, [(kind, {**payload, "actor": actor})])
    db.set_meta(connection, "registry", str(counter(connection) + 1))


def _texts(texts: object, what: str, code: str) -> None:
    if not isinstance(texts, dict) or not texts:
        raise ConsentError(code, f"{what} needs a text in at least one language (zh, en)")
    for language, text in texts.items():
        if not is_name(language) or not isinstance(text, str) or not text.strip() or len(text) > _MAX_TEXT:
            raise ConsentError(code, f"{what}[{language!r}] must be a text of 1 to {_MAX_TEXT} characters")


def _version(version: object, code: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version < 1 << 31:
        raise ConsentError(code, f"version {version!r} is not a whole number from 1")


def _names(values: Sequence[object], what: str, code: str) -> None:
    for value in values:
        if not is_name(value):
            raise ConsentError(
                code, f"{what} {value!r} must be 1 to 128 characters without blanks or , ; | * +"
            )


def put_purpose(connection: sa.Connection, purpose: Purpose, actor: str) -> Purpose:
    """Add a version. The same again changes nothing; other content under a known version is refused."""
    _names([purpose.id], "the purpose's id", "registry.purpose")
    _version(purpose.version, "registry.purpose")
    _texts(purpose.title, "title", "registry.purpose")
    if not purpose.categories or len(set(purpose.categories)) != len(purpose.categories):
        raise ConsentError("registry.purpose", "categories must be named, each once")
    _names(purpose.categories, "category", "registry.purpose")
    _names(purpose.recipient_kinds, "recipient kind", "registry.purpose")
    days = purpose.duration_days
    if days is not None and (not isinstance(days, int) or not 1 <= days <= 36_525):
        raise ConsentError("registry.purpose", "duration_days must be 1 to 36525, or null for no end")
    _names(purpose.methods, "method", "registry.purpose")
    _names(purpose.recipients, "recipient", "registry.purpose")
    strange = [c for c in purpose.sensitive if c not in purpose.categories]
    if strange:
        raise ConsentError("registry.purpose", f"sensitive: {', '.join(strange)} is not among the categories")
    kept = purpose.retention_days
    if kept is not None and (not isinstance(kept, int) or not 1 <= kept <= 36_525):
        raise ConsentError("registry.purpose", "retention_days must be 1 to 36525, or null")
    body = purpose_body(purpose)
    text = canonical(body).decode()
    table = db.purposes
    rows = connection.execute(
        sa.select(table).where(table.c.id == purpose.id).order_by(table.c.version.desc())
    ).all()
    for row in rows:
        if row.version == purpose.version:
            if row.body != text:
                raise ConsentError(
                    "registry.version",
                    f"{purpose.id} version {purpose.version} exists with other content; raise it",
                )
            return replace(purpose, active=bool(row.active))
    if rows and rows[0].version > purpose.version:
        raise ConsentError("registry.version", f"{purpose.id} has version {rows[0].version} already")
    connection.execute(
        table.insert().values(id=purpose.id, version=purpose.version, body=text, active=int(purpose.active))
    )
    _changed(connection, "purpose", {**body, "active": purpose.active}, actor)
    return purpose


def purpose_body(purpose: Purpose) -> dict[str, Any]:
    """What is stored of a purpose: everything but the switch, and later fields only where they say
    something.
    """
    body = asdict(purpose)
    del body["active"]
    return {k: v for k, v in body.items() if k not in LATER_FIELDS or v != LATER_FIELDS[k]}


def switch_purpose(connection: sa.Connection, id: str, active: bool, actor: str) -> Purpose:
    """Switch the newest version on or off; jobs notice it at their next stage."""
    purpose = load(connection).current.get(id)
    if purpose is None:
        raise ConsentError("registry.unknown", f"no purpose {id!r} is registered")
    if purpose.active != active:
        table = db.purposes
        connection.execute(
            table.update()
            .where(table.c.id == id, table.c.version == purpose.version)
            .values(active=int(active))
        )
        payload = {"id": id, "version": purpose.version, "active": active}
        _changed(connection, "purpose.switch", payload, actor)
    return replace(purpose, active=active)


def put_notice(connection: sa.Connection, notice: Notice, actor: str) -> Notice:
    """Add a version of a notice; its hash is computed here. The same again changes nothing."""
    _names([notice.id], "the notice's id", "registry.notice")
    _version(notice.version, "registry.notice")
    _texts(notice.text, "text", "registry.notice")
    registry = load(connection)
    if (notice.purpose, notice.purpose_version) not in registry.purposes:
        raise ConsentError(
            "registry.unknown",
            f"no purpose {notice.purpose!r} version {notice.purpose_version} is registered",
        )
    digest = hashlib.sha256(canonical(dict(notice.text))).hexdigest()
    if notice.hash not in ("", digest):
        raise ConsentError("registry.notice", "the hash given is not that of the text")
    notice = replace(notice, hash=digest)
    versions = [known for (id, _), known in registry.notices.items() if id == notice.id]
    for known in versions:
        if known.version == notice.version:
            if known != notice:
                raise ConsentError(
                    "registry.version",
                    f"{notice.id} version {notice.version} exists with other content; raise it",
                )
            return known
    if any(known.purpose != notice.purpose for known in versions):
        raise ConsentError("registry.notice", f"notice {notice.id} belongs to another purpose")
    if versions and versions[-1].version > notice.version:
        raise ConsentError("registry.version", f"{notice.id} has version {versions[-1].version} already")
    body = asdict(notice)
    connection.execute(
        db.notices.insert().values(id=notice.id, version=notice.version, body=canonical(body).decode())
    )
    _changed(connection, "notice", body, actor)
    return notice


def put_assessment(connection: sa.Connection, assessment: Assessment, actor: str) -> Assessment:
    """Set the reference of an impact assessment for a purpose."""
    _names([assessment.id], "the assessment's id", "registry.assessment")
    if not assessment.reference.strip() or len(assessment.reference) > 2000:
        raise ConsentError("registry.assessment", "reference must say where the document is kept")
    if assessment.purpose not in load(connection).current:
        raise ConsentError("registry.unknown", f"no purpose {assessment.purpose!r} is registered")
    if assessment.recipient:
        _names([assessment.recipient], "recipient", "registry.assessment")
    if assessment.status not in ("in_force", "withdrawn"):
        raise ConsentError("registry.assessment", "status is in_force or withdrawn")
    for name in ("approved_on", "valid_until"):
        _day(name, getattr(assessment, name))
    # Fields that came later are left out while they say nothing, so that older entries stay the same.
    body = {k: v for k, v in asdict(assessment).items() if _LATER_ASSESSMENT.get(k) != v}
    table = db.assessments
    connection.execute(table.delete().where(table.c.id == assessment.id))
    connection.execute(table.insert().values(id=assessment.id, body=canonical(body).decode()))
    _changed(connection, "assessment", body, actor)
    return assessment


def _day(name: str, text: str) -> None:
    try:
        valid = not text or date.fromisoformat(text).isoformat() == text
    except ValueError:
        valid = False
    if not valid:
        raise ConsentError("registry.assessment", f"{name} {text[:40]!r} is no date like 2026-03-01")


def assessments_required(connection: sa.Connection) -> bool | None:
    """Whether jobs for other organisations need an assessment in force; None: nobody ever decided."""
    value = db.get_meta(connection, REQUIRED_META)
    return None if value is None else value != "0"  # what can't be read must not switch it off


def require_assessments(connection: sa.Connection, required: bool, actor: str) -> None:
    """Whether jobs for other organisations need an assessment in force from now on (PIPL 55)."""
    if assessments_required(connection) is not required:
        db.set_meta(connection, REQUIRED_META, "1" if required else "0")
        _changed(connection, "assessment.required", {"required": required}, actor)
