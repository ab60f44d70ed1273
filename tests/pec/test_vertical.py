"""The estimators: scikit-learn's interface, tables of three libraries, nodes on this machine, stacking."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pec_command import pec_here
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import pec
from parties.errors import NodeError
from parties.kinds import lookalike
from pec.errors import PecError
from pec.version import __version__
from pec.vertical import (
    LookalikeModel,
    StackedVertical,
    VerticalGradientBoosting,
    VerticalLogisticRegression,
    stacking,
)
from pec.vertical.sources import ConnectedProvider, NodeSource, as_table

WHY = "a public data set"
ALL = (VerticalLogisticRegression, VerticalGradientBoosting, LookalikeModel)


@pytest.fixture(scope="module")
def cancer() -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """(brand's X, y, provider's table): scikit-learn's breast cancer set, split by columns."""
    frame = load_breast_cancer(as_frame=True).frame
    ids = pd.Series([f"p{i:04d}" for i in range(len(frame))], name="person")
    y = frame.pop("target").to_numpy()
    mine = pd.concat([ids, frame.iloc[:, :4]], axis=1)
    theirs = pd.concat([ids, frame.iloc[:, 4:10]], axis=1).sample(frac=1, random_state=3)
    return mine, y, theirs


@pytest.mark.parametrize("kind", ALL)
def test_parameters_and_clones(kind: Any) -> None:
    made = kind("b.csv", id="phone", assume_consent=WHY, random_state=3)
    names = made.get_params()
    assert names["id"] == "phone" and names["provider"] == "b.csv"
    copy = clone(made.set_params(holdout=0.1))
    assert copy is not made and copy.get_params() == made.get_params() and copy.holdout == 0.1
    with pytest.raises(ValueError, match="Invalid parameter"):
        made.set_params(nonsense=1)
    assert not hasattr(LookalikeModel(), "predict_proba")


#: scikit-learn's own checks that pass bare arrays to nobody.
CHECKS = {
    *("check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed"),
    *("check_valid_tag_types", "check_mixin_order", "check_no_attributes_set_in_init"),
    *("check_parameters_default_constructible", "check_get_params_invariance", "check_set_params"),
    "check_estimators_unfitted",
}


@pytest.mark.parametrize("kind", [*ALL, StackedVertical])
def test_scikit_learns_own_checks(kind: Any) -> None:
    class TakesArrays(kind):
        """Says that it takes bare arrays: else nothing but the first check is made."""

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            assert not tags.input_tags.two_d_array and tags.input_tags.string
            tags.input_tags.two_d_array = True
            return tags

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = TakesArrays([("a", LookalikeModel())]) if kind is StackedVertical else TakesArrays()
        found = check_estimator(made, on_skip=None, on_fail=None)
    failed = {check["check_name"]: str(check["exception"]) for check in found if check["status"] == "failed"}
    assert not {name: why for name, why in failed.items() if name in CHECKS}
    assert {check["check_name"] for check in found} >= CHECKS


