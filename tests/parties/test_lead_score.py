"""The kind `lead-score` between two sides: two fits in one job, scores, grades, withdrawals, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair import Outcome, ScriptedCenter, Side, agreement, auc, run_job, spec

from parties.datasets import Dataset
from parties.errors import NodeError
from parties.grades import CUTOFFS, Calibration, Grading, Scale, are_cutoffs
from parties.kinds import KINDS

N = 900


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leads")
    rng = np.random.default_rng(8)
    x = rng.normal(size=(N, 4))
    phone = [f"138{i:08d}" for i in range(N)]
    fast = rng.random(N) < 1 / (1 + np.exp(-2 * (x[:, 0] + x[:, 2])))
    spend = np.exp(3 + 0.5 * x[:, 1] + 0.5 * x[:, 3])
    brand = pd.DataFrame({"phone": phone, "a": x[:, 0], "b": x[:, 1], "fast": np.where(fast, "yes", "no")})
    brand["spend"] = spend
    brand.loc[::40, "fast"] = None
    brand.loc[7::40, "spend"] = np.nan
    brand[: N - 100].to_csv(folder / "brand.csv", index=False)
    theirs = pd.DataFrame({"phone": phone, "c": x[:, 2], "d": x[:, 3]})
    theirs[100:].to_parquet(folder / "provider.parquet")
    return folder


def job(
    files: Path,
    tmp_path: Path,
    method: str = "boost",
    before: object = None,
    centers: tuple = (None, None),
    l2: float | None = None,
    **private: object,
) -> Outcome:
    mine = {"speed": "fast", "value": "spend", "columns": ["a", "b"], "holdout_seed": 3}
    known = dict.fromkeys(("a", "b", "fast", "spend"), "profile")
    params = {"method": method, "value": "number"}
    if method == "boost":
        params |= {"trees": 8, "depth": 3, "bins": 8}
        mine["learning_rate"] = 0.3
    if l2:
        params["l2"] = l2
    mine |= private
    sides = {
        "brand": Side(
            Dataset("people", str(files / "brand.csv"), "phone", "phone", known),
            centers[0] or ScriptedCenter(),
            {k: v for k, v in mine.items() if v is not None},
        ),
        "provider": Side(
            Dataset(
                "people",
                str(files / "provider.parquet"),
                "phone",
                "phone",
                dict.fromkeys(("c", "d"), "profile"),
            ),
            centers[1] or ScriptedCenter(),
        ),
    }
    asked = spec("lead-score", columns=["c", "d"], params=params, outputs={"scores": "brand"})
    return run_job(asked, agreement(kinds=["lead-score"]), sides, tmp_path, before)


@pytest.mark.parametrize("method", ["boost", "joint-lr"])
def test_two_scores_and_a_grade(files: Path, tmp_path: Path, method: str) -> None:
    cutoffs = None if method == "boost" else [0.9, 0.7, 0.3, 0.1]
    done = job(files, tmp_path, method, cutoffs=cutoffs)
    assert not done.errors
    due = CUTOFFS if cutoffs is None else tuple(cutoffs)
    result, brand = done.brand.result, pd.read_csv(files / "brand.csv")
    scores = pd.read_parquet(tmp_path / "brand" / "scores.parquet")
    assert scores["row"].tolist() == list(range(100, N - 100)) and result["scored"] == len(scores)
    for name in ("speed", "value", "combined"):
        assert scores[name].between(0, 1).all()
    # The rank share of a number follows its prediction, and half of the people of the fit are below 0.5.
    order = np.argsort(scores["value_prediction"], kind="stable")
    assert (np.diff(scores["value"].to_numpy()[order]) >= 0).all()
    assert abs(scores.loc[scores["role"] == "fit", "value"].median() - 0.5) < 0.02
    mine = brand.iloc[scores["row"]].reset_index(drop=True)
    held = (scores["role"] == "held_out").to_numpy()
    assert held.sum() > 50 and result["held_out"] == held.sum()
    assert auc(scores["speed"][held].to_numpy(), (mine["fast"] == "yes")[held].to_numpy()) > 0.75
    assert np.corrcoef(scores["value"][held], mine["spend"][held].rank())[0, 1] > 0.5
    assert result["speed"]["auc"] > 0.75 and result["value"]["r2"] > 0.3
    grades = result["grades"]
    assert sum(g["people"] for g in grades.values()) == len(scores)
    assert grades["A"]["speed"] > grades["E"]["speed"] and grades["A"]["value"] > grades["E"]["value"]
    below = (scores["combined"].to_numpy()[:, None] < np.array(due)).sum(axis=1)
    assert scores["grade"].tolist() == ["ABCDE"[k] for k in below] and set(below) == set(range(5))
    # A label is no column of the other's model, and the provider holds no score.
    for target in ("speed", "value"):
        model = json.loads((tmp_path / "brand" / target / "model.json").read_text())
        assert [s["name"] for s in model["plan"]["steps"]] == ["a", "b"]
        theirs = json.loads((tmp_path / "provider" / target / "model.json").read_text())
        assert [s["name"] for s in theirs["plan"]["steps"]] == ["c", "d"]
    assert not list((tmp_path / "provider").rglob("*.parquet"))
    # The model grades anybody as the job did.
    grading = Grading.from_document(json.loads((tmp_path / "brand" / "model.json").read_text())["grading"])
    speed, value = scores["speed"].to_numpy(), scores["value_prediction"].to_numpy()
    combined, letters = grading.combine(speed, value)
    assert np.allclose(combined, scores["combined"]) and letters.tolist() == scores["grade"].tolist()


def test_no_message_of_one_fit_is_one_of_the_other(files: Path, tmp_path: Path) -> None:
    """Each target's run has sessions of its own, so equal inputs give other bytes."""
    done = job(files, tmp_path)
    large = [m for side in (done.brand, done.provider) for m in side.channel.log if len(m) > 300]
    assert len(large) > 20 and len(set(large)) == len(large)


