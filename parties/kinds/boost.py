"""`boost`: gradient-boosted trees over columns of both sides. Stages align, fit, release.

    align    the brand learns the provider's row of each of its people
    fit      provider: who is still in; both bin their columns and grow the forest (protocols/boost)
    release  provider: who is still in; brand: scores of its people by the line of its file, figures, its
    model

The provider keeps the thresholds of its own splits, the brand everything else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from parties import binning, column_texts
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import Column, ConsentedView
from parties.kinds import common, supervised
from parties.kinds.metrics import measure
from parties.scratch import Scratch
from parties.stage import JobKind, Own, Stage, StageContext, ViewRequest
from protocols import boost
from protocols.errors import LocalError

#: Bins of the brand's own columns; they never travel.
OWN_BINS = 255

#: Columns of bins that a column of text with many levels becomes at the provider.
SPREAD = 4

#: What a job has that says nothing of it.
TREES, DEPTH = 50, 5

#: Bins of a job that says nothing of them: the most with which rows × columns × bins are at most `CELLS`.
BINS, CELLS = (64, 32, 16), 1 << 25

PARAMS = {
    "suite": common.is_text,
    "malicious": common.is_yes_or_no,
    "trees": common.is_whole(1, 2000),
    "depth": common.is_whole(1, 8),
    "bins": common.one_of(2, 4, 8, 16, 32, 64),
    "objective": common.one_of("logistic", "squared"),
}
PRIVATE = {
    **supervised.PRIVATE,
    "learning_rate": common.is_number(1e-4, 1.0),
    "l2": common.is_number(0.0, 1e6),
    "minimum_gain": common.is_number(0.0, 1e6),
    "minimum_rows": common.is_whole(20, 2**31),
    "row_share": common.is_number(0.01, 1.0),
    "column_share": common.is_number(0.01, 1.0),
    "patience": common.is_whole(0, 2000),
    "monotone": lambda value: isinstance(value, dict) and all(v in (-1, 1) for v in value.values()),
}
LEARNING = (
    "learning_rate",
    "l2",
    "minimum_gain",
    "minimum_rows",
    "row_share",
    "column_share",
    "patience",
)


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, PARAMS, PRIVATE)
    common.check_suite(spec, agreement)
    common.check_columns(spec.columns, agreement.columns, "column", agreement)
    common.check_outputs(spec, {"scores": "brand"})
    supervised.check_no_noise(spec, agreement.privacy, "boost")
    terms_of(spec, bins_of(spec.params, 1, 1))


def _bins_allowed(params: Mapping[str, Any]) -> tuple[int, ...]:
    return (int(params["bins"]),) if "bins" in params else BINS


def bins_of(params: Mapping[str, Any], rows: int, columns: int) -> int:
    """Bins of the provider's columns: those signed, or by the numbers of its rows and columns."""
    allowed = _bins_allowed(params)
    return next((bins for bins in allowed if rows * columns * bins <= CELLS), allowed[-1])


def terms_of(spec: JobSpec, bins: int) -> boost.Terms:
    """The protocol's terms, from what both signed and `bins_of`."""
    given = spec.params
    return boost.Terms(
        trees=int(given.get("trees", TREES)),
        depth=int(given.get("depth", DEPTH)),
        bits=bins.bit_length() - 1,
        max_rows=common.MAX_ROWS,
    )


def check_own(spec: JobSpec, dataset: Dataset, private: Mapping[str, Any]) -> None:
    common.check_private(private, PRIVATE, PARAMS)
    names = common.own_columns(spec, dataset, private)[1:]
    for name in private.get("monotone") or ():
        # A star may stand for any name, which the fit then looks for.
        if name not in names and spec.columns != common.ALL and name not in spec.columns:
            raise NodeError(
                "job.parameter",
                f"monotone: no column {name!r}{common.nearest(name, {*names, *spec.columns})}",
            )


def check_order(column: Column) -> None:
    """`job.parameter` if a column of the brand's is text, which a score can't rise or fall with."""
    if column_texts.measured(column).kind == "categorical":
        raise NodeError(
            "job.parameter",
            f"monotone: {column.name!r} is a column of text, which has no order",
            "leave columns of text out of monotone",
        )


