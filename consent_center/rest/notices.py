"""Notices from draft to publication, what changed between versions, and who must be asked again."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema, fields
from apiflask import validators as validate
from flask import current_app

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.notices.service import Notices
from consent_center.rest import schemas
from consent_center.rest.context import CENTER, answer
from consent_center.rest.roles import actor

bp = APIBlueprint("notices", __name__, url_prefix="/v1", tag="Notices")


class DraftBody(Schema):
    id = schemas.text(what="The notice's id.", required=True)
    purpose = schemas.text(what="Purpose that it explains.", required=True)
    material = fields.Boolean(
        metadata={"description": "For changes of words alone; a change of meaning always is."}
    )
    changes = fields.Dict(
        fields.String(validate=schemas._clean),
        metadata={"description": "Fields of the purpose that change with it: `methods`, `categories` …"},
    )
    actor = schemas.text(what="Who writes it.", least=0)
    text = fields.Dict(
        fields.String(validate=validate.Regexp(r"[a-z]{2}(-[A-Za-z]{2,4})?\Z")),
        schemas.text(100_000, least=0),
        required=True,
        metadata={"description": "The text by language.", "example": {"zh": "…", "en": "…"}},
    )


class PublishBody(Schema):
    base = schemas.text(what="Hash of the draft that was previewed: another one is not published.", least=0)
    actor = schemas.text(what="Who publishes.", least=0)


class DiffQuery(Schema):
    old = fields.Integer(required=True, validate=validate.Range(1, 2**31 - 1))
    new = fields.Integer(required=True, validate=validate.Range(1, 2**31 - 1))


class ReconsentQuery(Schema):
    start = fields.Integer(validate=validate.Range(0, 2**31), load_default=0)
    limit = fields.Integer(validate=validate.Range(0, 10_000), load_default=0)


def notices() -> Notices:
    """The notices of the served center."""
    center = current_app.extensions[CENTER]
    if not isinstance(center, Center):
        raise ConsentError("notice.unknown", "notices are published where the center is, not through another")
    return center.notice_board


@bp.get("/notice-drafts")
def list_drafts() -> Any:
    """Drafts of notices."""
    return answer(notices().drafts())


@bp.post("/notice-drafts")
@bp.input(DraftBody)
def put_draft(json_data: dict[str, Any]) -> Any:
    """Keep a draft of a notice; one a notice. Nothing changes for anybody until it is published."""
    by = actor(json_data.pop("actor", ""), "rest")
    return answer(notices().draft(json_data, by))


@bp.delete("/notice-drafts/<string:id>")
def discard_draft(id: str) -> Any:
    """Drop a draft."""
    notices().discard(id)
    return answer({"discarded": id})


@bp.get("/notice-drafts/<string:id>/preview")
def preview_draft(id: str) -> Any:
    """What publishing would do: new versions, the difference in words and meaning, how many would be
    asked again.
    """
    return answer(notices().preview(id))


@bp.post("/notice-drafts/<string:id>/publish")
@bp.input(PublishBody)
def publish_draft(id: str, json_data: dict[str, Any]) -> Any:
    """Publish: the draft becomes the notice in force. A change of meaning outdates the consent under
    older versions.
    """
    by = actor(json_data.get("actor", ""), "rest")
    return answer(notices().publish(id, by, json_data.get("base", "")))


@bp.get("/notices/<string:id>/diff")
@bp.input(DiffQuery, location="query")
def diff(id: str, query_data: dict[str, Any]) -> Any:
    """What changed between two versions: words by language, and purpose, method, category, recipient,
    retention.
    """
    return answer(notices().diff(id, query_data["old"], query_data["new"]))


@bp.get("/purposes/<string:purpose>/reconsent")
@bp.input(ReconsentQuery, location="query")
def reconsent(purpose: str, query_data: dict[str, Any]) -> Any:
    """Who must be asked again: people whose consent is to an older version. Counts, and row numbers on
    request.
    """
    return answer(notices().reconsent(purpose, query_data["start"], query_data["limit"]))
