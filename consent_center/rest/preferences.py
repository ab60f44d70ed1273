"""Preferences, policies and contact decisions: the interface for marketing automation."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from apiflask import APIBlueprint, Schema
from flask import request
from marshmallow import fields, validate

from consent_center.errors import ConsentError
from consent_center.model import KINDS
from consent_center.preferences import model, wire
from consent_center.preferences.client import PreferenceClient, preferences_of
from consent_center.rest import roles, schemas
from consent_center.rest.context import answer, center

bp = APIBlueprint("preferences", __name__, url_prefix="/v1", tag="Preferences")


def _one_of(choices: Any, what: str, required: bool = False) -> Any:
    check = validate.OneOf(list(choices))
    return fields.String(required=required, validate=check, metadata={"description": what})


def _list(schema: type[Schema], what: str, most: int, required: bool = False, least: int = 0) -> Any:
    return fields.List(
        fields.Nested(schema),
        required=required,
        allow_none=not required,
        validate=validate.Length(least, most),
        metadata={"description": what},
    )


class CapBody(Schema):
    count = schemas.number("Most contacts in any window; 0: none at all.", required=True, least=0)
    per = _one_of(model.WINDOWS, "24 hours, 7 x 24 hours, or a calendar month.", required=True)


class QuietBody(Schema):
    start = schemas.text(5, "On the clocks of the zone, for instance `22:00`.", required=True)
    end = schemas.text(5, "Not after the start: on the next day.", required=True)
    zone = schemas.text(64, "IANA time zone; default `Asia/Shanghai`.")
    days = fields.List(
        fields.String(validate=validate.OneOf(model.DAYS)),
        validate=validate.Length(1, 7),
        metadata={"description": "Days on which it begins; default: all."},
    )


class KeyBody(Schema):
    channel = schemas.text(128, "A declared channel, or `*` for all.", required=True)
    topic = schemas.text(128, "A declared topic; default `*`, all.")
    caps = _list(CapBody, "Frequency caps; empty: none wanted; null: not said.", 3)
    quiet = _list(QuietBody, "Quiet hours; empty: none wanted; null: not said.", 20)
    zone = schemas.text(64, "Where months are reckoned; default `Asia/Shanghai`.")


class PreferenceBody(KeyBody):
    allowed = fields.Boolean(
        allow_none=True, metadata={"description": "Yes, no, or null: not said."}, truthy=[True], falsy=[False]
    )
    paused_until = schemas.time("No contacts until then.")
    occurred_at = schemas.time("When it was said; default: now.")
    source = schemas.text(512, "Where it was said.", least=0)
    actor = schemas.text(512, "Who entered it.", least=0)


class SetBody(schemas.Identifiers):
    preferences = _list(PreferenceBody, "Each replaces what was said for its key.", 1_000, True, 1)


class SetAnswer(Schema):
    first_number = fields.Integer(metadata={"description": "Number of the first preference."})
    leaves = fields.List(fields.Integer(), metadata={"description": "Their leaves in the ledger."})
    subject = fields.Integer()


class PersonBody(Schema):
    kind = _one_of(KINDS, "Kind of the identifier.", required=True)
    value = schemas.text(1_000, "The identifier.", required=True)
    history = fields.Boolean(metadata={"description": "Also everything that was said before."})


class PolicyBody(KeyBody):
    binding = fields.Boolean(metadata={"description": "Applies whatever a person prefers."})
    opt_in = fields.Boolean(metadata={"description": "Contacts need the person's own yes."})
    purpose = schemas.text(128, "Linked purpose: contacts need consent to it.", least=0)
    recipient = schemas.text(128, "Whose consent; default: the controller.", least=0)
    categories = schemas.texts("Which consent; default: all categories of the purpose.")
    actor = schemas.text(512, "Who sets it.", least=0)


class TermBody(Schema):
    kind = _one_of(("channel", "topic"), "What is declared.", required=True)
    id = schemas.text(128, "Short name.", required=True)
    title = schemas.translated("Title by language.")
    active = fields.Boolean(metadata={"description": "Off: every contact is refused."})
    actor = schemas.text(512, "Who declares it.", least=0)


class ItemBody(Schema):
    kind = _one_of(KINDS, "Kind of the identifier.")
    value = schemas.text(1_000, "The identifier.")
    channel = schemas.text(128, "One channel.")
    topic = schemas.text(128, "One topic.")
    sender = schemas.text(128, "The system that will send.")
    at = schemas.time("When it would be sent; default: now; at most 366 days ahead.")
    purpose = schemas.text(128, "Purpose whose consent is needed, beside those that policies link.")
    recipient = schemas.text(128, "Whose consent; default: the controller.")
    categories = schemas.texts("Which consent; default: all categories of the purpose.")
    contact_id = schemas.text(512, "The sender's own id of this contact.")
    reserve = fields.Boolean(metadata={"description": "If allowed, take the slot; needs `contact_id`."})
    reserve_seconds = schemas.number("How long the slot is kept; default 900, at most 86,400.")


class DecideBody(ItemBody):
    items = _list(
        ItemBody, "Up to 10,000; fields beside the list hold for every item that lacks them.", model.MAX_ITEMS
    )


class ReasonBody(Schema):
    code = _one_of(model.REASONS, "The reason.")
    title = fields.Dict(metadata={"description": "In `zh` and `en`."})
    by = fields.String(metadata={"description": "`preference`, `policy`, `consent` or `center`."})
    channel = fields.String()
    topic = fields.String()
    until = fields.String(allow_none=True, metadata={"description": "When it ends by itself."})
    detail = fields.String()


class AnswerBody(Schema):
    allowed = fields.Boolean()
    reasons = fields.List(fields.Nested(ReasonBody), metadata={"description": "Every one that applies."})
    at = fields.String()
    next_at = fields.String(
        allow_none=True,
        metadata={"description": "First time at which it would be allowed; null: not by waiting."},
    )
    reserved_until = fields.String(allow_none=True)


class DecideAnswer(Schema):
    answers = fields.List(fields.Nested(AnswerBody), metadata={"description": "One an item, in order."})
    allowed = fields.Integer()
    denied = fields.Integer()


class ContactBody(Schema):
    kind = _one_of(KINDS, "Kind of the identifier.", required=True)
    value = schemas.text(1_000, "The identifier.", required=True)
    channel = schemas.text(128, "One channel.", required=True)
    topic = schemas.text(128, "One topic.", required=True)
    sender = schemas.text(128, "The system that sent.", required=True)
    contact_id = schemas.text(512, "The sender's own id; the same again changes nothing.", required=True)
    at = schemas.time("When it was sent.")


class ContactsBody(Schema):
    contacts = _list(ContactBody, "Up to 10,000.", model.MAX_ITEMS, True, 1)


class ReleaseBody(Schema):
    sender = schemas.text(128, "The system that reserved.", required=True)
    contact_ids = fields.List(schemas.text(512), required=True, validate=validate.Length(1, model.MAX_ITEMS))


def _preferences() -> PreferenceClient:
    return preferences_of(center())


@bp.put("/preferences")
@bp.input(SetBody)
@bp.output(SetAnswer)
def put(json_data: dict[str, Any]) -> Any:
    """Record what a person wants.

    One person, one or more keys (channel, topic). A later answer for a key replaces the earlier one.
    """
    pairs = [(kind, value) for kind in KINDS for value in json_data.get(kind, ())]
    if not pairs:
        raise ConsentError("event.identifier", f"no identifier: give one of {', '.join(KINDS)}")
    wishes = [
        model.preference_from_json({**wish, "actor": roles.actor(wish.get("actor", ""))})
        for wish in json_data["preferences"]
    ]
    done = _preferences().set_many(pairs, wishes)
    return answer({"first_number": done.first_number, "leaves": done.leaves, "subject": done.subject})


@bp.get("/preferences")
def show() -> Any:
    """What holds for a person.

    The identifier travels in the headers `Person-Kind` and `Person-Value` (percent-encoded), not in the
    address, so that it stands in no access log.
    """
    kind, value = request.headers.get("Person-Kind", ""), unquote(request.headers.get("Person-Value", ""))
    problems = PersonBody().validate({"kind": kind, "value": value})
    if problems:
        raise ConsentError("request.invalid", f"headers Person-Kind and Person-Value: {problems}")
    return answer(wire.person_to_json(_preferences().get(kind, value)))


@bp.post("/preferences/query")
@bp.input(PersonBody)
def query(json_data: dict[str, Any]) -> Any:
    """What holds for a person, with the identifier in the body, and the history if asked for."""
    found = _preferences().get(json_data["kind"], json_data["value"], json_data.get("history", False))
    return answer(wire.person_to_json(found))


@bp.get("/contact-policies")
def policies() -> Any:
    """Policies in force, declared channels and topics, and the titles of all reasons."""
    return answer(wire.book_to_json(_preferences().rulebook()))


@bp.put("/contact-policies")
@bp.input(PolicyBody)
def put_policy(json_data: dict[str, Any]) -> Any:
    """Set the organisation's default for a channel and topic; a change is a new version."""
    actor = roles.actor(json_data.pop("actor", ""))
    return answer(model.to_json(_preferences().put_policy(model.policy_from_json(json_data), actor)))


