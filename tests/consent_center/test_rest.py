"""The REST interface: what each call does, who may call it, and what it says when something is wrong."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from consent_center.center import Center
from consent_center.errors import CODES
from consent_center.rest import app, problems, wire
from consent_center.rest.app import create_app
from consent_center.rest.roles import ENDPOINTS
from consent_center.rest.token import ensure_token

TOKEN = "t" * 43
AUTH = {"Authorization": f"Bearer {TOKEN}"}
PURPOSE: dict[str, Any] = {
    "id": "ads",
    "version": 1,
    "title": {"en": "Ads", "zh": "广告"},
    "categories": ["contract", "usage"],
}
NOTICE: dict[str, Any] = {
    "id": "text",
    "version": 1,
    "purpose": "ads",
    "purpose_version": 1,
    "text": {"en": "What we do"},
}
EVENT: dict[str, Any] = {
    "phone": "13800138000",
    "purpose": "ads",
    "purpose_version": 1,
    "notice": "text",
    "notice_version": 1,
    "action": "granted",
    "recipient": "partner",
    "categories": ["contract"],
    "occurred_at": "2020-03-01T08:00:00+08:00",
}
ASK = {"purpose": "ads", "recipient": "partner", "categories": ["contract"], "kind": "phone"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, database: str | None) -> Iterator[FlaskClient]:
    with Center.create(tmp_path_factory.mktemp("rest") / "center", "brand", database=database) as center:
        client = create_app(center, TOKEN).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = AUTH["Authorization"]
        assert client.post("/v1/purposes", json=PURPOSE).status_code == 200
        assert client.post("/v1/notices", json=NOTICE).status_code == 200
        yield client


def ok(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.get_json()


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.content_type) == (status, "application/problem+json"), (
        response.text
    )
    body: dict[str, Any] = response.get_json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["title"] == CODES[code]
    assert body["detail"] and body["type"] and body["instance"]
    return body


def decide(client: FlaskClient, *values: str | None, **more: Any) -> list[str]:
    found: list[str] = ok(client.post("/v1/decisions", json={**ASK, "values": values, **more}))["reasons"]
    return found


def test_from_consent_to_withdrawal(client: FlaskClient) -> None:
    done = ok(client.post("/v1/events", json={**EVENT, "phone": "13800000001", "device": ["a", "b"]}), 201)
    assert done["sequence"] >= 1 and done["leaf_index"] >= 1
    assert decide(client, "+86 138 0000 0001", "13800000002", None, "x") == [
        "eligible",
        "unknown_subject",
        "identifier_null",
        "identifier_invalid",
    ]
    assert decide(client, "13800000001", recipient="other") == ["recipient_out_of_scope"]
    ok(client.post("/v1/withdrawals", json={"device": "b", "purpose": "ads", "recipient": "partner"}), 201)
    assert decide(client, "13800000001") == ["withdrawn"]
    held = ok(client.post("/v1/people/explain", json={"kind": "phone", "value": "13800000001"}))
    assert [e["action"] for e in held["events"]] == ["granted", "withdrawn"]


def test_erasure_and_who_comes_after(tmp_path: Path) -> None:
    """The identifier rows of an erased person are gone; whoever is recorded next must still be found."""
    with Center.create(tmp_path / "center", "brand") as center:
        client = create_app(center, TOKEN).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = AUTH["Authorization"]
        for path, body in (("/v1/purposes", PURPOSE), ("/v1/notices", NOTICE)):
            ok(client.post(path, json=body))
        ok(client.post("/v1/events", json=EVENT), 201)
        assert decide(client, EVENT["phone"]) == ["eligible"]
        ok(client.post("/v1/people/erase", json={"kind": "phone", "value": EVENT["phone"], "actor": "dpo"}))
        assert decide(client, EVENT["phone"]) == ["unknown_subject"]
        ok(client.post("/v1/events", json={**EVENT, "phone": "13800138001"}), 201)
        assert decide(client, "13800138001") == ["eligible"]


def test_registry_and_switch(client: FlaskClient) -> None:
    other = {**PURPOSE, "id": "off"}
    ok(client.post("/v1/purposes", json=other))
    assert (
        ok(client.post("/v1/purposes/off/switch", json={"active": False, "actor": "dpo"}))["active"] is False
    )
    assert decide(client, "13800000009", purpose="off") == ["purpose_inactive"]
    assert {p["id"]: p["active"] for p in ok(client.get("/v1/purposes"))} == {"ads": True, "off": False}
    assert ok(client.get("/v1/notices"))[0]["hash"]
    assessment = {"id": "pia-1", "purpose": "ads", "reference": "shelf 3"}
    assert ok(client.post("/v1/assessments", json=assessment))["reference"] == "shelf 3"
    changed = {**PURPOSE, "title": {"en": "Other words"}}
    problem(client.post("/v1/purposes", json=changed), 409, "registry.version")
    problem(client.post("/v1/purposes/nope/switch", json={"active": True}), 404, "registry.unknown")


def test_batches_report_row_by_row(client: FlaskClient) -> None:
    lines = [{**EVENT, "phone": f"1380013800{i}", "categories": "contract"} for i in range(3)]
    lines[1]["action"] = "agreed"
    report = ok(client.post("/v1/events/batch", json=lines))
    assert (report["read"], report["recorded"], report["rejected"]) == (3, 2, 1)
    assert report["errors"][0]["row"] == 2
    assert report["errors"][0]["code"] == "event.action"
    body = "\n".join(json.dumps(line) for line in lines)
    again = client.post("/v1/events/batch", data=body, content_type="application/x-ndjson")
    assert ok(again)["recorded"] == 2
    header = "phone,purpose,action,recipient,categories,occurred_at,notice"
    table = f"{header}\n13800138005,ads,grant,partner,contract,2020-03-01,text\nx\n"
    report = ok(client.post("/v1/events/batch", data=table, content_type="text/csv"))
    assert (report["recorded"], report["errors"][0]["row"]) == (1, 3)
    assert decide(client, "13800138005") == ["eligible"]
    for data, kind in ((b"", "text/csv"), (b"{", "application/json"), (b"[]", "application/json")):
        assert client.post("/v1/events/batch", data=data, content_type=kind).status_code in (400, 422)
    problem(client.post("/v1/events/batch", data="x", content_type="text/html"), 400, "request.invalid")


def test_ledger(client: FlaskClient) -> None:
    index = ok(client.post("/v1/ledger/entries", json={"kind": "job.stage", "payload": {"n": 1}}), 201)[
        "index"
    ]
    entries = [{"kind": "job.stage", "payload": {"n": n}} for n in (2, 3)]
    assert ok(client.post("/v1/ledger/entries/batch", json=entries), 201)["indexes"] == [index + 1, index + 2]
    size = int(client.get("/v1/ledger/checkpoint").text.split("\n")[1])
    assert size >= index + 3
    assert ok(client.get(f"/v1/ledger/proofs/inclusion?index={index}&size={size}"))["hashes"]
    assert ok(client.get(f"/v1/ledger/proofs/consistency?old={index}&new={size}"))["hashes"]
    assert ok(client.get(f"/v1/ledger/entries/{index}"))["payload"] == {"n": 1}
    assert client.get("/v1/ledger/key").text.startswith("pec-consent/brand+")
    assert ok(client.post("/v1/ledger/fsck", json={})) == {"ok": True, "finding": None}
    problem(client.get(f"/v1/ledger/proofs/inclusion?index={size}&size={size}"), 404, "ledger.index")
    problem(client.get("/v1/ledger/proofs/inclusion?index=x&size=1"), 400, "request.invalid")
    problem(client.get("/v1/ledger/entries/-1"), 400, "request.invalid")
    problem(client.get("/v1/ledger/entries/999999"), 404, "ledger.index")


def test_nobody_gets_in_without_the_token(client: FlaskClient) -> None:
    calls = 0
    for rule in client.application.url_map.iter_rules():
        path = rule.rule.replace("<string:", "").replace(">", "")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            for header in ("", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}"):
                response = client.open(path, method=method, headers={"Authorization": header}, json={})
                if ENDPOINTS[rule.endpoint] == "public":
                    assert response.status_code != 401, "what everybody may call looks after itself"
                    assert "controller" not in response.text or path != "/v1/health"
                elif path.startswith("/console"):
                    assert (response.status_code, response.location[:14]) == (303, "/console/login")
                else:
                    problem(response, 401, "request.unauthorised")
                    assert response.headers["WWW-Authenticate"] == "Bearer"
                calls += 1
    assert calls > 80
    health = ok(client.get("/v1/health"))
    assert health["controller"] == "brand" and health["leaves"] > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"phone": ""}, "phone"),
        ({"phone": ["1"] * 101}, "phone"),
        ({"phone": 138}, "phone"),
        ({"purpose": "\ud800"}, "purpose"),
        ({"evidence": "a\0b"}, "evidence"),
        ({"purpose_version": 2**80}, "purpose_version"),
        ({"purpose_version": True}, "purpose_version"),
        ({"occurred_at": "2020-03-01T08:00:00"}, "occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+23:59"}, "occurred_at"),
        ({"birth_date": "1066-10-14"}, "birth_date"),
        ({"categories": "contract"}, "categories"),
        ({"action": "agreed"}, "action"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_fields_are_named(client: FlaskClient, change: dict[str, Any], says: str) -> None:
    data = json.dumps({**EVENT, **change})  # ASCII: a lone surrogate travels as its escape
    response = client.post("/v1/events", data=data, content_type="application/json")
    body = problem(response, 400, "request.invalid")
    assert says in body["detail"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"purpose": "research"}, 422, "event.purpose"),
        ({"recipient": "a,b"}, 422, "event.recipient"),
        ({"recipient": "*"}, 422, "event.recipient"),
        ({"categories": ["health"]}, 422, "event.categories"),
        ({"notice": "other"}, 422, "event.notice"),
        ({"controller": "someone-else"}, 422, "event.controller"),
        ({"occurred_at": "2199-01-01T00:00:00Z"}, 422, "event.time"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "event.expiry"),
        ({"phone": "12"}, 422, "event.identifier"),
    ],
)
def test_what_consent_law_does_not_allow(
    client: FlaskClient, change: dict[str, Any], status: int, code: str
) -> None:
    problem(client.post("/v1/events", json={**EVENT, **change}), status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"a":' * 50_000,
        b"NaN",
        b"1" * 5_000,
        b'{"a":1e999}',
    ],
)
def test_bodies_that_are_no_json_object(client: FlaskClient, body: bytes) -> None:
    for path in ("/v1/events", "/v1/decisions", "/v1/purposes", "/v1/ledger/entries/batch"):
        problem(client.post(path, data=body, content_type="application/json"), 400, "request.invalid")
    assert client.post("/v1/decisions/bulk", data=body, content_type=wire.ARROW).status_code in (400, 422)


def test_limits(client: FlaskClient) -> None:
    big = b'{"a":"' + b"x" * (4 << 20) + b'"}'
    problem(client.post("/v1/events", data=big, content_type="application/json"), 413, "request.too_large")
    many = client.post("/v1/decisions", json={**ASK, "values": ["1"] * 10_001})
    problem(many, 400, "request.invalid")


def test_an_upload_in_chunks_is_whole_or_refused(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(json.dumps(EVENT | {"phone": f"1390000{n:04d}"}).encode() + b"\n" for n in range(20))

    def sent() -> Any:
        return client.post(
            "/v1/events/batch",
            input_stream=io.BytesIO(lines),
            content_type="application/x-ndjson",
            headers={"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )

    monkeypatch.setattr(app, "UPLOAD_LIMIT", len(lines) - 300)
    problem(sent(), 413, "request.too_large")
    monkeypatch.setattr(app, "UPLOAD_LIMIT", len(lines) + 1)
    assert sent().json["recorded"] == 20


def test_unknown_paths_and_methods(client: FlaskClient) -> None:
    problem(client.get("/v1/nothing"), 404, "request.not_found")
    problem(client.delete("/v1/purposes"), 405, "request.invalid")
    problem(client.post("/v1/events", data="x", content_type="text/plain"), 400, "request.invalid")


@pytest.mark.parametrize("damage", ["cut", "offsets", "column", "type", "request", "kind"])
def test_damaged_arrow_streams(client: FlaskClient, damage: str) -> None:
    request = {k: v for k, v in ASK.items() if k != "kind"}
    meta: dict[str, Any] = {"kind": "phone", "request": request, "job_id": "j"}
    values: pa.Array = pa.array(["13800138000", "13800138001"])
    name = "value"
    if damage == "column":
        name = "values"
    elif damage == "type":
        values = pa.array([[1]])
    elif damage == "request":
        meta["request"] = {**request, "categories": "contract"}
    elif damage == "kind":
        meta["kind"] = "shoe size"
    data = wire.pack({name: values}, meta)
    if damage == "offsets":  # point far outside the buffer: must not be read
        assert data.count(struct.pack("<3i", 0, 11, 22)) == 1
        data = data.replace(struct.pack("<3i", 0, 11, 22), struct.pack("<3i", 0, 11, 2**30))
    elif damage == "cut":
        data = data[: len(data) // 2]
    for path in ("/v1/decisions/bulk", "/v1/snapshots"):
        response = client.post(path, data=data, content_type=wire.ARROW)
        assert response.status_code in (400, 422), response.text
        assert response.get_json()["code"] in CODES


def test_a_fault_of_ours_tells_nothing(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("13800138000 is secret")

    monkeypatch.setattr(Center, "purposes", broken)
    response = client.get("/v1/purposes")
    assert response.status_code == 500
    assert response.content_type == problems.MEDIA_TYPE
    assert "secret" not in response.text


def test_openapi_and_its_page(client: FlaskClient) -> None:
    spec = ok(client.get("/openapi.json"))
    assert spec["openapi"].startswith("3.")
    paths = {
        rule.rule.replace("<string:", "{").replace(">", "}")
        for rule in client.application.url_map.iter_rules()
    }
    script = {"/v1/embed.js"}  # a file, no call
    assert set(spec["paths"]) == {p for p in paths - script if p.startswith("/v1/")}, (
        "every call is described"
    )
    page = client.get("/docs")
    assert page.content_type.startswith("text/html")
    assert "src=" not in page.text and "http://" not in page.text and "https://" not in page.text
    for path, item in spec["paths"].items():
        for call in item.values():
            assert call["summary"], path
            assert "default" in call["responses"]
        assert path in page.text
    for code in CODES:
        assert code in page.text
    assert "occurred_at" in page.text and "13800138000" in page.text, "fields and an example"
    text = json.dumps(spec)
    for name in [part.split('"')[0] for part in text.split("#/components/schemas/")[1:]]:
        assert name in spec["components"]["schemas"], name


def test_token_file(tmp_path: Path) -> None:
    token = ensure_token(tmp_path)
    assert len(token) >= 43
    assert ensure_token(tmp_path) == token
    file = tmp_path / "rest.token"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(Exception, match="chmod 600"):
        ensure_token(tmp_path)
