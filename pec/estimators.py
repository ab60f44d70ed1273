"""scikit-learn estimators that run the joint regression between two parties in one process.

For evaluation by somebody who has both sides' columns: `fit` splits the table, runs both machines of
protocols/joint against each other, every message encoded, and keeps each side's weights apart. Between two
companies the same protocol runs as a job (`pec job submit --kind joint-lr`); `pec.vertical` has the
estimators whose provider is a file or a partner's node.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import check_is_fitted

from parties import in_process
from parties.errors import NodeError
from pec.errors import PecError

Floats = npt.NDArray[np.float64]


class _Vertical(BaseEstimator):  # type: ignore[misc]
    """What the estimators share.

    provider_columns  names (of a frame) or positions of the columns that the provider has; the others are the
                      brand's
    l2, rank, steps   as in protocols/joint; l2 is 1/C of scikit-learn
    """

    _family = "logistic"

    def __init__(
        self,
        provider_columns: Sequence[str | int] = (),
        l2: float = 1.0,
        rank: int | None = None,
        steps: int | None = None,
        minimum_rows: int = 20,
    ) -> None:
        self.provider_columns = provider_columns
        self.l2 = l2
        self.rank = rank
        self.steps = steps
        self.minimum_rows = minimum_rows

    def _fit(self, X: Any, y: Floats) -> Self:
        table, names = _table(X)
        theirs = self._theirs(names)
        mine = [j for j in range(len(names)) if j not in set(theirs)]
        if len(y) != len(table):
            raise PecError("pec.input", f"{len(table)} rows and {len(y)} labels", "give one label a row")
        self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = len(names)
        # Each side standardises what it has; nothing of that crosses.
        self.mean_, deviation = table.mean(axis=0), table.std(axis=0)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)
        scaled = self._scaled(table)
        try:
            self.brand_, self.provider_ = in_process.fit(
                scaled[:, mine],
                scaled[:, theirs],
                y,
                [names[j] for j in theirs],
                family=self._family,
                l2=self.l2,
                rank=self.rank,
                steps=self.steps,
                minimum_rows=self.minimum_rows,
            )
        except NodeError as error:
            raise PecError("pec.input", error.detail) from error
        self._mine, self._theirs_at = mine, theirs
        self.n_iter_ = self.brand_.steps
        weights = np.zeros(len(names))
        weights[mine], weights[theirs] = self.brand_.weights, self.provider_.weights
        self.coef_ = self.brand_.scale * weights / self.scale_
        start = self.brand_.offset + self.brand_.scale * self.brand_.intercept
        self.intercept_ = float(start - self.coef_ @ self.mean_)
        return self

    def _theirs(self, names: list[str]) -> list[int]:
        found = []
        for column in self.provider_columns:
            if isinstance(column, str):
                if column not in names:
                    raise PecError(
                        "pec.column", f"there is no column {column!r}", f"it has: {', '.join(names)}"
                    )
                found.append(names.index(column))
            elif 0 <= int(column) < len(names):
                found.append(int(column))
            else:
                raise PecError("pec.column", f"there is no column {column}", f"{len(names)} columns came")
        if not found or len(set(found)) != len(found):
            raise PecError("pec.input", "provider_columns must name columns, each once", "say whose is what")
        return found

    def _scaled(self, table: Floats) -> npt.NDArray[np.float32]:
        return np.asarray((table - self.mean_) / self.scale_, dtype=np.float32)

    def _linear(self, X: Any) -> Floats:
        """The linear predictor, each side's part computed from its own columns and weights."""
        check_is_fitted(self, "coef_")
        table, names = _table(X)
        if len(names) != self.n_features_in_:
            raise PecError("pec.input", f"{len(names)} columns, {self.n_features_in_} were fitted")
        scaled = self._scaled(table)
        part = self.provider_.part(scaled[:, self._theirs_at])
        return self.brand_.score(np.ascontiguousarray(scaled[:, self._mine]), part)

    def model_card(self) -> dict[str, Any]:
        """What was fitted on what, as plain JSON; weights by side, and what each side learned."""
        from parties.kinds.joint_lr import JOINT_LR

        check_is_fitted(self, "coef_")
        names = self.feature_names_in_.tolist()
        return {
            "model": type(self).__name__,
            "family": self._family,
            "parameters": json.loads(json.dumps(self.get_params(), default=str)),
            "steps": self.n_iter_,
            "convergence": [size / self.brand_.sizes[0] for size in self.brand_.sizes],
            "training_rows_padded": self.provider_.padded_rows,
            "brand": {names[j]: float(self.coef_[j]) for j in self._mine},
            "provider": {names[j]: float(self.coef_[j]) for j in self._theirs_at},
            "intercept": self.intercept_,
            "learned": {side: list(lines) for side, lines in JOINT_LR.leakage.items()},
        }


class VerticalLogisticRegression(ClassifierMixin, _Vertical):  # type: ignore[misc]
    """Logistic regression on columns of two parties; two classes.

    Takes pandas, polars, pyarrow or numpy, finite numbers only; rows are the people whom both have.
    """

    _family = "logistic"

    def fit(self, X: Any, y: Any) -> Self:
        encoder = LabelEncoder()
        codes = encoder.fit_transform(np.asarray(y).ravel())
        self.classes_ = encoder.classes_
        if len(self.classes_) != 2:
            raise PecError("pec.input", f"{len(self.classes_)} classes; two are needed")
        return self._fit(X, codes.astype(np.float64))

    def decision_function(self, X: Any) -> Floats:
        """Log-odds, float64[n]."""
        return self._linear(X)

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities of the two classes, float64[n, 2]."""
        eta = self._linear(X)
        positive = 1.0 / (1.0 + np.exp(-np.clip(eta, -700, 700)))
        return np.column_stack([1.0 - positive, positive])

    def predict(self, X: Any) -> npt.NDArray[Any]:
        return np.asarray(self.classes_[(self._linear(X) > 0).astype(int)])


class VerticalLinearRegression(RegressorMixin, _Vertical):  # type: ignore[misc]
    """Ridge regression on columns of two parties."""

    _family = "linear"

    def fit(self, X: Any, y: Any) -> Self:
        return self._fit(X, np.asarray(y, dtype=np.float64).ravel())

    def predict(self, X: Any) -> Floats:
        return self._linear(X)


class VerticalPoissonRegression(RegressorMixin, _Vertical):  # type: ignore[misc]
    """Poisson regression of counts on columns of two parties."""

    _family = "poisson"

    def fit(self, X: Any, y: Any) -> Self:
        return self._fit(X, np.asarray(y, dtype=np.float64).ravel())

    def predict(self, X: Any) -> Floats:
        """Expected counts, float64[n]."""
        return np.asarray(np.exp(np.minimum(self._linear(X), 50.0)))


def _table(X: Any) -> tuple[Floats, list[str]]:
    """(float64[n, d], names) of pandas, polars, pyarrow or numpy; `pec.input` for what is no number."""
    if hasattr(X, "to_pandas"):  # polars and pyarrow
        X = X.to_pandas()
    names = [str(c) for c in X.columns] if hasattr(X, "columns") else []
    try:
        table = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PecError(
            "pec.input", f"a column holds no numbers: {error}", "encode categories first"
        ) from error
    if table.ndim != 2:
        raise PecError("pec.input", f"a table has two dimensions, not {table.ndim}")
    if not np.isfinite(table).all():
        raise PecError("pec.input", "missing or infinite values", "impute them first, e.g. by SimpleImputer")
    return table, names or [f"x{j}" for j in range(table.shape[1])]
