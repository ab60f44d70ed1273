"""`feature-report`: which of your columns would help, before anything is trained? Stages align, count,
release.

    align    the brand learns the provider's row of each of its people
    count    both: sums of the label and of people by column and bin of the provider, for the brand's people
             (protocols/boost with one tree that is never split: its root's sums)
    release  brand: information value, weight of evidence and missing rate of each column; small bins
    suppressed

The provider learns nothing but that it was asked, and how many people the brand has, padded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parties import binning
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.kinds import common, supervised
from parties.kinds.boost import answer, grow
from parties.stage import JobKind, Own, Stage, StageContext, ViewRequest
from protocols import boost

#: Bins with fewer of the brand's people, or fewer of either class, are not written down.
SUPPRESS = 10

#: Half a person is added to either class of a bin: a bin of one class has no logarithm (Good 1965).
SMOOTHING = 0.5

PARAMS = {
    "suite": common.is_text,
    "malicious": common.is_yes_or_no,
    "bins": common.one_of(2, 4, 8, 16, 32, 64),
}
PRIVATE = {
    "label": common.is_text,
    "where": common.is_text,
    "minimum_iv": common.is_number(0.0, 10.0),
}


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, PARAMS, PRIVATE)
    common.check_suite(spec, agreement)
    common.check_columns(spec.columns, agreement.columns, "column", agreement)
    common.check_outputs(spec, {"report": "brand"})
    terms_of(spec)


def terms_of(spec: JobSpec) -> boost.Terms:
    """One tree of one level: the sums of its root are all that is opened."""
    bins = int(spec.params.get("bins", 8))
    return boost.Terms(trees=1, depth=1, bits=bins.bit_length() - 1, max_rows=common.MAX_ROWS)


def check_own(spec: JobSpec, dataset: Dataset, private: Mapping[str, Any]) -> None:
    common.check_private(private, PRIVATE, PARAMS)
    common.own_columns(spec, dataset, _no_columns(private))


def _no_columns(private: Mapping[str, Any]) -> dict[str, Any]:
    """A report reads the label and no other column of the brand's."""
    return {**private, "columns": []}


def open_view(request: ViewRequest) -> ConsentedView:
    if request.role == "provider":
        return supervised.open_view(request)
    common.check_private(request.private, PRIVATE)
    return supervised.open_view(replace(request, private=_no_columns(request.private)))


def count_brand(ctx: StageContext) -> None:
    alive = common.receive_alive(ctx, "count alive")
    people = supervised.people_of(ctx, alive, binary=True, holdout=False)
    terms = terms_of(ctx.spec)
    described, _ = supervised.received_columns(ctx, (terms.bins,))
    flags = np.zeros(0, dtype=bool)
    none = boost.Table(np.zeros((len(people.rows), 0), dtype=np.uint8), flags, flags)
    labels = boost.Labels(people.rows, people.y, people.train, np.zeros_like(people.train), none)
    # g = mean − y and h = 1: the sums of both by bin are those of y and of people. No gain is ever enough.
    learning = boost.Learning(objective="squared", minimum_gain=1e300)
    learned = grow(ctx, "count", labels, int(alive.sum()), terms, learning)
    if learned.first is None:
        raise NodeError("kind.message", "the provider sent no sums", share=True)
    people_by_bin = np.rint(learned.first[..., 1])
    positives = np.rint(learned.start * people_by_bin - learned.first[..., 0])
    ctx.carry.update(counts=(people_by_bin, positives), described=described)
    ctx.result.update(matched=len(people.rows), labelled=int(people.train.sum()))


def count_provider(ctx: StageContext) -> None:
    rows = np.flatnonzero(common.send_alive(ctx, "count alive"))
    terms = terms_of(ctx.spec)
    ctx.channel.progress(0, 1, "columns")
    plan = binning.learn(ctx.view, common.spec_columns(ctx), rows, terms.bins)
    table = binning.table(plan, ctx.view, rows)
    supervised.send_columns(ctx, plan, terms.bins)
    answer(ctx, "count", table, terms)
    ctx.result.update(rows=len(rows), columns=list(plan.names), notes=list(plan.notes))


def release_brand(ctx: StageContext) -> None:
    common.receive_alive(ctx, "release")
    people, positives = ctx.carry["counts"]
    described = ctx.carry["described"]
    columns = [report(name, people[k], positives[k], missing) for k, (name, missing) in enumerate(described)]
    columns.sort(key=lambda column: -column["iv"])
    least = float(ctx.private.get("minimum_iv") or 0.02)
    ctx.result.update(
        columns=columns,
        minimum_iv=least,
        selected=[column["column"] for column in columns if column["iv"] >= least],
        suppressed_below=SUPPRESS,
    )
    ctx.carry.clear()
    text = json.dumps(ctx.result, ensure_ascii=False, indent=1, sort_keys=True)
    (ctx.workdir / "result.json").write_text(text + "\n")


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


