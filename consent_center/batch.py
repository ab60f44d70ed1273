"""From events or a table of events to checked columns. Nothing here touches the database.

What many rows share (purpose, notice, action, recipient …) becomes a *descriptor*; there are few, so they are
checked one by one in Python, while everything that differs from row to row is checked as a column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consent_center.errors import ConsentError
from consent_center.ledger.verify import canonical
from consent_center.model import ACTIONS, GRANTS, GUARDIAN_AGE, KINDS, ConsentEvent, RowError
from consent_center.registry import Registry, is_name

Ints = npt.NDArray[np.int64]

NEVER = -1
DAY = 86_400_000_000  # microseconds
#: Birthdays begin at midnight in China (one time zone, UTC+8, no summer time).
LOCAL_OFFSET = 8 * 3_600_000_000
LOCAL = timezone(timedelta(hours=8))
ASSUMED = "assumed"

_MAX_EVIDENCE, _MAX_ACTOR = 20_000, 512
TEXTS = {
    "purpose": "",
    "action": "",
    "recipient": "",
    "notice": "",
    "controller": "",
    "regulation": "PIPL",
    "channel": "unknown",
    "method": "explicit",
}
NUMBERS = {"purpose_version": 0, "notice_version": 0}
PRIVATE = {"evidence": _MAX_EVIDENCE, "actor": _MAX_ACTOR}
_OTHER = ("categories", "occurred_at", "expires_at", "birth_date")


@dataclass
class Batch:
    """Checked columns. `bad` maps refused rows to why; everything else has one entry a row.

    `descriptor` indexes `descriptors`; times are microseconds, NEVER for none; `minor_until` is a day, NEVER
    for people over the age limit or of unknown age.
    """

    descriptors: list[dict[str, Any]]
    descriptor: Ints
    identifiers: list[tuple[str, pa.Array]] = field(repr=False)
    occurred_at: Ints
    expires_at: Ints
    minor_until: Ints
    private: list[bytes] | None = field(repr=False)  # JSON of evidence and actor; None: nobody has any
    bad: dict[int, tuple[str, str]]

    @property
    def rows(self) -> int:
        return len(self.descriptor)

    def refuse(self, rows: Ints, code: str, detail: str) -> None:
        """Mark rows as bad; the first reason stays."""
        for row in rows.tolist():
            self.bad.setdefault(row, (code, detail))

    def errors(self) -> tuple[RowError, ...]:
        return tuple(RowError(row, *self.bad[row]) for row in sorted(self.bad))


def micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC; ConsentError `event.time` for a naive time."""
    if moment.tzinfo is None:
        raise ConsentError("event.time", f"{moment.isoformat()} has no time zone; add one (UTC: +00:00)")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def moment(value: int) -> str:
    """Microseconds as ISO 8601 UTC; empty for NEVER."""
    if value == NEVER:
        return ""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(value))).isoformat()


def local_day(micro: int) -> int:
    """The day (since 1970) that `micro` falls on in China."""
    return (micro + LOCAL_OFFSET) // DAY


def day_start(days: Ints) -> Ints:
    """The microsecond at which those days begin in China."""
    return days * DAY - LOCAL_OFFSET


def minor_until(born: date) -> int:
    """The day (since 1970) of the birthday that ends the need for a guardian; 29 February becomes 1 March."""
    try:
        birthday = born.replace(year=born.year + GUARDIAN_AGE)
    except ValueError:
        birthday = date(born.year + GUARDIAN_AGE, 3, 1)
    return (birthday - date(1970, 1, 1)).days


