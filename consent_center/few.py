"""Checked columns of a few events, without the table: building one costs more than checking the events does.

`tests/consent_center/test_few.py` compares it with the way of the tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from consent_center import batch as batches
from consent_center.batch import NEVER, NUMBERS, PRIVATE, TEXTS, Batch
from consent_center.model import KINDS, ConsentEvent
from consent_center.registry import Registry

_MANY = 256


def parse(events: Sequence[ConsentEvent], registry: Registry, controller: str, now: int) -> Batch:
    """`batch.parse` of `batch.table_of(events)`; ConsentError as there."""
    found = _columns(events) if len(events) <= _MANY else None
    if found is None:  # something odd, which the ordinary way judges and words
        return batches.parse(batches.table_of(events), registry, controller, now)
    batch, fields_of = found
    batches.judge(batch, fields_of, registry, controller, now)
    for name, limit in PRIVATE.items():
        sizes = np.array([len(getattr(event, name).encode()) for event in events], np.int64)
        batch.refuse(np.flatnonzero(sizes > limit), "event.text", f"{name} is over {limit} bytes")
    return batch


def _columns(events: Sequence[ConsentEvent]) -> tuple[Batch, list[dict[str, Any]]] | None:
    """The columns and the distinct shared fields, or None unless every field has exactly its type."""
    if not events or not all(map(_plain, events)):
        return None
    numbers: dict[tuple[Any, ...], int] = {}
    columns: dict[str, list[str | None]] = {}
    for row, event in enumerate(events):
        numbers.setdefault(_shared(event), len(numbers))
        ((kind, value),) = event.identifiers
        columns.setdefault(kind, [None] * len(events))[row] = value
    private = [
        json.dumps({name: getattr(event, name) for name in PRIVATE}, ensure_ascii=False).encode()
        if event.evidence or event.actor
        else b""
        for event in events
    ]
    born = [NEVER if e.birth_date is None else batches.minor_until(e.birth_date) for e in events]
    batch = Batch(
        [],
        np.array([numbers[_shared(event)] for event in events], np.int64),
        [(kind, pa.array(column, pa.string())) for kind, column in columns.items()],
        np.array([batches.micros(event.occurred_at) for event in events], np.int64),
        np.array([_end(event) for event in events], np.int64),
        np.array(born, np.int64),
        private if any(private) else None,
        {},
    )
    fields_of = [
        dict(zip((*TEXTS, *NUMBERS, "categories"), (*shared[:-1], list(shared[-1])), strict=True))
        for shared in numbers
    ]
    return batch, fields_of


def _shared(event: ConsentEvent) -> tuple[Any, ...]:
    return (*(getattr(event, name) for name in (*TEXTS, *NUMBERS)), event.categories)


def _end(event: ConsentEvent) -> int:
    return NEVER if event.expires_at is None else batches.micros(event.expires_at)


def _plain(event: ConsentEvent) -> bool:
    if type(event.identifiers) is not tuple or len(event.identifiers) != 1:
        return False
    (pair,) = event.identifiers
    if type(pair) is not tuple or len(pair) != 2 or pair[0] not in KINDS:
        return False
    if type(event.categories) is not tuple:
        return False
    texts = [getattr(event, name) for name in (*TEXTS, *PRIVATE)]
    if not all(type(text) is str for text in (*texts, pair[1], *event.categories)):
        return False
    if any(not category or ";" in category for category in event.categories):
        return False
    try:
        "".join((*texts, pair[1], *event.categories)).encode()
    except UnicodeEncodeError:
        return False
    whole = all(type(getattr(event, name)) is int and 0 <= getattr(event, name) < 1 << 31 for name in NUMBERS)
    birthday = event.birth_date is None or type(event.birth_date) is date
    ends = event.expires_at is None or _moment(event.expires_at)
    return whole and birthday and ends and _moment(event.occurred_at)


def _moment(value: Any) -> bool:
    """A time since 1970 with its zone."""
    return type(value) is datetime and value.tzinfo is not None and batches.micros(value) >= 0
