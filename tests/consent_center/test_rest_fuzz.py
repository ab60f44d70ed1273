"""No body makes the service fail: it answers 2xx or 4xx with a code, whatever is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from consent_center.center import Center
from consent_center.errors import CODES
from consent_center.model import ACTIONS, KINDS, Notice, Purpose
from consent_center.rest import wire
from consent_center.rest.app import create_app

TOKEN = "t" * 43
QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=30)
    | st.sampled_from(
        ["ads", "text", "partner", "contract", "13800138000", "2026-03-01T08:00:00Z", "2020-02-30"]
    )
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **{kind: st.sampled_from(["13800138000", "a@b.cn", "x"]) | JSON for kind in KINDS},
    **{
        name: st.integers(-1, 3) | JSON
        for name in ("version", "purpose_version", "notice_version", "duration_days")
    },
    **{name: st.just("ads") | JSON for name in ("purpose", "id")},
    "notice": st.just("text") | JSON,
    "action": st.sampled_from(ACTIONS) | JSON,
    "recipient": st.just("partner") | JSON,
    "categories": st.just(["contract"]) | JSON,
    **{
        name: st.just("2026-03-01T08:00:00Z") | st.datetimes().map(str) | JSON
        for name in ("occurred_at", "as_of", "expires_at")
    },
    "birth_date": st.dates().map(str) | JSON,
    **dict.fromkeys(
        ("title", "text", "evidence", "actor", "regulation", "channel", "method", "active"), JSON
    ),
    "kind": st.sampled_from(KINDS) | JSON,
    "value": st.just("13800138000") | JSON,
    "values": st.lists(st.just("13800138000") | st.none() | st.text(max_size=12), max_size=3) | JSON,
    "payload": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON,
    "reason": st.just("a test") | JSON,
}
BODIES = st.dictionaries(st.sampled_from(sorted(FIELDS)), st.none(), max_size=14).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)
CALLS = {
    "/v1/events": (
        "phone",
        "purpose",
        "purpose_version",
        "action",
        "recipient",
        "categories",
        "notice",
        "occurred_at",
    ),
    "/v1/withdrawals": ("phone", "purpose", "recipient"),
    "/v1/decisions": ("purpose", "recipient", "categories", "kind", "values"),
    "/v1/assumptions": ("purpose", "recipient", "categories", "kind", "values", "reason", "actor"),
    "/v1/purposes": ("id", "version", "title", "categories"),
    "/v1/notices": ("id", "version", "purpose", "purpose_version", "text"),
    "/v1/purposes/ads/switch": ("active",),
    "/v1/people/explain": ("kind", "value"),
    "/v1/ledger/entries": ("kind", "payload"),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with Center.create(tmp_path_factory.mktemp("fuzz") / "center", "brand") as center:
        center.put_purpose(Purpose("ads", 1, {"en": "Ads"}, ("contract", "usage")))
        center.put_notice(Notice("text", 1, "ads", 1, {"en": "What we do"}))
        client = create_app(center, TOKEN).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
        yield client


def answered(response: TestResponse, sent: Any) -> None:
    assert response.status_code < 500, (sent, response.text)
    if response.status_code >= 400:
        assert response.get_json()["code"] in CODES, sent


def send(client: FlaskClient, path: str, body: Any) -> TestResponse:
    return client.post(path, data=json.dumps(body), content_type="application/json")


@QUICK
@given(st.data())
def test_json_bodies(client: FlaskClient, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(CALLS)))
    # The fields that the call needs, mostly in good shape, and some that it may not know.
    needed = st.fixed_dictionaries({name: FIELDS[name] for name in CALLS[path]})
    body = data.draw(
        st.one_of(needed, st.tuples(needed, BODIES).map(lambda both: {**both[0], **both[1]}), BODIES, JSON)
    )
    answered(send(client, path, body), (path, body))


@QUICK
@given(
    st.sampled_from(["text/csv", "application/json", "application/x-ndjson", wire.ARROW, ""]),
    st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")),
)
def test_raw_bodies(client: FlaskClient, kind: str, body: bytes) -> None:
    for path in ("/v1/events/batch", "/v1/events/bulk", "/v1/decisions/bulk", "/v1/snapshots", "/v1/events"):
        answered(client.post(path, data=body, content_type=kind), (path, body))


@QUICK
@given(st.text(max_size=30), st.text(max_size=30))
def test_paths_and_queries(client: FlaskClient, a: str, b: str) -> None:
    from urllib.parse import quote

    x, y = (quote(t.encode("utf-8", "replace"), safe="") for t in (a, b))
    for path in (
        f"/v1/ledger/proofs/inclusion?index={x}&size={y}",
        f"/v1/ledger/entries/{x}",
        f"/v1/snapshots/{x}/delta",
        f"/v1/{x}?{y}",
    ):
        answered(client.get(path), path)


def test_naughty_strings(client: FlaskClient, shared_data: Path) -> None:
    """The list of naughty strings in every text field of the calls that write."""
    strings = json.loads((shared_data / "naughty" / "blns.json").read_text(encoding="utf-8"))
    event = {
        "phone": "13800138000",
        "purpose": "ads",
        "purpose_version": 1,
        "notice": "text",
        "notice_version": 1,
        "action": "granted",
        "recipient": "partner",
        "categories": ["contract"],
        "occurred_at": "2026-03-01T08:00:00Z",
    }
    for text in strings[::5]:
        everywhere = {**event, "evidence": text, "actor": text[:200], "opaque": text or "x"}
        answered(send(client, "/v1/events", everywhere), text)
    for name in ("phone", "purpose", "recipient", "channel", "occurred_at"):
        for text in strings[::25]:
            answered(send(client, "/v1/events", {**event, name: text}), (name, text))
    values = [s[:1000] for s in strings]
    for kind in KINDS:
        body = {
            "purpose": "ads",
            "recipient": "partner",
            "categories": ["contract"],
            "kind": kind,
            "values": values,
        }
        response = send(client, "/v1/decisions", body)
        assert len(response.get_json()["reasons"]) == len(strings), response.text
    assert client.post("/v1/ledger/fsck", json={}).get_json()["ok"]