def own(spec: JobSpec) -> Own:
    squared = spec.params.get("objective") == "squared"
    check = supervised.check_number if squared else None
    return Own(labels=(("label", check),), least="seeds", looked_at=(("monotone", check_order),))


def open_view(request: ViewRequest) -> ConsentedView:
    if request.role == "brand":
        common.check_private(request.private, PRIVATE)
    return supervised.open_view(request)


def grow(
    ctx: StageContext,
    stage: str,
    labels: boost.Labels,
    total: int,
    terms: boost.Terms,
    learning: boost.Learning,
) -> boost.BrandResult:
    """Brand: the forest over the provider's `total` rows; many keys lie in the job's folder."""
    with Scratch(ctx.workdir) as scratch:
        session = ctx.channel.session(stage)
        try:
            machine = boost.Brand(labels, total, session, terms, learning, os.urandom, scratch.room)
            forest = ctx.channel.run(machine, stage)
        except LocalError as error:
            if error.code == "boost.rows":
                raise NodeError("job.labels", error.detail, "use more people or another provider") from error
            raise
        ctx.result["disk_bytes"] = scratch.disk_bytes
    return forest


def answer(ctx: StageContext, stage: str, table: boost.Table, terms: boost.Terms) -> boost.ProviderResult:
    """Provider: the other side of `grow`."""
    with Scratch(ctx.workdir) as scratch:
        session = ctx.channel.session(stage)
        forest = ctx.channel.run(boost.Provider(table, session, terms, os.urandom, scratch.room), stage)
        ctx.result["disk_bytes"] = scratch.disk_bytes
    return forest


def fit_brand(ctx: StageContext) -> None:
    alive = common.receive_alive(ctx, "fit alive")
    objective = str(ctx.spec.params.get("objective", "logistic"))
    people = supervised.people_of(ctx, alive, objective == "logistic")
    names = supervised.learned_from(ctx)
    fitted = people.view_rows[people.train]
    ctx.channel.progress(0, 1, "columns")
    plan = binning.learn(ctx.view, names, fitted, OWN_BINS, tails=True, own=True)
    own = binning.table(plan, ctx.view, people.view_rows)
    described, bins = supervised.received_columns(ctx, _bins_allowed(ctx.spec.params))
    columns = [name for name, _ in described]
    labels = boost.Labels(people.rows, people.y, people.train, people.held, own)
    terms, learning = terms_of(ctx.spec, bins), _learning(ctx, objective, plan.names, columns)
    try:
        forest = grow(ctx, "fit", labels, int(alive.sum()), terms, learning)
    except LocalError as error:
        if error.code != "boost.monotone":
            raise
        asked = ", ".join(map(repr, ctx.private["monotone"]))
        raise NodeError(
            "job.parameter",
            f"monotone: of {asked} at least one is a column of text, which has no order",
            "leave columns of text out of monotone",
        ) from error
    ctx.carry.update(fitted=people, forest=forest)
    gains = {f"own:{n}": float(g) for n, g in zip(plan.names, forest.gains[0], strict=True)}
    gains |= {f"theirs:{n}": float(g) for n, g in zip(columns, forest.gains[1], strict=False)}
    ctx.result.update(
        matched=len(people.rows),
        fitted=int(people.train.sum()),
        trees=len(forest.trees),
        columns_own=list(plan.names),
        columns_theirs=columns,
        gains=dict(sorted(gains.items(), key=lambda item: -item[1])),
        held_out_losses=list(forest.losses),
        notes=list(plan.notes),
        objective=objective,
        settings={
            "trees": terms.trees,
            "depth": terms.depth,
            "bins": terms.bins,
            **{name: getattr(learning, name) for name in LEARNING},
            "monotone": dict(ctx.private.get("monotone") or {}),
        },
    )
    common.write_json(
        ctx, "model.json", {"kind": "boost", "plan": plan.to_document(), "forest": forest.to_document()}
    )


