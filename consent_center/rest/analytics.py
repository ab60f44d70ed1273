"""Figures: consent and withdrawal rates, where people stand, funnels, A/B of notices."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema, fields
from apiflask import validators as validate
from flask import current_app

from consent_center.analytics.service import FEWEST, FUNNELS, GROUPS, LEAST, Analytics
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.rest import schemas
from consent_center.rest.context import CENTER, answer

bp = APIBlueprint("analytics", __name__, url_prefix="/v1/analytics", tag="Analytics")


class Least(Schema):
    least = fields.Integer(
        validate=validate.Range(FEWEST, 1_000_000),
        load_default=LEAST,
        metadata={"description": "Groups of fewer are suppressed, and others that would tell them."},
    )


class Span(Least):
    since = schemas.time("From the day (in China) of this time on. ISO 8601 with its offset.")
    until = schemas.time("Up to the day of the moment before this time.")
    purpose = schemas.text(what="Of this purpose only.")


class RatesQuery(Span):
    by = fields.String(
        validate=validate.OneOf(GROUPS), load_default="purpose", metadata={"description": "How to group."}
    )


class FunnelQuery(Span):
    by = fields.String(
        validate=validate.OneOf(FUNNELS),
        load_default="notice",
        metadata={"description": "By channel and notice, or by channel alone."},
    )


class ExperimentQuery(Least):
    effect = fields.Float(
        validate=validate.Range(0.001, 0.5),
        load_default=0.05,
        metadata={"description": "The difference of rates that is worth finding."},
    )


def analytics() -> Analytics:
    """The figures of the served center."""
    center = current_app.extensions[CENTER]
    if not isinstance(center, Center):
        raise ConsentError("analytics.request", "figures are given where the center is, not through another")
    return center.analytics


@bp.get("/rates")
@bp.input(RatesQuery, location="query")
def rates(query_data: dict[str, Any]) -> Any:
    """Consent and withdrawal rates by purpose, recipient, notice, channel, method, regulation or time."""
    q = query_data
    return answer(
        analytics().rates(q["by"], q.get("since"), q.get("until"), q.get("purpose", ""), q["least"])
    )


@bp.get("/standing")
@bp.input(Least, location="query")
def standing(query_data: dict[str, Any]) -> Any:
    """How many people stand where now, by purpose and recipient."""
    return answer(analytics().standing(query_data["least"]))


@bp.get("/funnel")
@bp.input(FunnelQuery, location="query")
def funnel(query_data: dict[str, Any]) -> Any:
    """Shown, decided, granted, by channel and notice."""
    q = query_data
    return answer(
        analytics().funnel(q.get("since"), q.get("until"), q.get("purpose", ""), q["least"], q["by"])
    )


@bp.get("/experiments/<string:id>")
@bp.input(ExperimentQuery, location="query")
def experiment(id: str, query_data: dict[str, Any]) -> Any:
    """The outcome of an A/B of two notices: rates, test, interval, and how many people it takes."""
    return answer(analytics().experiment(id, query_data["effect"], query_data["least"]))
