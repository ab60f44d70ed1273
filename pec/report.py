"""`report.html` from the report's JSON: one file, nothing loaded from elsewhere, Chinese and English."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pec import charts, wording
from pec.wording import Text, bytes_text, count, ratio_text, seconds_text


def render(report: Mapping[str, Any], title: Text, subtitle: Text) -> str:
    """The page. `report` is what `pec demo` and `pec simulate` write as report.json."""
    from jinja2 import Environment, PackageLoader

    env = Environment(loader=PackageLoader("pec"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return env.get_template("report.html").render(
        report=report,
        title=title,
        subtitle=subtitle,
        tiles=_tiles(report),
        jobs=[_job(job, i) for i, job in enumerate(report["jobs"])],
        midway=_midway(report.get("withdrawn_midway")),
        refusals=[
            {
                "case": wording.REFUSALS.get(r["case"], (r["case"],) * 2),
                "code": r["code"],
                "message": r["message"],
            }
            for r in report.get("refusals", [])
        ],
        sides=[_side(report, party) for party in report["consent"]],
    )


def write(report: Mapping[str, Any], folder: Path, title: Text, subtitle: Text) -> tuple[Path, Path]:
    """report.json and report.html in `folder`, each written beside and renamed, so neither is ever half
    there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = render(report, title, subtitle)
    data = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    out = []
    for name, text in (("report.json", data + "\n"), ("report.html", page)):
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, folder / name)
        out.append(folder / name)
    return out[0], out[1]


def _tiles(report: Mapping[str, Any]) -> list[tuple[Text, str]]:
    jobs = report["jobs"]
    out: list[tuple[Text, str]] = [
        (("总时长", "in all"), seconds_text(report.get("seconds"))),
        (("完成的任务", "jobs done"), count(len(jobs))),
        (
            ("两个方向的字节", "bytes, both ways"),
            bytes_text(sum(j["bytes_sent"] + j["bytes_received"] for j in jobs)),
        ),
    ]
    measured = [j for j in jobs if j.get("auc") is not None and j.get("pooled_auc") is not None]
    if measured:
        worst = max(abs(j["auc"] - j["pooled_auc"]) for j in measured)
        out.append((("与汇总训练的 AUC 差（最大）", "largest AUC gap to pooled"), ratio_text(worst)))
    if report.get("withdrawn_midway"):
        name = ("撤回者出现在结果中", "withdrawn people in a result")
        out.append((name, count(report["withdrawn_midway"]["found_in_result"])))
    return out


def _job(job: Mapping[str, Any], i: int) -> dict[str, Any]:
    facts: list[tuple[Text, str]] = [
        (("时长", "time"), seconds_text(job["seconds"])),
        (("品牌方发出", "sent by the brand"), bytes_text(job["bytes_sent"])),
        (("品牌方收到", "received by the brand"), bytes_text(job["bytes_received"])),
    ]
    drawn: list[tuple[Text, str]] = []
    kind = job["kind"]
    if kind == "overlap":
        facts.append((("重合人数（取整）", "shared people, rounded"), count(job.get("count"))))
        if job.get("noise_scale"):
            facts.append((("噪声尺度", "scale of the noise in it"), f"{job['noise_scale']:g}"))
    elif kind == "retarget":
        facts += [
            (("可触达人数（取整）", "people addressed, rounded"), count(job.get("count"))),
            (("与真值不符", "wrong"), count(job.get("wrong"))),
        ]
    elif kind == "enrich":
        facts += [
            (("询问", "asked"), count(job.get("asked"))),
            (("找到", "found"), count(job.get("found"))),
            (("与真值不符", "wrong"), count(job.get("wrong"))),
        ]
    elif kind == "lead-score":
        facts += _lead_facts(job)
    elif kind in ("boost", "joint-lr"):
        facts += _model_facts(job)
    elif kind == "feature-report":
        facts += _column_facts(job)
    elif kind == "lookalike":
        facts += _lookalike_facts(job)
        drawn = _lookalike_charts(job)
    learned = [
        (wording.party("brand"), wording.learned(job).get("brand", [])),
        (wording.party(job["provider"], job["provider"]), wording.learned(job).get("provider", [])),
    ]
    return {
        "anchor": f"job-{i + 1}",
        "id": job.get("job_id", ""),
        "title": _title(job),
        "note": ", ".join(job["tags"]) if job.get("tags") else "",
        "provider": wording.party(job["provider"]),
        "verified": job["audit_verified"],
        "facts": facts,
        "charts": drawn,
        "learned": learned,
    }


