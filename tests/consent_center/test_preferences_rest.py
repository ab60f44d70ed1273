"""The REST calls of preferences: what they answer, that junk is refused, and the remote client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.serving import make_server

from consent_center.center import Center
from consent_center.errors import CODES
from consent_center.preferences.client import preferences_of
from consent_center.preferences.model import Cap, Contact, Policy, Preference, Question, Quiet, Term
from consent_center.rest.app import create_app
from consent_center.rest.remote import RemoteCenter

TOKEN = "t" * 43
PHONE = "13800138000"
ITEM = {"kind": "phone", "value": PHONE, "channel": "sms", "topic": "news", "sender": "crm"}


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory, database: str | None) -> Iterator[Center]:
    with Center.create(tmp_path_factory.mktemp("preferences") / "c", "brand", database=database) as made:
        made.preferences.declare(Term("topic", "news", {"en": "News"}))
        yield made


@pytest.fixture(scope="module")
def client(center: Center) -> FlaskClient:
    client = create_app(center, TOKEN).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


def ok(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.get_json()


def test_from_preference_to_report(client: FlaskClient) -> None:
    wish = {"channel": "sms", "caps": [{"count": 1, "per": "day"}], "allowed": True, "quiet": None}
    ok(client.put("/v1/preferences", json={"phone": PHONE, "preferences": [wish]}))
    headers = {"Person-Kind": "phone", "Person-Value": "%2B86%20138%200013%208000"}
    held = ok(client.get("/v1/preferences", headers=headers))["preferences"]
    assert [(p["channel"], p["topic"], p["allowed"]) for p in held] == [("sms", "*", True)]
    asked = {**ITEM, "contact_id": "1", "reserve": True}
    assert ok(client.post("/v1/contact-decisions", json=asked))["answers"][0]["reserved_until"]
    common = {k: v for k, v in ITEM.items() if k != "value"}
    body = {**common, "sender": "shop", "items": [{"value": PHONE}, {"value": "13800138009"}]}
    told = ok(client.post("/v1/contact-decisions", json=body))
    assert [[r["code"] for r in a["reasons"]] for a in told["answers"]] == [["cap_day"], ["unknown_subject"]]
    assert told["answers"][0]["next_at"] and told["answers"][0]["reasons"][0]["title"]["zh"]
    made = {**ITEM, "contact_id": "1", "at": datetime.now(UTC).isoformat()}
    for outcome in ("recorded", "repeated"):
        assert ok(client.post("/v1/contacts", json={"contacts": [made]}))["outcomes"][0]["outcome"] == outcome
    policy = {"channel": "email", "quiet": [{"start": "22:00", "end": "08:00"}], "actor": "dpo"}
    assert ok(client.put("/v1/contact-policies", json=policy))["version"] == 1
    assert ok(client.get("/v1/contact-policies"))["reasons"]["paused"]["zh"]
    history = ok(
        client.post("/v1/preferences/query", json={"kind": "phone", "value": PHONE, "history": True})
    )
    assert len(history["history"]) == 1
    assert ok(client.post("/v1/ledger/fsck", json={}))["ok"]


def test_refusals(client: FlaskClient) -> None:
    too_many = {**ITEM, "items": [{}] * 10_001}
    for method, path, body, status in (
        ("post", "/v1/contact-decisions", too_many, 400),
        ("post", "/v1/contact-decisions", {**ITEM, "topic": "*"}, 422),
        ("post", "/v1/contact-decisions", {**ITEM, "reserve": True}, 422),
        ("post", "/v1/contact-decisions", {**ITEM, "at": "2020-01-01T00:00:00Z"}, 422),
        ("put", "/v1/preferences", {"preferences": [{"channel": "sms"}]}, 422),
        ("put", "/v1/preferences", {"phone": PHONE, "preferences": [{"channel": "fax"}]}, 422),
        ("put", "/v1/preferences", {"phone": PHONE, "preferences": []}, 400),
        ("post", "/v1/contacts", {"contacts": [{**ITEM, "contact_id": "x"}]}, 422),
    ):
        assert getattr(client, method)(path, json=body).status_code == status, (path, body)
    assert client.get("/v1/preferences").status_code == 400


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner)
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.just(value) for name, value in ITEM.items()},
    "phone": st.just(PHONE),
    "topic": st.sampled_from(["news", "*", "", "../x"]),
    "at": st.datetimes().map(str) | st.just("2026-12-31T08:00:00Z") | st.just("0001-01-01T00:00:00+14:00"),
    "contact_id": st.text(max_size=5),
    "reserve": st.booleans(),
    "reserve_seconds": st.integers(-1, 2**40),
    "zone": st.sampled_from(["Asia/Shanghai", "Europe", "/etc/passwd", "..", "\u00e9", "x" * 64]),
    "caps": st.lists(st.fixed_dictionaries({"count": SCALARS, "per": st.just("day")}), max_size=2),
    "quiet": st.lists(
        st.fixed_dictionaries({"start": st.just("22:00"), "end": st.text(max_size=5)}), max_size=2
    ),
    "paused_until": st.just("2199-12-31T23:59:59-14:00"),
    "title": st.dictionaries(st.sampled_from(["en", "zh", "?"]), SCALARS),
}
FLAT = st.sets(st.sampled_from(sorted(GOOD))).flatmap(
    lambda names: st.fixed_dictionaries({name: GOOD[name] | JSON for name in sorted(names)})
)
FULL = FLAT.map(lambda flat: {**ITEM, **flat})
BODY = st.one_of(
    FULL,
    FULL.map(lambda flat: {"items": [flat], "contacts": [flat], "preferences": [flat], "phone": PHONE}),
    FULL.map(lambda f: {"preferences": [{k: v for k, v in f.items() if k in PREFERENCE}], "phone": PHONE}),
    JSON,
)
PREFERENCE = ("channel", "topic", "caps", "quiet", "zone", "paused_until")
CALLS = (
    ("PUT", "/v1/preferences"),
    ("POST", "/v1/preferences/query"),
    ("PUT", "/v1/contact-policies"),
    ("PUT", "/v1/contact-terms"),
    ("POST", "/v1/contact-decisions"),
    ("POST", "/v1/contacts"),
    ("POST", "/v1/contacts/release"),
)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(CALLS), BODY)
def test_junk_is_refused(client: FlaskClient, call: tuple[str, str], body: Any) -> None:
    method, path = call
    response = client.open(path, method=method, data=json.dumps(body), content_type="application/json")
    assert response.status_code < 500, (call, body, response.text)
    if response.status_code >= 400:
        assert response.get_json()["code"] in CODES


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20))
def test_junk_in_headers(client: FlaskClient, text: str) -> None:
    headers = {"Person-Kind": "phone", "Person-Value": text.strip()}
    assert client.get("/v1/preferences", headers=headers).status_code < 500


def test_remote_client(center: Center) -> None:
    server = make_server("127.0.0.1", 0, create_app(center, TOKEN), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    question = Question("phone", "13900139000", "email", "news", "crm")
    with RemoteCenter(f"http://127.0.0.1:{server.server_port}", TOKEN) as remote:
        try:
            far = preferences_of(remote)
            until = datetime.now(UTC) + timedelta(days=2)
            quiet = (Quiet("22:00", "22:01", "Europe/Berlin", ("sat",)),)
            wish = Preference("email", "news", True, (Cap(3, "month"),), quiet, until, source="page")
            assert far.set_many([("phone", "13900139000")], [wish]).first_number > 0
            found = far.get("phone", "13900139000", history=True)
            assert found == center.preferences.get("phone", "13900139000", history=True)
            assert found.in_force[0][1].quiet == quiet
            assert far.put_policy(Policy("push", caps=(Cap(1, "day"),)), "dpo").version == 1
            assert far.declare(Term("channel", "fax", {"en": "Fax"})).active
            assert far.rulebook() == center.preferences.rulebook()
            assert [r.code for r in far.may_contact(question).reasons] == ["paused"]
            made = Contact("phone", "13900139000", "email", "news", "crm", "7", datetime.now(UTC))
            assert far.record_contacts([made, made]).outcomes == ("recorded", "repeated")
            assert far.release("crm", ["7"]) == 0
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        answer = preferences_of(remote).may_contact(question)
    assert not answer.allowed and [r.code for r in answer.reasons] == ["unreachable"]
