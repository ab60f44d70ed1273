"""`pec simulate` and `pec bench` of the kinds that learn from labels: checks beforehand, figures afterwards.

One person holds both files here, so plain scikit-learn is fitted to the pooled table, on the same people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pec import metrics, pooled, tables
from pec.errors import PecError
from pec.oracle import Join

#: Two ways to the same AUC agree to this.
AGREE = 1e-6


def check(
    brand: pd.DataFrame, label: str, matched: npt.NDArray[np.int64], name: str, objective: str | None
) -> None:
    """Whether there is a label to learn from. Raises `pec.input`, `pec.usage`."""
    if not label:
        raise PecError("pec.usage", "name the column to learn from with --label")
    if objective == "squared":
        if not pd.api.types.is_numeric_dtype(brand[label]):
            raise PecError("pec.input", f"{name}: {label!r} is not a column of numbers")
        return
    flags = tables.flags(brand[label], label).to_numpy(bool)[matched]
    if not flags.any() or flags.all():
        raise PecError(
            "pec.input",
            f"{name}: of {len(flags)} people in both files, {int(flags.sum())} have {label!r} set",
            "a model needs people of both kinds",
        )


def figures(
    kind: str,
    folder: Path,
    result: dict[str, Any],
    learned: dict[str, Any],
    label: str,
    files: tuple[pd.DataFrame, pd.DataFrame, Join],
) -> dict[str, Any]:
    """Figures from the brand's `scores.parquet`, measured again, beside those of the pooled model."""
    brand, provider, pairs = files
    scores = pd.read_parquet(folder / "scores.parquet")
    where = pd.Series(pairs.provider, index=pairs.brand)
    wrong = int((~scores["row"].isin(where.index)).sum()) + len(where) - len(scores)
    own = brand.iloc[scores["row"]].reset_index(drop=True)
    theirs = provider.iloc[where.loc[scores["row"]].to_numpy()].reset_index(drop=True)
    columns = [*result["columns_own"]], [*learned["columns"]]
    table = pd.concat([own[columns[0]], theirs[columns[1]].add_prefix("provider:")], axis=1)
    fit, held = (scores["role"] == "fit").to_numpy(), (scores["role"] == "held_out").to_numpy()
    out: dict[str, Any] = {
        "rows": len(scores),
        "fitted": int(fit.sum()),
        "held_out": int(held.sum()),
        "columns_own": columns[0],
        "columns_theirs": columns[1],
        "notes": [*result["notes"], *learned["notes"]],
        "gains": dict(list(result.get("gains", {}).items())[:20]),
        "wrong": wrong,
        "auc": None,
        "pooled_auc": None,
    }
    if "trees" in result:
        out |= {"trees": result["trees"]}
    if not held.any():
        return out
    value = scores["margin"].to_numpy()
    model = pooled.Learner(kind, result)
    if result["objective"] == "squared":
        y = pd.to_numeric(own[label], errors="coerce").to_numpy(np.float64)
        plain = model.predict(table, y, fit)
        out |= {"r2": _r2(value[held], y[held]), "pooled_r2": _r2(plain[held], y[held])}
        return out
    truth = tables.flags(own[label], label).to_numpy(bool)
    if truth[held].all() or not truth[held].any():
        out["notes"].append(f"the {int(held.sum())} people held out are all of one kind: no AUC")
        return out
    ranking = metrics.rank(value[held], truth[held])
    plain = model.predict(table, truth.astype(float), fit)
    out |= metrics.summary(value[held], truth[held])
    out["pooled_auc"] = metrics.auc(metrics.rank(plain[held], truth[held]))
    _same_auc(result, out["auc"])
    if out["auc"] > 1 - AGREE:
        out["notes"] += _suspects(own.loc[held, columns[0]], truth[held])
    out["charts"] = {
        "histogram": metrics.histogram(value[held], truth[held]),
        "gain": metrics.gain_curve(ranking),
    }
    return out


def _suspects(own: pd.DataFrame, truth: npt.NDArray[np.bool_]) -> list[str]:
    """Notes on the brand's columns of numbers each of which alone tells the held-out people apart."""
    notes = []
    for name in own.columns:
        values = pd.to_numeric(own[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        if not np.isnan(values).any() and abs(metrics.auc(metrics.rank(values, truth)) - 0.5) > 0.5 - AGREE:
            notes.append(
                f"{name}: alone it orders all the people held out by the label (AUC 1); if it was made from "
                "the label, or is known only after it, give --leave-out"
            )
    return notes


def held_out_auc(
    folder: Path, result: dict[str, Any], truth: npt.NDArray[np.bool_], column: str = "margin"
) -> float:
    """AUC of the held-out people by the `scores.parquet`; `truth` bool[n] by line of the brand's file.

    Raises `pec.check` when it is not the one that the node reports.
    """
    scores = pq.read_table(folder / "scores.parquet", columns=["row", column, "role"])
    held = pc.equal(scores["role"], "held_out").to_numpy()
    lines, value = scores["row"].to_numpy()[held], scores[column].to_numpy()[held]
    auc = metrics.auc(metrics.rank(value, truth[lines]))
    _same_auc(result, auc)
    return auc


def _same_auc(result: dict[str, Any], auc: float) -> None:
    if result.get("auc") is None or abs(result["auc"] - auc) > AGREE:
        raise PecError("pec.check", f"the node reports AUC {result.get('auc')}, its scores give {auc}")


def _r2(predicted: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float | None:
    """None of labels that are all alike."""
    spread = float(y.var())
    return float(1 - ((predicted - y) ** 2).mean() / spread) if spread else None


def report_figures(
    result: dict[str, Any], label: str, files: tuple[pd.DataFrame, pd.DataFrame, Join]
) -> dict[str, Any]:
    """A feature report's figures; `wrong` counts columns whose people, bin by bin, are more than the plain
    join's.

    Missing rates are compared exactly where the report gives them.
    """
    brand, provider, pairs = files
    known = brand[label].iloc[pairs.brand].notna().to_numpy()
    lines = pairs.provider[known]
    wrong = int(result["labelled"] != len(lines))
    for column in result["columns"]:
        rate = column["missing_rate"]
        plain = float(provider[column["column"]].iloc[lines].isna().mean())
        if rate is not None and rate > 0 and abs(rate - plain) > 1e-9:
            wrong += 1
        wrong += int(sum(b["people"] for b in column["bins"]) > len(lines))
    names = ("matched", "labelled", "columns", "selected", "minimum_iv", "suppressed_below")
    return {**{name: result[name] for name in names}, "rows": result["matched"], "wrong": wrong}