@bp.put("/contact-terms")
@bp.input(TermBody)
def declare(json_data: dict[str, Any]) -> Any:
    """Declare a channel or a topic, or switch one off."""
    actor = roles.actor(json_data.pop("actor", ""))
    return answer(wire.term_to_json(_preferences().declare(model.Term(**json_data), actor)))


@bp.post("/contact-decisions")
@bp.input(DecideBody)
@bp.output(DecideAnswer)
def decide(json_data: dict[str, Any]) -> Any:
    """May these people be contacted? One item, or up to 10,000 in `items`.

    Each answer has every reason against and the first time at which it would be allowed. With `reserve`, a
    yes also takes the slot, in the same transaction.
    """
    common = {name: value for name, value in json_data.items() if name != "items"}
    questions = []
    listed = json_data.get("items")
    for row, item in enumerate([{}] if listed is None else listed):
        merged = {**common, **item}
        missing = [n for n in ("kind", "value", "channel", "topic", "sender") if n not in merged]
        if missing:
            raise ConsentError("preference.request", f"missing: {', '.join(missing)}", row)
        questions.append(wire.question_from_json(merged))
    answers = _preferences().decide(questions)
    allowed = sum(one.allowed for one in answers)
    told = [wire.answer_to_json(one) for one in answers]
    return answer({"answers": told, "allowed": allowed, "denied": len(told) - allowed})


@bp.post("/contacts")
@bp.input(ContactsBody)
def report(json_data: dict[str, Any]) -> Any:
    """Report contacts that were made, up to 10,000; they count against the caps of every sender.

    Each stands for itself. Reporting the same `contact_id` of a sender again changes nothing.
    """
    missing = next((row for row, one in enumerate(json_data["contacts"]) if one.get("at") is None), None)
    if missing is not None:
        raise ConsentError("preference.request", "missing: at, when it was sent", missing)
    done = _preferences().record_contacts([wire.contact_from_json(one) for one in json_data["contacts"]])
    rows = zip(done.outcomes, done.details, strict=True)
    return answer({"outcomes": [{"outcome": outcome, "detail": detail} for outcome, detail in rows]})


@bp.post("/contacts/release")
@bp.input(ReleaseBody)
def release(json_data: dict[str, Any]) -> Any:
    """Give back reserved slots that will not be used."""
    return answer({"released": _preferences().release(json_data["sender"], json_data["contact_ids"])})
