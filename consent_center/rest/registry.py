"""Purposes, notices, assessments, and whether the center is well."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from flask import Response

from consent_center import model
from consent_center.rest import schemas, wire
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor, principal

bp = APIBlueprint("registry", __name__, url_prefix="/v1", tag="Registry")


@bp.get("/health")
def health() -> Response:
    """Is the center there?

    Needs no token. With one, the answer also names the controller, the number of leaves in its ledger, and
    the key that its checkpoints and snapshots are verified with.
    """
    if principal().role == "public":
        return answer({"status": "ok"})
    leaves = int(center().checkpoint().split("\n")[1])  # reads the database: raises when it is not there
    key = center().verifier_key()
    return answer({"status": "ok", "controller": center().controller, "leaves": leaves, "verifier_key": key})


@bp.get("/purposes")
@bp.output(schemas.Purpose(many=True))
def list_purposes() -> Any:
    """All purposes, every version."""
    return answer(wire.plain(center().purposes()))


@bp.post("/purposes")
@bp.input(schemas.Purpose)
@bp.output(schemas.Purpose)
def put_purpose(json_data: dict[str, Any]) -> Any:
    """Register a purpose or a new version of one.

    A new version outdates the consent that was given under older ones.
    """
    return answer(wire.plain(center().put_purpose(wire.build(model.Purpose, json_data), _actor(json_data))))


@bp.post("/purposes/<string:purpose>/switch")
@bp.input(schemas.Switch)
@bp.output(schemas.Purpose)
def switch_purpose(purpose: str, json_data: dict[str, Any]) -> Any:
    """Switch a purpose off or on.

    Off, every decision for it is no, and running jobs stop at their next stage.
    """
    return answer(wire.plain(center().switch_purpose(purpose, json_data["active"], _actor(json_data))))


@bp.get("/notices")
@bp.output(schemas.Notice(many=True))
def list_notices() -> Any:
    """All notices, every version."""
    return answer(wire.plain(center().notices()))


@bp.post("/notices")
@bp.input(schemas.Notice)
@bp.output(schemas.Notice)
def put_notice(json_data: dict[str, Any]) -> Any:
    """Register the text that people see."""
    return answer(wire.plain(center().put_notice(wire.build(model.Notice, json_data), _actor(json_data))))


@bp.get("/assessments")
@bp.output(schemas.Assessment(many=True))
def list_assessments() -> Any:
    """References of impact assessments."""
    return answer(wire.plain(center().assessments()))


@bp.post("/assessments")
@bp.input(schemas.Assessment)
@bp.output(schemas.Assessment)
def put_assessment(json_data: dict[str, Any]) -> Any:
    """Register the reference of an impact assessment (PIPL 55)."""
    return answer(
        wire.plain(center().put_assessment(wire.build(model.Assessment, json_data), _actor(json_data)))
    )


def _actor(json_data: dict[str, Any]) -> str:
    return actor(json_data.get("actor", ""), "rest")