def _learning(ctx: StageContext, objective: str, own: tuple[str, ...], theirs: list[str]) -> boost.Learning:
    chosen = {name: ctx.private[name] for name in LEARNING if ctx.private.get(name) is not None}
    monotone = dict(ctx.private.get("monotone") or {})
    unknown = [name for name in monotone if name not in own and name not in theirs]
    if unknown:
        raise NodeError("job.parameter", f"monotone: no column {unknown[0]!r} in the model")
    return boost.Learning(
        objective=objective,
        monotone_own={i: monotone[n] for i, n in enumerate(own) if n in monotone},
        monotone_provider={i: monotone[n] for i, n in enumerate(theirs) if n in monotone},
        **chosen,
    )


def fit_provider(ctx: StageContext) -> None:
    rows = np.flatnonzero(common.send_alive(ctx, "fit alive"))
    asked = common.spec_columns(ctx)
    terms = terms_of(ctx.spec, bins_of(ctx.spec.params, len(rows), len(asked)))
    ctx.channel.progress(0, 1, "columns")
    plan = binning.learn(ctx.view, asked, rows, terms.bins, tails=True, spread=SPREAD)
    table = binning.table(plan, ctx.view, rows)
    supervised.send_columns(ctx, plan, terms.bins)
    forest = answer(ctx, "fit", table, terms)
    ctx.result.update(
        rows=len(rows),
        columns=list(dict.fromkeys(plan.sources)),
        notes=list(plan.notes),
        trees=forest.trees,
        splits=len(forest.splits),
    )
    splits = [asdict(split) for split in forest.splits]
    common.write_json(ctx, "model.json", {"kind": "boost", "plan": plan.to_document(), "splits": splits})


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


def release_brand(ctx: StageContext) -> None:
    alive = common.receive_alive(ctx, "release")
    people, forest = ctx.carry["fitted"], ctx.carry["forest"]
    kept = supervised.still_in(ctx, people, alive)
    margin = forest.scores
    score = margin if ctx.result["objective"] == "squared" else 1 / (1 + np.exp(-margin))
    supervised.write_scores(ctx, people, kept, score=score, margin=margin)
    held = kept[people.held[kept]]
    if ctx.result["objective"] == "logistic":
        figures = measure(margin[held], people.y[held] > 0)
        figures["held_out_positives"] = figures.pop("held_out")
        figures["held_out_negatives"] = figures.pop("unlabelled")
    else:
        figures = _regression(margin[held], people.y[held])
    ctx.result.update(figures, scored=len(kept), held_out=len(held))
    common.write_json(ctx, "result.json", ctx.result)


def _regression(predicted: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    if not len(y):
        return {"rmse": None, "r2": None}
    error, spread = float(((predicted - y) ** 2).mean()), float(y.var())
    return {"rmse": error**0.5, "r2": 1 - error / spread if spread else None}


BOOST = JobKind(
    name="boost",
    stages=(
        Stage("align", supervised.align_brand, common.align_provider),
        Stage("fit", fit_brand, fit_provider),
        Stage("release", release_brand, release_provider),
    ),
    check=check,
    open_view=open_view,
    aligned="brand",
    check_own=check_own,
    own=own,
    leakage={
        "brand": (
            "which of its people the provider has among its eligible people",
            "sums of its own gradients by node, column and bin of the provider, for its own people",
            "on which side each row of the provider goes at the provider's splits",
            "the scores of its own people; which of the provider's columns that it asked for can be used",
        ),
        "provider": (
            "the brand's number of people, padded",
            "which of its rows are in which node of each tree; with many trees this can tell the brand's "
            "people from others (protocols/boost/README.md, section 6)",
            "its own columns and bins that trees split on; no labels, no scores",
        ),
        "brand.zh": (
            "其人员中哪些在提供方的合格人群内",
            "按节点、提供方的列和分箱，自有人员的梯度之和",
            "提供方每一行在提供方分裂处走向哪一侧",
            "自有人员的得分；所请求且可用的提供方列名",
        ),
        "provider.zh": (
            "品牌方人数（填充后）",
            "其各行位于每棵树的哪个节点；树多时可能据此区分品牌方人员与其他人"
            "（见 protocols/boost/README.md 第 6 节）",
            "自己的列中被用于分裂的列与分箱；不知道标签和得分",
        ),
    },
)