def _title(job: Mapping[str, Any]) -> Text:
    zh, en = wording.kind(job["kind"])
    return (
        (f"{zh}（中途暂停，有人撤回）", f"{en}, held while people withdrew")
        if job.get("held_before")
        else (zh, en)
    )


def _lead_facts(job: Mapping[str, Any]) -> list[tuple[Text, str]]:
    out: list[tuple[Text, str]] = [(("被评分的人", "people scored"), count(job.get("rows")))]
    for zh, en in (("速度", "speed"), ("价值", "value")):
        one = job.get(en) or {}
        for name, words in (("auc", "AUC"), ("r2", "R²")):
            if one.get(name) is not None:
                out.append(((f"{zh}：{words}（留出）", f"{en}: {words}, held out"), ratio_text(one[name])))
                pooled = one.get(f"pooled_{name}")
                out.append(((f"{zh}：汇总训练的 {words}", f"{en}: pooled {words}"), ratio_text(pooled)))
        if one.get("converged") is False:
            out.append(((f"{zh}：{_EARLY[0]}", f"{en}: {_EARLY[1]}"), "✗"))
    for grade, found in (job.get("grades") or {}).items():
        text = f"{count(found['people'])} / {ratio_text(found['speed'], 2)} / {ratio_text(found['value'], 2)}"
        title = (
            f"{grade} 级：人数 / 速度率 / 平均价值",
            f"grade {grade}: people / rate of speed / mean value",
        )
        out.append((title, text))
    return out


_EARLY: Text = ("到达最小值之前结束", "ended before the minimum")

#: Columns of a model, or of a feature report, that the page shows.
SHOWN_COLUMNS = 10


def _model_facts(job: Mapping[str, Any]) -> list[tuple[Text, str]]:
    """Of a joint regression or a forest: people, figures on held-out ones, the columns that mattered most."""
    out: list[tuple[Text, str]] = [
        (("被评分的人", "people scored"), count(job.get("rows"))),
        (("参与拟合的人", "people in the fit"), count(job.get("fitted", job.get("rows_fit")))),
        (("留出的人", "people held out"), count(job.get("held_out", job.get("rows_held_out")))),
    ]
    named: list[tuple[str, Text]] = [
        ("auc", ("AUC（留出）", "AUC, held out")),
        ("pooled_auc", ("汇总训练的 AUC", "AUC of pooled scikit-learn")),
        ("r2", ("R²（留出）", "R², held out")),
        ("pooled_r2", ("汇总训练的 R²", "R² of pooled scikit-learn")),
        ("deviance_explained", ("已解释偏差（留出）", "deviance explained, held out")),
        ("ks", ("KS", "KS")),
    ]
    interval = (job.get("intervals") or {}).get("auc")
    for name, title in named:
        if job.get(name) is not None:
            out.append((title, ratio_text(job[name])))
            if name == "auc" and interval:
                out.append((("AUC 的 95% 区间", "its 95 % interval"), f"{interval[0]:.3f}–{interval[1]:.3f}"))
    if job.get("trees") is not None:
        out.append((("树的数量", "trees"), count(job["trees"])))
    if job.get("steps") is not None:
        out.append((("步数", "steps"), count(job["steps"])))
    if job.get("converged") is False:
        out.append((_EARLY, "✗"))
    for name, gain in list((job.get("gains") or {}).items())[:SHOWN_COLUMNS]:
        side, _, column = name.partition(":")
        zh, en = ("品牌方", "brand") if side == "own" else ("数据方", "provider")
        out.append(((f"{column}（{zh}）的增益", f"gain of {column} ({en})"), f"{gain:.4g}"))
    return out


def _column_facts(job: Mapping[str, Any]) -> list[tuple[Text, str]]:
    """Of a feature report: information value and missing rate of the best columns, and which are selected."""
    out: list[tuple[Text, str]] = [(("有标签的人", "people with a label"), count(job.get("labelled")))]
    for column in job["columns"][:SHOWN_COLUMNS]:
        rate = column["missing_rate"]
        text = f"{column['iv']:.3f} / " + ("–" if rate is None else f"{100 * rate:.1f} %")
        name = column["column"]
        out.append(((f"{name}：信息值 / 缺失率", f"{name}: information value / missing"), text))
    out.append((("入选的列", "columns selected"), ", ".join(job["selected"]) or "–"))
    return out


