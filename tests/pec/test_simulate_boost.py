"""`pec simulate boost` on real data: two node processes, the pooled model beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pec_command import pec_here

from pec import simulate, supervised
from pec.errors import PecError


@pytest.mark.slow
def test_on_real_data(shared_data: Path, tmp_path: Path) -> None:
    """FATE's breast cancer set, as it is split there."""
    folder = shared_data / "datasets" / "fate"
    for side in ("guest", "host"):
        pd.read_csv(folder / f"breast_hetero_{side}.csv.gz").to_csv(tmp_path / f"{side}.csv", index=False)
    answer = pec_here(
        *("simulate", "boost", "--brand", tmp_path / "guest.csv", "--provider", tmp_path / "host.csv"),
        *("--id", "id", "--id-kind", "opaque", "--label", "y", "--trees", "15", "--depth", "3"),
        *("--monotone", "x0=-1", "--monotone", "X12=-1"),
        *("--assume-consent", "a public data set", "--json", "--out", tmp_path / "out"),
    )
    assert answer.code == 0, answer.out + answer.err
    report = answer.json
    assert report["ok"] and report["audit_verified"] and report["wrong"] == 0
    assert report["rows"] == 569 and report["fitted"] + report["held_out"] == 569 and report["trees"] == 15
    assert report["auc"] > report["pooled_auc"] - 0.01 and report["auc"] > 0.97
    assert report["train_seconds"] > 0 and report["score_seconds"] >= 0 and report["peak_rss_mb"]["provider"]
    assert len(report["columns_own"]) == 10 and len(report["columns_theirs"]) == 20
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_feature_report(two_files: tuple[Path, Path]) -> None:
    answer = pec_here(
        *("simulate", "feature-report", "--brand", two_files[0], "--provider", two_files[1], "--id", "phone"),
        *("--label", "loyal", "--assume-consent", "a test", "--json"),
    )
    assert answer.code == 0, answer.out + answer.err
    report = answer.json
    assert report["ok"] and report["audit_verified"] and report["matched"] == 400
    assert report["columns"][0]["column"] == "score" and "score" in report["selected"]
    assert {c["column"] for c in report["columns"]} == {"score", "城市"}  # the constant one is left out


@pytest.mark.parametrize(
    ("label", "more", "code"),
    [
        ("flat", (), "pec.input"),
        ("text", ("--objective", "squared"), "pec.input"),
        ("absent", (), "pec.column"),
        ("phone", ("--monotone", "absent=1"), "pec.column"),
        ("phone", ("--monotone", "x=2"), "pec.usage"),
    ],
)
def test_labels_that_cannot_be_learned(tmp_path: Path, label: str, more: tuple[str, ...], code: str) -> None:
    people = [f"138{i:08d}" for i in range(60)]
    frame = pd.DataFrame({"phone": people, "flat": 1, "text": "x"})
    frame.to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"phone": people, "x": range(60)}).to_csv(tmp_path / "b.csv", index=False)
    answer = pec_here(
        *(
            "simulate",
            "boost",
            "--brand",
            tmp_path / "a.csv",
            "--provider",
            tmp_path / "b.csv",
            "--id",
            "phone",
        ),
        *("--label", label, "--assume-consent", "a test", "--json", *more),
    )
    assert answer.code == 2 and answer.json["error"]["code"] == code


def inputs(folder: Path, **changes: Any) -> simulate.Inputs:
    people = [f"138{i:08d}" for i in range(60)]
    brand = pd.DataFrame({"phone": people, "bought": [0, 1] * 30, "Refund": range(60), "age": range(60)})
    brand.to_csv(folder / "a.csv", index=False)
    pd.DataFrame({"mobile": people, "x": range(60), "refund": 1, "bought": 2}).to_csv(
        folder / "b.csv", index=False
    )
    given = {"provider_id": "mobile", "label": "bought", **changes}
    return simulate.Inputs("boost", folder / "a.csv", folder / "b.csv", "phone", "a test", **given)


def test_columns_that_are_left_out(tmp_path: Path) -> None:
    ready = simulate.prepare(inputs(tmp_path, leave_out=("refund", "bought")))
    assert list(ready.brand.columns) == ["phone", "bought", "age"]
    assert list(ready.provider.columns) == ["mobile", "x"]
    assert simulate._request(ready)["private"]["columns"] == ["age"]
    monotone = {"learning": {"monotone": {"age": 1}}, "leave_out": ("age",)}
    for changes, code, words in (
        ({"leave_out": ("phone",)}, "pec.usage", "identifies people"),
        ({"leave_out": ("refnd",)}, "pec.column", "refund"),
        (monotone, "pec.usage", "--monotone"),
        ({"provider_id": ""}, "pec.column", "--provider-id"),
    ):
        with pytest.raises(PecError, match=words) as caught:
            simulate.prepare(inputs(tmp_path, **changes))
        assert caught.value.code == code


def test_a_folder_that_can_not_be_written_to_is_told_before_a_node_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "LocalNetwork", lambda *_: pytest.fail("nodes were started"))
    given = inputs(tmp_path)
    for out in (tmp_path / "a.csv", tmp_path / "a.csv" / "below"):
        with pytest.raises(PecError, match="--out") as caught:
            simulate.run(given, out=out)
        assert caught.value.code == "pec.output"


def test_own_columns_that_say_the_label_are_named() -> None:
    truth = np.arange(20) % 2 > 0
    own = pd.DataFrame(
        {"refund": truth * 2.0 - 1, "age": range(20), "city": "x", "gap": np.where(truth, 1, np.nan)}
    )
    (note,) = supervised._suspects(own, truth)
    assert note.startswith("refund: ") and "--leave-out" in note
    own["less"] = -own["refund"]
    assert len(supervised._suspects(own, truth)) == 2
