"""Who may be used: decisions, signed snapshots, and what changed since."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from apiflask import APIBlueprint
from flask import Response

from consent_center.errors import ConsentError
from consent_center.model import KINDS, REASONS
from consent_center.rest import limits, schemas, wire
from consent_center.rest.context import answer, center

bp = APIBlueprint("decisions", __name__, url_prefix="/v1", tag="Decisions")


@bp.post("/decisions")
@bp.input(schemas.Decide)
@bp.output(schemas.Decided)
def decide(json_data: dict[str, Any]) -> Any:
    """Decide for one person or for up to 10,000.

    Each value gets `eligible` or the first reason against it, in the documented order of reasons.
    """
    values = pa.array(json_data["values"], pa.string())
    decisions = center().decide(wire.request_from_json(json_data), values, json_data["kind"])
    return answer(
        {
            "sequence": decisions.sequence,
            "detail": decisions.detail,
            "counts": decisions.counts(),
            "reasons": [REASONS[code] for code in decisions.codes.tolist()],
        }
    )


@bp.post("/decisions/bulk")
def decide_bulk() -> Response:
    """Decide for millions, for programs: one Arrow stream each way.

    Column `value`; schema metadata `pec`: `{"kind", "request": {purpose, recipient, categories, …}}`.
    The answer has the columns `code` (uint8, index of the reasons) and `ordinal` (int64).
    """
    values, kind, meta = _values()
    decisions = center().decide(_request(meta), values, kind)
    return Response(wire.pack_decisions(decisions, {}), content_type=wire.ARROW)


@bp.post("/snapshots")
def snapshot() -> Response:
    """Issue a signed snapshot for a job: one Arrow stream each way.

    As `/v1/decisions/bulk`, with `job_id` beside `request`; the answer's metadata has the document and its
    signature. With a column `kind` beside `value`, each row's identifier has a kind of its own.
    """
    values, kind, meta = _values(mixed=True)
    job_id = meta.get("job_id")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= 200:
        raise ConsentError(
            "request.invalid", "metadata: job_id is the name of the job, at most 200 characters"
        )
    issued = center().snapshot(_request(meta), values, kind, job_id)
    more = {
        "document": issued.document,
        "signature": issued.signature.hex(),
        "disclosure": issued.disclosure,
    }
    return Response(wire.pack_decisions(issued.decisions, more), content_type=wire.ARROW)


@bp.get("/snapshots/<string:snapshot_id>/delta")
def delta(snapshot_id: str) -> Any:
    """Who was eligible in a snapshot and is not any more.

    A job asks at every stage boundary and before it releases anything.
    """
    return answer(wire.plain(center().delta(snapshot_id)))


@bp.post("/snapshots/<string:snapshot_id>/token-proof")
@bp.input(schemas.Person)
def token_proof(snapshot_id: str, json_data: dict[str, Any]) -> Any:
    """Prove that a person was in a snapshot, or was not."""
    return answer(wire.plain(center().token_proof(snapshot_id, json_data["kind"], json_data["value"])))


def _values(mixed: bool = False) -> tuple[pa.Array, Any, dict[str, Any]]:
    table, meta = wire.unpack(limits.body(), ["value"])
    kind = meta.get("kind")
    if mixed and kind is None and "kind" in table.column_names:
        kinds = wire.one_array(table["kind"])
        if (
            not pa.types.is_string(kinds.type)
            or kinds.null_count
            or not set(kinds.unique().to_pylist()) <= set(KINDS)
        ):
            raise ConsentError("identifier.kind", f"column kind: each row must be one of {', '.join(KINDS)}")
        return wire.one_array(table["value"]), kinds, meta
    if kind not in KINDS:
        raise ConsentError("identifier.kind", f"kind {kind!r} is none of {', '.join(KINDS)}")
    return wire.one_array(table["value"]), str(kind), meta


def _request(meta: dict[str, Any]) -> Any:
    asked = meta.get("request")
    problems = schemas.Request().validate(asked) if isinstance(asked, dict) else "missing"
    if problems:
        raise ConsentError("decision.request", f"the stream's metadata, request: {problems}")
    return wire.request_from_json(asked)  # type: ignore[arg-type]
