"""The oracle: plain scikit-learn on the rows that nobody has together in production.

Used by `pec demo`, `pec simulate` and `pec bench`, where one person holds both files, to show what the
private computation costs in quality. Never part of a job.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pec import metrics

MAX_LEVELS = 1000


def pooled_scores(
    frame: pd.DataFrame, train_seed: npt.NDArray[np.bool_], penalty: float = 1.0
) -> npt.NDArray[np.float64]:
    """Scores float[n] of a logistic regression of `train_seed` (bool[n]) on all columns of `frame` (n rows),
    with C = 1/`penalty`.

    Numbers, dates and amounts of money: median imputed with an indicator of missing values, standardised.
    Everything else: one level a value, missing being a level.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table, columns = _prepared(frame)
    model = make_pipeline(columns, LogisticRegression(C=1 / penalty, max_iter=1000))
    model.fit(table, train_seed)
    scores: npt.NDArray[np.float64] = model.decision_function(table)
    return scores


def joint_scores(
    frame: pd.DataFrame, labels: npt.NDArray[np.float64], fit: npt.NDArray[np.bool_], family: str
) -> npt.NDArray[np.float64]:
    """What plain scikit-learn, fitted to the rows `fit` (bool[n]) of the pooled columns, says of all rows:
    log-odds, values or expected counts, float64[n]. Penalty 1, as a joint-lr job has by default.
    """
    from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
    from sklearn.pipeline import make_pipeline

    table, columns = _prepared(frame)
    count = int(fit.sum())
    models = {
        "logistic": LogisticRegression(max_iter=1000),
        "linear": Ridge(alpha=1.0),
        "poisson": PoissonRegressor(alpha=1.0 / count, max_iter=1000),
    }
    model = make_pipeline(columns, models[family])
    model.fit(table[fit], labels[fit])
    if family == "logistic":
        scores: npt.NDArray[np.float64] = model.decision_function(table)
    else:
        scores = model.predict(table)
    return scores


def _prepared(frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """The frame with readable columns, and the transformer that makes them numbers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({c: _readable(frame[c]) for c in frame.columns})
    numeric = [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]) and frame[c].notna().any()]
    numeric = [c for c in numeric if not pd.api.types.is_bool_dtype(frame[c])]
    other = [c for c in frame.columns if c not in numeric]
    table = pd.DataFrame({c: _numbers(frame[c]) for c in numeric})
    for c in other:
        table[c] = frame[c].astype("object").where(frame[c].notna(), "(missing)").astype(str).to_numpy()
    encoder = OneHotEncoder(handle_unknown="ignore", max_categories=MAX_LEVELS)
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
                numeric,
            ),
            ("levels", encoder, other),
        ]
    )
    return table, columns


def pooled_auc(
    frame: pd.DataFrame,
    train_seed: npt.NDArray[np.bool_],
    heldout_seed: npt.NDArray[np.bool_],
    penalty: float = 1.0,
) -> float:
    """AUC of held-out seeds against all rows but the training seeds, as `pec.metrics` measures the job's
    own.
    """
    keep = ~train_seed
    scores = pooled_scores(frame, train_seed, penalty)
    return metrics.auc(metrics.rank(scores[keep], heldout_seed[keep]))


class Learner:
    """Plain scikit-learn with the settings of a job that learned from labels; `result` is the brand's."""

    def __init__(self, kind: str, result: dict[str, Any]) -> None:
        self._kind, self._result = kind, result

    def predict(
        self, table: pd.DataFrame, y: npt.NDArray[np.float64], fit: npt.NDArray[np.bool_], bins: int = 255
    ) -> npt.NDArray[np.float64]:
        """Fit to the rows `fit` bool[n], with up to `bins` bins a column; margins (values, for a squared
        objective) float64[n] of all rows.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        readable = pd.DataFrame({c: _readable(table[c]) for c in table.columns})
        numeric = [c for c in readable.columns if pd.api.types.is_numeric_dtype(readable[c])]
        plain = pd.DataFrame({c: _numbers(readable[c]) for c in numeric if readable[c].notna().any()})
        for c in readable.columns.difference(numeric):
            codes = readable[c].astype("string").fillna("(missing)")
            top = codes.value_counts().index[: bins - 5]
            plain[c] = pd.Categorical(codes.where(codes.isin(top), "(other)"))
        settings = {
            "max_iter": self._result["settings"]["trees"],
            "max_depth": self._result["settings"]["depth"],
            "learning_rate": self._result["settings"]["learning_rate"],
            "l2_regularization": self._result["settings"]["l2"],
            "max_leaf_nodes": None,
            "max_bins": bins,
            "early_stopping": False,
            "categorical_features": "from_dtype",
        }
        wanted = self._result["settings"].get("monotone") or {}
        signs = {c: wanted.get(c.removeprefix("provider:"), 0) for c in numeric if c in plain}
        if any(signs.values()):
            settings["monotonic_cst"] = {c: sign for c, sign in signs.items() if sign}
        if self._result["objective"] == "squared":
            values: npt.NDArray[np.float64] = (
                HistGradientBoostingRegressor(**settings).fit(plain[fit], y[fit]).predict(plain)
            )
            return values
        model = HistGradientBoostingClassifier(**settings).fit(plain[fit], y[fit])
        margins: npt.NDArray[np.float64] = model.decision_function(plain)
        return margins


def _readable(column: pd.Series) -> pd.Series:
    """Dates as days, and text that is a date or an amount of money in every row as a number."""
    if pd.api.types.is_numeric_dtype(column):
        return column
    present = column.dropna()
    if pd.api.types.is_datetime64_any_dtype(column):
        return _days(column)
    text = present.astype("string").str.strip()
    if not len(text) or not text.str.contains(r"\d").all():
        return column
    days = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
    slashed = pd.to_datetime(text, errors="coerce", format="%Y/%m/%d", utc=True)
    amounts = pd.to_numeric(text.str.replace(r"[$€£¥￥%元,\s]", "", regex=True), errors="coerce")
    dated = text.str.match(r"\d{4}[-/]").all()
    for read in (_days(days), _days(slashed)) if dated else (amounts.astype(float),):
        if read.notna().all():
            return read.reindex(column.index)
    return column


def _days(column: pd.Series) -> pd.Series:
    moments = pd.to_datetime(column, utc=True)
    return (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    values[~np.isfinite(values)] = np.nan
    return values
