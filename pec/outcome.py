"""One job's figures as the reports show them, gathered from both sides and measured again from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pec import audience, metrics, pooled
from pec.errors import PecError

#: Stages in which a model learns, and in which its scores are made and handed over.
TRAINING, SCORING = ("fit", "speed", "value"), ("score", "release")

#: The node's own AUC and the one computed here from its files must agree to this.
AGREE = 1e-6


def common(seen: dict[str, Any], provider_seen: dict[str, Any], provider: str) -> dict[str, Any]:
    """What every kind has: time, bytes, people in and out on each side, who learned what."""
    leakage = seen.get("leakage") or {}
    sides = [
        {s["name"]: float(s["seconds"] or 0) for s in job.get("stages", [])} for job in (seen, provider_seen)
    ]
    return {
        "kind": seen["kind"],
        "provider": provider,
        "job_id": seen["job_id"],
        "seconds": round(float(seen["seconds"]), 3),
        "bytes_sent": int(seen["bytes_sent"]),
        "bytes_received": int(seen["bytes_received"]),
        "stages": {name: round(seconds, 3) for name, seconds in sides[0].items()},
        **learning_seconds(*sides),
        "consent": {"brand": seen["counts"]["own"], "provider": provider_seen["counts"]["own"]},
        "learned": {side: [list(t) for t in _both(leakage, side)] for side in ("brand", "provider")},
        "audit_verified": False,
    }


def learning_seconds(brand: Mapping[str, float], provider: Mapping[str, float]) -> dict[str, float]:
    """`train_seconds` and `score_seconds` from both sides' seconds by stage; nothing of a job that learns
    no model.

    A stage lasts as long as the slower side needs: the provider builds features while the brand waits.
    """
    slower = {name: max(seconds, provider.get(name, 0.0)) for name, seconds in brand.items()}
    if not any(name in slower for name in TRAINING):
        return {}
    wanted = (("train_seconds", TRAINING), ("score_seconds", SCORING))
    return {name: round(sum(slower.get(stage, 0.0) for stage in stages), 3) for name, stages in wanted}


def _both(leakage: dict[str, Any], side: str) -> list[tuple[str, str]]:
    english = list(leakage.get(side, []))
    chinese = list(leakage.get(f"{side}.zh", [])) or english
    return (
        list(zip(chinese, english, strict=False))
        if len(chinese) == len(english)
        else [(e, e) for e in english]
    )


def joint_lr(
    folder: Path, result: dict[str, Any], frame: pd.DataFrame | None, labels: pd.Series | None
) -> dict[str, Any]:
    """Figures of a joint-lr from `folder`, the brand's result files.

    `frame` has the pooled columns and `labels` the labels (float, NaN where missing), both by line of the
    brand's file: then plain scikit-learn is fitted to the very same rows and measured on the same held-out
    ones. Raises `pec.check` when the node's AUC is not the one that its scores give.
    """
    table = pd.read_parquet(folder / "scores.parquet")
    held = (table["role"] == "held_out").to_numpy()
    names = (
        "family",
        "steps",
        "converged",
        "people_matched",
        "rows_fit",
        "rows_held_out",
        "columns_own",
        "columns",
    )
    out: dict[str, Any] = {name: result.get(name) for name in names}
    out |= {"rows": len(table), "auc": None, "pooled_auc": None, "r2": result.get("r2"), "pooled_r2": None}
    out["deviance_explained"] = result.get("deviance_explained")
    if frame is None or labels is None or not held.any():
        return out
    lines = table["row"].to_numpy()
    y = labels.to_numpy(dtype=np.float64)[lines]
    fit = (table["role"] == "fit").to_numpy()
    best = pooled.joint_scores(frame.iloc[lines].reset_index(drop=True), y, fit, str(result["family"]))
    if result["family"] == "logistic":
        if len(np.unique(y[held])) < 2:
            return out
        out["auc"] = metrics.auc(metrics.rank(table["score"][held], y[held] > 0))
        if result.get("auc") is None or abs(result["auc"] - out["auc"]) > AGREE:
            raise PecError(
                "pec.check", f"the node reports AUC {result.get('auc')}, its scores give {out['auc']:.6f}"
            )
        out["pooled_auc"] = metrics.auc(metrics.rank(best[held], y[held] > 0))
    elif result["family"] == "linear":
        spread = float(np.var(y[held]))
        out["pooled_r2"] = 1 - float(np.mean((best[held] - y[held]) ** 2)) / spread if spread else None
    else:
        own = table["prediction"].to_numpy()
        out["mean_gap"] = float(np.mean(np.abs(own[held] - best[held])) / max(1e-12, float(y[fit].mean())))
    return out


def lookalike(
    folder: Path,
    result: dict[str, Any],
    lines: np.ndarray | None,
    frame: pd.DataFrame | None,
    columns: Sequence[str],
    left_out: Sequence[str] = (),
    penalty: float = 1.0,
) -> dict[str, Any]:
    """Figures of a lookalike from `folder`, the brand's result files.

    `lines` int64[m] are the provider's file lines by row number and `frame` its file: with both, plain
    scikit-learn is fitted to the very same rows, columns, seeds and held-out seeds; and, when the model had
    to do without the columns `left_out`, once more with them, so that their worth is not hidden; `penalty` is
    1/C there. Raises
    `pec.check` when the node's AUC is not the one that its scores give.
    """
    scores = audience.read_scores(folder / "scores.parquet")
    roles = pd.read_parquet(folder / "seeds.parquet")
    fit_rows = roles.loc[roles["role"] == "fit", "row"].to_numpy()
    held_rows = roles.loc[roles["role"] == "held_out", "row"].to_numpy()
    train, held = np.isin(scores.rows, fit_rows), np.isin(scores.rows, held_rows)
    keep = ~train
    out: dict[str, Any] = {
        "rows": scores.n,
        "seeds_matched": int(result["seeds_matched"]),
        "epsilon": result.get("epsilon"),
        "delta": result.get("delta"),
        "noise_scale": result.get("noise_scale"),
        "audience_size": int(result["audience_size"]),
        "columns": int(result.get("columns") or 0),
        "pooled_auc": None,
        "auc": None,
        "lift_at_5pct": None,
    }
    if not held.any():
        return out
    ranking = metrics.rank(scores.scores[keep], held[keep])
    out.update(metrics.summary(scores.scores[keep], held[keep]))
    # What only the node has measured.
    out |= {name: result.get(name) for name in ("pr_auc", "calibration", "reach")}
    out |= {name: result[name] for name in ("hidden_share", "auc_corrected") if name in result}
    out["intervals"] = {"pr_auc": (result.get("intervals") or {}).get("pr_auc"), **out["intervals"]}
    if result.get("auc") is None or abs(result["auc"] - out["auc"]) > AGREE:
        raise PecError(
            "pec.check", f"the node reports AUC {result.get('auc')}, its scores give {out['auc']:.6f}"
        )
    out["charts"] = {
        "histogram": metrics.histogram(scores.scores[keep], held[keep]),
        "gain": metrics.gain_curve(ranking),
        "reach": metrics.reach_curve(scores.scores),
    }
    if lines is not None and frame is not None:
        table = frame[list(columns)].iloc[lines[scores.rows]].reset_index(drop=True)
        out["pooled_auc"] = pooled.pooled_auc(table, train, held, penalty)
        if left_out:
            more = frame[[*columns, *left_out]].iloc[lines[scores.rows]].reset_index(drop=True)
            out["pooled_auc_all_columns"] = pooled.pooled_auc(more, train, held, penalty)
    return out
