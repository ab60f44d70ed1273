"""Requests of people about their data: intake, steps, fulfilment, letters, deadlines."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from marshmallow import fields, validate

from consent_center.model import KINDS as IDENTIFIER_KINDS
from consent_center.requests import model
from consent_center.requests.client import RightsClient, rights_of
from consent_center.requests.clock import NEAR_DAYS, ClockRule
from consent_center.requests.correction import ACTIONS
from consent_center.rest import schemas
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor

bp = APIBlueprint("rights", __name__, url_prefix="/v1/rights", tag="Rights requests")
_LONG = 20_000


def _one_of(choices: Any, what: str, required: bool = False) -> Any:
    check = validate.OneOf(list(choices))
    return fields.String(required=required, validate=check, metadata={"description": what})


class OpenBody(schemas.Identifiers):
    request = _one_of(model.KINDS, "What the person asks for.", required=True)
    regulation = _one_of(model.REGULATIONS, "Under which law; default PIPL.")
    language = _one_of(model.LANGUAGES, "Language of the letters; default zh.")
    channel = schemas.text(128, "How it came in, for instance `hotline`.", least=0)
    contact = schemas.text(1_000, "How to reach the person; sealed.", least=0)
    text = schemas.text(_LONG, "What was asked, in the person's words; sealed.", least=0)
    received_at = schemas.time("When it came in; default: now.")
    actor = schemas.text(512, "Who took it in.", least=0)


class StepBody(Schema):
    step = _one_of(
        sorted({s for steps in model.STEPS.values() for s in steps} - {"fulfil", "letter", "purge"}),
        "What happens; `possible` of the request says which steps are.",
        required=True,
    )
    method = _one_of(model.METHODS, "How the identity was shown (identity.pass).")
    evidence = schemas.text(_LONG, "What was seen (identity.pass); sealed.", least=0)
    task = schemas.text(128, "Name of the task (task.add, task.done).")
    skipped = fields.Boolean(metadata={"description": "The task is left out; `text` says why."})
    to = schemas.text(128, "Who works on it (assign).")
    outcome = _one_of(("granted", "partly"), "Whole or in part (grant).")
    grounds = fields.List(
        _one_of(model.GROUNDS, "A ground."),
        validate=validate.Length(0, 20),
        metadata={"description": "Why not, or not all (grant, refuse)."},
    )
    text = schemas.text(_LONG, "A reason or remark; sealed.", least=0)
    actor = schemas.text(512, "Who does it.", least=0)


class CorrectionBody(Schema):
    action = _one_of(ACTIONS, "What is wrong with the identifier.", required=True)
    kind = _one_of(IDENTIFIER_KINDS, "Kind of the identifier.", required=True)
    value = schemas.text(1_000, "The identifier.", required=True)
    target_kind = _one_of(IDENTIFIER_KINDS, "For `move`: kind of an identifier of its real owner.")
    target_value = schemas.text(1_000, "For `move`: that identifier.")


class FulfilBody(Schema):
    corrections = fields.List(
        fields.Nested(CorrectionBody),
        validate=validate.Length(0, 100),
        metadata={"description": "For a request for correction."},
    )
    text = schemas.text(_LONG, "What was done outside the center; sealed.", least=0)
    actor = schemas.text(512, "Who does it.", least=0)


class LetterBody(Schema):
    letter = _one_of(model.LETTERS, "Which letter.", required=True)
    language = _one_of(model.LANGUAGES, "Default: the request's.")
    text = schemas.text(_LONG, "What to add, as text.", least=0)
    actor = schemas.text(512, "Who writes it.", least=0)


class RuleBody(Schema):
    regulation = _one_of(model.REGULATIONS, "Which law.", required=True)
    working_days = schemas.number("Time in working days; or else `months`.", least=0)
    months = schemas.number("Time in months.", least=0)
    extension_working_days = schemas.number("What an extension adds.", least=0)
    extension_months = schemas.number("What an extension adds.", least=0)
    extensions = schemas.number("How often it may be extended.", least=0)
    country = schemas.text(2, "Whose public holidays count; empty: weekends only.", least=0)
    zone = schemas.text(64, "IANA time zone in which days begin.")
    actor = schemas.text(512, "Who sets it.", least=0)


class Shown(Schema):
    private = fields.Boolean(metadata={"description": "Also what names the person."})


class Which(Schema):
    running = fields.Boolean(metadata={"description": "Only those that are not done."})


class Within(Schema):
    within_days = fields.Integer(
        validate=validate.Range(0, 3_660), metadata={"description": "What counts as urgent."}
    )


class By(Schema):
    actor = schemas.text(512, "Who does it.", least=0)


def _rights() -> RightsClient:
    return rights_of(center())


@bp.post("/requests")
@bp.input(OpenBody)
def open_request(json_data: dict[str, Any]) -> Any:
    """Take in a request.

    The answer does not tell whether the person is known: that is for after the identity check.
    """
    data = dict(json_data)
    pairs = [(kind, value) for kind in IDENTIFIER_KINDS for value in data.pop(kind, [])]
    data["actor"] = actor(data.get("actor", ""), "rest")
    data.setdefault("channel", "rest")
    return answer(_rights().open(data.pop("request"), pairs, **data), 201)


@bp.get("/requests")
@bp.input(Which, location="query")
def list_requests(query_data: dict[str, Any]) -> Any:
    """All requests, the most urgent first. Nothing in the answer names a person."""
    return answer(_rights().list(query_data.get("running", False)))


@bp.get("/requests/<string:request_id>")
@bp.input(Shown, location="query")
def show(request_id: str, query_data: dict[str, Any]) -> Any:
    """One request with its steps; with `private` also what names the person."""
    return answer(_rights().show(request_id, query_data.get("private", False)))


@bp.post("/requests/<string:request_id>/steps")
@bp.input(StepBody)
def step(request_id: str, json_data: dict[str, Any]) -> Any:
    """One step further: identity, tasks, clock, decision, end.

    What the request's state does not allow is refused.
    """
    data = dict(json_data)
    name, who = data.pop("step"), actor(data.pop("actor", ""), "rest")
    return answer(_rights().step(request_id, name, who, **data))


@bp.post("/requests/<string:request_id>/fulfil")
@bp.input(FulfilBody)
def fulfil(request_id: str, json_data: dict[str, Any]) -> Any:
    """Carry out what was granted.

    Access, copy, portability and explanation answer with a signed package; deletion destroys the person's
    key; restriction makes every decision refuse; correction moves or merges identifiers.
    """
    data = dict(json_data)
    return answer(_rights().fulfil(request_id, actor(data.pop("actor", ""), "rest"), **data))


@bp.post("/requests/<string:request_id>/letters")
@bp.input(LetterBody)
def letter(request_id: str, json_data: dict[str, Any]) -> Any:
    """Write a letter to the person: the page, and its hash in the ledger."""
    data = dict(json_data)
    data["actor"] = actor(data.get("actor", ""), "rest")
    return answer(_rights().letter(request_id, **data), 201)


@bp.get("/deadlines")
@bp.input(Within, location="query")
def deadlines(query_data: dict[str, Any]) -> Any:
    """How many requests are on time, near their end, overdue or paused, and which are urgent."""
    return answer(_rights().deadlines(query_data.get("within_days", NEAR_DAYS)))


@bp.get("/rules")
def rules() -> Any:
    """How time is counted, by regulation."""
    return answer(_rights().rules())


@bp.put("/rules")
@bp.input(RuleBody)
def put_rule(json_data: dict[str, Any]) -> Any:
    """Set how a regulation counts, for requests from now on."""
    data = dict(json_data)
    who = actor(data.pop("actor", ""), "rest")
    return answer(_rights().put_rule(ClockRule(**data), who))


@bp.post("/sweep")
@bp.input(By)
def sweep(json_data: dict[str, Any]) -> Any:
    """Retention: destroy what names people in requests done for long, drop records after three years."""
    return answer(_rights().sweep(actor(json_data.get("actor", ""), "rest")))
