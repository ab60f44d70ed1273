"""Rules of the house: check a file, try it out, put it in force; where people are."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema, fields
from apiflask import validators as validate
from flask import current_app

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.model import KINDS
from consent_center.rest import schemas
from consent_center.rest.context import CENTER, answer
from consent_center.rest.roles import actor
from consent_center.rules.service import Rules

bp = APIBlueprint("rules", __name__, url_prefix="/v1", tag="Rules")


class RuleFile(Schema):
    text = schemas.text(1 << 20, "The file, TOML (docs/consent.md); empty: no rules.", required=True, least=0)


class RuleTrial(RuleFile):
    sample = fields.Integer(
        strict=True,
        validate=validate.Range(0, 1_000),
        metadata={"description": "How many row numbers of people to list a change; default 20."},
    )


class RuleApplied(RuleFile):
    base = schemas.text(what="`base` of the dry run: other rules meanwhile are refused.", least=0)
    actor = schemas.text(what="Who puts it in force.", least=0)


class Place(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    value = schemas.text(1_000, "The identifier.", required=True)
    region = schemas.text(8, "ISO 3166: `CN`, or `CN-31`.", required=True)


class Places(Schema):
    people = fields.List(fields.Nested(Place), required=True, validate=validate.Length(1, 10_000))


def rules() -> Rules:
    """The rules of the served center."""
    center = current_app.extensions[CENTER]
    if not isinstance(center, Center):
        raise ConsentError("rules.file", "rules are kept where the center is, not through another")
    return center.rules


@bp.get("/rules")
def show() -> Any:
    """The rules in force, and how many people are known to be in each region."""
    return answer(rules().show())


@bp.post("/rules/check")
@bp.input(RuleFile)
def check(json_data: dict[str, Any]) -> Any:
    """Check a rule file: its rules and warnings, or the line that is wrong."""
    return answer(rules().check(json_data["text"]))


@bp.post("/rules/dry-run")
@bp.input(RuleTrial)
def dry_run(json_data: dict[str, Any]) -> Any:
    """Try a rule file out: who would change, by purpose, recipient and category. Nothing is put in force."""
    return answer(rules().dry_run(json_data["text"], json_data.get("sample", 20)))


@bp.put("/rules")
@bp.input(RuleApplied)
def apply(json_data: dict[str, Any]) -> Any:
    """Put a rule file in force, from the next decision on. It becomes a leaf of the ledger."""
    by = actor(json_data.get("actor", ""), "rest")
    return answer(rules().apply(json_data["text"], by, json_data.get("base", "")))


@bp.post("/people/regions")
@bp.input(Places)
def regions(json_data: dict[str, Any]) -> Any:
    """Say where known people are."""
    people = [(p["kind"], p["value"], p["region"]) for p in json_data["people"]]
    return answer(rules().set_regions(people))
