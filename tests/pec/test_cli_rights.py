"""`pec consent request` from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consent_center.center import Center
from consent_center.model import Purpose
from consent_center.requests.model import TASKS
from pec.cli_common import run
from pec.cli_consent import consent


def test_from_intake_to_the_letter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Center.create(tmp_path / "c", "brand") as center:
        center.put_purpose(Purpose("ads", 1, {"en": "Ads"}, ("contact",)))

    def pec(*words: str, expect: int = 0) -> Any:
        code = run(consent, [*words, "--center", str(tmp_path / "c"), "--json"])
        out, err = capsys.readouterr()
        assert code == expect, (out, err)
        return json.loads(out.splitlines()[-1])

    pec("record", "deny", "phone", "13800138000", "--purpose", "ads", "--recipient", "p")
    id = pec("request", "open", "copy", "phone", "13800138000", "--contact", "a@b.cn")["id"]
    assert pec("request", "identity", id, "--failed", "--evidence", "wrong code")["state"] == "identifying"
    pec("request", "identity", id, expect=2)
    pec("request", "identity", id, "--method", "in_person", "--evidence", "card seen")
    pec("request", "task", id, "look_in_the_cellar", "--add")
    for name in TASKS["copy"]:
        pec("request", "task", id, name)
    pec("request", "task", id, "look_in_the_cellar", "--skip", "no cellar")
    assert pec("request", "step", id, "pause", "--text", "which shop?")["standing"] == "paused"
    pec("request", "step", id, "resume")
    pec("request", "decide", id, "refused", expect=1)
    assert pec("request", "decide", id, "granted")["state"] == "decided"
    package, letter = tmp_path / "package.json", tmp_path / "letter.html"
    pec("request", "fulfil", id, "--out", str(package))
    assert json.loads(package.read_text())["receipts"] and package.stat().st_mode & 0o077 == 0
    pec("request", "letter", id, "decision", "--out", str(letter), "--text", "<b>")
    assert "&lt;b&gt;" in letter.read_text(encoding="utf-8")
    pec("request", "letter", id, "decision", "--out", str(letter), expect=2)
    assert pec("request", "step", id, "close")["state"] == "closed"
    assert pec("request", "list") == [] and len(pec("request", "list", "--all")) == 1
    assert pec("request", "show", id, "--private")["steps"][0]["private"]["contact"] == "a@b.cn"
    assert pec("request", "rules", "--regulation", "PIPL", "--working-days", "7")["PIPL"]["working_days"] == 7
    late = ("request", "open", "access", "phone", "13800138001", "--received", "2026-01-05T08:00:00+08:00")
    assert pec(*late)["standing"] == "overdue"
    assert pec("request", "deadlines", expect=1)["counts"]["overdue"] == 1
    assert pec("request", "sweep") == {"purged": [], "dropped": []}
    assert pec("fsck")["ok"]
    for words in (
        ("request", "show", id),
        ("request", "list", "--all"),
        ("request", "deadlines"),
        ("request", "rules"),
    ):
        run(consent, [*words, "--center", str(tmp_path / "c")])
        assert "R20" in capsys.readouterr().out or "PIPL" in words or words[1] == "rules"
