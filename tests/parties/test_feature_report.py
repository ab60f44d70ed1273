"""The kind `feature-report`: counts as in the plain join, IV by its definition, small bins suppressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pair import ScriptedCenter, Side, agreement, run_job, spec

from parties.datasets import Dataset
from parties.kinds.feature_report import SUPPRESS, report

N = 1800


def iv(people: np.ndarray, positives: np.ndarray) -> float:
    """By the definition, with half a person added to every cell."""
    yes, no = positives + 0.5, people - positives + 0.5
    a, b = yes / yes.sum(), no / no.sum()
    return float(((a - b) * np.log(a / b)).sum())


def test_iv_and_woe_by_their_definitions() -> None:
    people = np.array([100.0, 200.0, 300.0, 0.0])
    positives = np.array([20.0, 100.0, 200.0, 0.0])
    found = report("x", people, positives, missing=True)
    assert found["iv"] == pytest.approx(iv(people[:3], positives[:3]), abs=6e-4)
    assert [b["people"] for b in found["bins"]] == [100, 200, 300] and found["bins_suppressed"] == 0
    assert found["missing_rate"] == pytest.approx(100 / 600)
    shares = (20.5 / 321.5) / (80.5 / 281.5)
    assert found["bins"][0]["woe"] == pytest.approx(np.log(shares), abs=6e-4)


def test_small_bins_are_not_shown_but_count() -> None:
    people = np.array([5.0, 400.0, 300.0, 60.0])
    positives = np.array([1.0, 100.0, 200.0, 59.0])
    found = report("x", people, positives, missing=True)
    assert [b["bin"] for b in found["bins"]] == [1, 2] and found["bins_suppressed"] == 2  # 65 people together
    assert found["missing_rate"] is None  # fewer than ten: the rate would say how many
    assert found["iv"] == pytest.approx(iv(people, positives), rel=0.15)


@pytest.mark.parametrize("small", [[6.0], [6.0, 5.0]])
def test_a_suppressed_bin_is_not_the_total_less_the_others(small: list[float]) -> None:
    """The report has the number of people: with one bin left out, the others would tell it."""
    people = np.array([174.0, 90.0, *small])
    positives = np.array([46.0, 30.0, *(4.0 for _ in small)])
    found = report("vip", people, positives, missing=False)
    assert [b["bin"] for b in found["bins"]] == [0] and found["bins_suppressed"] == 1 + len(small)


@pytest.mark.parametrize(("people", "positives"), [(96, 34), (40, 12), (400, 12)])
def test_the_iv_is_no_equation_for_what_is_suppressed(people: int, positives: int) -> None:
    """A reader knows the totals, so tries every split of what is left over: none stands alone."""
    splits: dict[str, set[tuple[int, ...]]] = {}
    for n in range(1, people):
        for y in range(max(0, positives - people + n), min(n, positives) + 1):
            counts = np.array([174.0, people - n, n]), np.array([46.0, positives - y, y])
            found = report("x", *counts, missing=False)
            if [b["bin"] for b in found["bins"]] == [0]:
                splits.setdefault(str(found), set()).add(min((n, y), (people - n, positives - y)))
    assert len(splits) > 3 and min(len(s) for s in splits.values()) > 1
    assert sum(len(s) for s in splits.values()) > 5 * len(splits)


def test_a_column_of_suppressed_bins_that_separates_the_classes_stands_out() -> None:
    found = report("x", np.array([500.0, 500.0]), np.array([0.0, 500.0]), missing=False)
    assert found["bins"] == [] and found["iv"] > 5


def test_a_job_gives_the_counts_of_the_plain_join(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    phone = np.array([f"138{i:08d}" for i in range(N)])
    x = rng.normal(size=N)
    x[::6] = np.nan
    city = rng.choice(["a", "b", "c"], N, p=[0.6, 0.395, 0.005])
    y = (np.nan_to_num(x) + rng.normal(size=N) > 0).astype(object)
    y[::9] = None
    pd.DataFrame({"phone": phone, "y": y})[:1500].to_csv(tmp_path / "b.csv", index=False)
    theirs = pd.DataFrame({"phone": phone, "x": x, "noise": rng.normal(size=N), "city": city})[200:]
    theirs.sample(frac=1, random_state=0).to_parquet(tmp_path / "p.parquet")
    categories = dict.fromkeys(("x", "noise", "city"), "profile")
    sides = {
        "brand": Side(
            Dataset("people", str(tmp_path / "b.csv"), "phone", "phone", {"y": "profile"}),
            ScriptedCenter(),
            {"label": "y", "minimum_iv": 0.1},
        ),
        "provider": Side(
            Dataset("people", str(tmp_path / "p.parquet"), "phone", "phone", categories), ScriptedCenter()
        ),
    }
    asked = spec("feature-report", columns=list(categories), params={"bins": 8}, outputs={"report": "brand"})
    done = run_job(asked, agreement(kinds=["feature-report"]), sides, tmp_path / "out")
    assert not done.errors
    result = done.brand.result
    shared = [i for i in range(200, 1500) if y[i] is not None]
    assert result["labelled"] == len(shared) and result["matched"] == 1300
    by_name = {column["column"]: column for column in result["columns"]}
    assert result["columns"][0]["column"] == "x" and result["selected"] == ["x"]
    assert by_name["x"]["missing_rate"] == pytest.approx(np.isnan(x[shared]).mean())
    for column in result["columns"]:
        shown = sum(b["people"] for b in column["bins"])
        assert shown == len(shared) or column["bins_suppressed"]
        assert all(b["people"] >= 2 * SUPPRESS for b in column["bins"])
    counts = pd.Series(city[shared]).value_counts()
    assert {b["people"] for b in by_name["city"]["bins"]} <= {
        counts["a"],
        counts["b"],
        counts["b"] + counts["c"],
    }
    rate = pd.Series(y[shared].astype(float)).groupby(city[shared]).mean()
    assert any(b["rate"] == pytest.approx(rate["a"], abs=6e-4) for b in by_name["city"]["bins"])
    said = {"rows", "columns", "notes", "asked_at_most", "alignment", "disk_bytes"}
    assert set(done.provider.result) == said
    assert [p.name for p in (tmp_path / "out" / "brand").iterdir()] == ["result.json"]
