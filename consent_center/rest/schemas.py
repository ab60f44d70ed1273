"""Bodies of requests and answers, for validation and for the OpenAPI document.

Each text is checked here for what no database or hash can take (lone surrogates, NUL) and each number for
what 64 bits can't hold, so that nonsense ends as a 4xx here and not as a 500 further in.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from apiflask import Schema
from marshmallow import ValidationError, fields, validate

from consent_center.model import ACTIONS, KINDS

MAX_VALUES = 10_000  # values in one JSON decision request; more travel as Arrow
_ID, _LINE, _TEXT = 200, 1_000, 100_000


def _clean(value: str) -> None:
    if any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise ValidationError("has characters that are no text (NUL or a lone surrogate).")


def _in_range(value: datetime | date) -> None:
    if not 1900 <= value.year < 2200:
        raise ValidationError("is not between 1900 and 2200.")


def text(limit: int = _ID, what: str = "", required: bool = False, least: int = 1) -> Any:
    checks: list[Any] = [validate.Length(least, limit), _clean]
    return fields.String(required=required, validate=checks, metadata={"description": what})


def time(what: str) -> Any:
    return fields.AwareDateTime(
        format="iso", default_timezone=None, validate=_in_range, metadata={"description": what}
    )


def number(what: str, required: bool = False, least: int = 1) -> Any:
    check = validate.Range(least, 2**31 - 1)
    return fields.Integer(required=required, strict=True, validate=check, metadata={"description": what})


def texts(what: str, required: bool = False, least: int = 0) -> Any:
    check = validate.Length(least, 1_000)
    return fields.List(text(), required=required, validate=check, metadata={"description": what})


def translated(what: str) -> Any:
    keys = fields.String(validate=validate.Regexp(r"[a-z]{2}(-[A-Za-z]{2,4})?\Z"))
    return fields.Dict(
        keys,
        text(_TEXT),
        required=True,
        validate=validate.Length(1, 50),
        metadata={"description": what, "example": {"zh": "…", "en": "…"}},
    )


class OneOrMore(fields.Field[Any]):
    """An identifier, or a list of several of one kind (a person with three devices)."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[str]:
        values = value if isinstance(value, list) else [value]
        if (
            not values
            or len(values) > 100
            or not all(isinstance(v, str) and 0 < len(v) <= _LINE for v in values)
        ):
            raise ValidationError("give text of at most 1,000 characters, or a list of up to 100 such texts.")
        for one in values:
            _clean(one)
        return values


class Purpose(Schema):
    id = text(what="Short name that never changes, for instance `lookalike-ads`.", required=True)
    version = number("1, 2, 3 …; a new version outdates consent given under older ones.", required=True)
    title = translated("Title by language.")
    categories = texts("Data categories that consent to this purpose may name.", required=True, least=1)
    recipient_kinds = texts("Kinds of recipients, for instance `data_provider`.")
    dpv = text(what="Term of the W3C Data Privacy Vocabulary.", least=0)
    legal_basis = text(what="Default `consent`.")
    separate_consent = fields.Boolean(metadata={"description": "Needs an event of its own (PIPL 23, 29)."})
    duration_days = fields.Integer(
        allow_none=True,
        strict=True,
        validate=validate.Range(1, 36_500),
        metadata={"description": "How long a grant lasts that names no end."},
    )
    needs_guardian = fields.Boolean(metadata={"description": "Under 14 a guardian must consent (PIPL 31)."})
    active = fields.Boolean(metadata={"description": "Off: every decision for it is no."})
    methods = texts("How the data is processed, for instance `private_join`.")
    recipients = texts("Named recipients, where there are some.")
    retention_days = fields.Integer(
        allow_none=True,
        strict=True,
        validate=validate.Range(1, 36_500),
        metadata={"description": "How long data is kept; default: as long as the consent lasts."},
    )
    sensitive = texts("Those of the categories that are sensitive (PIPL 28).")
    actor = text(what="Who registers it.", least=0)


class Switch(Schema):
    active = fields.Boolean(required=True, metadata={"description": "True switches on, false off."})
    actor = text(what="Who did this.", least=0)


class Notice(Schema):
    id = text(what="Short name of the text.", required=True)
    version = number("1, 2, 3 …", required=True)
    purpose = text(what="Purpose that it explains.", required=True)
    purpose_version = number("Version of that purpose.", required=True)
    hash = text(what="SHA-256 of the text; filled in by the center.", least=0)
    material = fields.Boolean(
        metadata={"description": "A material change outdates consent given under older versions."}
    )
    actor = text(what="Who registers it.", least=0)
    text = translated("What the person saw, by language.")  # last: it hides the function in this body


class Assessment(Schema):
    id = text(what="Number of the assessment.", required=True)
    purpose = text(what="Purpose that it covers.", required=True)
    reference = text(_LINE, "Where the document is kept.", required=True)
    hash = text(what="SHA-256 of the document, in hex.", least=0)
    approved_on = text(what="ISO date.", least=0)
    recipient = text(what="Which recipient it covers; default: all.", least=0)
    valid_until = text(what="ISO date; default: no end.", least=0)
    status = text(what="`in_force` (default) or `withdrawn`.")
    actor = text(what="Who registers it.", least=0)