def table_of(events: Sequence[ConsentEvent]) -> pa.Table:
    """Events as the table that `parse` takes; several identifiers of a kind become kind, kind.2, kind.3 …"""
    columns: dict[str, list[Any]] = {
        name: [getattr(event, name) for event in events] for name in (*TEXTS, *NUMBERS, *PRIVATE)
    }
    places: dict[str, list[str | None]] = {}
    for row, event in enumerate(events):
        seen: dict[str, int] = {}
        if isinstance(event.categories, str) or not all(isinstance(c, str) for c in event.categories):
            raise ConsentError("event.categories", "categories are a tuple of names", row)
        for kind, value in event.identifiers:
            if kind not in KINDS:
                raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}", row)
            seen[kind] = seen.get(kind, 0) + 1
            name = kind if seen[kind] == 1 else f"{kind}.{seen[kind]}"
            places.setdefault(name, [None] * len(events))[row] = value
    try:
        data: dict[str, pa.Array] = {name: pa.array(column) for name, column in columns.items()}
        data |= {name: pa.array(column, pa.string()) for name, column in places.items()}
        data["categories"] = pa.array([list(e.categories) for e in events], pa.list_(pa.string()))
        data["birth_date"] = pa.array([event.birth_date for event in events], pa.date32())
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ConsentError("event.batch", f"a field of an event has the wrong type: {error}") from None
    for name in ("occurred_at", "expires_at"):
        moments = [getattr(event, name) for event in events]
        for row, value in enumerate(moments):
            if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
                raise ConsentError("event.time", f"{name} has no time zone; add one (UTC: +00:00)", row)
        data[name] = pa.array([None if m is None else micros(m) for m in moments], pa.int64()).cast(
            pa.timestamp("us", "UTC")
        )
    return pa.table(data)


def parse(table: pa.Table, registry: Registry, controller: str, now: int) -> Batch:
    """Check a table of events; refused rows are in `bad`. ConsentError `event.batch` for the table itself."""
    kinds = [name for name in table.column_names if name.split(".")[0] in KINDS]
    known = {*TEXTS, *NUMBERS, *PRIVATE, *_OTHER, *kinds}
    for name in table.column_names:
        if name not in known:
            raise ConsentError("event.batch", f"unknown column {name!r}; known: {', '.join(sorted(known))}")
    if len(set(table.column_names)) != len(table.column_names):
        raise ConsentError("event.batch", "a column occurs twice")
    if not kinds:
        raise ConsentError("event.batch", f"no identifier column; name one {', '.join(KINDS)}")
    rows = table.num_rows
    group, fields_of = _group(table, rows)
    bad: dict[int, tuple[str, str]] = {}
    batch = Batch(
        [],
        group,
        [(name.split(".")[0], _column(table, name)) for name in kinds],
        _times(table, "occurred_at", rows),
        _times(table, "expires_at", rows),
        _birthdays(table, rows),
        _private(table),
        bad,
    )
    judge(batch, fields_of, registry, controller, now)
    for name, limit in PRIVATE.items():
        if name in table.column_names:
            sizes = pc.fill_null(pc.binary_length(_column(table, name).cast(pa.string())), 0).to_numpy(False)
            batch.refuse(np.flatnonzero(sizes > limit), "event.text", f"{name} is over {limit} bytes")
    return batch


def judge(
    batch: Batch, fields_of: Sequence[dict[str, Any]], registry: Registry, controller: str, now: int
) -> None:
    """Check what `batch.descriptor` numbers (`fields_of`) and the times; fills in `descriptors` and ends."""
    grants = np.zeros(len(fields_of), bool)
    duration = np.full(len(fields_of), NEVER, np.int64)
    for number, fields in enumerate(fields_of):
        try:
            descriptor = check_descriptor(fields, registry, controller)
        except ConsentError as error:
            batch.refuse(np.flatnonzero(batch.descriptor == number), error.code, error.detail)
            descriptor = {}
        batch.descriptors.append(descriptor)
        if descriptor.get("action") in GRANTS:
            grants[number] = True
            days = registry.purposes[descriptor["purpose"], descriptor["purpose_version"]].duration_days
            duration[number] = NEVER if days is None else days * DAY
    _check_times(batch, grants[batch.descriptor], duration[batch.descriptor], now)


