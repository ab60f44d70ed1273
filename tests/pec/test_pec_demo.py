"""The demonstration as a whole, and that its report has what was promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pec_command import pec

from pec.demo.data import PARTIES, PROVIDER_A

#: Written to a file by every node: what it imports in a thread other than its first.
WATCH = """
import sys, threading
def heard(event, args):
    if event == "import" and threading.current_thread() is not threading.main_thread():
        with open({path!r}, "a") as file:
            file.write(args[0] + "\\n")
if "parties.node" in sys.orig_argv:
    sys.addaudithook(heard)
"""


@pytest.mark.slow(seconds=60)
def test_the_main_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watch").mkdir()
    imported = tmp_path / "imported"
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH.format(path=str(imported)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    answer = pec("demo", "--out", tmp_path / "demo", "--json", timeout=700)
    assert answer.code == 0, answer.out[-2000:] + answer.err[-2000:]
    report = json.loads((tmp_path / "demo" / "report.json").read_text(encoding="utf-8"))
    assert report["ok"] is True and report["failures"] == [] and report["seconds"] > 0
    assert set(report["consent"]) == set(report["preflight"]) == set(PARTIES)
    for sides in report["consent"].values():
        assert sides["in"] > 3000
        for reason in ("denied", "withdrawn", "expired", "recipient_out_of_scope", "minor_without_guardian"):
            assert sides["out"][reason] > 0, reason
    assert [(j["kind"], j["provider"]) for j in report["jobs"][:6]] == [
        (kind, provider)
        for provider in ("provider_a", "provider_b")
        for kind in ("overlap", "lookalike", "enrich")
    ]
    for job in report["jobs"]:
        assert job["seconds"] > 0 and job["bytes_sent"] > 0 and job["bytes_received"] > 0
        assert job["audit_verified"] is True and (tmp_path / "demo" / job["bundle"]).is_file()
        if job["kind"] == "lookalike":
            assert job["epsilon"] == (2.0 if job["provider"] == PROVIDER_A else None)
            assert abs(job["auc"] - job["pooled_auc"]) <= (0.03 if job["epsilon"] else 0.005)
            assert job["lift_at_5pct"] > 1.5 and job["audience_size"] == 500
            assert job["rows"] > 3000 and job["seeds_matched"] > 500
        if job["kind"] == "enrich":
            assert job["asked"] > job["found"] > 0 == job["wrong"] == job["missed"] == job["without_consent"]
    midway = report["withdrawn_midway"]
    assert midway["withdrawn"] == 40 and midway["found_in_result"] == 0
    assert midway["rows_before"] - midway["rows_after"] >= midway["provider_side"]
    assert {r["case"] for r in report["refusals"]} >= {"no_consent", "no_agreement"}
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3 * 4 + 3  # three lookalikes of four, a table of three
    names = {name.partition(".")[0] for name in imported.read_text(encoding="utf-8").split()}
    assert "opendp" in names  # one way in; the others can be begun from two ends (parties/loading.py)
    assert not names & {"consent_center", "parties", "protocols", "scipy", "sklearn", "pandas"}