def report(name: str, people: np.ndarray, positives: np.ndarray, missing: bool) -> dict[str, Any]:
    """One column's figures from its counts by bin, float64[B] each; bin 0 is that of missing values if
    `missing`.

    WOE of a bin = log of (its share of the positives / its share of the others); IV = Σ (difference of the
    two shares) · WOE. Suppressed bins enter the IV in two groups, coarsely (`_coarse`).
    """
    others = people - positives
    small = (people > 0) & ((positives < SUPPRESS) | (others < SUPPRESS))
    hidden = int(people[small].sum())
    shown = np.flatnonzero((people > 0) & ~small)
    if small.any() and len(shown) and (small.sum() == 1 or hidden < 2 * SUPPRESS):
        # What is left out could be computed from the total and the other bins: the smallest goes too.
        small[shown[np.argmin(people[shown])]] = True
    groups: list[tuple[int, float, float]] = [
        (int(b), float(positives[b]), float(others[b])) for b in np.flatnonzero((people > 0) & ~small)
    ]
    # Suppressed bins count towards the IV in two groups, those above the mean rate and those below: in one
    # group a column that separates the classes well would look worthless. Which group must not tell a count.
    rough = [np.where(c < SUPPRESS, SUPPRESS / 2, c) for c in (positives, others)]
    above = rough[0] * others.sum() > rough[1] * positives.sum()
    if small.sum() == 2:
        above = np.arange(len(people)) == np.argmax(small)  # one each
    parts = [part for part in (small & above, small & ~above) if part.any()]
    coarse = [_coarse([float(c[part].sum()) for part in parts]) for c in (positives, others)]
    groups += [(-1, *pair) for pair in zip(*coarse, strict=True)]
    totals = sum(g[1] + SMOOTHING for g in groups), sum(g[2] + SMOOTHING for g in groups)
    iv, bins = 0.0, []
    for number, yes, no in groups:
        share = (yes + SMOOTHING) / totals[0], (no + SMOOTHING) / totals[1]
        woe = float(np.log(share[0] / share[1]))
        iv += (share[0] - share[1]) * woe
        if number >= 0:
            rate = yes / (yes + no)
            bins.append(
                {"bin": int(number), "people": int(yes + no), "rate": round(rate, 3), "woe": round(woe, 3)}
            )
    total = float(people.sum())
    apart = missing and not small[0]
    return {
        "column": name,
        "iv": round(float(iv), 3),
        "missing_rate": float(people[0] / total) if apart and total else (None if missing else 0.0),
        "bins": bins,
        "bins_suppressed": int(small.sum()),
    }


def _coarse(counts: list[float]) -> list[float]:
    """Counts of one class in the suppressed groups, of which a small one says no more than that it is small.

    The report has totals and the bins that are shown, so the exact IV would be an equation for what is
    suppressed: with small whole numbers it can mostly be solved. The sum, which the report tells, is kept.
    """
    if len(counts) < 2 or min(counts) >= SUPPRESS:
        return counts
    total = sum(counts)
    least = min(SUPPRESS / 2, total / 2)
    return [least, total - least] if counts[0] < counts[1] else [total - least, least]


FEATURE_REPORT = JobKind(
    name="feature-report",
    stages=(
        Stage("align", supervised.align_brand, common.align_provider),
        Stage("count", count_brand, count_provider),
        Stage("release", release_brand, release_provider),
    ),
    check=check,
    open_view=open_view,
    aligned="brand",
    check_own=check_own,
    own=lambda spec: Own(labels=(("label", None),), least="seeds"),
    leakage={
        "brand": (
            "which of its people the provider has among its eligible people",
            "how many of its people, and of its positives, are in each bin of each column; its machine holds "
            f"exact counts while the job runs, and writes down no bin with under {SUPPRESS} of either class",
            "which of the provider's columns that it asked for can be used, and which have missing values",
        ),
        "provider": ("the brand's number of people, padded", "nothing about labels or counts"),
        "brand.zh": (
            "其人员中哪些在提供方的合格人群内",
            "各列各分箱中其人员数与正例数；任务运行期间其程序持有精确计数，但不写出任一类少于"
            f" {SUPPRESS} 人的分箱",
            "所请求的提供方列中哪些可用、哪些有缺失值",
        ),
        "provider.zh": ("品牌方人数（填充后）", "不知道标签与计数"),
    },
)
