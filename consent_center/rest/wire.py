"""How the package's dataclasses look as JSON and as Arrow: used by the server and by the remote client alike.

Few values travel as JSON, many as one Arrow IPC stream whose schema metadata carries the JSON beside them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from consent_center.errors import ConsentError
from consent_center.model import (
    KINDS,
    Assessment,
    ConsentEvent,
    DecisionRequest,
    Decisions,
    Explanation,
    Notice,
    Purpose,
)

ARROW = "application/vnd.apache.arrow.stream"
_META = b"pec"

T = TypeVar("T", Purpose, Notice, Assessment)


def plain(value: Any) -> Any:
    """A dataclass (or anything inside one) as JSON values; times in ISO 8601 with their offset."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    return value


def build(kind: type[T], data: Mapping[str, Any]) -> T:
    """A Purpose, Notice or Assessment from its JSON; fields that a newer server added are left out."""
    known = {f.name for f in dataclasses.fields(kind)}
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known
    }
    return kind(**fields)


def event_to_json(event: ConsentEvent) -> dict[str, Any]:
    """Flat, as in an import file: one member a kind of identifier, a list where there are several."""
    data: dict[str, Any] = {
        k: v for k, v in plain(event).items() if k != "identifiers" and v not in ("", None)
    }
    for kind, value in event.identifiers:
        data[kind] = (
            [*data[kind], value]
            if isinstance(data.get(kind), list)
            else ([data[kind], value] if kind in data else value)
        )
    if not event.notice:
        data.pop("notice_version", None)
    return data


_EVENT_FIELDS = {f.name for f in dataclasses.fields(ConsentEvent)}


def event_from_json(data: Mapping[str, Any], now: datetime) -> ConsentEvent:
    """From validated JSON (see `schemas.Event`); an event without a time happened now."""
    pairs: list[tuple[str, str]] = []
    for kind in KINDS:
        values = data.get(kind)
        pairs += [(kind, v) for v in (values if isinstance(values, list) else [values]) if v]
    if not pairs:
        raise ConsentError("event.identifier", f"no identifier: give one of {', '.join(KINDS)}")
    fields = {k: v for k, v in data.items() if k in _EVENT_FIELDS}
    fields["categories"] = tuple(data.get("categories", ()))
    fields.setdefault("occurred_at", now)
    return ConsentEvent(identifiers=tuple(pairs), **fields)


def request_to_json(request: DecisionRequest) -> dict[str, Any]:
    return {k: v for k, v in plain(request).items() if v is not None}


def request_from_json(data: Mapping[str, Any]) -> DecisionRequest:
    """From JSON whose times may still be text. Raises `decision.request`."""
    as_of = data.get("as_of")
    try:
        if isinstance(as_of, str):
            as_of = datetime.fromisoformat(as_of)
    except ValueError as error:
        raise ConsentError("decision.request", f"as_of {as_of!r} is not an ISO 8601 time") from error
    categories = data.get("categories")
    texts = [
        data.get("purpose"),
        data.get("recipient"),
        *(categories if isinstance(categories, list) else [0]),
    ]
    regulation = data.get("regulation")
    if not all(isinstance(t, str) for t in texts) or not isinstance(regulation, str | None):
        raise ConsentError("decision.request", "purpose and recipient are text, categories is a list of text")
    return DecisionRequest(texts[0], texts[1], tuple(texts[2:]), as_of, regulation)


def pack(columns: Mapping[str, pa.Array], meta: Mapping[str, Any]) -> bytes:
    """One Arrow IPC stream: the columns, and `meta` as JSON in the schema's metadata."""
    table = pa.table(dict(columns)).replace_schema_metadata({_META: json.dumps(plain(meta)).encode()})
    return pack_table(table)


def pack_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(data: bytes, columns: Sequence[str]) -> tuple[pa.Table, dict[str, Any]]:
    """The reverse. Raises `request.invalid` on anything that is not such a stream.

    `validate(full=True)` is what stops a stream whose offsets point outside its buffers from reading memory.
    """
    try:
        table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
        table.validate(full=True)
        meta = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    except (pa.ArrowException, OSError, ValueError, RecursionError, NotImplementedError) as error:
        raise ConsentError("request.invalid", f"the body is no Arrow IPC stream: {error}") from error
    missing = [c for c in columns if table.schema.names.count(c) != 1]
    if missing or not isinstance(meta, dict):
        raise ConsentError(
            "request.invalid", f"the Arrow stream needs the columns {', '.join(columns)}, once each"
        )
    return table, meta


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece; which types can hold identifiers, the center says (`identifier.type`)."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    if values.num_chunks == 1:
        return values.chunk(0)
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def pack_decisions(decisions: Decisions, meta: Mapping[str, Any]) -> bytes:
    columns = {"code": pa.array(decisions.codes), "ordinal": pa.array(decisions.ordinals)}
    return pack(columns, {"sequence": decisions.sequence, "detail": decisions.detail, **meta})


def unpack_decisions(data: bytes) -> tuple[Decisions, dict[str, Any]]:
    table, meta = unpack(data, ["code", "ordinal"])
    types = (table["code"].type, table["ordinal"].type)
    # A null or a wider number would become 0, and 0 means eligible.
    if types != (pa.uint8(), pa.int64()) or table["code"].null_count or table["ordinal"].null_count:
        raise ConsentError("request.invalid", "the decisions have other columns than uint8 and int64")
    if not isinstance(meta.get("sequence"), int):
        raise ConsentError("request.invalid", "the decisions have no sequence number")
    codes = np.array(table["code"], dtype=np.uint8)
    ordinals = np.array(table["ordinal"], dtype=np.int64)
    return Decisions(codes, ordinals, int(meta["sequence"]), str(meta.get("detail", ""))), meta


def explanation_from_json(data: Mapping[str, Any]) -> Explanation:
    return Explanation(
        int(data["subject"]),
        tuple(data["identifiers"]),
        str(data["minor_until"]),
        tuple(data["events"]),
        tuple(data["states"]),
    )
