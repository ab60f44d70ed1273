"""Recording what people decided: one event, a withdrawal, or a whole file."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from apiflask import APIBlueprint
from flask import Response, request

from consent_center import importer
from consent_center.collection import shown
from consent_center.errors import ConsentError
from consent_center.model import Purpose
from consent_center.rest import limits, schemas, wire
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor

bp = APIBlueprint("events", __name__, url_prefix="/v1", tag="Events")
_KINDS = {"application/json": "jsonl", "application/x-ndjson": "jsonl", "text/csv": "csv"}


@bp.post("/events")
@bp.input(schemas.Event)
@bp.output(schemas.Recorded, status_code=201)
def record(json_data: dict[str, Any]) -> Any:
    """Record one event.

    One person, one purpose, one recipient. Separate consent (PIPL 23) can't be bundled: for a second
    recipient send a second event. `shown` says what the person saw: it becomes evidence with the event.
    """
    data, now = {**json_data, "actor": actor(json_data.get("actor", ""))}, _now()
    if "shown" in data:
        notices = {(n.id, n.version): n for n in center().notices()}
        data["evidence"] = shown.from_json(data.pop("shown"), data, notices, now)
    return answer(wire.plain(center().record(wire.event_from_json(data, now))), 201)


@bp.post("/withdrawals")
@bp.input(schemas.Withdrawal)
@bp.output(schemas.Recorded, status_code=201)
def withdraw(json_data: dict[str, Any]) -> Any:
    """Record that a person withdraws.

    Takes effect at once: the next decision says no, and a running job drops the person at its next stage.
    """
    data = {**json_data, "actor": actor(json_data.get("actor", ""))}
    purpose = newest(center().purposes(), data["purpose"])
    data.setdefault("purpose_version", purpose.version)
    if not data.get("categories"):
        data["categories"] = list(purpose.categories)
    event = wire.event_from_json({**data, "action": "withdrawn"}, _now())
    return answer(wire.plain(center().record(event)), 201)


def newest(purposes: list[Purpose], id: str) -> Purpose:
    """The newest version of a purpose. Raises `registry.unknown`."""
    versions = [p for p in purposes if p.id == id]
    if not versions:
        known = ", ".join(sorted({p.id for p in purposes})) or "none"
        raise ConsentError("registry.unknown", f"no purpose {id!r} is registered; registered: {known}")
    return max(versions, key=lambda p: p.version)


@bp.post("/events/batch")
@bp.output(schemas.Report)
def record_batch() -> Any:
    """Record many events: a JSON array, JSON lines or CSV.

    Every row stands for itself: those that can't be recorded are listed with row, field and what to do, all
    others are recorded. Columns are the fields of a single event, with one value an identifier kind and, in
    CSV, categories separated by semicolons.
    """
    kind = _KINDS.get(request.mimetype)
    if kind is None:
        raise ConsentError("request.invalid", f"send one of {', '.join(_KINDS)}, not {request.mimetype!r}")
    body = limits.body()
    if request.mimetype == "application/json":
        body = importer.lines_of_array(body)
    name = f"the request's body ({request.mimetype})"
    report = importer.import_source(center(), lambda: io.BytesIO(body), name, kind=kind)
    return answer(report.to_json())


@bp.post("/events/bulk")
def record_bulk() -> Response:
    """Record many events, for programs: one Arrow stream.

    Columns as in `Center.record_many`. Schema metadata `pec`: `{"on_error": "raise" | "skip"}`.
    """
    table, meta = wire.unpack(limits.body(), [])
    on_error = meta.get("on_error", "raise")
    done = center().record_many(table.replace_schema_metadata(None), on_error=str(on_error))
    return answer(wire.plain(done))


@bp.post("/people/explain")
@bp.input(schemas.Person)
def explain(json_data: dict[str, Any]) -> Any:
    """All that the center holds about one person.

    The identifier is in the body, so that it stands in no access log.
    """
    return answer(wire.plain(center().explain(json_data["kind"], json_data["value"])))


@bp.post("/people/erase")
@bp.input(schemas.Person)
def erase(json_data: dict[str, Any]) -> Any:
    """Erase a person.

    Destroys the person's key; the ledger stays verifiable, and what was written about the person is gone.
    """
    done = center().erase(json_data["kind"], json_data["value"], actor(json_data.get("actor", ""), "rest"))
    return answer({"sequence": done})


@bp.post("/assumptions")
@bp.input(schemas.Assume)
def assume(json_data: dict[str, Any]) -> Any:
    """Assume consent, for an evaluation.

    Stands in the ledger as what it is: an assumption, with its reason and who made it.
    """
    done = center().assume(
        pa.array(json_data["values"], pa.string()),
        *_assumed(json_data),
    )
    return answer(wire.plain(done))


@bp.post("/assumptions/bulk")
def assume_bulk() -> Response:
    """Assume consent for many, for programs: one Arrow stream with a column `value`.

    Schema metadata `pec`: the other members of `/v1/assumptions`.
    """
    table, meta = wire.unpack(limits.body(), ["value"])
    checked = schemas.Assume(exclude=("values",)).validate(meta)
    if checked:
        raise ConsentError("request.invalid", f"the stream's metadata: {checked}")
    done = center().assume(
        wire.one_array(table["value"]),
        *_assumed(meta),
    )
    return answer(wire.plain(done))


def _assumed(said: dict[str, Any]) -> list[Any]:
    """The arguments of `assume` behind the values, in their order."""
    names = ("kind", "purpose", "recipient", "categories", "reason")
    return [*(said[name] for name in names), actor(said["actor"])]


def _now() -> datetime:
    return datetime.now(UTC)
