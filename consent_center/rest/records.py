"""Processing register, agreements, assessments: records, exports, reminders before they lapse."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from flask import Response
from marshmallow import fields, validate

from consent_center.records import export, model
from consent_center.records.client import RecordsClient, records_of
from consent_center.registry import UNASSESSED
from consent_center.rest import schemas
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor

bp = APIBlueprint("records", __name__, url_prefix="/v1", tag="Records")
_TYPES = {"csv": "text/csv", "json": "application/json", "html": "text/html"}


class RecordBody(Schema):
    record = fields.Dict(required=True, metadata={"description": "The fields of the record."})
    actor = schemas.text(512, "Who enters it.", least=0)


class Wanted(Schema):
    form = fields.String(validate=validate.OneOf(export.FORMATS), metadata={"description": "Default csv."})
    language = fields.String(
        validate=validate.OneOf(export.LANGUAGES), metadata={"description": "Default zh."}
    )


class Within(Schema):
    within_days = fields.Integer(validate=validate.Range(0, 3_660), metadata={"description": "Default 30."})


class Required(Schema):
    required = fields.Boolean(required=True, metadata={"description": "Whether jobs need an assessment."})
    actor = schemas.text(512, "Who says so.", least=0)


def _records() -> RecordsClient:
    return records_of(center())


@bp.get("/records/<string:kind>")
def list_records(kind: str) -> Any:
    """The newest version of every record of a kind: `processing`, `agreement`, `assessment`."""
    return answer(_records().listing(kind))


@bp.put("/records/<string:kind>/<string:record>")
@bp.input(RecordBody)
def put_record(kind: str, record: str, json_data: dict[str, Any]) -> Any:
    """A new version of a record: `processing` or `agreement`."""
    who = actor(json_data.get("actor", ""), "rest")
    return answer(_records().put(kind, record, json_data["record"], who))


@bp.get("/records/<string:kind>/export")
@bp.input(Wanted, location="query")
def export_records(kind: str, query_data: dict[str, Any]) -> Response:
    """The register as CSV, JSON or a page, in Chinese or English."""
    form = query_data.get("form", "csv")
    text = _records().export(kind, form, query_data.get("language", "zh"))
    return Response(text, content_type=f"{_TYPES[form]}; charset=utf-8")


@bp.get("/reminders")
@bp.input(Within, location="query")
def list_reminders(query_data: dict[str, Any]) -> Any:
    """What lapses soon or has lapsed: records, assessments, requests."""
    return answer(_records().reminders(query_data.get("within_days", model.REMIND_DAYS)))


@bp.post("/reminders")
@bp.input(Within)
def send_reminders(json_data: dict[str, Any]) -> Any:
    """Queue a message for each reminder, for webhooks that subscribe to `record.reminder`."""
    return answer(_records().remind(json_data.get("within_days", model.REMIND_DAYS)))


@bp.get("/assessments/required")
def assessments_required() -> Any:
    """Whether a job for another organisation needs an assessment; null: an old center, nobody decided."""
    required = center().assessments_required()
    return answer({"required": required, "warning": UNASSESSED.get(required, "")})


@bp.post("/assessments/required")
@bp.input(Required)
def require_assessments(json_data: dict[str, Any]) -> Any:
    """Whether a job for another organisation needs an impact assessment in force (PIPL 55)."""
    who = actor(json_data.get("actor", ""), "rest")
    return answer({"required": center().require_assessments(json_data["required"], who)})
