"""`score`: new people by a model that an earlier job of the same two parties made. Align, score, release.

    align    the brand learns the provider's row of each of its people (those of `where`, or all)
    score    both evaluate their part of the model, target after target
    release  provider: who is still in; brand: scores by the line of its file

The job names its model by the training job's id. Each side has its part of it among its models, and both
check agreement, partner, expiry and retirement for themselves. One lead is scored as a batch is: the
alignment pads the people that are asked about, and the model is evaluated for all of the provider's rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties import binning, documents, features, own_part
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.grades import Calibration, Grading
from parties.home import Home
from parties.kinds import common, joint_lr, lead_score, supervised
from parties.models import Model, Models
from parties.stage import Channel, JobKind, Own, Stage, StageContext, ViewRequest
from protocols import select
from protocols.boost.model import ProviderSplit, forest_of
from protocols.boost.score import Answerer, Scorer

METHODS = ("boost", "joint-lr")
PARAMS = {
    "suite": common.is_text,
    "malicious": common.is_yes_or_no,
    "method": common.one_of(*METHODS),
    "model": common.is_text,
}
PRIVATE = {"where": common.is_text}


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, PARAMS, PRIVATE)
    if "model" not in spec.params:
        raise NodeError("job.spec", "a score job names its model: the training job's id", share=True)
    common.check_suite(spec, agreement)
    common.check_columns(spec.columns, agreement.columns, "column", agreement)
    common.check_outputs(spec, {"scores": "brand"})
    supervised.check_no_noise(spec, agreement.privacy, "score")


def model_of(models: Models, spec: JobSpec, peer: str) -> Model:
    """This side's entry of the job's model, if it may score now."""
    method = str(spec.params.get("method", "boost"))
    return models.usable(str(spec.params["model"]), peer, spec.agreement_id, method, documents.now())


def check_here(spec: JobSpec, home: Home, peer: str) -> None:
    """Each side must have its part of the model, whose time is not over."""
    model_of(Models(home), spec, peer)


def parts_of(model: Model) -> tuple[str, ...]:
    return lead_score.TARGETS if model.kind == "lead-score" else ("",)


def open_view(request: ViewRequest) -> ConsentedView:
    models = Models(request.home)
    model = model_of(models, request.spec, request.recipient)
    if request.role == "provider":
        return common.open_view(request)
    common.check_private(request.private, PRIVATE)
    names: dict[str, None] = {}
    for part in parts_of(model):
        plan = models.document(model, part).get("plan")
        names |= dict.fromkeys(step["name"] for step in (plan or {"steps": ()})["steps"])
    return supervised.open_own(request, list(names))


def align_brand(ctx: StageContext) -> None:
    mask = common.alive(ctx)
    if ctx.private.get("where"):
        mask &= ctx.view.where(ctx.private["where"])
    people = np.flatnonzero(mask)
    if not len(people):
        raise NodeError("job.people", "nobody of the own file fits `where`", "choose other people")
    common.align_brand(ctx, people)
    ctx.result.update(asked=len(people), matched=int((ctx.carry["rows"] >= 0).sum()))


def _channel(ctx: StageContext, part: str) -> Channel:
    return lead_score.TargetChannel(ctx.channel, part) if part else ctx.channel


# -- score ---------------------------------------------------------------------------------------------------


def score_provider(ctx: StageContext) -> None:
    rows = np.flatnonzero(common.send_alive(ctx, "score alive"))
    model = model_of(ctx.models, ctx.spec, ctx.spec.brand)
    for part in parts_of(model):
        _EVALUATE[model.method][1](ctx, ctx.models.document(model, part), _channel(ctx, part), rows)
    ctx.result.update(model=model.job_id, rows=len(rows))


def score_brand(ctx: StageContext) -> None:
    alive = common.receive_alive(ctx, "score alive")
    model = model_of(ctx.models, ctx.spec, ctx.spec.provider)
    people, rows = ctx.carry["people"], ctx.carry["rows"]
    usable = (rows >= 0) & common.alive(ctx)[people]
    usable[usable] = alive[rows[usable]]
    people, rows = people[usable], rows[usable]
    # Rows are numbered anew without the withdrawn: both sides know who that is from the bitmap.
    position = (np.cumsum(alive) - 1)[rows]
    found = []
    for part in parts_of(model):
        given = ctx.models.document(model, part)
        channel = _channel(ctx, part)
        found.append(_EVALUATE[model.method][0](ctx, given, channel, people, position, int(alive.sum())))
    ctx.carry.update(scored=people, provider_rows=rows, found=found)
    ctx.result.update(model=model.job_id, model_name=f"{model.name}@{model.version}")
    # A flag and no refusal: whether a model whose people withdrew may go on is for the brand to decide.
    ctx.result["training_consent"] = ctx.models.standing(model)


def _trees_brand(
    ctx: StageContext,
    model: dict[str, Any],
    channel: Channel,
    people: np.ndarray,
    rows: np.ndarray,
    total: int,
) -> np.ndarray:
    own = binning.table(binning.BinPlan.from_document(model["plan"]), ctx.view, people)
    start, trees = forest_of(model["forest"])
    margin: np.ndarray = channel.run(
        Scorer(rows, own, total, start, trees, channel.session("score")), "score"
    )
    return margin


def _trees_provider(ctx: StageContext, model: dict[str, Any], channel: Channel, rows: np.ndarray) -> None:
    table = binning.table(binning.BinPlan.from_document(model["plan"]), ctx.view, rows)
    splits: Sequence[ProviderSplit] = [ProviderSplit(**split) for split in model["splits"]]
    channel.run(Answerer(table, splits, channel.session("score")), "score")


def _joint_brand(
    ctx: StageContext,
    model: dict[str, Any],
    channel: Channel,
    people: np.ndarray,
    rows: np.ndarray,
    total: int,
) -> np.ndarray:
    chosen = np.zeros(total, dtype=bool)
    chosen[rows] = True
    machine = select.Chooser(chosen, 4, channel.session("parts"), os.urandom)
    parts = channel.run(machine, "parts").view("<f4").ravel()[rows].astype(np.float64)
    if not np.isfinite(parts).all():
        raise NodeError("kind.message", "the provider sent scores that are no numbers", share=True)
    own = np.full(len(people), float(model["intercept"]))
    if model["plan"] is not None and len(people):
        plan = features.Plan.from_document(model["plan"])
        own += own_part.part(plan, ctx.view.read(plan.used, people), len(people), model["weights"])
    found: np.ndarray = float(model["offset"]) + float(model["scale"]) * (own + parts)
    return found


def _joint_provider(ctx: StageContext, model: dict[str, Any], channel: Channel, rows: np.ndarray) -> None:
    plan = features.Plan.from_document(model["plan"])
    weights = features.weights_of(plan, model["weights"])
    part = np.zeros(len(rows))
    for column, weight in zip(features.matrix(plan, ctx.view, rows).T, weights, strict=True):
        part += column.astype(np.float64) * weight
    values = part.astype("<f4").view(np.uint8).reshape(-1, 4)
    # By oblivious transfer: the brand gets the parts of its own people and of nobody else.
    channel.run(select.Holder(values, channel.session("parts"), os.urandom), "parts")


_EVALUATE: dict[str, tuple[Callable[..., np.ndarray], Callable[..., None]]] = {
    "boost": (_trees_brand, _trees_provider),
    "joint-lr": (_joint_brand, _joint_provider),
}


# -- release -------------------------------------------------------------------------------------------------


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


def release_brand(ctx: StageContext) -> None:
    alive = common.receive_alive(ctx, "release")
    model = model_of(ctx.models, ctx.spec, ctx.spec.provider)
    people, rows = ctx.carry["scored"], ctx.carry["provider_rows"]
    kept = np.flatnonzero(common.alive(ctx)[people] & alive[rows])
    lines = ctx.view.own_rows()[people[kept]]
    order = np.argsort(lines)
    kept, lines = kept[order], lines[order]
    found = [scores[kept] for scores in ctx.carry["found"]]
    columns: dict[str, Any] = {"row": lines}
    if model.kind == "lead-score":
        columns |= _lead(ctx.models.document(model), found)
    else:
        kind = _objective(ctx.models.document(model), ctx.models.folder(model))
        columns |= {"score": found[0], "prediction": joint_lr.mean(found[0], kind)}
    pq.write_table(pa.table(columns), ctx.workdir / "scores.parquet")
    ctx.result.update(scored=len(kept))
    text = json.dumps(ctx.result, ensure_ascii=False, indent=1, sort_keys=True)
    (ctx.workdir / "result.json").write_text(text + "\n")


def _objective(model: dict[str, Any], folder: Any) -> str:
    """The family whose mean turns a score into a prediction."""
    if "family" in model:
        return str(model["family"])
    objective = json.loads((folder / "result.json").read_text(encoding="utf-8"))["objective"]
    return "linear" if objective == "squared" else "logistic"


def _lead(model: dict[str, Any], found: list[np.ndarray]) -> dict[str, Any]:
    grading = Grading.from_document(model["grading"])
    flag = model["value_is"] == "flag"
    speed = joint_lr.mean(found[0], "logistic")
    value = joint_lr.mean(found[1], "logistic") if flag else found[1]
    combined, grade = grading.combine(speed, value)
    known = {t: Calibration.from_document(d) for t, d in (model.get("calibration") or {}).items()}
    chance = {t: known[t].chance(of) for t, of in (("speed", speed), ("value", value)) if t in known}
    return {
        "speed": chance.get("speed", speed),
        "value": chance.get("value", value if flag else grading.value.share(value)),
        "value_prediction": value,
        **({"speed_prediction": speed} if known else {}),
        "combined": combined,
        "grade": pa.array(grade.tolist(), pa.string()),
    }


def _kind(brand: tuple[str, str], provider: tuple[str, str]) -> JobKind:
    """`brand`, `provider`: what the method tells each side, in English and Chinese."""
    return JobKind(
        name="score",
        stages=(
            Stage("align", align_brand, common.align_provider),
            Stage("score", score_brand, score_provider),
            Stage("release", release_brand, release_provider),
        ),
        check=check,
        check_own=lambda spec, dataset, private: common.check_private(private, PRIVATE, PARAMS),
        own=lambda spec: Own(least="one"),
        check_here=check_here,
        open_view=open_view,
        leakage={
            "brand": (
                "which of its people the provider has among its eligible people",
                brand[0],
                "the scores of its own people",
            ),
            "provider": ("the brand's number of people, padded", provider[0], "no score and no label"),
            "brand.zh": ("其人员中哪些在提供方的合格人群内", brand[1], "自有人员的得分"),
            "provider.zh": ("品牌方人数（填充后）", provider[1], "不知道得分和标签"),
        },
        aligned="brand",
    )


_TREES = _kind(
    (
        "on which side each row of the provider goes at the provider's splits",
        "提供方每一行在提供方分裂处走向哪一侧",
    ),
    (
        "which model is used, about how many of its trees were kept, and that all of its rows were evaluated",
        "使用了哪个模型、品牌方大致保留了其中多少棵树，且其全部行均被计算",
    ),
)
_JOINT = _kind(
    (
        "the provider's part of the score of its own people, and the provider's number of rows",
        "自有人员得分中提供方的部分，以及提供方的行数",
    ),
    ("which model is used, and that all of its rows were evaluated", "使用了哪个模型，且其全部行均被计算"),
)
SCORE = JobKind(
    name="score",
    stages=_TREES.stages,
    check=check,
    check_own=_TREES.check_own,
    own=_TREES.own,
    check_here=check_here,
    open_view=open_view,
    leakage=_TREES.leakage,
    methods={"boost": _TREES, "joint-lr": _JOINT},
    aligned="brand",
)
