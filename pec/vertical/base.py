"""The estimators: scikit-learn's interface over jobs between a brand and its provider."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from pec.errors import PecError
from pec.vertical.sources import ConnectedProvider, LocalSource, NodeSource, Ran, as_table

LABEL = "pec label"
UNMATCHED = ("prior", "nan", "raise")


class _Vertical(BaseEstimator):  # type: ignore[misc]
    """What they share: where the provider is, and X as a table with an id column."""

    _kind = ""

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: tables with an id column, texts and gaps in them, no bare arrays."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        tags.non_deterministic = True  # nonces, keys and, unless random_state is given, who is held out
        return tags

    def _source(self) -> LocalSource | NodeSource:
        provider = self.provider
        if isinstance(provider, ConnectedProvider):
            return NodeSource(provider)
        reason = self.assume_consent
        if not reason:
            raise PecError(
                "pec.usage",
                "with a provider's file, assume_consent must say why consent may be assumed",
                "the reason stands in both ledgers; for real people connect a node: ConnectedProvider",
            )
        other = self.provider_id or self.id
        return LocalSource(provider, other, self.id_kind, reason)

    def _table(self, X: Any) -> pa.Table:
        table = as_table(X)
        id_ = self.id
        if id_ not in table.column_names:
            raise PecError(
                "pec.column",
                f"X has no column {id_!r}",
                "X carries the identifiers; a step before this one must let that column through",
            )
        return table

    def _labelled(self, table: pa.Table, y: Any) -> tuple[pa.Table, npt.NDArray[Any]]:
        """(table with the label as 1, 0 or null; the two classes, the second one counts as 1)."""
        values = pd.Series(np.asarray(y).ravel())
        if len(values) != table.num_rows:
            raise PecError("pec.input", f"X has {table.num_rows} rows and y {len(values)}")
        known = values.notna().to_numpy()
        classes = np.unique(values[known].to_numpy())
        if len(classes) != 2:
            raise PecError("pec.input", f"y has {len(classes)} classes", "two are needed")
        flags = pa.array((values == classes[1]).to_numpy().astype(np.int64), mask=~known)
        return table.append_column(LABEL, flags), classes


class _VerticalClassifier(ClassifierMixin, _Vertical):  # type: ignore[misc]
    """A classifier of the brand's people on columns of both sides."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _params(self) -> dict[str, Any]:
        raise NotImplementedError

    def _private(self) -> dict[str, Any]:
        return {}

    def fit(self, X: Any, y: Any) -> Any:
        """Train with the provider. X: table with the id column; y: two classes, None or NaN without a label.

        Afterwards: `job_id_`, `result_` (the brand's figures), `classes_`, `columns_` (gains or weights),
        `scores_` (row of X, score, role), `card_` (path of the model card's JSON),
        `auc_` of held-out people (None without `holdout`).
        """
        if self.unmatched not in UNMATCHED:
            raise PecError("pec.usage", f"unmatched is one of {', '.join(UNMATCHED)}")
        from parties.model_card import columns

        table, classes = self._labelled(self._table(X), y)
        id_ = self.id
        own = [c for c in table.column_names if c not in (id_, LABEL)]
        private = {"label": LABEL, "columns": own, "holdout": float(self.holdout)}
        if self.random_state is not None:
            private["holdout_seed"] = int(self.random_state)
        self._at = self._source()
        ran = self._at.run(self._kind, self._kind, table, id_, self._params(), {**private, **self._private()})
        self.classes_, self.n_features_in_ = classes, len(own)
        self.feature_names_in_ = np.array([c for c in table.column_names if c != LABEL], dtype=object)
        self._keep(ran)
        known = table.column(LABEL).drop_null().to_numpy()
        self.prior_ = float(known.mean())
        self.columns_ = pd.DataFrame(columns(ran.result))
        return self

    def _keep(self, ran: Ran) -> None:
        self.job_id_, self.result_, self.auc_ = ran.job_id, ran.result, ran.result.get("auc")
        self.card_ = ran.folder / "model_card.json"
        self.scores_ = pd.read_parquet(ran.folder / "scores.parquet")

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """float64[n, 2] by a `score` job with the model of `fit`: both nodes evaluate their part.

        Who is not at the provider gets the share of the second class in `fit` (`unmatched="prior"`), NaN
        ("nan"), or stops the call ("raise").
        """
        check_is_fitted(self, "job_id_")
        table = self._table(X)
        id_ = self.id
        lost = [str(c) for c in self.feature_names_in_ if c not in table.column_names]
        if lost:
            raise PecError("pec.input", f"X lacks columns that fit saw: {', '.join(map(repr, lost))}")
        table = table.select(self.feature_names_in_.tolist())
        params = {"model": self.job_id_, "method": self._kind}
        ran = self._at.run("score", self._kind, table, id_, params, {})
        found = pd.read_parquet(ran.folder / "scores.parquet")
        chance = np.full(table.num_rows, np.nan)
        chance[found["row"].to_numpy()] = found["prediction"].to_numpy()
        chance = self._same_person(table.column(id_), chance)
        missing = np.isnan(chance)
        how = self.unmatched
        if missing.any() and how == "raise":
            raise PecError(
                "pec.input", f"{int(missing.sum())} of {len(chance)} people are not at the provider or not in"
            )
        if how == "prior":
            chance[missing] = self.prior_
        return np.column_stack([1 - chance, chance])

    @staticmethod
    def _same_person(ids: pa.ChunkedArray, chance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """A person who stands in X twice is scored once: all of that person's rows get the score."""
        by_id = pd.Series(chance).groupby(ids.cast(pa.string()).to_pandas().to_numpy()).transform("max")
        return np.where(np.isnan(chance), by_id.to_numpy(np.float64), chance)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The more probable class of each row; who has no probability gets the first class."""
        second = self.predict_proba(X)[:, 1] >= 0.5
        chosen: npt.NDArray[Any] = self.classes_[second.astype(int)]
        return chosen

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "job_id_")

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(getattr(self, "_at", None), LocalSource):
            raise PecError(
                "pec.usage",
                "a model that was trained with a provider's file lives in nodes that end with this process",
                "train with ConnectedProvider to keep one; parameters alone: clone(estimator)",
            )
        state: dict[str, Any] = super().__getstate__()
        return state


class VerticalLogisticRegression(_VerticalClassifier):
    """Logistic regression on columns of both sides (`joint-lr`, protocols/joint/README.md).

    provider        path or table of the provider's file (evaluation), or a `ConnectedProvider`
    id, provider_id the column that identifies people in X, and in the provider's file if named otherwise
    assume_consent  with a file: why consent may be assumed; stands in both ledgers
    l2, rank, steps penalty, terms of the expansion and steps of the fit at the most, as both sides sign them;
                    None: by the number of the provider's rows (protocols/joint/README.md, 3.4 and 8)
    errors          also standard errors and p-values of the own weights, in `columns_`; the agreement with a
                    connected partner must have `standard_errors`
    holdout         share of the labelled people that is kept from the fit to measure `auc_`
    random_state    who is held out, as a function of the order of X
    unmatched       what `predict_proba` says of people who are not at the provider: prior, nan, raise

    Besides the attributes that `fit` names: `n_iter_` and `converged_`. A fit that ended before its minimum
    warns (`ConvergenceWarning`).
    """

    _kind = "joint-lr"

    def __init__(
        self,
        provider: Any = None,
        *,
        id: str = "id",
        provider_id: str | None = None,
        id_kind: str = "auto",
        assume_consent: str | None = None,
        l2: float = 1.0,
        rank: int | None = None,
        steps: int | None = None,
        errors: bool = False,
        holdout: float = 0.0,
        random_state: int | None = None,
        unmatched: str = "prior",
    ) -> None:
        self.provider = provider
        self.id = id
        self.provider_id = provider_id
        self.id_kind = id_kind
        self.assume_consent = assume_consent
        self.l2 = l2
        self.rank = rank
        self.steps = steps
        self.errors = errors
        self.holdout = holdout
        self.random_state = random_state
        self.unmatched = unmatched

    def _params(self) -> dict[str, Any]:
        chosen = {"rank": self.rank, "steps": self.steps}
        fixed = {name: int(value) for name, value in chosen.items() if value is not None}
        if self.errors:
            fixed["errors"] = True
        return {"family": "logistic", "l2": float(self.l2), **fixed}

    def _keep(self, ran: Ran) -> None:
        super()._keep(ran)
        self.n_iter_, self.converged_ = int(ran.result["steps"]), bool(ran.result["converged"])
        if not self.converged_:
            notes = [note for note in ran.result["notes"] if "before the minimum" in note]
            warnings.warn("; ".join(notes), ConvergenceWarning, stacklevel=3)


class VerticalGradientBoosting(_VerticalClassifier):
    """Gradient-boosted trees on columns of both sides (`boost`, protocols/boost/README.md).

    trees, depth, bins              as both sides sign them; bins is a power of two up to 64, None: 64, and
                                    32 or 16 where the provider's rows and columns are many
    learning_rate, l2, minimum_rows the brand's own
    row_share, column_share         rows and columns drawn for each tree
    patience                        trees without a better held-out loss before the fit stops; needs `holdout`
    monotone                        {column: 1 or -1}: the score must not fall, or rise, with this column of
                                    either side
    The others are those of `VerticalLogisticRegression`.
    """

    _kind = "boost"

    def __init__(
        self,
        provider: Any = None,
        *,
        id: str = "id",
        provider_id: str | None = None,
        id_kind: str = "auto",
        assume_consent: str | None = None,
        trees: int = 50,
        depth: int = 5,
        bins: int | None = None,
        learning_rate: float = 0.1,
        l2: float = 0.0,
        minimum_rows: int = 40,
        row_share: float = 1.0,
        column_share: float = 1.0,
        patience: int = 0,
        monotone: Mapping[str, int] | None = None,
        holdout: float = 0.0,
        random_state: int | None = None,
        unmatched: str = "prior",
    ) -> None:
        self.provider = provider
        self.id = id
        self.provider_id = provider_id
        self.id_kind = id_kind
        self.assume_consent = assume_consent
        self.trees = trees
        self.depth = depth
        self.bins = bins
        self.learning_rate = learning_rate
        self.l2 = l2
        self.minimum_rows = minimum_rows
        self.row_share = row_share
        self.column_share = column_share
        self.patience = patience
        self.monotone = monotone
        self.holdout = holdout
        self.random_state = random_state
        self.unmatched = unmatched

    def _params(self) -> dict[str, Any]:
        fixed = {} if self.bins is None else {"bins": int(self.bins)}
        return {"trees": int(self.trees), "depth": int(self.depth), **fixed}

    def _private(self) -> dict[str, Any]:
        names = ("learning_rate", "l2", "minimum_rows", "row_share", "column_share", "patience")
        chosen = {name: getattr(self, name) for name in names}
        return chosen if self.monotone is None else {**chosen, "monotone": dict(self.monotone)}


class LookalikeModel(_Vertical):
    """Who at the provider is like the seeds (`lookalike`, protocols/lookalike/README.md)?

    `fit(X, y)`: rows with y are the seeds; all rows without y. Afterwards `scores_` and `audience_` (the
    provider's people by row number, which says nothing outside the two nodes), `seeds_`, `auc_`, `result_`.

    There is no `predict_proba`: the people who are scored are the provider's, and the brand can't name them,
    so there are no rows of X to give a probability. So it does not go into `cross_val_score`; `score`
    returns the AUC of the seeds that the job held out.

    features        shape of the provider's numeric columns: linear, bins, splines, crosses
    alpha, l1_ratio strength of the penalty, 1/C of scikit-learn, and its part that makes weights zero
    bags            models of random halves that are averaged (docs/models.md)
    epsilon, delta, clip  noise that the job asks for; None: what the agreement says, with a file none
    hidden_share    assumed share of seed-like people among the others: `result_["auc_corrected"]`
    The others are those of `VerticalLogisticRegression`.
    """

    _kind = "lookalike"

    def __init__(
        self,
        provider: Any = None,
        *,
        id: str = "id",
        provider_id: str | None = None,
        id_kind: str = "auto",
        assume_consent: str | None = None,
        audience_size: int | None = None,
        features: str = "linear",
        alpha: float = 1.0,
        l1_ratio: float = 0.0,
        bags: int = 1,
        epsilon: float | None = None,
        delta: float = 1e-6,
        clip: float = 5.0,
        hidden_share: float | None = None,
        holdout: float = 0.2,
        random_state: int | None = None,
    ) -> None:
        self.provider = provider
        self.id = id
        self.provider_id = provider_id
        self.id_kind = id_kind
        self.assume_consent = assume_consent
        self.audience_size = audience_size
        self.features = features
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.bags = bags
        self.epsilon = epsilon
        self.delta = delta
        self.clip = clip
        self.hidden_share = hidden_share
        self.holdout = holdout
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> LookalikeModel:
        """Train and score with the provider. X: table with the id column; y: who is a seed."""
        table = self._table(X)
        private: dict[str, Any] = {"where": "1 = 1", "holdout": float(self.holdout)}
        if y is not None:
            table, self.classes_ = self._labelled(table, y)
            private["where"] = f'"{LABEL}" = 1'
        if self.audience_size is not None:
            private["audience_size"] = int(self.audience_size)
        if self.random_state is not None:
            private["holdout_seed"] = int(self.random_state)
        if self.hidden_share is not None:
            private["hidden_share"] = float(self.hidden_share)
        keep = [self.id, *([LABEL] if y is not None else [])]
        self._at = self._source()
        ran = self._at.run("lookalike", "lookalike", table.select(keep), self.id, self._params(), private)
        self.job_id_, self.result_, self.auc_ = ran.job_id, ran.result, ran.result.get("auc")
        self.scores_, self.audience_, self.seeds_ = (
            pd.read_parquet(Path(ran.folder) / f"{name}.parquet") for name in ("scores", "audience", "seeds")
        )
        return self

    def _params(self) -> dict[str, Any]:
        alpha, ratio = float(self.alpha), float(self.l1_ratio)
        if not 0 <= ratio < 1:
            raise PecError("pec.usage", f"l1_ratio is {ratio}", "0 is a ridge penalty; it must be below 1")
        made: dict[str, Any] = {"features": self.features, "l2": alpha * (1 - ratio), "l1": alpha * ratio}
        if self.bags != 1:
            made["bags"] = int(self.bags)
        if self.epsilon is not None:
            noise = {"epsilon": self.epsilon, "delta": self.delta, "clip": self.clip}
            made["privacy"] = {name: float(value) for name, value in noise.items()}
        return made

    def score(self, X: Any = None, y: Any = None) -> float:
        """AUC of the held-out seeds of `fit` against all others; X and y are not looked at."""
        check_is_fitted(self, "job_id_")
        if self.auc_ is None:
            raise PecError("pec.metrics", "no seeds were held out", "fit with holdout above 0 and more seeds")
        return float(self.auc_)
