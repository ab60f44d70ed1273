"""A few events are checked without a table, to the same columns and the same refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from consent_helpers import START, event, make, phone
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center import batch as batches
from consent_center import few, registry
from consent_center.errors import ConsentError
from consent_center.model import ConsentEvent

NOW = batches.micros(START + timedelta(days=400))
_LONG = "字" * 7_000
_texts = st.sampled_from(
    ["", "ads", "granted", "withdrawn", "x;y", "中", "\ud800", "assumed", "a b", None, 1]
)
_times = st.sampled_from(
    [
        START,
        START.replace(tzinfo=None),
        START + timedelta(days=500),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1960, 1, 1, tzinfo=UTC),
    ]
)
_births = st.sampled_from([None, date(2015, 2, 28), date(2016, 2, 29), date(1980, 1, 1), START])
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "identifiers": st.sampled_from(
        [(("phone", phone(2)),), (("email", "a@b.example"),), (), (("shoe", "1"),), (("phone", 5),)]
        + [(("phone", phone(3)), ("email", "c@b.example")), (("opaque", "\ud800"),), (("phone", "x"),)]
    ),
    "purpose": _texts,
    "purpose_version": st.sampled_from([1, 2, True, "1", -1, 2**40, None]),
    "action": st.sampled_from(["granted", "denied", "withdrawn", "renewed", "guardian_granted", "odd"]),
    "categories": st.sampled_from(
        [
            ("contact",),
            (),
            ("contact", "else"),
            ("contact", "contact"),
            ("",),
            ("contact;x",),
            ["contact"],
            "contact",
        ]
    ),
    "occurred_at": _times,
    "expires_at": st.one_of(st.none(), _times),
    "notice": _texts,
    "notice_version": st.sampled_from([0, 1, 9]),
    "channel": _texts,
    "regulation": _texts,
    "method": _texts,
    "birth_date": _births,
    "evidence": st.sampled_from(["", "said so", _LONG, "\ud800", None]),
    "actor": st.sampled_from(["", "clerk", "x" * 513]),
}
_changes = st.dictionaries(st.sampled_from(sorted(_FIELDS)), st.none(), max_size=2).flatmap(
    lambda chosen: st.fixed_dictionaries({name: _FIELDS[name] for name in chosen})
)


def _outcome(parse: Any, known: registry.Registry) -> Any:
    try:
        batch = parse(known)
    except ConsentError as error:
        return error.code, error.detail, error.row
    return {
        "descriptors": [batch.descriptors[number] for number in batch.descriptor.tolist()],
        "identifiers": {kind: column.to_pylist() for kind, column in batch.identifiers},
        "times": [batch.occurred_at.tolist(), batch.expires_at.tolist(), batch.minor_until.tolist()],
        "private": batch.private,
        "bad": batch.bad,
    }


def test_few_events_are_checked_as_a_table_is(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        with center.room.read() as connection:
            known = registry.load(connection)
        quick = 0

        @settings(max_examples=150, deadline=None)
        @given(st.lists(_changes, min_size=1, max_size=3))
        def same(changes: list[dict[str, Any]]) -> None:
            nonlocal quick
            told = [replace(event(n), **change) for n, change in enumerate(changes)]
            quick += few._columns(told) is not None
            of_few = _outcome(lambda known: few.parse(told, known, center.controller, NOW), known)
            assert of_few == _outcome(lambda known: _table(told, known, center.controller), known)

        same()
        assert quick > 20


def _table(told: list[ConsentEvent], known: registry.Registry, controller: str) -> batches.Batch:
    return batches.parse(batches.table_of(told), known, controller, NOW)
