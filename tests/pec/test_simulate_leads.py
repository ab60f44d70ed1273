"""`pec simulate lead-score` on real data: two node processes, the pooled models beside both targets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pec_command import pec_here
from sklearn.datasets import load_diabetes


@pytest.fixture
def leads(tmp_path: Path) -> Path:
    """scikit-learn's diabetes set, split by columns: progression as value, and a high one as speed."""
    frame = load_diabetes(as_frame=True).frame
    frame = pd.concat([frame] * 3, ignore_index=True)
    phone = pd.Series([f"138{i:08d}" for i in range(len(frame))], name="phone")
    mine = pd.concat([phone, frame[["age", "bmi", "bp", "s1"]]], axis=1)
    mine["fast"] = (frame["target"] > 140).map({True: "yes", False: "no"})
    mine["worth"] = frame["target"]
    mine.to_csv(tmp_path / "a.csv", index=False)
    theirs = pd.concat([phone, frame[["sex", "s2", "s3", "s4", "s5", "s6"]]], axis=1)
    theirs.sample(frac=1, random_state=1).to_csv(tmp_path / "b.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_on_real_data(leads: Path) -> None:
    answer = pec_here(
        *(
            "simulate",
            "lead-score",
            "--brand",
            leads / "a.csv",
            "--provider",
            leads / "b.csv",
            "--id",
            "phone",
        ),
        *(
            "--speed",
            "fast",
            "--value",
            "worth",
            "--method",
            "joint-lr",
            "--assume-consent",
            "a public data set",
        ),
        *("--out", leads / "out", "--json"),
    )
    assert answer.code == 0, answer.out + answer.err
    report = answer.json
    assert report["ok"] and report["audit_verified"] and report["wrong"] == 0 and report["rows"] == 1326
    assert (
        abs(report["speed"]["auc"] - report["speed"]["pooled_auc"]) < 0.01 and report["speed"]["auc"] > 0.75
    )
    assert abs(report["value"]["r2"] - report["value"]["pooled_r2"]) < 0.02 and report["value"]["r2"] > 0.35
    assert report["train_seconds"] > 0
    for target in ("speed", "value"):  # a fit that ended before its minimum says so twice
        told = any("before the minimum" in note for note in report["notes"])
        assert isinstance(report[target]["converged"], bool) and (report[target]["converged"] or told)
    assert report["grades"]["A"]["value"] > report["grades"]["E"]["value"]
    page = (leads / "out" / "report.html").read_text(encoding="utf-8")
    assert "线索评分" in page and "grade A" in page


@pytest.mark.parametrize(
    ("speed", "value", "more", "code"),
    [
        ("worth", "fast", (), "pec.input"),
        ("fast", "fast", (), "pec.usage"),
        ("fast", "absent", (), "pec.column"),
        ("fast", "worth", ("--cutoffs", "0.2,0.4,0.6,0.8"), "pec.usage"),
        ("fast", "worth", ("--method", "joint-lr", "--trees", "5"), "pec.usage"),
    ],
)
def test_what_can_not_be_scored(
    leads: Path, speed: str, value: str, more: tuple[str, ...], code: str
) -> None:
    answer = pec_here(
        *(
            "simulate",
            "lead-score",
            "--brand",
            leads / "a.csv",
            "--provider",
            leads / "b.csv",
            "--id",
            "phone",
        ),
        *("--speed", speed, "--value", value, "--assume-consent", "a test", "--json", *more),
    )
    assert answer.code == 2 and answer.error["code"] == code
