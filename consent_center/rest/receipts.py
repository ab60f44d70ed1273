"""Receipts of consent events, for the person and for whoever must believe it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiflask import APIBlueprint
from flask import Response

from consent_center.errors import ConsentError
from consent_center.model import KINDS
from consent_center.receipts.verify import dumps
from consent_center.rest import schemas
from consent_center.rest.context import center

bp = APIBlueprint("receipts", __name__, url_prefix="/v1/receipts", tag="Receipts")


@bp.get("/<string:sequence>")
def receipt(sequence: str) -> Response:
    """The signed receipt of one event (ISO/IEC TS 27560, JSON-LD). The person appears as a pseudonym.

    The answer's bytes are the file: keep them as they are.
    """
    return _answer(sequence, [])


@bp.post("/<string:sequence>")
@bp.input(schemas.Identifiers)
def receipt_with_identifiers(sequence: str, json_data: dict[str, Any]) -> Response:
    """The same with identifiers of the person in it, when the person asks for that.

    They must be known here for the event's person. They are in the body, so that they stand in no access log.
    """
    return _answer(sequence, [(kind, value) for kind in KINDS for value in json_data.get(kind, ())])


def _answer(sequence: str, identifiers: Sequence[tuple[str, str]]) -> Response:
    if not (sequence.isascii() and sequence.isdecimal() and len(sequence) < 19):
        raise ConsentError("request.invalid", "the sequence number of an event is a number from 1")
    data = dumps(center().receipt(int(sequence), identifiers))
    return Response(data, content_type="application/ld+json")
