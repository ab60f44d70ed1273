"""Receivers of messages, what waits for them, recipients that are switched off, and enforcement times."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from marshmallow import fields, validate

from consent_center.model import KINDS as IDENTIFIER_KINDS
from consent_center.outbox import queue
from consent_center.outbox.client import OutboxClient, outbox_of
from consent_center.rest import schemas
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor

bp = APIBlueprint("webhooks", __name__, url_prefix="/v1", tag="Webhooks")


class Hook(Schema):
    id = schemas.text(128, "Short name of the receiver.", required=True)
    url = schemas.text(2_000, "Where messages go: https, or http to this machine.", required=True)
    recipient = schemas.text(128, "Whose events it gets; `*`: all.", required=True)
    kinds = fields.List(
        fields.String(validate=validate.OneOf(queue.KINDS)),
        validate=validate.Length(1, 50),
        metadata={
            "description": "Kinds of messages; default: withdrawals, refusals, ends, erasures, switches."
        },
    )
    private = fields.Boolean(metadata={"description": "Its address may be in a private network."})
    actor = schemas.text(512, "Who registers it.", least=0)


class People(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(IDENTIFIER_KINDS))
    values = fields.List(schemas.text(1_000, least=0), required=True, validate=validate.Length(0, 10_000))


class Asked(Schema):
    state = fields.String(
        validate=validate.OneOf((queue.PENDING, queue.DELIVERED, queue.DEAD)),
        metadata={"description": "Default `dead`."},
    )
    limit = fields.Integer(validate=validate.Range(1, 1_000))


class Again(Schema):
    numbers = fields.List(
        fields.Integer(strict=True, validate=validate.Range(1, 2**62)), validate=validate.Length(0, 1_000)
    )
    webhook = schemas.text(128, "All of this receiver; neither: all.", least=0)
    actor = schemas.text(512, "Who does it.", least=0)


def _outbox() -> OutboxClient:
    return outbox_of(center())


@bp.get("/webhooks")
def list_webhooks() -> Any:
    """All receivers, with how many messages wait, went out, or are dead."""
    return answer(_outbox().webhooks())


@bp.post("/webhooks")
@bp.input(Hook)
def put_webhook(json_data: dict[str, Any]) -> Any:
    """Register a receiver, or change one. The answer has its secret."""
    data = dict(json_data)
    data["actor"] = actor(data.get("actor", ""), "rest")
    return answer(_outbox().put_webhook(**data), 201)


@bp.get("/webhooks/key")
def key() -> Any:
    """The public key that receivers verify messages with."""
    return answer({"public_key": _outbox().public_key()})


@bp.post("/webhooks/<string:webhook>/switch")
@bp.input(schemas.Switch)
def switch_webhook(webhook: str, json_data: dict[str, Any]) -> Any:
    """Switch a receiver off or on; messages wait meanwhile."""
    who = actor(json_data.get("actor", ""), "rest")
    return answer(_outbox().switch_webhook(webhook, json_data["active"], who))


@bp.post("/webhooks/<string:webhook>/persons")
@bp.input(People)
def persons(webhook: str, json_data: dict[str, Any]) -> Any:
    """A receiver's own pseudonyms of people, so that it knows whom a message is about."""
    return answer({"persons": _outbox().persons(webhook, json_data["kind"], json_data["values"])})


@bp.get("/outbox")
@bp.input(Asked, location="query")
def list_messages(query_data: dict[str, Any]) -> Any:
    """Messages in a state, the oldest first; by default those that nobody accepted."""
    return answer(_outbox().messages(query_data.get("state", queue.DEAD), query_data.get("limit", 200)))


@bp.post("/outbox/requeue")
@bp.input(Again)
def requeue(json_data: dict[str, Any]) -> Any:
    """Give dead messages another round."""
    who = actor(json_data.get("actor", ""), "rest")
    count = _outbox().requeue(json_data.get("numbers", []), json_data.get("webhook", ""), who)
    return answer({"requeued": count})


@bp.get("/enforcement")
def enforcement() -> Any:
    """How long it takes from a withdrawal to its enforcement: by jobs' lease checks and by webhooks."""
    return answer(_outbox().enforcement())


@bp.get("/recipients")
def list_recipients() -> Any:
    """Recipients that were ever switched, and whether they are on; all others are."""
    return answer(center().recipients())


@bp.post("/recipients/<string:recipient>/switch")
@bp.input(schemas.Switch)
def switch_recipient(recipient: str, json_data: dict[str, Any]) -> Any:
    """Switch a recipient off or on: decisions for it are no, running jobs stop at their next stage."""
    who = actor(json_data.get("actor", ""), "rest")
    return answer(center().switch_recipient(recipient, json_data["active"], who))
