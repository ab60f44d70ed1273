"""Rights requests over REST and by a remote client; nonsense gives 4xx, naughty strings come out unharmed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consent_helpers import LASTING, LONG_AGO, event, make, phone
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center.center import Center, utc_now
from consent_center.client import open_center
from consent_center.errors import CODES, ConsentError
from consent_center.model import ConsentEvent
from consent_center.requests.client import rights_of
from consent_center.requests.clock import ClockRule
from consent_center.requests.model import STEPS, TASKS
from consent_center.rest.app import create_app
from consent_center.rest.server import start

TOKEN = "t" * 43


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Center]:
    home = tmp_path_factory.mktemp("rights") / "c"
    make(home, days=LASTING).close()
    with Center.open(home, utc_now) as opened:
        opened.record(event(1, occurred_at=LONG_AGO))
        yield opened


@pytest.fixture(scope="module")
def client(center: Center) -> FlaskClient:
    made = create_app(center, TOKEN).test_client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return made


def test_a_request_from_end_to_end_by_a_remote_client(tmp_path: Path) -> None:
    make(tmp_path / "c", days=LASTING).close()
    with start(tmp_path / "c") as running, open_center(running.address.location) as far:
        far.record(event(1, occurred_at=LONG_AGO))
        rights = rights_of(far)
        made = rights.open("access", [("phone", phone(1))], language="en", contact="a@b.cn", actor="desk")
        id = made["id"]
        rights.step(id, "identity.pass", "desk", method="in_person", evidence="seen")
        for name in TASKS["access"]:
            rights.step(id, "task.done", "desk", task=name)
        rights.step(id, "grant", "dpo", outcome="granted")
        assert rights.fulfil(id, "dpo")["result"]["receipts"]
        assert "We grant" in rights.letter(id, "decision", "dear", "en", "dpo")["html"]
        assert rights.step(id, "close", "dpo")["state"] == "closed"
        assert rights.show(id, private=True)["steps"][0]["private"]["contact"] == "a@b.cn"
        assert "private" not in rights.show(id)["steps"][0]
        assert [r["id"] for r in rights.list()] == [id] and rights.list(running=True) == []
        assert rights.deadlines()["counts"]["overdue"] == 0
        rule = ClockRule("PIPL", working_days=10, country="CN", zone="Asia/Shanghai")
        assert rights.put_rule(rule, "dpo")["working_days"] == rights.rules()["PIPL"]["working_days"] == 10
        assert rights.sweep("cron") == {"purged": [], "dropped": []}
        with pytest.raises(ConsentError) as caught:
            rights.show("R1-1")
        assert caught.value.code == "rights.unknown"
        assert far.fsck() is None


def test_statuses(client: FlaskClient) -> None:
    assert client.get("/v1/rights/requests/R1").status_code == 404
    made = client.post("/v1/rights/requests", json={"request": "copy", "phone": phone(1)})
    assert made.status_code == 201
    path = f"/v1/rights/requests/{made.get_json()['id']}"
    assert client.post(f"{path}/steps", json={"step": "grant"}).status_code == 409
    assert client.post(f"{path}/fulfil", json={}).get_json()["code"] == "rights.identity"
    assert client.post("/v1/rights/requests", json={"request": "copy"}).status_code == 422


TEXT = st.text(st.characters(), max_size=20)
ANY = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT | st.lists(TEXT, max_size=3) | st.floats()
)
NAMES = (
    "request",
    "phone",
    "regulation",
    "language",
    "contact",
    "text",
    "received_at",
    "step",
    "method",
    "evidence",
)
MORE = (
    "task",
    "skipped",
    "to",
    "outcome",
    "grounds",
    "letter",
    "corrections",
    "working_days",
    "months",
    "country",
)
STEP_NAMES = sorted({step for steps in STEPS.values() for step in steps})
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "request": st.sampled_from(["access", "deletion"]),
    "phone": st.just(phone(1)),
    "regulation": st.just("PIPL"),
    "step": st.sampled_from(STEP_NAMES),
    "method": st.just("in_person"),
    "letter": st.sampled_from(["decision", "identity"]),
    "received_at": st.datetimes().map(lambda t: t.isoformat() + "Z"),
    "corrections": st.lists(
        st.fixed_dictionaries({"action": st.just("add"), "kind": ANY, "value": ANY}), max_size=2
    ),
}
BODIES = st.dictionaries(st.sampled_from(NAMES + MORE), st.none(), max_size=8).flatmap(
    lambda names: st.fixed_dictionaries({n: GOOD.get(n, ANY) | ANY for n in names})
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(["requests", "steps", "fulfil", "letters", "rules", "sweep"]), BODIES)
def test_no_body_makes_it_fail(client: FlaskClient, call: str, body: dict[str, Any]) -> None:
    made = client.post("/v1/rights/requests", json={"request": "access", "phone": phone(1)})
    inner = {"requests": "requests", "rules": "rules", "sweep": "sweep"}
    path = "/v1/rights/" + inner.get(call, f"requests/{made.get_json()['id']}/{call}")
    send = client.put if call == "rules" else client.post
    response = send(path, data=json.dumps(body), content_type="application/json")
    assert response.status_code < 500, (call, body, response.text)
    if response.status_code >= 400:
        assert response.get_json()["code"] in CODES


def test_naughty_strings_in_and_out(client: FlaskClient, center: Center, shared_data: Path) -> None:
    strings = json.loads((shared_data / "naughty" / "blns.json").read_text(encoding="utf-8"))
    for text in strings[::9]:
        body = {"request": "copy", "phone": phone(1), "text": text, "contact": text[:200]}
        made = client.post("/v1/rights/requests", json=body)
        assert made.status_code in (201, 400), made.text
        if made.status_code == 201:
            path = f"/v1/rights/requests/{made.get_json()['id']}"
            told = client.get(f"{path}?private=true").get_json()["steps"][0]["private"]
            assert told["text"] == text
            page = client.post(f"{path}/letters", json={"letter": "identity", "text": text}).get_json()[
                "html"
            ]
            assert "<script" not in page and "<img" not in page and "<svg" not in page
    assert center.fsck() is None


def test_events_of_an_erased_person_in_a_file(client: FlaskClient, center: Center) -> None:
    row = {
        "phone": phone(9),
        "purpose": "ads",
        "purpose_version": 1,
        "notice": "ads-notice",
        "notice_version": 1,
    }
    row |= {
        "action": "granted",
        "recipient": "provider",
        "categories": ["contact"],
        "occurred_at": "2020-02-01T00:00:00Z",
    }
    assert client.post("/v1/events", json=row).status_code == 201
    assert client.post("/v1/people/erase", json={"kind": "phone", "value": phone(9)}).status_code == 200
    again = client.post("/v1/events/batch", json=[row, {**row, "phone": phone(10)}]).get_json()
    assert (again["recorded"], again["codes"]) == (1, {"event.erased": 1})
    assert isinstance(event(1), ConsentEvent)
