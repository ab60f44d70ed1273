"""The model card of a job that learned: what it was made of, how good it is, what it cost in privacy.

`model_card.json` and `model_card.html` (Chinese and English, one file, nothing loaded from elsewhere) are
written at the brand beside the job's results, before the audit bundle, which so has their hashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties import documents
from parties.models import CARD, KINDS

FORMAT = "pec-model-card/1"
Text = tuple[str, str]

#: Figures that a card shows, where a kind has them.
METRICS: dict[str, Text] = {
    "auc": ("AUC（留出）", "AUC, held out"),
    "auc_interval": ("AUC 的 95% 区间", "its 95 % interval"),
    "pr_auc": ("PR-AUC（留出）", "PR-AUC, held out"),
    "ks": ("KS", "KS"),
    "lift_at_5pct": ("前 5% 提升度", "lift at 5 %"),
    "lift_at": ("前若干百分比的提升度", "lift at top percent"),
    "recall_at": ("前若干百分比的召回", "recall at top percent"),
    "intervals": ("各指标的 95% 区间（自助法）", "95 % intervals (bootstrap)"),
    "calibration": ("校准", "calibration"),
    "hidden_share": ("假定的隐藏正例比例", "assumed share of hidden positives"),
    "auc_corrected": ("按此比例修正的 AUC", "AUC corrected for them"),
    "r2": ("R²（留出）", "R², held out"),
    "rmse": ("均方根误差", "root mean square error"),
    "deviance_explained": ("已解释偏差", "deviance explained"),
    "held_out": ("留出人数", "people held out"),
    "held_out_positives": ("留出的正例", "positives held out"),
    "fitted": ("参与拟合的人数", "people in the fit"),
    "rows_fit": ("参与拟合的人数", "people in the fit"),
    "seeds_matched": ("匹配的种子", "seeds matched"),
    "bags": ("平均的模型数（bagging）", "models averaged (bagging)"),
    "trees": ("树的数量", "trees"),
    "steps": ("步数", "steps"),
    "converged": ("拟合到达最小值", "the fit ended at the minimum"),
}
KIND_NAMES: dict[str, Text] = {
    "lookalike": ("相似人群扩量", "Lookalike"),
    "boost": ("联合提升树", "Gradient-boosted trees"),
    "joint-lr": ("联合回归", "Joint regression"),
    "lead-score": ("线索评分", "Lead scoring"),
}
#: Private parameters that go on the card: how the model was made, and nobody's data.
SETTINGS_HIDDEN = ("where",)


def document(record: Mapping[str, Any], private: Mapping[str, Any]) -> dict[str, Any]:
    """The card of the job in `record`, what the engine keeps of a finished job; `private` are the brand's own
    parameters, of which a condition on people (`where`) stays out.
    """
    spec, agreement, result = record["spec"]["document"], record["agreement"]["document"], record["result"]
    kind = str(spec["kind"])
    targets = ("speed", "value") if kind == "lead-score" else ("",)
    parts = {target: (result[target] if target else result) for target in targets}
    return {
        "format": FORMAT,
        "job_id": record["job_id"],
        "kind": kind,
        "method": str(spec["params"].get("method", "boost")) if kind == "lead-score" else kind,
        "purpose": spec["purpose"],
        "brand": spec["brand"],
        "provider": spec["provider"],
        "agreement": agreement["id"],
        "made_at": documents.timestamp(documents.now()),
        "expires_at": agreement["expires_at"],
        "data": {
            "datasets": spec["datasets"],
            "categories": spec["categories"],
            "provider_columns": spec["columns"],
            "own_columns": _own_columns(kind, private),
            "people": dict(record["counts"]),
        },
        "consent": {
            party: {
                "snapshot": signed["document"].get("id"),
                "token_root": signed["document"].get("token_root"),
                "checks": [
                    {name: entry[name] for name in ("stage", "sequence", "dropped")}
                    for entry in record["consent"]
                ]
                if party == record["party"]
                else None,
            }
            for party, signed in record["snapshots"].items()
        },
        "parameters": {
            "signed": spec["params"],
            "own": {k: v for k, v in private.items() if k not in SETTINGS_HIDDEN and v is not None},
            "settings": {target or kind: part.get("settings") for target, part in parts.items()},
        },
        "metrics": {target or kind: _metrics(part) for target, part in parts.items()},
        "grades": result.get("grades"),
        "columns": {target or kind: columns(part) for target, part in parts.items()},
        "notes": list(dict.fromkeys(note for part in parts.values() for note in part.get("notes") or ())),
        "privacy": _privacy(agreement, result),
        "leakage": record["leakage"],
    }


def _own_columns(kind: str, private: Mapping[str, Any]) -> list[str]:
    """The brand's columns in the model: `*` for all of its data set under the job's categories."""
    if kind == "lookalike":
        return []
    asked = private.get("columns")
    return ["*"] if asked is None else list(asked)


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in METRICS if result.get(name) is not None}


def columns(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{side, column, gain or weight}] as far as the brand knows them, the largest first.

    With standard errors `error` and `p_value` stand beside the weight.
    """
    out = []
    for name, gain in (result.get("gains") or {}).items():
        side, _, column = name.partition(":")
        out.append({"side": "brand" if side == "own" else "provider", "column": column, "gain": gain})
    weights = result.get("weights") or {}
    errors, chances = result.get("errors") or {}, result.get("p_values") or {}
    for column, weight in sorted(weights.items(), key=lambda item: -abs(item[1])):
        line = {"side": "brand", "column": column, "weight": weight}
        if column in errors:
            line |= {"error": errors[column], "p_value": chances[column]}
        out.append(line)
    return out


