"""Processing register, agreements, assessments without which no job runs, reminders, exports."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, Clock, event, make, phone, reason

from consent_center.center import Center
from consent_center.client import open_center
from consent_center.errors import ConsentError
from consent_center.model import Assessment
from consent_center.records.client import records_of
from consent_center.records.model import FIELDS
from consent_center.rest.server import start

pytestmark = pytest.mark.usefixtures("store")

CRM: dict[str, Any] = {
    "name": "会员营销 <script>alert(1)</script>",
    "purposes": ["ads"],
    "legal_basis": "consent",
    "subjects": ["members"],
    "categories": ["contact", "usage"],
    "recipients": ["provider"],
    "retention": "3 years",
    "security": "=cmd|' /C calc'!A0",
    "review_on": "2026-03-20",
}
CONTRACT = {
    "title": "DPA",
    "party": "provider",
    "role": "processor",
    "purposes": ["ads"],
    "categories": ["contact"],
    "reference": "dms://4",
    "signed_on": "2025-04-01",
    "expires_on": "2026-02-20",
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Iterator[Center]:
    with make(tmp_path / "c", clock) as made:
        made.record(event(1))
        yield made


def refused(code: str, call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(ConsentError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code, caught.value
    return caught.value.detail


def test_records_have_versions_and_what_the_law_asks_for(center: Center) -> None:
    assert center.records.put("processing", "crm", CRM, "dpo")["version"] == 1
    assert center.records.put("processing", "crm", CRM, "dpo")["version"] == 1, (
        "the same again changes nothing"
    )
    assert center.records.put("processing", "crm", {**CRM, "owner": "marketing"})["version"] == 2
    assert [r["version"] for r in center.records.listing("processing")] == [2]
    for field in FIELDS["processing"]:
        if field.required:
            body = {k: v for k, v in CRM.items() if k != field.name}
            assert field.name in refused("record.field", center.records.put, "processing", "x", body)
    bad: list[tuple[str, str, Any]] = [
        ("processing", "x", {**CRM, "colour": "red"}),
        ("processing", "a,b", CRM),
        ("processing", "x", {**CRM, "review_on": "soon"}),
        ("processing", "x", {**CRM, "purposes": "a" * 6_000}),
        ("processing", "x", {**CRM, "retention": 3}),
        ("nonsense", "x", CRM),
        ("assessment", "x", CRM),
    ]
    for kind, id, body in bad:
        refused("record.field", center.records.put, kind, id, body)
    assert center.fsck() is None


def test_exports(center: Center) -> None:
    center.records.put("processing", "crm", CRM)
    rows = list(
        csv.reader(io.StringIO(center.records.export("processing", "csv", "zh").removeprefix("\ufeff")))
    )
    assert rows[0][:3] == ["编号", "版本", "处理活动"] and rows[1][0] == "crm"
    assert "'=cmd|' /C calc'!A0" in rows[1], "no cell is a formula"
    told = json.loads(center.records.export("processing", "json", "en"))
    assert told["records"][0]["categories"] == ["contact", "usage"]
    page = center.records.export("processing", "html", "en")
    assert "<script>" not in page and "&lt;script&gt;" in page and "GDPR 30(1)(f); PIPL 19" in page
    assert "无记录" in center.records.export("agreement", "html", "zh")
    refused("record.field", center.records.export, "processing", "pdf")


def test_reminders_before_anything_lapses(center: Center, clock: Clock) -> None:
    center.records.put("processing", "crm", CRM)
    center.records.put("agreement", "dpa", CONTRACT)
    center.put_assessment(Assessment("pia", "ads", "dms://1", valid_until="2026-06-01"))
    center.put_assessment(Assessment("old", "ads", "dms://0", valid_until="2026-01-01", status="withdrawn"))
    id = center.rights.open("access", [("phone", phone(1))])["id"]
    found = center.records.reminders()
    assert [(r["record"], r["id"], r["lapsed"]) for r in found] == [
        ("agreement", "dpa", True),
        ("processing", "crm", False),
        ("request", id, False),
    ]
    assert len(center.records.reminders(365)) == 4 and len(center.records.reminders(0)) == 1
    assert center.records.remind() == {"reminders": 3, "queued": 0}
    center.outbox.put_webhook("desk", "http://127.0.0.1:9/", "*", ["record.reminder"])
    assert center.records.remind()["queued"] == 3
    assert {m["type"] for m in center.outbox.messages("pending")} == {"record.reminder"}
    clock.now += timedelta(days=40)
    assert all(r["lapsed"] for r in center.records.reminders())
    assert center.fsck() is None


def test_a_job_stops_when_its_assessment_ends(center: Center, clock: Clock) -> None:
    center.put_assessment(replace(center.assessments()[0], status="withdrawn"))
    day = clock.now.date()
    own = Assessment("own", "ads", "dms://3", valid_until=(day + timedelta(days=2)).isoformat())
    center.put_assessment(own)
    job = center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job-1").document["id"]
    assert center.delta(job).active
    center.put_assessment(replace(own, status="withdrawn"))
    found = center.delta(job)
    assert not found.active and not len(found.withdrawn)
    center.put_assessment(own)
    assert center.delta(job).active
    clock.forward(days=3)
    assert not center.delta(job).active, "it lapsed"
    center.require_assessments(False, "dpo")
    assert center.delta(job).active, "none is asked for"
    center.require_assessments(True, "dpo")
    assert not center.delta(job).active
    inside = replace(REQUEST, recipient="brand")
    job = center.snapshot(inside, pa.array([phone(1)]), "phone", "job-2").document["id"]
    assert center.delta(job).active, "the controller's own job needs none"


def test_an_assessment_counts_from_its_approval(center: Center, clock: Clock) -> None:
    values, day = pa.array([phone(1)]), clock.now.date()
    center.put_assessment(replace(center.assessments()[0], status="withdrawn"))
    later = Assessment("own", "ads", "dms://3", approved_on=(day + timedelta(days=1)).isoformat())
    center.put_assessment(later)
    refused("assessment.missing", center.snapshot, REQUEST, values, "phone", "job-1")
    center.put_assessment(replace(later, approved_on=day.isoformat()))
    assert center.snapshot(REQUEST, values, "phone", "job-1").document["assessment"] == "dms://3"
    center.put_assessment(later)
    clock.forward(days=1)
    assert center.snapshot(REQUEST, values, "phone", "job-2").document["assessment"] == "dms://3"


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("change", "required"),
    [
        *(
            (f"UPDATE meta SET value = '{value}' WHERE key = 'assessments_required'", True)
            for value in (2, "")
        ),
        ("UPDATE meta SET value = '0' WHERE key = 'assessments_required'", False),
        ("DELETE FROM meta WHERE key = 'assessments_required'", None),  # from before the default
    ],
)
def test_what_the_switch_cannot_mean_is_required(tmp_path: Path, change: str, required: bool | None) -> None:
    with make(tmp_path / "c") as center:
        center.put_assessment(replace(center.assessments()[0], status="withdrawn"))
    with sqlite3.connect(tmp_path / "c" / "center.db") as raw:
        raw.execute(change)
    raw.close()
    with Center.open(tmp_path / "c", Clock()) as center:
        assert center.assessments_required() is required
        asked = (REQUEST, pa.array([phone(1)]), "phone", "job-1")
        if required:
            refused("assessment.missing", center.snapshot, *asked)
        else:
            assert center.delta(center.snapshot(*asked).document["id"]).active


def test_no_assessment_no_job(center: Center, clock: Clock) -> None:
    """PIPL 55: with none on file for the purpose and recipient, no snapshot is issued, so no job can run."""
    values = pa.array([phone(1)])
    center.put_assessment(replace(center.assessments()[0], status="withdrawn"))
    assert center.assessments_required() is True, "so is every new center"
    detail = refused("assessment.missing", center.snapshot, REQUEST, values, "phone", "job-1")
    assert "'ads'" in detail and "'provider'" in detail
    assert reason(center, 1) == "eligible", "the organisation's own decisions go on"
    center.put_assessment(Assessment("media", "ads", "dms://1", recipient="media"))
    refused("assessment.missing", center.snapshot, REQUEST, values, "phone", "job-1")
    center.put_assessment(Assessment("all", "ads", "dms://2", valid_until="2026-03-05"))
    assert center.snapshot(REQUEST, values, "phone", "job-1").document["assessment"] == "dms://2"
    center.put_assessment(Assessment("own", "ads", "dms://3", recipient="provider", valid_until="2026-03-09"))
    assert center.snapshot(REQUEST, values, "phone", "job-2").document["assessment"] == "dms://3"
    clock.forward(days=9)
    refused("assessment.missing", center.snapshot, REQUEST, values, "phone", "job-3")
    center.put_assessment(Assessment("own", "ads", "dms://3", recipient="provider"))
    assert center.snapshot(REQUEST, values, "phone", "job-3").document["assessment"] == "dms://3"
    center.put_assessment(Assessment("own", "ads", "dms://3", recipient="provider", status="withdrawn"))
    refused("assessment.missing", center.snapshot, REQUEST, values, "phone", "job-4")
    center.require_assessments(False, "dpo")
    assert center.assessments_required() is False
    assert center.snapshot(REQUEST, values, "phone", "job-5").document["assessment"] == ""
    for wrong in ({"valid_until": "soon"}, {"status": "maybe"}, {"recipient": "a,b"}):
        refused("registry.assessment", center.put_assessment, Assessment("x", "ads", "d", **wrong))
    assert center.fsck() is None


@pytest.mark.sqlite
def test_by_a_remote_client_and_naughty_strings(tmp_path: Path) -> None:
    make(tmp_path / "c").close()
    with start(tmp_path / "c") as running, open_center(running.address.location) as far:
        records = records_of(far)
        assert records.put("agreement", "dpa", CONTRACT)["version"] == 1
        assert records.listing("agreement")[0]["party"] == "provider"
        assert "DPA" in records.export("agreement", "html", "en")
        assert records.reminders(3_000)[0]["id"] == "dpa" and records.remind()["queued"] == 0
        assert far.assessments_required() is True
        assert far.require_assessments(False, "dpo") is False and far.assessments_required() is False
        for text in (
            "\0",
            "\ud800",
            "Ω≈ç√",
            "'; DROP TABLE records; --",
            "<img src=x onerror=alert(1)>",
            "\u202e",
        ):
            try:
                records.put("agreement", "dpa", {**CONTRACT, "title": text})
            except (ConsentError, UnicodeError) as error:
                assert getattr(error, "code", "request.invalid") in ("record.field", "request.invalid"), text
            assert "<img" not in records.export("agreement", "html", "en")
        assert far.fsck() is None


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("DELETE FROM records", "records"),
        ("UPDATE records SET version = 7", "records"),
        ("UPDATE meta SET value = '0' WHERE key = 'assessments_required'", "assessments_required"),
        ("UPDATE assessments SET body = replace(body, 'dms', 'xxx')", "assessments"),
    ],
)
def test_fsck_finds_a_changed_record(tmp_path: Path, change: str, where: str) -> None:
    with make(tmp_path / "c") as center:
        center.records.put("agreement", "dpa", CONTRACT)
        center.put_assessment(Assessment("pia", "ads", "dms://1"))
    with sqlite3.connect(tmp_path / "c" / "center.db") as raw:
        raw.execute(change)
    raw.close()
    with Center.open(tmp_path / "c", Clock()) as center:
        found = center.fsck()
        assert found is not None and where in found.where