def _check_times(batch: Batch, grants: npt.NDArray[np.bool_], duration: Ints, now: int) -> None:
    occurred = batch.occurred_at
    batch.refuse(np.flatnonzero(occurred == NEVER), "event.time", "occurred_at is missing")
    batch.refuse(np.flatnonzero(occurred > now), "event.time", "occurred_at is in the future")
    batch.refuse(np.flatnonzero(occurred < NEVER), "event.time", "occurred_at is before 1970")
    ends = batch.expires_at
    ends[:] = np.where(grants & (ends == NEVER) & (duration != NEVER), occurred + duration, ends)
    wrong = grants & (ends != NEVER) & (ends <= occurred)
    batch.refuse(np.flatnonzero(wrong), "event.expiry", "expires_at is not after occurred_at")
    ends[~grants] = NEVER  # only a grant can end
    # Whoever was of age when the event happened needs no birthday kept.
    of_age = batch.minor_until <= (occurred + LOCAL_OFFSET) // DAY
    batch.minor_until[of_age] = NEVER
    guardian = np.array([d.get("action") == "guardian_granted" for d in batch.descriptors], bool)[
        batch.descriptor
    ]
    batch.refuse(
        np.flatnonzero(guardian & (batch.minor_until == NEVER)),
        "event.guardian",
        f"a guardian's grant needs the birth date of a person under {GUARDIAN_AGE}",
    )


def check_descriptor(fields: dict[str, Any], registry: Registry, controller: str) -> dict[str, Any]:
    """The shared part of events, checked against the registry. Raises ConsentError `event.*`."""
    action, purpose_id, version = fields["action"], fields["purpose"], fields["purpose_version"]
    if action not in ACTIONS:
        raise ConsentError("event.action", f"{action!r} is none of {', '.join(ACTIONS)}")
    purpose = registry.purposes.get((purpose_id, version))
    if purpose is None:
        raise ConsentError("event.purpose", f"purpose {purpose_id!r} version {version} is not registered")
    grants = action in GRANTS
    if grants and not registry.current[purpose_id].active:
        raise ConsentError(
            "event.purpose", f"purpose {purpose_id!r} is switched off; only refusals are taken"
        )
    if fields["controller"] not in ("", controller):
        raise ConsentError(
            "event.controller", f"this center is {controller!r}'s, not {fields['controller']!r}'s"
        )
    if not is_name(fields["recipient"]):
        # "a,b" or "*" would bundle several recipients in one consent, which PIPL 23 does not allow.
        raise ConsentError(
            "event.recipient", f"recipient {fields['recipient']!r} must name exactly one, without , ; *"
        )
    for name in ("regulation", "channel", "method"):
        if not is_name(fields[name]):
            raise ConsentError(
                "event.text", f"{name} {fields[name]!r} must be 1 to 128 characters without blanks"
            )
    assumed = "reason" in fields
    if (fields["method"] == ASSUMED) != assumed:
        raise ConsentError("event.text", "method 'assumed' is for `assume`, which asks for a reason")
    categories = sorted(set(fields["categories"]))
    strange = [c for c in categories if c not in purpose.categories]
    if strange or (grants and not categories):
        raise ConsentError(
            "event.categories",
            f"{', '.join(strange) or 'none'}: {purpose_id} {version} has {', '.join(purpose.categories)}",
        )
    _check_notice(fields, registry, required=grants and not assumed)
    kept = {name: fields[name] for name in (*TEXTS, *NUMBERS)}
    kept |= {"categories": categories, "controller": controller}
    if assumed:
        kept |= {"reason": fields["reason"], "actor": fields["actor"]}
    return kept


def _check_notice(fields: dict[str, Any], registry: Registry, required: bool) -> None:
    name, version = fields["notice"], fields["notice_version"]
    if not name and not required:
        return
    notice = registry.notices.get((name, version))
    if notice is None:
        raise ConsentError("event.notice", f"notice {name!r} version {version} is not registered")
    if (notice.purpose, notice.purpose_version) != (fields["purpose"], fields["purpose_version"]):
        raise ConsentError(
            "event.notice",
            f"notice {name} version {version} is for {notice.purpose} {notice.purpose_version}",
        )


