"""One job's figures as the reports show them, gathered from both sides and measured again from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pec import audience, metrics, pooled
from pec.errors import PecError

#: The node's own AUC and the one computed here from its files must agree to this.
AGREE = 1e-6


def common(seen: dict[str, Any], provider_seen: dict[str, Any], provider: str) -> dict[str, Any]:
    """What every kind has: time, bytes, people in and out on each side, who learned what."""
    leakage = seen.get("leakage") or {}
    return {
        "kind": seen["kind"],
        "provider": provider,
        "job_id": seen["job_id"],
        "seconds": round(float(seen["seconds"]), 3),
        "bytes_sent": int(seen["bytes_sent"]),
        "bytes_received": int(seen["bytes_received"]),
        "stages": {s["name"]: round(float(s["seconds"] or 0), 3) for s in seen.get("stages", [])},
        "consent": {"brand": seen["counts"]["own"], "provider": provider_seen["counts"]["own"]},
        "learned": {side: [list(t) for t in _both(leakage, side)] for side in ("brand", "provider")},
        "audit_verified": False,
    }


def _both(leakage: dict[str, Any], side: str) -> list[tuple[str, str]]:
    english = list(leakage.get(side, []))
    chinese = list(leakage.get(f"{side}.zh", [])) or english
    return (
        list(zip(chinese, english, strict=False))
        if len(chinese) == len(english)
        else [(e, e) for e in english]
    )


def lookalike(
    folder: Path,
    result: dict[str, Any],
    lines: np.ndarray | None,
    frame: pd.DataFrame | None,
    columns: Sequence[str],
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Figures of a lookalike from `folder`, the brand's result files.

    `lines` int64[m] are the provider's file lines by row number and `frame` its file: with both, plain
    scikit-learn is fitted to the very same rows, columns, seeds and held-out seeds; and, when the model had
    to do without the columns `left_out`, once more with them, so that their worth is not hidden. Raises
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
        out["pooled_auc"] = pooled.pooled_auc(table, train, held)
        if left_out:
            more = frame[[*columns, *left_out]].iloc[lines[scores.rows]].reset_index(drop=True)
            out["pooled_auc_all_columns"] = pooled.pooled_auc(more, train, held)
    return out