def _privacy(agreement: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """What this job spent of the agreement's budget; without noise no ε is spent and no label protected."""
    agreed = agreement.get("privacy")
    if result.get("epsilon") is None:
        return {"noise": False, "epsilon": None, "delta": None, "agreed": agreed}
    return {"noise": True, "epsilon": result["epsilon"], "delta": result.get("delta"), "agreed": agreed}


def render(card: Mapping[str, Any]) -> str:
    """The card as a page."""
    from jinja2 import Environment, PackageLoader

    env = Environment(loader=PackageLoader("parties"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["setting"] = _setting
    shown = {
        target: [(METRICS[name], _texts(value)) for name, value in figures.items()]
        for target, figures in card["metrics"].items()
    }
    names = {**KIND_NAMES, "speed": ("速度", "Speed"), "value": ("价值", "Value")}
    sides = [
        (side, list(zip(_lines(card, f"{side}.zh") or _lines(card, side), _lines(card, side), strict=True)))
        for side in ("brand", "provider")
    ]
    return env.get_template("model_card.html").render(card=card, metrics=shown, names=names, sides=sides)


def _lines(card: Mapping[str, Any], role: str) -> list[str]:
    return list(card["leakage"].get(role, ()))


def _texts(value: Any) -> Text:
    """A figure in Chinese and English."""
    if isinstance(value, bool):
        return ("是", "yes") if value else ("否", "no")
    text = _figure(value)
    return text, text


def _setting(value: Any) -> str:
    """A parameter as it was given, without a program's brackets and quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(_setting(v) for v in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_setting(v)}" for k, v in value.items()) or "–"
    return "–" if value is None else str(value)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return "–".join(_figure(v) for v in value)
    if isinstance(value, dict):  # without tables in it, which the card's JSON has
        plain = {k: v for k, v in value.items() if not (isinstance(v, list) and len(v) > 2)}
        return ", ".join(f"{k}: {_figure(v)}" for k, v in plain.items())
    return str(value)


def write(record: Mapping[str, Any], private: Mapping[str, Any], folder: Path) -> None:
    """Both files into the job's folder, if the job learned and this side is the brand."""
    if record["role"] != "brand" or record["spec"]["document"]["kind"] not in KINDS:
        return
    card = document(record, private)
    (folder / CARD).write_text(json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    (folder / "model_card.html").write_text(render(card), "utf-8")