class Identifiers(Schema):
    phone = OneOrMore(metadata={"description": "Phone number, any usual spelling."})
    email = OneOrMore(metadata={"description": "E-mail address."})
    device = OneOrMore(metadata={"description": "Advertising or device id."})
    opaque = OneOrMore(metadata={"description": "Any other id, compared as it is."})


class Withdrawal(Identifiers):
    purpose = text(what="Purpose.", required=True)
    purpose_version = number("Default: the newest version.")
    recipient = text(what="Recipient whose consent ends.", required=True)
    categories = texts("Default: all categories of the purpose.")
    regulation = text(what="Default `PIPL`.")
    channel = text(what="Where it came in, for instance `hotline`.")
    method = text(what="How the will was expressed; default `explicit`.")
    occurred_at = time("Default: now. ISO 8601 with its offset.")
    evidence = text(_TEXT, "Proof, kept encrypted under the person's own key.", least=0)
    actor = text(what="Who entered it.", least=0)


class Shown(Schema):
    notice_hash = text(what="Hash of the notice; if given, it must be that of the registered one.", least=0)
    layout_hash = text(what="SHA-256 (hex) of how it was laid out.", required=True)
    language = text(what="Language that it was shown in.", required=True)
    shown_at = fields.AwareDateTime(
        required=True,
        format="iso",
        default_timezone=None,
        validate=_in_range,
        metadata={"description": "When. ISO 8601 with its offset."},
    )


class Event(Withdrawal):
    action = fields.String(
        required=True, validate=validate.OneOf(ACTIONS), metadata={"description": "What the person did."}
    )
    purpose_version = number("Version that the person agreed to.", required=True)
    categories = texts("Data categories, all of the purpose's; a grant needs at least one.")
    notice = text(what="Notice that the person saw; required for a grant.", least=0)
    notice_version = number("Its version.", least=0)
    controller = text(what="Default: this center's.", least=0)
    shown = fields.Nested(
        Shown, metadata={"description": "What the person was shown; kept as evidence with the event."}
    )
    expires_at = time("End of the consent, if it has one.")
    birth_date = fields.Date(
        validate=_in_range, metadata={"description": "Needed where the person is under 14."}
    )


class Recorded(Schema):
    sequence = fields.Integer(metadata={"description": "Number of the event in this center."})
    leaf_index = fields.Integer(metadata={"description": "Its leaf in the ledger."})
    subject = fields.Integer(
        metadata={"description": "Row number of the person; never leaves the organisation."}
    )
    ignored = fields.List(fields.String(), metadata={"description": "Identifiers that could not be used."})


class RowProblem(Schema):
    row = fields.Integer(metadata={"description": "As an editor shows it; a CSV header is row 1."})
    field = fields.String()
    value = fields.String()
    code = fields.String()
    fix = fields.String(metadata={"description": "What is wrong and what to do."})


class Report(Schema):
    read = fields.Integer()
    recorded = fields.Integer()
    rejected = fields.Integer()
    ignored_columns = fields.List(fields.String())
    errors = fields.List(fields.Nested(RowProblem), metadata={"description": "The first 1,000."})


class Request(Schema):
    purpose = text(what="Purpose.", required=True)
    recipient = text(what="Who wants the data.", required=True)
    categories = texts("Data categories that are wanted.", required=True, least=1)
    as_of = time("Time at which ends and birthdays are judged; default: now.")
    regulation = text(what="Default: all regulations with an event must say yes.")


class Decide(Request):
    kind = fields.String(
        required=True, validate=validate.OneOf(KINDS), metadata={"description": "Kind of the values."}
    )
    values = fields.List(
        fields.String(allow_none=True, validate=[validate.Length(0, _LINE), _clean]),
        required=True,
        validate=validate.Length(1, MAX_VALUES),
        metadata={"description": f"Up to {MAX_VALUES:,} identifiers; more: see /v1/decisions/bulk."},
    )


class Decided(Schema):
    sequence = fields.Integer(metadata={"description": "Number of the last event that was seen; -1: stale."})
    detail = fields.String()
    counts = fields.Dict(metadata={"description": '{"in": n, "out": {reason: n}}'})
    reasons = fields.List(
        fields.String(),
        metadata={"description": "One a value, in order: `eligible` or the first reason against."},
    )


class Person(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    value = text(_LINE, "The identifier.", required=True)
    actor = text(what="Who asks; written to the ledger where the call changes anything.", least=0)


class Assume(Request):
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    values = fields.List(
        fields.String(allow_none=True, validate=[validate.Length(0, _LINE), _clean]),
        required=True,
        validate=validate.Length(1, MAX_VALUES),
    )
    reason = text(_LINE, "Why consent is assumed; stands in the ledger.", required=True)
    actor = text(what="Who assumes it.", required=True)


class Entry(Schema):
    kind = text(what="Kind of the leaf, for instance `job.stage`.", required=True)
    payload = fields.Dict(fields.String(validate=_clean), required=True)


class Fsck(Schema):
    checkpoint = text(_TEXT, "A signed checkpoint of this log from before.", least=0)


class Inclusion(Schema):
    index = fields.Integer(required=True, validate=validate.Range(0, 2**62))
    size = fields.Integer(required=True, validate=validate.Range(1, 2**62))


class Consistency(Schema):
    old = fields.Integer(required=True, validate=validate.Range(0, 2**62))
    new = fields.Integer(required=True, validate=validate.Range(0, 2**62))