class Asked:
    """What an estimator asks a provider for, and a made-up answer."""

    def __init__(self, folder: Path, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("scores", "audience", "seeds"):
            pd.DataFrame({"row": [0]}).to_parquet(folder / f"{name}.parquet")
        self._ran = SimpleNamespace(job_id="j", folder=folder, result=result)
        for kind in ALL:
            monkeypatch.setattr(kind, "_source", lambda _: self)

    def run(self, kind: str, purpose: str, table: Any, id_: str, params: Any, private: Any) -> Any:
        self.params, self.private = params, private
        return self._ran


@pytest.mark.parametrize(
    ("given_", "params"),
    [
        ({}, {"features": "linear", "l2": 1.0, "l1": 0.0}),
        ({"bags": 3, "features": "crosses"}, {"features": "crosses", "l2": 1.0, "l1": 0.0, "bags": 3}),
        ({"alpha": 4, "l1_ratio": 0.25}, {"features": "linear", "l2": 3.0, "l1": 1.0}),
        (
            {"epsilon": 2, "clip": 3},
            {
                **{"features": "linear", "l2": 1.0, "l1": 0.0},
                "privacy": {"epsilon": 2.0, "delta": 1e-6, "clip": 3.0},
            },
        ),
    ],
)
def test_what_a_lookalike_asks_for(
    given_: dict[str, Any], params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(tmp_path, {"auc": 0.75}, monkeypatch)
    fitted = LookalikeModel("b.csv", hidden_share=0.1, **given_).fit(pd.DataFrame({"id": ["a", "b"]}))
    assert fitted.score() == 0.75 and asked.params == params
    assert asked.private == {"where": "1 = 1", "holdout": 0.2, "hidden_share": 0.1}
    lookalike.check_own(asked.private)
    assert all(lookalike.PARAMS[name](value) for name, value in params.items())
    with pytest.raises(PecError, match=r"pec\.usage.*l1_ratio"):
        LookalikeModel("b.csv", l1_ratio=1.0).fit(pd.DataFrame({"id": ["a", "b"]}))


def test_a_fit_that_ended_early_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = {
        "steps": 28,
        "converged": False,
        "weights": {"a": 2.0},
        "errors": {"a": 0.5},
        "p_values": {"a": 0.01},
    }
    result |= {"notes": ["the fit ended after its 28 gradients, before the minimum: a reason"]}
    asked = Asked(tmp_path, result, monkeypatch)
    X, y = pd.DataFrame({"id": ["a", "b"], "a": [1, 2]}), [0, 1]
    with pytest.warns(ConvergenceWarning, match="28 gradients"):
        fitted = VerticalLogisticRegression("b.csv", errors=True).fit(X, y)
    assert (fitted.n_iter_, fitted.converged_, asked.params["errors"]) == (28, False, True)
    assert fitted.columns_.loc[0, ["error", "p_value"]].tolist() == [0.5, 0.01]
    result.update(converged=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert VerticalLogisticRegression("b.csv").fit(X, y).converged_ and "errors" not in asked.params
    result.update(gains={"own:a": 1.0}, weights={})
    VerticalGradientBoosting("b.csv", monotone={"a": -1}).fit(X, y)
    assert asked.private["monotone"] == {"a": -1}
    assert "monotone" not in VerticalGradientBoosting("b.csv")._private()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_of_three_libraries(library: str) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "x": [1.0, None], "city": ["上海", None]})
    given_ = {
        "pandas": lambda: frame,
        "polars": lambda: pl.from_pandas(frame),
        "pyarrow": lambda: pa.table(frame),
    }
    table = as_table(given_[library]())
    assert table.column_names == ["id", "x", "city"] and table.column("x").null_count == 1
    assert [str(v) for v in table.column("id").to_pylist()] == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "x", "y", "code"),
    [
        ({}, np.zeros((3, 2)), [0, 1, 0], "pec.input"),
        ({}, pd.DataFrame({"a": [1, 2]}), [0, 1], "pec.column"),
        ({}, pd.DataFrame({"id": ["a", "b"]}), [1, 1], "pec.input"),
        ({}, pd.DataFrame({"id": ["a", "b"]}), [1, 0, 1], "pec.input"),
        ({"assume_consent": None}, pd.DataFrame({"id": ["a", "b"]}), [1, 0], "pec.usage"),
        ({"unmatched": "zero"}, pd.DataFrame({"id": ["a", "b"]}), [1, 0], "pec.usage"),
    ],
)
def test_what_can_not_be_fitted(changes: dict[str, Any], x: Any, y: list[int], code: str) -> None:
    provider = pd.DataFrame({"id": ["a", "b"], "z": [1, 2]})
    made = VerticalLogisticRegression(provider, **{"assume_consent": WHY, **changes})
    with pytest.raises(PecError) as caught:
        made.fit(x, y)
    assert caught.value.code == code and not hasattr(made, "job_id_")
    assert caught.value.hint in str(caught.value)


def test_columns_that_are_missing_at_predict_are_named() -> None:
    made = VerticalGradientBoosting(pd.DataFrame({"id": ["a"], "z": [1]}), assume_consent=WHY)
    made.job_id_, made.feature_names_in_ = "j", np.array(["id", "age", "city", "spend"], dtype=object)
    with pytest.raises(PecError, match="'age', 'spend'") as caught:
        made.predict(pd.DataFrame({"city": [1], "id": ["a"], "more": [2]}))
    assert caught.value.code == "pec.input" and "city" not in str(caught.value)


class WaitingNode:
    """The operator's client of a node whose partner has not approved yet."""

    def __init__(self, folder: Path) -> None:
        self.home = SimpleNamespace(
            path=folder, job=lambda id_: folder / id_, agreement=lambda id_: SimpleNamespace(provider="shop")
        )
        self.asked: list[Any] = []
        self.state = "awaiting_approval"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_dataset(self, dataset: Any) -> None:
        assert Path(dataset["path"]).exists()

    def submit(self, request: Any) -> str:
        self.asked.append(request)
        return f"job-{len(self.asked)}"

    def job(self, job_id: str) -> dict[str, Any]:
        result = {"n": 1} if self.state == "succeeded" else {}
        final = self.state in ("succeeded", "failed")
        return {"job_id": job_id, "state": self.state, "final": final, "peer": "shop", "result": result}

    def wait(self, job_id: str, timeout: float) -> dict[str, Any]:
        if not self.job(job_id)["final"]:
            time.sleep(timeout)
            raise NodeError("transport.silent", "the node did not answer in time", "does its node hang?")
        return self.job(job_id)


