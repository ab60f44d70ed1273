"""Witnesses: the call of C2SP tlog-witness for other logs, and who cosigns the own one."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from flask import Response
from marshmallow import fields

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.rest import limits, schemas
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor
from consent_center.witness.client import WitnessClient, witness_of

bp = APIBlueprint("witness", __name__, url_prefix="/v1/witness", tag="Witnesses")


def _witness() -> WitnessClient:
    return witness_of(center())


class LogBody(Schema):
    key = schemas.text(1_000, "The log's verifier key; its name is the log's origin.", required=True)
    actor = schemas.text(512, "Who adds it.", least=0)


class WitnessBody(Schema):
    key = schemas.text(1_000, "The witness's key.", required=True)
    url = schemas.text(2_000, "Its submission prefix, before `/add-checkpoint`.", required=True)
    private = fields.Boolean(metadata={"description": "Its address may be in a private network."})
    actor = schemas.text(512, "Who adds it.", least=0)


@bp.post("/add-checkpoint")
def add_checkpoint() -> Response:
    """Cosign a log's checkpoint (C2SP tlog-witness), for logs that this center witnesses.

    Needs no token: the log's own signature on the checkpoint is what counts. Body and answer are text.
    """
    own = center()
    if not isinstance(own, Center):
        raise ConsentError("center.location", "only a center itself is a witness, not a relay to one")
    done = own.witness.add_checkpoint(limits.body())
    return Response(done.body, done.status, content_type=done.content_type)


@bp.get("/key")
def key() -> Response:
    """The key that this center's cosignatures are verified with."""
    return Response(_witness().verifier_key() + "\n", content_type="text/plain; charset=utf-8")


@bp.get("/logs")
def list_logs() -> Any:
    """The logs that this center witnesses, and how far."""
    return answer(_witness().logs())


@bp.post("/logs")
@bp.input(LogBody)
def trust_log(json_data: dict[str, Any]) -> Any:
    """Witness another log from now on."""
    who = actor(json_data.get("actor", ""), "rest")
    return answer(_witness().trust_log(json_data["key"], who), 201)


@bp.get("/witnesses")
def list_witnesses() -> Any:
    """Who cosigns this center's log, and how far."""
    return answer(_witness().witnesses())


@bp.post("/witnesses")
@bp.input(WitnessBody)
def add_witness(json_data: dict[str, Any]) -> Any:
    """Have this center's log cosigned by a witness."""
    data = dict(json_data)
    who = actor(data.get("actor", ""), "rest")
    return answer(_witness().add_witness(data["key"], data["url"], data.get("private", False), who), 201)


@bp.post("/collect")
def collect() -> Any:
    """Send the newest checkpoint to every witness now."""
    return answer(_witness().collect())


@bp.get("/checkpoint")
def cosigned() -> Response:
    """The largest checkpoint that witnesses have cosigned, with their lines; empty if there is none."""
    return Response(_witness().cosigned_checkpoint(), content_type="text/plain; charset=utf-8")
