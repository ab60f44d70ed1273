"""`pec preference` from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consent_center.center import Center
from pec.cli_common import run
from pec.cli_preference import preference

ASK = ("--channel", "sms", "--topic", "news", "--sender", "crm")


def test_from_policy_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Center.create(tmp_path / "c", "brand").close()

    def pec(*words: str, expect: int = 0) -> Any:
        code = run(preference, [*words, "--center", str(tmp_path / "c"), "--json"])
        out, err = capsys.readouterr()
        assert (code, err) == (expect, ""), out
        return json.loads(out.splitlines()[-1])

    pec("declare", "topic", "news", "--title", "News", "--title-zh", "新闻")
    assert (
        pec("policy", "--channel", "sms", "--cap", "2/week", "--quiet", "22:00-22:01@sat,sun")["version"] == 1
    )
    assert pec("set", "phone", "13800138000", "--channel", "sms", "--cap", "1/day", "--allow")["number"] == 1
    held = pec("show", "phone", "138 0013 8000", "--history")
    assert held["preferences"][0]["caps"] == [{"count": 1, "per": "day"}]
    reserved = pec("decide", "phone", "13800138000", *ASK, "--reserve", "c1")["answers"][0]
    assert reserved["allowed"] or reserved["reasons"][0]["code"] == "quiet_hours"
    made = ("report", "phone", "13800138000", *ASK, "--contact-id", "c1")
    assert pec(*made)[0]["outcome"] == "recorded"
    assert pec(*made)[0]["outcome"] == "repeated"
    told = pec("decide", "phone", "13800138000", *ASK, expect=3)["answers"][0]
    assert "cap_day" in {reason["code"] for reason in told["reasons"]} and told["next_at"]
    rows = [{"kind": "phone", "value": "13800138009", "channel": "sms", "topic": "news", "sender": "crm"}]
    file = tmp_path / "contacts.json"
    file.write_text(json.dumps([{**rows[0], "contact_id": "x", "at": "2026-03-01T08:00:00+08:00"}]))
    assert pec("report", "--file", str(file), expect=1)[0]["outcome"] == "subject.unknown"
    assert {term["id"] for term in pec("list")["topics"]} == {"news"}
    assert (
        pec("set", "phone", "13800138000", "--channel", "fax", expect=2)["error"]["code"]
        == "preference.unknown"
    )
    assert (
        pec("set", "phone", "1", "--channel", "sms", "--cap", "many", expect=2)["error"]["code"]
        == "pec.usage"
    )
    for words in (("list",), ("show", "phone", "13800138000"), ("decide", "phone", "13800138000", *ASK)):
        assert run(preference, [*words, "--center", str(tmp_path / "c")]) in (0, 3)
        assert "sms" in (out := capsys.readouterr().out) or "13800138000" in out