def test_who_withdraws_is_in_no_score(files: Path, tmp_path: Path) -> None:
    brand, provider = ScriptedCenter(), ScriptedCenter()

    def before(stage: str) -> None:
        if stage == "value":
            provider.withdrawn = {f"+86138{i:08d}" for i in range(300, 350)}
        if stage == "release":
            brand.withdrawn = {f"+86138{i:08d}" for i in range(350, 380)}

    done = job(files, tmp_path, "boost", before, (brand, provider))
    assert not done.errors
    rows = pd.read_parquet(tmp_path / "brand" / "scores.parquet")["row"].to_numpy()
    assert len(rows) == N - 200 - 80 and not ((rows >= 300) & (rows < 380)).any()


@pytest.mark.parametrize(
    ("private", "code"),
    [
        ({"value": None}, "job.parameter"),
        ({"value": "fast"}, "job.parameter"),
        ({"columns": ["spend"]}, "job.parameter"),
        ({"cutoffs": [0.2, 0.4, 0.6, 0.8]}, "job.parameter"),
        ({"label": "fast"}, "job.parameter"),
        ({"value": "phone"}, "dataset.category"),
    ],
)
def test_refusals(files: Path, tmp_path: Path, private: dict[str, object], code: str) -> None:
    with pytest.raises(NodeError) as caught:
        job(files, tmp_path, **private)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "params",
    [{"method": "guess"}, {"objective": "squared"}, {"value": "text"}, {"method": "joint-lr", "trees": 5}],
)
def test_parameters_that_do_not_fit(params: dict[str, object]) -> None:
    asked = spec("lead-score", columns=["c"], params=params, outputs={"scores": "brand"})
    with pytest.raises(NodeError, match=r"job\.spec"):
        KINDS["lead-score"].of(asked).check(asked, agreement(kinds=["lead-score"]))


