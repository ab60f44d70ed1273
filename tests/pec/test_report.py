"""The page: every figure of the JSON is on it, in both languages, and it loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consent_center.model import REASONS
from parties.gate import MIDWAY
from parties.kinds import KINDS
from pec import charts, metrics, report, wording


class Page(HTMLParser):
    """Collects text, checks that tags nest, and lists whatever could load something."""

    VOID = {"meta", "input", "br", "img", "link", "path", "rect", "circle"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    positive = rng.random(3000) < 0.1
    scores = 1 / (1 + np.exp(-(rng.normal(size=3000) + positive)))
    base = {"provider": "provider_a", "seconds": 2.5, "bytes_sent": 1_500, "bytes_received": 2_500_000}
    lookalike = {
        **base,
        **metrics.summary(scores, positive),
        "kind": "lookalike",
        "audit_verified": True,
        "rows": 3111,
        "seeds_matched": 1222,
        "epsilon": 2.0,
        "pooled_auc": 0.76543,
        "audience_size": 777,
        "pr_auc": 0.33221,
        "calibration": {"ece": 0.01234, "brier": 0.1, "bins": [[0.1, 0.12, 50], [0.3, 0.28, 50]]},
        "hidden_share": 0.1,
        "auc_corrected": 0.81818,
        "columns": 44,
        "columns_zero": 33,
        "job_id": "job-look",
        "charts": {
            "histogram": metrics.histogram(scores, positive),
            "gain": metrics.gain_curve(metrics.rank(scores, positive)),
            "reach": metrics.reach_curve(scores),
        },
    }
    enrich = {
        **base,
        "kind": "enrich",
        "audit_verified": False,
        "asked": 290,
        "found": 211,
        "wrong": 0,
        "tags": ["t1"],
    }
    return {
        "ok": True,
        "seconds": 61.25,
        "version": "0.1.0",
        "generated_at": "2026-11-22T03:00:00Z",
        "jobs": [{**base, "kind": "overlap", "audit_verified": True, "count": 3450}, lookalike, enrich],
        "consent": {
            "brand": {"in": 4801, "out": {"withdrawn": 203, "denied": 0}},
            "provider_a": {"in": 4602, "out": {"minor_without_guardian": 51, "a_new_reason": 7}},
        },
        "preflight": {
            "brand": {"read": 6106, "normalised": 6007, "duplicate": 61, "null": 51, "invalid": 48}
        },
        "withdrawn_midway": {"withdrawn": 43, "brand": 21, "provider_side": 22, "found_in_result": 0},
        "refusals": [{"case": "no_agreement", "code": "agreement.unknown", "message": "None for <b>&kind."}],
        "failures": [],
    }


def test_every_figure_is_on_the_page(sample: dict[str, Any]) -> None:
    page = Page(report.render(sample, ("演示", "Demonstration"), ("副题", "three nodes")))
    text = " ".join(page.text)
    job = sample["jobs"][1]
    wanted = [
        "3,450",
        "3,111",
        "1,222",
        "777",
        "0.7654",
        f"{job['auc']:.4f}",
        f"{job['lift_at_5pct']:.2f}",
        f"{job['recall_at_10pct']:.3f} ({job['intervals']['recall_at_10pct'][0]:.3f}\u2060–",
        "0.332",
        "0.01234",
        "0.8182",
        "33 / 44",
        "Calibration",
        "290",
        "211",
    ]
    wanted += [
        "4,801",
        "4,602",
        "203",
        "51",
        "6,106",
        "5,946",
        "43",
        "1.5 KB",
        "2.5 MB",
        "61.2 s",
        "agreement.unknown",
    ]
    wanted += [
        "a new reason",
        "job-look",
        "已撤回",
        "withdrawn",
        "未成年且无监护人同意",
        "相似人群扩量",
        "Lookalike",
    ]
    assert [w for w in wanted if w not in text] == []
    assert page.counts["svg"] == 4 + 2


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        (
            {
                **{"kind": "boost", "rows": 1601, "fitted": 1201, "held_out": 303, "trees": 17},
                **{"auc": 0.81234, "pooled_auc": 0.82345, "intervals": {"auc": [0.7999, 0.8444]}},
                "gains": {"own:<i>age": 12.5, "theirs:城市": 3.25},
            },
            [
                "1,601",
                "1,201",
                "303",
                "17",
                "0.8123",
                "0.8235",
                "0.800–0.844",
                "gain of <i>age (brand)",
                "3.25",
            ],
        ),
        (
            {"kind": "joint-lr", "rows": 900, "rows_fit": 700, "steps": 28, "converged": False, "r2": 0.4321},
            ["900", "700", "28", "到达最小值之前结束", "ended before the minimum", "0.4321"],
        ),
        (
            {
                **{"kind": "feature-report", "labelled": 1300, "selected": ["x"]},
                "columns": [
                    {"column": "x", "iv": 0.3456, "missing_rate": 0.125},
                    {"column": "z", "iv": 0.0012, "missing_rate": None},
                ],
            },
            ["1,300", "x: information value", "0.346 / 12.5 %", "0.001 / –", "columns selected"],
        ),
        (
            {
                **{"kind": "lead-score", "rows": 70},
                "speed": {"auc": 0.7123, "pooled_auc": 0.7234, "converged": False},
            },
            ["speed: ended before the minimum", "速度：到达最小值之前结束", "0.7123"],
        ),
    ],
)
def test_figures_of_the_models(sample: dict[str, Any], job: dict[str, Any], wanted: list[str]) -> None:
    base = {"provider": "provider_a", "seconds": 2.5, "bytes_sent": 1, "bytes_received": 2}
    told = {**sample, "jobs": [{**base, "audit_verified": True, **job}]}
    text = " ".join(Page(report.render(told, ("演示", "D"), ("副", "s"))).text)
    assert [w for w in wanted if w not in text] == []


def test_nothing_is_loaded_and_data_is_escaped(sample: dict[str, Any]) -> None:
    html = report.render(sample, ("演示", "Demonstration"), ("副题", "three nodes"))
    assert Page(html).links == []
    assert "url(" not in html and "@import" not in html and "http" not in html
    assert "<b>&kind" not in html and "&lt;b&gt;&amp;kind" in html


def test_both_languages_say_the_same_number_of_things(sample: dict[str, Any]) -> None:
    html = report.render(sample, ("演示", "Demonstration"), ("副题", "three nodes"))
    assert len(re.findall(r'<(?:span|text)[^>]* lang="zh"', html)) == len(
        re.findall(r'<(?:span|text)[^>]* lang="en"', html)
    )


def test_the_page_says_that_the_lists_are_what_each_side_learns(sample: dict[str, Any]) -> None:
    text = " ".join(Page(report.render(sample, ("标题", "title"), ("副", "sub"))).text)
    assert "learns" in text and "得知" in text


def test_a_failure_shows(sample: dict[str, Any]) -> None:
    html = report.render({**sample, "ok": False, "failures": ["auc too low"]}, ("演", "D"), ("副", "s"))
    assert "auc too low" in html and "failed" in html


def test_files_are_written_whole(sample: dict[str, Any], tmp_path: Path) -> None:
    data, page = report.write(sample, tmp_path / "out", ("演示", "D"), ("副", "s"))
    assert json.loads(data.read_text(encoding="utf-8")) == sample
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("values", [[0.5] * 10, [0.0, 1e-9], [-5.0, 1e6]])
def test_charts_take_odd_ranges(values: list[float]) -> None:
    positive = np.arange(len(values)) == 0
    h = metrics.histogram(values, positive)
    drawn = charts.score_histogram(h["edges"], h["rows"], h["positives"])
    drawn += charts.reach_curve(metrics.reach_curve(values), 10**9)
    drawn += charts.gain_curve(metrics.gain_curve(metrics.rank(values, positive)))
    drawn += charts.funnel([(("空", "none"), 0, None)])
    Page(drawn)
    assert "nan" not in drawn and "inf" not in drawn


def test_the_legend_of_the_histogram_covers_no_bar() -> None:
    drawn = charts.score_histogram([0, 1, 2, 3], [1, 1, 98], [0, 0, 100])
    bars = [
        float(y)
        for d in re.findall(r'class="area[^"]*" d="([^"]+)"', drawn)
        for y in re.findall(r",([\d.]+)", d)
    ]
    legend = [float(y) for y in re.findall(r'class="line key[^"]*" d="M[\d.]+,([\d.]+)h', drawn)]
    assert legend and min(bars) > max(legend) + 8


def test_every_kind_and_every_reason_has_its_words_in_both_languages() -> None:
    """And each side of a job is told as much in Chinese as in English."""
    known = {name: kind for name, kind in KINDS.items() if name != "probe"}  # a kind of the tests
    assert set(known) <= set(wording.KINDS)
    assert set(REASONS) - {"eligible"} | {MIDWAY} <= set(wording.REASONS)
    for zh, en in (*wording.KINDS.values(), *wording.REASONS.values()):
        assert re.search("[\u4e00-\u9fff]", zh) and en.isascii()
    for kind in known.values():
        for method in (kind, *kind.methods.values()):
            for side in ("brand", "provider"):
                assert len(method.leakage[f"{side}.zh"]) == len(method.leakage[side]), (method.name, side)
