"""The Merkle log: checkpoint, proofs, openings, and writing to it."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from flask import Response

from consent_center.errors import ConsentError
from consent_center.rest import schemas, wire
from consent_center.rest.context import answer, center

bp = APIBlueprint("ledger", __name__, url_prefix="/v1/ledger", tag="Ledger")


@bp.get("/checkpoint")
def checkpoint() -> Response:
    """The signed checkpoint, as text (C2SP tlog-checkpoint)."""
    return Response(center().checkpoint(), content_type="text/plain; charset=utf-8")


@bp.get("/key")
def key() -> Response:
    """The key that checkpoints and snapshots are verified with."""
    return Response(center().verifier_key() + "\n", content_type="text/plain; charset=utf-8")


@bp.get("/proofs/inclusion")
@bp.input(schemas.Inclusion, location="query")
def inclusion(query_data: dict[str, Any]) -> Any:
    """Prove that a leaf is in the log of a given size."""
    return answer({"hashes": wire.plain(center().prove(query_data["index"], query_data["size"]))})


@bp.get("/proofs/consistency")
@bp.input(schemas.Consistency, location="query")
def consistency(query_data: dict[str, Any]) -> Any:
    """Prove that a later log contains an earlier one unchanged."""
    hashes = center().prove_consistency(query_data["old"], query_data["new"])
    return answer({"hashes": wire.plain(hashes)})


@bp.get("/entries/<string:index>")
def opening(index: str) -> Any:
    """Open one leaf: its salt and content, as far as they were not erased."""
    if not (index.isascii() and index.isdecimal() and len(index) < 19):
        raise ConsentError("request.invalid", "the index of a leaf is a number from 0")
    return answer(wire.plain(center().opening(int(index))))


@bp.post("/entries")
@bp.input(schemas.Entry)
def append(json_data: dict[str, Any]) -> Any:
    """Write a leaf: an approval, a job's stage, a release."""
    return answer({"index": center().append(json_data["kind"], json_data["payload"])}, 201)


@bp.post("/entries/batch")
@bp.input(schemas.Entry(many=True))
def append_many(json_data: list[dict[str, Any]]) -> Any:
    """Write several leaves, all or none."""
    indexes = center().append_many([(e["kind"], e["payload"]) for e in json_data])
    return answer({"indexes": list(indexes)}, 201)


@bp.post("/fsck")
@bp.input(schemas.Fsck)
def fsck(json_data: dict[str, Any]) -> Any:
    """Compare the database with the ledger; names the first record that was changed, removed or moved.

    With a `checkpoint` that was kept elsewhere, also whether the log still extends it.
    """
    found = center().fsck(json_data.get("checkpoint", ""))
    return answer({"ok": found is None, "finding": wire.plain(found)})