def test_what_is_learned_is_the_union_of_both_fits() -> None:
    for method in ("boost", "joint-lr"):
        table = KINDS["lead-score"].methods[method].leakage
        for role, lines in KINDS[method].leakage.items():
            assert set(lines) < set(table[role])
        assert len(table["brand"]) == len(table["brand.zh"]) and len(table["provider"]) == len(
            table["provider.zh"]
        )


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.lists(st.floats(-2e6, 2e6), max_size=30))
def test_a_scale_never_falls_and_stays_in_0_1(fit: list[float], new: list[float]) -> None:
    scale = Scale.of(np.array(fit))
    shares = scale.share(np.sort(np.array([*fit, *new])))
    assert ((shares >= 0) & (shares <= 1)).all() and (np.diff(shares) >= 0).all()
    again = Scale.from_document(json.loads(json.dumps(scale.to_document())))
    assert np.array_equal(again.share(np.array(fit)), scale.share(np.array(fit)))


@pytest.mark.parametrize(
    "value", [[0.8, 0.6, 0.4], [0.8, 0.6, 0.4, 0.4], [1.0, 0.6, 0.4, 0.2], "0.8", [True, 0.6, 0.4, 0.2]]
)
def test_cutoffs_that_are_none(value: object) -> None:
    assert are_cutoffs(list(CUTOFFS)) and not are_cutoffs(value)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([3, 1000]))
def test_calibration_is_scikit_learns_isotonic_regression(seed: int, n: int, levels: int) -> None:
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(seed)
    said = rng.integers(0, levels, n) / levels
    yes = rng.random(n) < said
    found = Calibration.of(said, yes)
    due = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(said, yes)
    at = np.concatenate([said, rng.random(20) * 1.4 - 0.2])
    assert np.allclose(found.chance(at), due.predict(at), atol=1e-9)
    assert Calibration.from_document(json.loads(json.dumps(found.to_document()))) == found


def test_a_calibration_is_judged_by_people_whom_it_has_not_seen() -> None:
    rng = np.random.default_rng(1)
    chance = rng.random(4000)
    yes = rng.random(4000) < chance
    learned, before, after = Calibration.compared(chance**3, yes)  # far too low
    assert after < before - 0.01 and abs(learned.chance(chance**3) - chance).mean() < 0.05
    # Predictions that are true chances, and few people: in most draws of the labels it would be worse.
    draws = [Calibration.compared(chance[k : k + 60], yes[k : k + 60])[1:] for k in range(0, 3000, 60)]
    assert sum(after > before for before, after in draws) > 40
    assert np.mean([after - before for before, after in draws]) > 0.005


def test_calibrated_scores_are_chances(files: Path, tmp_path: Path) -> None:
    done = job(files, tmp_path, "joint-lr", l2=300.0, calibrate=True, holdout=0.5)  # chances all near a half
    assert not done.errors
    figures = done.brand.result["calibration"]
    assert set(figures) == {"speed"} and figures["speed"]["brier_calibrated"] < 0.25
    assert figures["speed"]["used"] and figures["speed"]["brier_calibrated"] < figures["speed"]["brier"]
    assert done.brand.result["notes"] == []
    scores = pd.read_parquet(tmp_path / "brand" / "scores.parquet")
    held = scores["role"] == "held_out"
    yes = (pd.read_csv(files / "brand.csv")["fast"].iloc[scores["row"]] == "yes").to_numpy()
    assert scores["speed"][held].mean() == pytest.approx(yes[held].mean(), abs=1e-9)
    by = scores.sort_values("speed_prediction")
    assert (np.diff(by["speed"]) >= 0).all() and scores["speed"].between(0, 1).all()
    few = job(files, tmp_path / "none", "joint-lr", calibrate=True, holdout=0.0)
    assert few.errors["brand"].code == "job.labels" and "calibration" in str(few.errors["brand"])


def test_a_calibration_that_is_no_better_is_left_out_and_noted(files: Path, tmp_path: Path) -> None:
    done = job(files, tmp_path, "joint-lr", calibrate=True, holdout=0.08)
    assert not done.errors
    figures = done.brand.result["calibration"]["speed"]
    assert not figures["used"] and figures["brier_calibrated"] > figures["brier"] + 0.001
    assert [note.split(":")[0] for note in done.brand.result["notes"]] == ["speed"]
    assert json.loads((tmp_path / "brand" / "model.json").read_text())["calibration"] == {}
    scores = pd.read_parquet(tmp_path / "brand" / "scores.parquet")
    assert "speed_prediction" not in scores and scores["speed"].nunique() > 100