def test_a_job_that_waits_for_its_approval_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = WaitingNode(tmp_path)
    monkeypatch.setattr("parties.client.NodeClient", lambda home: node)
    source = NodeSource(ConnectedProvider("home", "a1", "people", ["profile"], timeout=0.02))

    def run(rows: int = 3) -> Any:
        table = pa.table({"id": list(range(rows))})
        return source.run("lookalike", "lookalike", table, "id", {}, {"where": "1 = 1"})

    with pytest.raises(PecError) as caught:
        run()
    assert caught.value.code == "pec.waiting"
    for words in ("job-1", "waits for shop's approval", "pec job approve job-1", "goes on with this job"):
        assert words in str(caught.value)
    node.state = "running"
    with pytest.raises(PecError, match=r"pec\.timeout: job job-1 is running"):
        run()
    assert len(node.asked) == 1
    with pytest.raises(PecError, match="job-2"):  # other people are another job
        run(4)
    node.state = "succeeded"
    assert run().job_id == "job-1" and run(4).job_id == "job-2" and len(node.asked) == 2
    assert run().job_id == "job-3"  # what was asked for is answered; the same again is a new job
    node.state = "awaiting_approval"
    with pytest.raises(PecError, match="job-4"):
        run()
    node.state = "failed"
    with pytest.raises(PecError, match="job job-5 ended as failed"):
        run()


def test_a_folder_of_the_packages_name_beside_the_script(tmp_path: Path) -> None:
    """A clone beside the script hides an editable install's `pec/__init__.py`; the modules do without."""
    (tmp_path / "pec" / "docs").mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text("import pec.cli\nprint(pec.cli.__version__)\n")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip() == __version__, done.stderr