def _lookalike_facts(job: Mapping[str, Any]) -> list[tuple[Text, str]]:
    epsilon = job.get("epsilon")
    interval = (job.get("intervals") or {}).get("auc")
    spread = f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else "–"
    facts: list[tuple[Text, str]] = [
        (("被评分的人", "people scored"), count(job.get("rows"))),
        (("匹配的种子", "seeds matched"), count(job.get("seeds_matched"))),
        (("隐私预算 ε", "privacy budget ε"), "–" if epsilon is None else f"{epsilon:g}"),
        (("AUC（留出的种子）", "AUC, held-out seeds"), ratio_text(job.get("auc"))),
        (("AUC 的 95% 区间", "its 95 % interval"), spread),
        (("汇总训练的 AUC", "AUC of pooled scikit-learn"), ratio_text(job.get("pooled_auc"))),
        (("前 5% 提升度", "lift at 5 %"), ratio_text(job.get("lift_at_5pct"), 2)),
        (("KS", "KS"), _spread(job, "ks")),
        (("PR-AUC", "PR-AUC"), _spread(job, "pr_auc")),
        (("人群规模", "audience"), count(job.get("audience_size"))),
    ]
    for p in (1, 2, 5, 10, 20):
        title = f"前 {p}% 找到的种子", f"seeds found in the best {p} %"
        facts.append((title, _spread(job, f"recall_at_{p}pct")))
    if job.get("calibration"):
        facts.append(
            (("校准误差（ECE）", "calibration error (ECE)"), ratio_text(job["calibration"]["ece"], 5))
        )
    if job.get("auc_corrected") is not None:
        share = f"{job['hidden_share']:.0%}"
        title = f"修正 AUC（假定 {share} 为隐藏正例）", f"AUC corrected for {share} hidden positives"
        facts.append((title, ratio_text(job["auc_corrected"])))
    if job.get("columns_zero"):
        title = "弹性网置零的特征列", "columns that the elastic net set to zero"
        facts.append((title, f"{job['columns_zero']} / {job['columns']}"))
    return facts


def _spread(job: Mapping[str, Any], name: str) -> str:
    """A figure with its 95 % interval, which is not broken at its dash (word joiners)."""
    interval = (job.get("intervals") or {}).get(name)
    text = ratio_text(job.get(name), 3)
    return text if not interval else f"{text} ({interval[0]:.3f}\u2060–\u2060{interval[1]:.3f})"


def _lookalike_charts(job: Mapping[str, Any]) -> list[tuple[Text, str]]:
    data = job.get("charts")
    if not data:
        return []
    h = data["histogram"]
    return [
        (("得分直方图", "Score histogram"), charts.score_histogram(h["edges"], h["rows"], h["positives"])),
        (("增益曲线", "Gain curve"), charts.gain_curve(data["gain"])),
        (("触达曲线", "Reach curve"), charts.reach_curve(data["reach"], job.get("audience_size"))),
        *(
            [(("校准曲线", "Calibration"), charts.reliability(job["calibration"]["bins"]))]
            if job.get("calibration")
            else []
        ),
    ]


def _midway(midway: Mapping[str, Any] | None) -> list[tuple[Text, str]]:
    if not midway:
        return []
    return [
        (("撤回的人", "people who withdrew"), count(midway["withdrawn"])),
        (("经品牌方", "through the brand"), count(midway.get("brand"))),
        (("经数据方", "through the provider"), count(midway.get("provider_side"))),
        (("出现在结果中", "found in the result"), count(midway["found_in_result"])),
    ]


def _side(report: Mapping[str, Any], party: str) -> dict[str, Any]:
    consent = report["consent"][party]
    seen = (report.get("preflight") or {}).get(party) or {}
    left_out = sorted(consent["out"].items(), key=lambda item: -item[1])
    asked = consent["in"] + sum(consent["out"].values())
    steps: list[tuple[Text, int, Text | None]] = []
    if seen:
        read, usable = seen["read"], seen["normalised"] - seen["duplicate"]
        spoiled = f"{seen['null']:,} / {seen['invalid']:,} / {seen['duplicate']:,}"
        lost = (f"空 / 无效 / 重复：{spoiled}", f"null / invalid / duplicate: {spoiled}")
        steps += [
            (("文件中的行", "rows in the file"), read, lost),
            (("可用标识", "usable identifiers"), usable, None),
        ]
    else:
        steps.append((("被检查的人", "people checked"), asked, None))
    steps.append((("同意有效，可参与", "consent holds: may take part"), consent["in"], None))
    return {
        "name": wording.party(party),
        "note": consent.get("file", ""),
        "funnel": charts.funnel(steps),
        "out": [(wording.reason(code), count(n)) for code, n in left_out if n],
    }
