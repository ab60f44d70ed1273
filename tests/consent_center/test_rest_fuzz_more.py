"""Webhooks, recipients, records, witnesses over REST: no body, path or query makes the service fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from consent_helpers import make
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center.errors import CODES
from consent_center.outbox.client import outbox_of
from consent_center.rest.app import create_app
from consent_center.rest.server import start

TOKEN = "t" * 43
TEXT = st.text(st.characters(), max_size=20)
ANY = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT | st.lists(TEXT, max_size=3) | st.floats()
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "id": st.just("crm"),
    "url": st.sampled_from(["https://a.example/x", "http://127.0.0.1:9/", "https://[::1", "http://a"]),
    "recipient": st.sampled_from(["*", "provider"]),
    "kinds": st.just(["consent.withdrawn"]),
    "active": st.booleans(),
    "kind": st.just("phone"),
    "values": st.lists(st.just("13800000001") | TEXT, max_size=3),
    "record": st.dictionaries(st.sampled_from(["title", "party", "role", "signed_on"]), ANY, max_size=4),
    "key": TEXT | st.just("pec-consent/x+00000000+AAAA"),
    "numbers": st.lists(st.integers(1, 9), max_size=3),
    "required": st.booleans(),
    "within_days": st.integers(0, 99),
}
BODIES = st.lists(st.sampled_from(sorted(GOOD)), max_size=6).flatmap(
    lambda names: st.fixed_dictionaries({n: GOOD[n] | ANY for n in names})
)
CALLS = (
    ("POST", "/v1/webhooks"),
    ("POST", "/v1/webhooks/crm/switch"),
    ("POST", "/v1/webhooks/crm/persons"),
    ("POST", "/v1/outbox/requeue"),
    ("POST", "/v1/recipients/media/switch"),
    ("PUT", "/v1/records/agreement/dpa"),
    ("POST", "/v1/reminders"),
    ("POST", "/v1/assessments/required"),
    ("POST", "/v1/witness/logs"),
    ("POST", "/v1/witness/witnesses"),
)
QUICK = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with make(tmp_path_factory.mktemp("more") / "c") as center:
        made = create_app(center, TOKEN).test_client()
        made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
        yield made
        assert center.fsck() is None


def answered(response: Any, sent: Any) -> None:
    assert response.status_code < 500, (sent, response.text)
    if response.status_code >= 400 and response.is_json:
        assert response.get_json()["code"] in CODES, sent


@QUICK
@given(st.sampled_from(CALLS), BODIES)
def test_bodies(client: FlaskClient, call: tuple[str, str], body: dict[str, Any]) -> None:
    method, path = call
    response = client.open(path, method=method, data=json.dumps(body), content_type="application/json")
    answered(response, (call, body))


@QUICK
@given(TEXT, TEXT)
def test_paths_and_queries(client: FlaskClient, a: str, b: str) -> None:
    x, y = (quote(t.encode("utf-8", "replace"), safe="") for t in (a, b))
    for path in (
        f"/v1/records/{x}",
        f"/v1/records/{x}/export?form={y}&language={x}",
        f"/v1/records/processing/export?form={y}",
        f"/v1/outbox?state={x}&limit={y}",
        f"/v1/reminders?within_days={x}",
        f"/v1/rights/requests/{x}?private={y}",
        f"/v1/rights/deadlines?within_days={y}",
    ):
        answered(client.get(path), path)
    for path in (f"/v1/webhooks/{x}/switch", f"/v1/recipients/{x}/switch"):
        answered(client.post(path, json={"active": True}), path)
    answered(client.put(f"/v1/records/{x}/{y}", json={"record": {}}), (a, b))


def test_a_remote_outbox(tmp_path_factory: pytest.TempPathFactory) -> None:
    from consent_center.client import open_center

    home = tmp_path_factory.mktemp("far") / "c"
    make(home).close()
    with start(home) as running, open_center(running.address.location) as far:
        outbox = outbox_of(far)
        made = outbox.put_webhook("crm", "https://crm.example/x", "*", actor="dpo")
        assert made["secret"].startswith("whsec_") and made["public_key"] == outbox.public_key()
        assert outbox.switch_webhook("crm", False)["active"] is False
        assert outbox.webhooks()[0]["pending"] == 0 and outbox.messages() == []
        assert outbox.persons("crm", "phone", ["13800000001"]) == [""] and outbox.requeue() == 0
        assert outbox.enforcement()["jobs"]["count"] == 0
        assert far.switch_recipient("media", False, "dpo") == far.recipients() == {"media": False}