def test_processes_start_with_the_installed_package() -> None:
    """`-P`: a folder `pec`, `parties` or `numpy` where the user stands is not imported by what we start."""
    root = Path(pec.__file__).parents[1]
    starts = 0
    for package in ("pec", "parties", "consent_center"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text("utf-8")
            assert "from pec import __version__" not in text, path
            for rest in text.split("sys.executable,")[1:]:
                starts += 1
                assert rest.split(",")[0].strip() == '"-P"', path
    assert starts >= 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_logistic_regression_in_a_pipeline(cancer: tuple[Any, ...]) -> None:
    """Fitted on two thirds, it ranks the last third as well as the pooled model's AUC in the literature."""
    X, y, theirs = cancer
    train = np.arange(len(y)) % 3 != 0
    scale = ColumnTransformer(
        [("scale", StandardScaler(), list(X.columns[1:]))],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    model = make_pipeline(
        scale, VerticalLogisticRegression(theirs, id="person", assume_consent=WHY, steps=12, errors=True)
    )
    model.fit(X[train], np.where(y[train] == 1, "benign", "malignant"))
    last = model[-1]
    assert last.classes_.tolist() == ["benign", "malignant"] and last.card_.exists()
    assert (last.columns_["error"] > 0).all() and last.n_iter_ <= 12
    some = X[~train]
    stranger = some.iloc[:1].assign(person="nobody")
    chance = model.predict_proba(pd.concat([some, stranger, some.iloc[:1]]))
    assert chance.shape == (len(some) + 2, 2) and np.allclose(chance.sum(axis=1), 1)
    assert roc_auc_score(y[~train] == 0, chance[: len(some), 1]) > 0.97
    assert chance[len(some), 1] == pytest.approx(last.prior_)  # not at the provider
    assert chance[-1, 1] == chance[0, 1]  # the same person twice
    with pytest.raises(PecError, match=r"pec\.usage") as caught:
        pickle.dumps(last)
    assert "ConnectedProvider" in caught.value.hint
    again = clone(last)
    assert not hasattr(again, "job_id_")


@pytest.mark.slow
def test_boosting_under_cross_validation(cancer: tuple[Any, ...]) -> None:
    X, y, theirs = cancer
    model = VerticalGradientBoosting(
        theirs, id="person", assume_consent=WHY, trees=8, depth=2, bins=8, learning_rate=0.4
    )
    split = ShuffleSplit(1, test_size=0.3, random_state=1)  # each fold is a training job and a score job
    scores = cross_val_score(model, pl.from_pandas(X), y, cv=split, scoring="roc_auc", error_score="raise")
    assert scores.min() > 0.9


# -- stacking ------------------------------------------------------------------------------------------------


def job_scores(folder: Path, rows: np.ndarray, score: np.ndarray, role: np.ndarray) -> Path:
    folder.mkdir()
    pd.DataFrame({"row": rows, "score": score, "role": role}).to_parquet(folder / "scores.parquet")
    return folder


def two_models(folder: Path, n: int = 3000) -> tuple[dict[str, Path], np.ndarray, np.ndarray]:
    """Two providers' scores, each of half of what tells the label; the second has no first third."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, n))
    y = (rng.random(n) < 1 / (1 + np.exp(-1.5 * (a + b)))).astype(float)
    y[::50] = np.nan
    role = np.where(rng.random(n) < 0.6, "fit", "held_out").astype(object)
    role[::50] = "scored"
    a = np.where(role == "fit", a + 3 * np.nan_to_num(y), a)  # an overfitted training score
    late = np.arange(n) >= n // 3
    found = {
        "a": job_scores(folder / "a", np.arange(n), a, role),
        "b": job_scores(folder / "b", np.arange(n)[late], b[late], role[late]),
    }
    return found, y, role


def test_stacked_models_beat_each_one(tmp_path: Path) -> None:
    paths, y, role = two_models(tmp_path)
    models = {name: stacking.read(path) for name, path in paths.items()}
    found = stacking.stack(models, y)
    assert found.auc > max(found.auc_of.values()) + 0.02
    assert set(found.weights) == {"a", "b", "b: not there"} and found.rows == int((role == "held_out").sum())
    # Learned off the training people, weights of equal models are alike, however overfitted one is there.
    assert 0.7 < found.weights["a"] / found.weights["b"] < 1.4
    assert found.scores["score"].between(0, 1).all() and len(found.scores) == len(y)
    again = stacking.stack(models, y)
    assert again.weights == found.weights and again.auc == found.auc


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_noise_stacked_on_a_model_changes_little(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 800
    a, noise = rng.normal(size=(2, n))
    y = (rng.random(n) < 1 / (1 + np.exp(-2 * a))).astype(float)
    table = {"row": np.arange(n), "role": np.full(n, "held_out")}
    found = stacking.stack(
        {"a": pd.DataFrame({**table, "score": a}), "n": pd.DataFrame({**table, "score": noise})}, y
    )
    assert found.auc > found.auc_of["a"] - 0.02


def test_models_that_can_not_be_stacked(tmp_path: Path) -> None:
    paths, y, role = two_models(tmp_path)
    models = {name: stacking.read(path) for name, path in paths.items()}
    fitted = {name: table.assign(role="fit") for name, table in models.items()}
    twice = {**models, "a": pd.concat([models["a"], models["a"].iloc[:1]])}
    for given_, labels in ((fitted, y), ({"a": models["a"]}, y), (models, y[:100]), (twice, y)):
        with pytest.raises(PecError, match=r"pec\.input"):
            stacking.stack(given_, labels)
    with pytest.raises(PecError, match=r"pec\.file"):
        stacking.read(tmp_path / "nothing")


def test_the_command(tmp_path: Path) -> None:
    paths, y, _ = two_models(tmp_path)
    frame = pd.DataFrame(
        {"id": range(len(y)), "bought": np.where(np.isnan(y), None, np.where(y == 1, "yes", "no"))}
    )
    frame.to_csv(tmp_path / "brand.csv", index=False)
    answer = pec_here(
        *("model", "stack", "--model", f"a={paths['a']}", "--model", f"b={paths['b'] / 'scores.parquet'}"),
        *("--labels", tmp_path / "brand.csv", "--label", "bought", "--out", tmp_path / "out", "--json"),
    )
    assert answer.code == 0, answer.out + answer.err
    assert answer.json["auc"] > answer.json["best_single_auc"]
    assert len(pd.read_parquet(tmp_path / "out" / "scores.parquet")) == len(y)
    wrong = pec_here(
        *("model", "stack", "--model", "a", "--labels", tmp_path / "brand.csv", "--label", "bought"),
        *("--out", tmp_path / "out", "--json"),
    )
    assert wrong.code == 2 and wrong.error["code"] == "pec.usage"


class Plain:
    """A stand-in with an estimator's interface for one provider: its score is a column that it may see."""

    def __init__(self, column: str) -> None:
        self.column = column

    def get_params(self, deep: bool = True) -> dict[str, str]:
        return {"column": self.column}

    def fit(self, X: Any, y: Any) -> Plain:
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        p = 1 / (1 + np.exp(-as_table(X).column(self.column).to_numpy()))
        return np.column_stack([1 - p, p])


def test_several_providers_as_one_estimator() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1500, 2))
    y = np.where(rng.random(1500) < 1 / (1 + np.exp(-2 * x.sum(axis=1))), "yes", "no")
    X = pd.DataFrame({"id": range(1500), "a": x[:, 0], "b": x[:, 1]})
    both = StackedVertical([("a", Plain("a")), ("b", Plain("b"))])
    assert cross_val_score(both, X, y, cv=3, scoring="roc_auc", error_score="raise").min() > 0.85
    both.fit(X, y)
    assert set(both.weights_) == {"a", "b"} and set(both.predict(X)) == {"no", "yes"}
    with pytest.raises(PecError, match=r"pec\.usage"):
        StackedVertical([("a", Plain("a"))]).fit(X, y)
