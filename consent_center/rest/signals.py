"""Signals of other systems: TC strings, GPP strings, Global Privacy Control."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from apiflask import APIBlueprint, Schema, fields
from apiflask import validators as validate
from flask import request

from consent_center.errors import ConsentError
from consent_center.model import KINDS
from consent_center.rest import schemas, wire
from consent_center.rest.context import answer, center
from consent_center.rest.roles import actor
from consent_center.signals import bits, events, mapping, signal

bp = APIBlueprint("signals", __name__, url_prefix="/v1/signals", tag="Signals")


class SignalBody(schemas.Identifiers):
    tc_string = schemas.text(bits.MAX_CHARS, "TC string of the IAB's TCF, as the platform made it.", least=0)
    gpp_string = schemas.text(bits.MAX_CHARS, "String of the IAB's Global Privacy Platform.", least=0)
    gpc = fields.Boolean(
        metadata={"description": "The person's browser sent `Sec-GPC: 1`. The header itself does as well."}
    )
    channel = schemas.text(what="Where it came in; default `web`.")
    actor = schemas.text(what="Who entered it.", least=0)


class OutcomeBody(Schema):
    purpose = fields.String()
    recipient = fields.String()
    regulation = fields.String()
    outcome = fields.String(
        validate=validate.OneOf(["granted", "denied", "opted_out", "nothing"]),
        metadata={"description": "What was understood for this purpose and recipient."},
    )
    because = fields.List(fields.String(), metadata={"description": "Why, in words."})
    signal = fields.String(metadata={"description": "The kind of signal that decided."})


class SignalAnswer(Schema):
    understood = fields.List(fields.Dict(), metadata={"description": "Each signal, decoded."})
    outcomes = fields.List(fields.Nested(OutcomeBody), metadata={"description": "One a rule of the table."})
    events = fields.List(
        fields.Dict(), metadata={"description": "Sequence numbers and leaves of what was recorded."}
    )


class MappingBody(Schema):
    mapping = fields.Dict(
        fields.String(validate=schemas._clean),
        required=True,
        metadata={"description": "The table: `format`, `rules` (docs/consent.md)."},
    )
    actor = schemas.text(what="Who puts it in force.", least=0)


@bp.post("")
@bp.input(SignalBody)
@bp.output(SignalAnswer, status_code=201)
def record(json_data: dict[str, Any]) -> Any:
    """Record what a person's signals say.

    `Sec-GPC: 1` in the body (`gpc`) or as this request's own header is an opt-out. The raw strings are kept
    as evidence, encrypted under the person's key; the table (`/v1/signals/mapping`) says what they mean.
    """
    who = [(kind, value) for kind in KINDS for value in json_data.get(kind, ())]
    if not who:
        raise ConsentError("event.identifier", f"no identifier: give one of {', '.join(KINDS)}")
    given = (json_data.get("tc_string", ""), json_data.get("gpp_string", ""))
    gpc = True if json_data.get("gpc") else request.headers.get("Sec-GPC")
    channel = json_data.get("channel", "web")
    return answer(read_and_record(*given, gpc, who, channel, actor(json_data.get("actor", ""))), 201)


def read_and_record(
    tc_string: str,
    gpp_string: str,
    gpc: bool | str | None,
    who: Sequence[tuple[str, str]],
    channel: str,
    by: str,
) -> dict[str, Any]:
    """Decode the signals, judge them by the table in force, record what they mean: {understood,
    outcomes, events}.
    """
    found = signal.read_request(tc_string.strip(), gpp_string.strip(), gpc)
    made, outcomes = events.to_events(
        found,
        mapping.parse(center().signal_mapping()),
        who,
        center().purposes(),
        center().notices(),
        datetime.now(UTC),
        channel,
        by,
    )
    return {
        "understood": [one.to_json() for one in found],
        "outcomes": events.outcomes_to_json(outcomes),
        "events": events.record(center(), made),
    }


@bp.post("/mapping")
@bp.input(MappingBody)
def put_mapping(json_data: dict[str, Any]) -> Any:
    """Put a table in force: what signals mean for this center's purposes. It becomes a leaf of the ledger."""
    who = actor(json_data.get("actor", ""))
    return answer(wire.plain(center().put_signal_mapping(json_data["mapping"], who)))


@bp.get("/mapping")
def get_mapping() -> Any:
    """The table in force."""
    return answer(center().signal_mapping())
