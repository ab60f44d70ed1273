"""The kind `boost` between two sides: as good as pooled, minimums, withdrawals, what the agreement
forbids."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pair import Outcome, ScriptedCenter, Side, agreement, run_job, spec
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from parties.datasets import Dataset
from parties.errors import NodeError
from parties.gate import Column
from parties.kinds import boost as kind
from parties.kinds import supervised

N = 2400


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boost")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(N, 2))
    city = rng.choice(["上海", "北京", "广州"], N)
    age = rng.integers(18, 70, N).astype(float)
    chance = 1 / (1 + np.exp(-(2 * x[:, 0] * (city == "上海") + x[:, 1] - 0.04 * (age - 40))))
    phone = [f"138{i:08d}" for i in range(N)]
    bought = np.where(rng.random(N) < chance, "yes", "no").astype(object)
    bought[::50] = None
    brand = pd.DataFrame({"phone": phone, "age": age, "bought": bought, "secret": rng.normal(size=N)})
    brand[: N - 300].to_csv(folder / "brand.csv", index=False)
    theirs = pd.DataFrame({"phone": phone, "x0": x[:, 0], "x1": x[:, 1], "city": city})
    theirs.loc[::7, "x1"] = np.nan
    theirs[300:].sample(frac=1, random_state=2).to_parquet(folder / "provider.parquet")
    return folder


ASKED = {"kind": "boost", "params": {"trees": 12, "depth": 4, "bins": 16}, "outputs": {"scores": "brand"}}


def job(
    files: Path, tmp_path: Path, before: object = None, centers: tuple = (None, None), **private: object
) -> Outcome:
    known = {"age": "profile", "bought": "profile"}
    theirs = dict.fromkeys(("x0", "x1", "city"), "profile")
    mine = {"label": "bought", "columns": ["age"], "holdout_seed": 3, "learning_rate": 0.3, **private}
    sides = {
        "brand": Side(
            Dataset("people", str(files / "brand.csv"), "phone", "phone", known),
            centers[0] or ScriptedCenter(),
            {k: v for k, v in mine.items() if v is not None},
        ),
        "provider": Side(
            Dataset("people", str(files / "provider.parquet"), "phone", "phone", theirs),
            centers[1] or ScriptedCenter(),
        ),
    }
    asked = spec("boost", columns=["x0", "x1", "city"], params=ASKED["params"], outputs=ASKED["outputs"])
    return run_job(asked, agreement(kinds=["boost"], privacy=None), sides, tmp_path, before)


def test_as_good_as_pooled_and_each_side_keeps_its_own(files: Path, tmp_path: Path) -> None:
    done = job(files, tmp_path)
    assert not done.errors
    result = done.brand.result
    scores = pd.read_parquet(tmp_path / "brand" / "scores.parquet")
    assert len(scores) == result["scored"] == N - 600
    brand, provider = pd.read_csv(files / "brand.csv"), pd.read_parquet(files / "provider.parquet")
    joined = brand.iloc[scores["row"]].reset_index(drop=True)
    assert (scores["role"] == "scored").to_numpy().tolist() == joined["bought"].isna().tolist()
    assert scores["score"].between(0, 1).all()
    table = joined.astype({"phone": str}).merge(provider.astype({"phone": str}), on="phone")
    table["city"] = table["city"].astype("category")
    fit, held = (scores["role"] == "fit").to_numpy(), (scores["role"] == "held_out").to_numpy()
    y = (table["bought"] == "yes").to_numpy()
    plain = HistGradientBoostingClassifier(
        max_iter=12, max_depth=4, learning_rate=0.3, early_stopping=False, categorical_features="from_dtype"
    ).fit(table.loc[fit, ["age", "x0", "x1", "city"]], y[fit])
    pooled = roc_auc_score(y[held], plain.decision_function(table.loc[held, ["age", "x0", "x1", "city"]]))
    assert abs(result["auc"] - roc_auc_score(y[held], scores["margin"][held])) < 1e-9
    assert result["auc"] > pooled - 0.02 and result["auc"] > 0.7
    mine = json.loads((tmp_path / "brand" / "model.json").read_text())
    theirs = json.loads((tmp_path / "provider" / "model.json").read_text())
    assert [s["name"] for s in mine["plan"]["steps"]] == ["age"] and theirs["splits"]
    assert [s["name"] for s in theirs["plan"]["steps"]] == ["x0", "x1", "city"]
    assert "auc" not in done.provider.result and "scores.parquet" not in str(
        list((tmp_path / "provider").iterdir())
    )
    assert set(result["gains"]) == {"own:age", "theirs:x0", "theirs:x1", "theirs:city"}


def test_who_withdraws_is_in_no_score(files: Path, tmp_path: Path) -> None:
    brand, provider = ScriptedCenter(), ScriptedCenter()

    def before(stage: str) -> None:
        if stage == "fit":
            provider.withdrawn = {f"+86138{i:08d}" for i in range(400, 500)}
        if stage == "release":
            brand.withdrawn = {f"+86138{i:08d}" for i in range(500, 550)}

    done = job(files, tmp_path, before, (brand, provider))
    assert not done.errors
    rows = pd.read_parquet(tmp_path / "brand" / "scores.parquet")["row"].to_numpy()
    assert len(rows) == N - 600 - 150 and not ((rows >= 400) & (rows < 550)).any()
    assert done.brand.result["matched"] == N - 600 - 100


@pytest.mark.parametrize(
    ("private", "code"),
    [
        ({"label": None}, "job.parameter"),
        ({"columns": ["secret"]}, "dataset.category"),
        ({"columns": ["bought"]}, "job.parameter"),
        ({"monotone": {"nobody": 1}}, "job.parameter"),
        ({"monotone": {"age": 1, "city": 1}}, "job.parameter"),
        ({"where": "age > 69"}, "job.labels"),
        ({"patience": -1}, "job.parameter"),
    ],
)
def test_refusals(files: Path, tmp_path: Path, private: dict[str, object], code: str) -> None:
    try:
        errors = list(job(files, tmp_path, **private).errors.values())
    except NodeError as error:
        errors = [error]
    assert any(getattr(e, "code", "") == code for e in errors), errors


def test_bins_follow_the_size_unless_they_are_signed() -> None:
    sizes = (5000, 20), (30_000, 17), (50_000, 20), (100_000, 20), (10**7, 5)
    assert [kind.bins_of({}, *size) for size in sizes] == [64, 64, 32, 16, 16]
    assert {kind.bins_of({"bins": 8}, *size) for size in sizes} == {8}


def test_settings_of_the_brand_reach_the_forest() -> None:
    given = {"row_share": 0.5, "column_share": 0.25, "patience": 3, "l2": 2.0, "minimum_rows": 60}
    ctx = SimpleNamespace(private={**given, "monotone": {"age": 1, "x1": -1, "both": 1}, "label": "y"})
    learning = kind._learning(ctx, "logistic", ("age", "both"), ["both", "x0", "x1"])  # type: ignore[arg-type]
    assert {name: getattr(learning, name) for name in given} == given
    assert learning.monotone_own == {0: 1, 1: 1} and learning.monotone_provider == {0: 1, 2: -1}


@pytest.mark.parametrize(
    "said", [{"bins": 4}, {"bins": True}, {"bins": None}, {"columns": ["x", 3]}, {"missing": []}]
)
def test_a_list_of_columns_that_cannot_be(said: dict[str, object]) -> None:
    message = {"columns": ["x", "y"], "missing": [True, False], "bins": 16}
    heard = SimpleNamespace(channel=SimpleNamespace(receive_json=lambda: {**message, **said}))
    with pytest.raises(NodeError, match=r"kind\.message"):
        supervised.received_columns(heard, (16, 32))  # type: ignore[arg-type]


@pytest.mark.parametrize(("largest", "taken"), [(1e99, True), (-1e101, False)])
def test_a_label_whose_square_is_no_number_is_refused(largest: float, taken: bool) -> None:
    column = Column("y", "numeric", np.array([1.0, np.nan, largest]))
    ctx = SimpleNamespace(view=SimpleNamespace(read=lambda names, rows: iter([column])))
    if taken:
        assert supervised.labels(ctx, "y", np.arange(3), False)[2] == largest  # type: ignore[arg-type]
        return
    with pytest.raises(NodeError, match=r"job\.labels: label 'y' has values beyond 1e\+100"):
        supervised.labels(ctx, "y", np.arange(3), False)  # type: ignore[arg-type]


def test_an_agreement_that_asks_for_noise_forbids_it() -> None:
    asked = spec("boost", columns=["x0"], params={}, outputs={"scores": "brand"})
    noisy = agreement(kinds=["boost"], privacy={"epsilon": 2.0, "delta": 1e-6, "clip": 1.0})
    with pytest.raises(NodeError, match=r"agreement\.privacy"):
        kind.check(asked, noisy)
