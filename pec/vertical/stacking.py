"""Several providers: one model each, combined by the brand on its own labels.

`stack` takes `scores.parquet` of several jobs. It fits a logistic regression of the labels on the scores, on
people whom **no** model was fitted to: a score of a training row flatters its model, and the more a model
overfits, the more weight it would get. Its own quality is measured out of fold on these same people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted

from pec import metrics
from pec.errors import PecError

#: Fewer held-out people of either class than this give no weights worth having.
LEAST = 10
FOLDS = 5
#: Columns of scores.parquet that may be a model's score, the first that is there counts.
SCORES = ("margin", "score", "combined")


@dataclass(frozen=True)
class Stacked:
    """`scores` by line of the brand's file: `row`, `score` (probability), `role`, and each model's score.

    `role` is "stacked" (the weights were learned on it), "fit" (of some model) or "scored". `weights`
    by model, `auc` out of fold; `auc_of` each model's on the same people.
    """

    scores: pd.DataFrame
    weights: dict[str, float]
    intercept: float
    auc: float
    auc_of: dict[str, float]
    rows: int

    def to_document(self) -> dict[str, Any]:
        return {
            "models": list(self.weights),
            "weights": self.weights,
            "intercept": self.intercept,
            "auc": self.auc,
            "auc_of": self.auc_of,
            "best_single_auc": max(self.auc_of.values()),
            "rows_stacked": self.rows,
            "rows_scored": len(self.scores),
        }


def read(path: Path) -> pd.DataFrame:
    """(row, score, role) of a job's `scores.parquet`, or of the one in a job's folder. Raises `pec.input`."""
    file = path / "scores.parquet" if path.is_dir() else path
    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise PecError("pec.file", f"{file}: {error}", "give a job's folder or its scores.parquet") from error
    column = next((name for name in SCORES if name in table), None)
    if column is None or not {"row", "role"} <= set(table):
        raise PecError(
            "pec.input",
            f"{file} has no row, role and score",
            "give the scores of a boost, joint-lr or lead-score job",
        )
    return table[["row", column, "role"]].rename(columns={column: "score"})


def stack(models: Mapping[str, pd.DataFrame], labels: npt.NDArray[np.float64], seed: int = 1) -> Stacked:
    """Combine scores of several models. `labels` float64[lines of the brand's file], 1, 0 or NaN.

    People whom a provider doesn't have get that model's mean score and a flag, which has a weight too.
    Raises `pec.input` with too few people whom no model was fitted to.
    """
    if len(models) < 2:
        raise PecError("pec.input", f"{len(models)} model", "give two or more")
    rows = np.unique(np.concatenate([table["row"].to_numpy() for table in models.values()]))
    if len(rows) and rows[-1] >= len(labels):
        raise PecError("pec.input", f"row {rows[-1]} of the scores is beyond the {len(labels)} labels")
    design, names, in_fit = _design(models, rows)
    y = labels[rows]
    free = ~in_fit & ~np.isnan(y)
    for value, word in ((1.0, "with"), (0.0, "without")):
        if int((y[free] == value).sum()) < LEAST:
            raise PecError(
                "pec.input",
                f"{int((y[free] == value).sum())} people {word} the label were in no model's fit, "
                f"{LEAST} are needed",
                "hold out more people, and the same ones in every job: --private holdout_seed",
            )
    x, truth = design[free], y[free].astype(int)
    scale = x.std(axis=0)
    scale[scale == 0] = 1.0
    center = x.mean(axis=0)
    model = LogisticRegression(C=1.0, max_iter=1000)
    out = np.zeros(len(truth))
    for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, truth):
        part = clone(model).fit((x[fit] - center) / scale, truth[fit])
        out[held] = part.decision_function((x[held] - center) / scale)
    model.fit((x - center) / scale, truth)
    weights = model.coef_[0] / scale
    scores = pd.DataFrame({"row": rows, "score": model.predict_proba((design - center) / scale)[:, 1]})
    scores["role"] = np.where(free, "stacked", np.where(in_fit, "fit", "scored"))
    for j, name in enumerate(models):
        scores[name] = design[:, j]
    return Stacked(
        scores,
        dict(zip(names, weights.tolist(), strict=True)),
        float(model.intercept_[0] - (weights * center).sum()),
        metrics.auc(metrics.rank(out, truth > 0)),
        {n: metrics.auc(metrics.rank(x[:, j], truth > 0)) for j, n in enumerate(models)},
        len(truth),
    )


def _design(
    models: Mapping[str, pd.DataFrame], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], list[str], npt.NDArray[np.bool_]]:
    """(float64[n, models + flags], names of the columns, bool[n]: in any model's fit)."""
    columns, flags, in_fit = [], [], np.zeros(len(rows), dtype=bool)
    for name, table in models.items():
        if table["row"].duplicated().any():
            raise PecError("pec.input", f"{name}: a row stands twice in its scores")
        found = table.set_index("row").reindex(rows)
        score = found["score"].to_numpy(np.float64)
        missing = np.isnan(score)
        in_fit |= (found["role"] == "fit").to_numpy()
        columns.append(np.where(missing, np.nanmean(score), score))
        if missing.any():
            flags.append((f"{name}: not there", missing.astype(np.float64)))
    names = [*models, *(name for name, _ in flags)]
    return np.column_stack([*columns, *(flag for _, flag in flags)]), names, in_fit


def write(stacked: Stacked, folder: Path) -> tuple[Path, Path]:
    """`scores.parquet` and `stack.json` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stacked.scores.to_parquet(folder / "scores.parquet", index=False)
    text = json.dumps(stacked.to_document(), ensure_ascii=False, indent=1)
    (folder / "stack.json").write_text(text + "\n", encoding="utf-8")
    return folder / "scores.parquet", folder / "stack.json"


class StackedVertical(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of several, one a provider: `StackedVertical([("a", model_a), ("b", model_b)])`.

    `fit` holds `share` of the labelled rows back from all of them, fits each on the rest, and learns the
    weights of their scores on the rows held back. `predict_proba` asks every provider.
    """

    def __init__(
        self, estimators: Sequence[tuple[str, Any]], *, share: float = 0.25, random_state: int = 1
    ) -> None:
        self.estimators = estimators
        self.share = share
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """As those of its estimators: tables, no bare arrays, two classes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        tags.non_deterministic = True
        return tags

    def fit(self, X: Any, y: Any) -> StackedVertical:
        """X as each estimator takes it; y: two classes, without gaps."""
        from pec.vertical.sources import as_table

        if len(self.estimators) < 2:
            raise PecError("pec.usage", f"{len(self.estimators)} estimator", "give two or more")
        table, values = as_table(X), np.asarray(y).ravel()
        self.classes_ = np.unique(values)
        if len(self.classes_) != 2 or len(values) != table.num_rows:
            raise PecError(
                "pec.input", f"y has {len(self.classes_)} classes and {len(values)} rows", "two are needed"
            )
        truth = (values == self.classes_[1]).astype(int)
        kept = np.random.default_rng(self.random_state).random(len(truth)) < self.share
        self.estimators_ = []
        scores = np.empty((int(kept.sum()), len(self.estimators)))
        if min(int(truth[kept].sum()), int((1 - truth[kept]).sum())) < LEAST:
            raise PecError(
                "pec.input", "too few rows are held back for the weights", "use more rows or a larger share"
            )
        for j, (_, estimator) in enumerate(self.estimators):
            made = clone(estimator).fit(table.filter(~kept), values[~kept])
            scores[:, j] = _logit(made.predict_proba(table.filter(kept))[:, 1])
            self.estimators_.append(made)
        self.final_ = LogisticRegression(C=1.0, max_iter=1000).fit(scores, truth[kept])
        self.weights_ = {
            name: float(w) for (name, _), w in zip(self.estimators, self.final_.coef_[0], strict=True)
        }
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """float64[n, 2]."""
        check_is_fitted(self, "final_")
        scores = np.column_stack([_logit(made.predict_proba(X)[:, 1]) for made in self.estimators_])
        found: npt.NDArray[np.float64] = self.final_.predict_proba(scores)
        return found

    def predict(self, X: Any) -> npt.NDArray[Any]:
        second = self.predict_proba(X)[:, 1] >= 0.5
        chosen: npt.NDArray[Any] = self.classes_[second.astype(int)]
        return chosen


def _logit(chance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(chance, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped / (1 - clipped)))
