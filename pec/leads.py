"""`pec simulate lead-score`: checks beforehand, figures afterwards, plain scikit-learn beside each target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pec import metrics, pooled, supervised, tables
from pec.errors import PecError
from pec.oracle import Join

#: The node's own figures and those computed here from its files must agree to this.
AGREE = 1e-6


def is_flag(column: pd.Series) -> bool:
    """Whether a label is yes/no: truth values, words, or numbers of which there are two, 0 and 1."""
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return True
    return set(column.dropna().unique().tolist()) <= {0, 1}


def check(brand: pd.DataFrame, speed: str, value: str, matched: npt.NDArray[np.int64], name: str) -> None:
    """Whether both labels can be learned. Raises `pec.input`, `pec.usage`."""
    if not value:
        raise PecError("pec.usage", "name the second label with --value")
    if speed == value:
        raise PecError("pec.usage", f"--speed and --value are both {speed!r}", "name two columns")
    if not is_flag(brand[speed]):
        raise PecError(
            "pec.input",
            f"{name}: {speed!r} holds numbers, and speed is a yes/no label",
            "make a column such as bought-within-30-days of it",
        )
    supervised.check(brand, speed, matched, name, None)
    supervised.check(brand, value, matched, name, None if is_flag(brand[value]) else "squared")


def figures(
    folder: Path,
    result: dict[str, Any],
    learned: dict[str, Any],
    labels: dict[str, str],
    files: tuple[pd.DataFrame, pd.DataFrame, Join],
) -> dict[str, Any]:
    """Both targets' figures on the brand's held-out people, each beside the pooled model's, and the grades.

    `wrong` counts people of the plain join without scores, people with scores who are not in it, and scores
    that are not in 0–1 or don't fit their grade.
    """
    scores = pd.read_parquet(folder / "scores.parquet")
    brand, _, pairs = files
    wrong = len(set(scores["row"]) ^ set(pairs.brand.tolist()))
    shares = scores[["speed", "value", "combined"]].to_numpy()
    wrong += int((~((shares >= 0) & (shares <= 1))).any(axis=1).sum())
    falling = np.array(result["cutoffs"])
    due = np.array(list("ABCDE"))[(scores["combined"].to_numpy()[:, None] < falling).sum(axis=1)]
    wrong += int((due != scores["grade"].to_numpy()).sum())
    out: dict[str, Any] = {
        "rows": len(scores),
        "method": result["method"],
        "value_is": result["value_is"],
        "held_out": result["held_out"],
        "grades": result["grades"],
        "weight": result["weight"],
        "cutoffs": result["cutoffs"],
        "calibration": result.get("calibration"),
        "auc": None,
        "pooled_auc": None,
    }
    notes: list[str] = list(result.get("notes") or [])
    for target, label in labels.items():
        one = _target(folder / target, result, learned, target, label, files)
        notes += [note for note in one.pop("notes") if note not in notes]
        out[target] = one
    out["auc"], out["pooled_auc"] = out["speed"].get("auc"), out["speed"].get("pooled_auc")
    return {**out, "notes": notes, "wrong": wrong}


def _target(
    folder: Path,
    result: dict[str, Any],
    learned: dict[str, Any],
    target: str,
    label: str,
    files: tuple[pd.DataFrame, pd.DataFrame, Join],
) -> dict[str, Any]:
    mine, theirs = result[target], learned[target]
    brand, provider, pairs = files
    table = pd.read_parquet(folder / "scores.parquet")
    where = pd.Series(pairs.provider, index=pairs.brand)
    own = brand.iloc[table["row"]].reset_index(drop=True)
    other = provider.iloc[where.reindex(table["row"]).to_numpy()].reset_index(drop=True)
    fit, held = (table["role"] == "fit").to_numpy(), (table["role"] == "held_out").to_numpy()
    flag = target == "speed" or result["value_is"] == "flag"
    y = tables.flags(own[label], label).to_numpy(float) if flag else own[label].to_numpy(np.float64)
    used = [str(c) for c in _own_columns(mine)]
    columns = used, [str(c) for c in (theirs.get("used") or theirs["columns"])]
    pool = pd.concat([own[columns[0]], other[columns[1]].add_prefix("provider:")], axis=1)
    out: dict[str, Any] = {
        "label": label,
        "fitted": int(fit.sum()),
        "held_out": int(held.sum()),
        "notes": [*(mine.get("notes") or []), *(theirs.get("notes") or [])],
    }
    if "converged" in mine:
        out["converged"] = mine["converged"]
    if not held.any():
        return out
    value = table["margin" if "margin" in table else "score"].to_numpy()
    if result["method"] == "boost":
        plain = pooled.Learner("boost", mine).predict(pool, y, fit)
    else:
        plain = pooled.joint_scores(pool, y, fit, "logistic" if flag else "linear")
    if not flag:
        spread = float(np.var(y[held]))
        out["r2"] = 1 - float(np.mean((value[held] - y[held]) ** 2)) / spread if spread else None
        out["pooled_r2"] = 1 - float(np.mean((plain[held] - y[held]) ** 2)) / spread if spread else None
        _same(mine.get("r2"), out["r2"], target)
        return out
    out |= {k: v for k, v in metrics.summary(value[held], y[held] > 0).items() if k != "charts"}
    out["pooled_auc"] = metrics.auc(metrics.rank(plain[held], y[held] > 0))
    _same(mine.get("auc"), out["auc"], target)
    return out


def _own_columns(mine: dict[str, Any]) -> list[str]:
    """The brand's columns in a fit's model, by the names that they have in its file."""
    if "gains" in mine:
        return list(mine["columns_own"])
    return list(mine.get("used_own") or [])


def _same(node: float | None, here: float | None, target: str) -> None:
    if (node is None) != (here is None) or (node is not None and abs(node - (here or 0.0)) > AGREE):
        raise PecError("pec.check", f"{target}: the node reports {node}, its scores give {here}")