def descriptor_hash(descriptor: dict[str, Any]) -> bytes:
    """SHA-256 of the descriptor's canonical JSON."""
    return hashlib.sha256(canonical(descriptor)).digest()


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _typed(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    column = _column(table, name)
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise ConsentError("event.batch", f"column {name!r} ({column.type}) is no {kind}: {error}") from None


def _group(table: pa.Table, rows: int) -> tuple[Ints, list[dict[str, Any]]]:
    """Number the distinct combinations of the shared fields: (int64[n], the combinations)."""
    parts: list[tuple[str, list[Any]]] = []
    codes = np.zeros(rows, np.int64)
    for name, default in {**TEXTS, **NUMBERS, "categories": ""}.items():
        if name not in table.column_names:
            continue
        if name == "categories":
            column = _categories(table)
        else:
            column = pc.fill_null(_typed(table, name, pa.string() if name in TEXTS else pa.int64()), default)
        encoded = column.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        codes = codes * len(values) + encoded.indices.to_numpy(zero_copy_only=False)
        parts.append((name, values))
        if len(values) > 1:  # keeps the product of the cardinalities within 63 bits
            distinct, codes = np.unique(codes, return_inverse=True)
            codes = codes.reshape(-1)
            parts.append(("", distinct.tolist()))
    count = int(codes.max()) + 1 if rows else 0
    found = []
    for number in range(count):
        fields: dict[str, Any] = {**TEXTS, **NUMBERS, "categories": ""}
        code = number
        for name, values in reversed(parts):
            if name == "":
                code = values[code]
            else:
                code, at = divmod(code, len(values))
                fields[name] = values[at]
        fields["categories"] = [c for c in fields["categories"].split(";") if c]
        found.append(fields)
    return codes, found


def _categories(table: pa.Table) -> pa.Array:
    """A list column or "a;b" as one text a row."""
    column = _column(table, "categories")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.fill_null(pc.binary_join(column.cast(pa.list_(pa.string())), ";"), "")
    return pc.fill_null(_typed(table, "categories", pa.string()), "")


def _times(table: pa.Table, name: str, rows: int) -> Ints:
    if name not in table.column_names:
        return np.full(rows, NEVER, np.int64)
    column = _column(table, name)
    if pa.types.is_null(column.type):
        return np.full(rows, NEVER, np.int64)
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise ConsentError(
            "event.time", f"column {name!r} is {column.type}; it must be a timestamp with a time zone"
        )
    try:
        # Only digits behind the microsecond may go; a time that does not fit must not wrap to another.
        options = pc.CastOptions(pa.timestamp("us", "UTC"), allow_time_truncate=True)
        moments = column.cast(options=options).cast(pa.int64())
    except pa.ArrowException as error:
        raise ConsentError("event.time", f"column {name!r}: {error}") from None
    # The last microsecond of 1969 has the number that stands for "no end".
    moments = pc.if_else(pc.equal(moments, NEVER), NEVER - 1, moments)
    return np.array(pc.fill_null(moments, NEVER).to_numpy(zero_copy_only=False))


def _birthdays(table: pa.Table, rows: int) -> Ints:
    if "birth_date" not in table.column_names:
        return np.full(rows, NEVER, np.int64)
    encoded = _typed(table, "birth_date", pa.date32()).dictionary_encode()
    days = np.array([minor_until(born) for born in encoded.dictionary.to_pylist()] + [NEVER], np.int64)
    picked: Ints = days[pc.fill_null(encoded.indices, len(days) - 1).to_numpy(zero_copy_only=False)]
    return picked


def _private(table: pa.Table) -> list[bytes] | None:
    held = [name for name in PRIVATE if name in table.column_names]
    columns = [pc.fill_null(_typed(table, name, pa.string()), "").to_pylist() for name in held]
    if not any(any(column) for column in columns):
        return None
    return [
        json.dumps(dict(zip(held, values, strict=True)), ensure_ascii=False).encode() if any(values) else b""
        for values in zip(*columns, strict=True)
    ]
