"""`lookalike`: who else among your people is like my seeds? Stages align, fit, score, release.

    align    the brand learns the provider's row of each seed
    fit      provider: who is still in; brand: how many columns its seeds allow without noise; both: the
             one-pass fit, in which the provider learns z and its model
    score    provider: log-odds of everybody who is still in, by row number
    release  provider: who is still in; brand: removes everybody else, measures, picks the audience, writes

Who withdraws between two stages is out of the later ones: before the fit both sides number the rows anew
without them, at scoring their score is "not a number", at release the brand deletes what it has. Rows of the
results are the provider's row numbers of this job, meaningful to the provider alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties import features, transforms
from parties.budget import Spend
from parties.documents import Agreement, JobSpec, Privacy
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.kinds import common, transfer
from parties.kinds.metrics import detailed, measure, reach
from parties.stage import If, JobKind, Own, Stage, StageContext, ViewRequest
from protocols import lookalike

#: Share of the matched seeds that are kept from the fit, to measure it.
HOLDOUT = 0.2

#: Fewer held-out seeds than this give no figure worth printing.
LEAST_HOLDOUT = 5

#: A larger Φ is not kept from the fit to the scores, nor in the checkpoint between: scores stream the
#: columns.
KEPT_BYTES = 512 << 20

PARAMS = {
    "suite": common.is_text,
    "malicious": common.is_yes_or_no,
    "l2": common.is_number(1e-6, 1e6),
    "l1": common.is_number(0.0, 1e6),
    "bags": common.is_whole(1, lookalike.terms.MOST_BAGS),
    "features": common.one_of(*transforms.FORMS),
    "privacy": lambda value: value is None or isinstance(value, dict),
}
PRIVATE = {
    "where": common.is_text,
    "label": common.is_text,
    "audience_size": common.is_whole(1, common.MAX_ROWS),
    "include_seeds": lambda value: isinstance(value, bool),
    "holdout": common.is_number(0.0, 0.5),
    "hidden_share": common.is_number(0.0, 0.9),
    "holdout_seed": common.is_whole(0, 2**53),
}


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, PARAMS, PRIVATE)
    common.check_suite(spec, agreement)
    common.check_columns(spec.columns, agreement.columns, "column", agreement)
    common.check_outputs(spec, {"scores": "brand", "audience": "brand", "seeds": "brand"})
    asked, agreed = privacy_of(spec, agreement), agreement.privacy
    if agreed is not None and (asked is None or asked.epsilon > agreed.epsilon or asked.delta > agreed.delta):
        raise NodeError(
            "agreement.privacy",
            f"the job asks for {asked.to_json() if asked else 'no noise'}, agreement {agreement.id} has "
            f"epsilon {agreed.epsilon}, delta {agreed.delta}",
            "ask for the agreed noise or more",
            share=True,
        )
    terms_of(spec, agreement)


def privacy_of(spec: JobSpec, agreement: Agreement) -> Privacy | None:
    """The job's own privacy parameters, or the agreement's if it names none."""
    if "privacy" not in spec.params:
        return agreement.privacy
    value = spec.params["privacy"]
    return None if value is None else Privacy.from_json({"clip": 1.0, **value})


def terms_of(spec: JobSpec, agreement: Agreement) -> lookalike.Terms:
    """The protocol's terms, equal on both sides because both derive them from what both signed."""
    privacy = privacy_of(spec, agreement)
    chosen: dict[str, Any] = {"minimum_seeds": agreement.minimum_seeds, "max_rows": common.MAX_ROWS}
    if privacy is None:
        chosen["epsilon"] = None
    else:
        chosen.update(epsilon=privacy.epsilon, delta=privacy.delta, clip=privacy.clip)
    if "l2" in spec.params:
        chosen["l2"] = float(spec.params["l2"])
    chosen["l1"] = float(spec.params.get("l1", 0.0))
    chosen["bags"] = int(spec.params.get("bags", 1))
    return lookalike.Terms(**chosen)


def spends(spec: JobSpec, agreement: Agreement) -> Spend | None:
    """The labels' (epsilon, delta), by the discrete Gaussian on z; None without noise."""
    privacy = privacy_of(spec, agreement)
    return None if privacy is None else Spend(spec.kind, "gaussian", privacy.epsilon, privacy.delta)


def check_own(private: Mapping[str, Any]) -> None:
    common.check_private(private, PRIVATE, PARAMS)
    if not (private.get("where") or private.get("label")):
        raise NodeError(
            "job.parameter",
            "a lookalike needs to know its seeds: give `where` (an SQL condition) or `label`",
        )


def open_view(request: ViewRequest) -> ConsentedView:
    if request.role == "brand":
        check_own(request.private)
    return common.open_view(request)


# -- align ---------------------------------------------------------------------------------------------------


def align_brand(ctx: StageContext) -> None:
    seeds = common.chosen_people(ctx)
    _enough(len(seeds), ctx.agreement.minimum_seeds, "seeds with consent")
    common.align_brand(ctx, seeds)
    found = int(np.count_nonzero(ctx.carry["rows"] >= 0))
    ctx.result["seeds_asked"] = len(seeds)
    _enough(found, ctx.agreement.minimum_seeds, "matched seeds")


def _enough(count: int, minimum: int, what: str) -> None:
    if count < minimum:
        raise NodeError(
            "lookalike.seeds",
            f"{count} {what}, the agreement asks for {minimum}",
            "use a larger seed list or another provider",
        )


# -- fit -----------------------------------------------------------------------------------------------------


def fit_brand(ctx: StageContext) -> None:
    provider_alive = common.receive_alive(ctx, "fit alive")
    if int(provider_alive.sum()) < ctx.agreement.minimum_rows:
        # A provider that names a few people as the only ones left would learn how many of them are seeds.
        raise NodeError("agreement.minimum_rows", "too few of the provider's people are left", share=True)
    # The provider has counted it before its bitmap; whatever happens from here on, it is spent on both sides.
    ctx.spend()
    seeds = common.matched(ctx, provider_alive)
    _enough(len(seeds), ctx.agreement.minimum_seeds, "matched seeds")
    held = _hold_out(ctx, seeds)
    # Rows are numbered anew without the withdrawn: both sides know who that is from the bitmap.
    number = np.cumsum(provider_alive) - 1
    train = np.setdiff1d(seeds, held, assume_unique=True)
    terms = terms_of(ctx.spec, ctx.agreement)
    if terms.epsilon is None:
        everybody, rows = ctx.carry["people"], ctx.carry["rows"]
        people = everybody[np.isin(rows, train)]
        ctx.fitted(everybody, people, np.ones(len(people)), common.drawn_anew(ctx, held))
    # Without noise the provider gets the exact number of seeds anyway, as the sum of its intercept.
    at_most = len(train) // terms.seeds_per_column if terms.epsilon is None else None
    ctx.channel.send_json({"columns_at_most": at_most})
    machine = lookalike.Labels(
        number[train], int(provider_alive.sum()), ctx.channel.session("fit"), terms, os.urandom
    )
    learned = ctx.channel.run(machine, "fit")
    ctx.carry.update(seeds=seeds, held=held)
    ctx.result.update(
        seeds_matched=len(seeds),
        seeds_held_out=len(held),
        epsilon=terms.epsilon,
        delta=terms.delta if terms.epsilon is not None else None,
        noise_scale=learned.noise_scale,
        columns=learned.columns,
        bags=terms.bags,
    )


def _hold_out(ctx: StageContext, seeds: np.ndarray) -> np.ndarray:
    """Rows kept from the fit: 20 % of the seeds, fewer if the fit would get less than the agreed minimum.

    With `holdout_seed` the choice is a function of the seed and the order of the brand's own file, so that
    the same job chooses the same people.
    """
    share = ctx.private.get("holdout")
    wanted = round(float(HOLDOUT if share is None else share) * len(seeds))
    count = min(wanted, len(seeds) - ctx.agreement.minimum_seeds)
    if count < LEAST_HOLDOUT:
        return np.zeros(0, dtype=np.int64)
    fixed = ctx.private.get("holdout_seed")
    if fixed is None:
        keys = np.frombuffer(os.urandom(8 * len(seeds)), dtype=np.uint64)
        return np.sort(seeds[np.argsort(keys, kind="stable")[:count]])
    rows, people = ctx.carry["rows"], ctx.carry["people"]
    mine = np.isin(rows, seeds)
    by_file = rows[mine][np.argsort(ctx.view.own_rows()[people[mine]], kind="stable")]
    # Not a secret: who is held out is the brand's own affair. A counter-based generator, the same everywhere.
    chosen = np.random.Generator(np.random.Philox(fixed)).permutation(len(by_file))[:count]
    return np.sort(by_file[chosen])


def fit_provider(ctx: StageContext) -> None:
    ctx.spend()
    rows = np.flatnonzero(common.send_alive(ctx, "fit alive"))
    names = common.spec_columns(ctx)
    terms = terms_of(ctx.spec, ctx.agreement)
    ctx.channel.progress(0, 2, "features")
    noisy, form = terms.epsilon is not None, ctx.spec.params.get("features", "linear")
    plan, phi = features.build(ctx.view, names, rows, noisy=noisy, form=form, scratch=ctx.workdir)
    # The brand looks at its seeds meanwhile.
    at_most = _columns_at_most(ctx.channel.receive_json())
    if at_most is not None:
        plan, phi = features.narrow(plan, phi, at_most)
    if form == "crosses":
        room = None if at_most is None else at_most - phi.shape[1]
        plan, phi = features.cross(plan, phi, room, noisy=noisy, scratch=ctx.workdir)
    ctx.channel.progress(2, 2, "features")
    machine = lookalike.Features(phi, plan.names, ctx.channel.session("fit"), terms, os.urandom)
    fit = ctx.channel.run(machine, "fit")
    ctx.carry.update(fit=fit, plan=plan.to_document(), phi_rows=rows)
    if phi.nbytes <= KEPT_BYTES:
        ctx.carry["phi"] = phi
    weights = dict(zip(plan.names, fit.weights.tolist(), strict=True))
    ctx.result.update(
        rows=len(rows),
        columns=len(plan.names),
        used=list(plan.used),
        notes=list(plan.notes),
        padded_seeds=fit.padded_seeds,
        noise_scale=fit.noise_scale,
        iterations=fit.iterations,
        weights=weights,
        intercept=fit.intercept,
        bags=fit.bags,
    )
    if fit.spread is not None:
        ctx.result["spread"] = dict(zip(plan.names, fit.spread.tolist(), strict=True))
    _write_json(
        ctx, "model.json", {"plan": plan.to_document(), "weights": weights, "fit": _fit_document(fit)}
    )


def _columns_at_most(message: dict[str, Any]) -> int | None:
    """How many columns the brand's seeds allow; None with noise, where any number is allowed."""
    value = message.get("columns_at_most")
    if set(message) != {"columns_at_most"} or not (
        value is None or common.is_whole(0, common.MAX_ROWS)(value)
    ):
        raise NodeError("kind.message", "the brand's number of columns is malformed", share=True)
    return None if value is None else int(value)


def _fit_document(fit: lookalike.FitResult) -> dict[str, Any]:
    arrays = {"weights": fit.weights.tolist(), "z": fit.z.tolist()}
    return {**asdict(fit), **arrays, "spread": None if fit.spread is None else fit.spread.tolist()}


# -- score ---------------------------------------------------------------------------------------------------


def score_provider(ctx: StageContext) -> None:
    scores = np.full(ctx.view.rows, np.nan, dtype=np.float32)
    rows, fit = ctx.carry["phi_rows"], ctx.carry["fit"]
    phi, plan = ctx.carry.pop("phi", None), features.Plan.from_document(ctx.carry.pop("plan"))
    if phi is not None:
        scores[rows] = lookalike.score(phi, fit)
    else:
        # A second pass over the file, in its own order and column by column, instead of Φ for everybody.
        rows = rows[np.argsort(ctx.view.own_rows()[rows], kind="stable")]
        columns = (values for _, values in features.stream(plan, ctx.view, rows))
        scores[rows] = lookalike.score_columns(columns, len(rows), fit)
    scores[~common.alive(ctx)] = np.nan
    machine = transfer.Sender(scores.astype("<f4", copy=False), "scores", ctx.channel.session("scores"))
    ctx.channel.run(machine, "scores")


def score_brand(ctx: StageContext) -> None:
    m = ctx.carry["sender_rows"]
    machine = transfer.Receiver(4 * m, "scores", ctx.channel.session("scores"))
    scores = ctx.channel.run(machine, "scores").view("<f4")
    if np.isinf(scores).any():
        raise NodeError("kind.message", "the provider sent infinite scores", share=True)
    ctx.carry["scores"] = scores


# -- release -------------------------------------------------------------------------------------------------


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


def release_brand(ctx: StageContext) -> None:
    usable = common.receive_alive(ctx, "release")
    scores, seeds, held = ctx.carry["scores"], ctx.carry["seeds"], ctx.carry["held"]
    usable &= ~np.isnan(scores)
    usable[common.withdrawn_here(ctx)] = False
    rows = np.flatnonzero(usable)
    role = np.zeros(len(scores), dtype=np.int8)  # 0 unlabelled, 1 in the fit, 2 held out
    role[seeds], role[held] = 1, 2
    measured = rows[role[rows] != 1]
    values, found = scores[measured].astype(np.float64), role[measured] == 2
    figures = measure(values, found)
    figures |= detailed(values, found, ctx.private.get("hidden_share"))
    figures["reach"] = reach(scores[rows])
    audience = _audience(ctx, rows, scores, role)

    _write_table(ctx, "scores", row=rows, score=scores[rows])
    _write_table(ctx, "audience", row=audience, score=scores[audience], rank=np.arange(1, len(audience) + 1))
    kept = np.flatnonzero(usable & (role > 0))
    names = pa.array(np.where(role[kept] == 2, "held_out", "fit"))
    _write_table(ctx, "seeds", row=kept, role=names)
    ctx.result.update(figures, rows=len(rows), audience_size=len(audience))
    _write_json(ctx, "result.json", ctx.result)


def _audience(ctx: StageContext, rows: np.ndarray, scores: np.ndarray, role: np.ndarray) -> np.ndarray:
    """The best rows, best first, as many as the brand asked for; its own seeds are left out unless it wants
    them.

    Ties fall in row order, which is the provider's secret permutation and prefers nobody.
    """
    candidates = rows if ctx.private.get("include_seeds") else rows[role[rows] == 0]
    size = min(int(ctx.private.get("audience_size") or max(1, len(rows) // 20)), len(candidates))
    best = np.argsort(-scores[candidates], kind="stable")[:size]
    return candidates[best]


def _write_table(ctx: StageContext, name: str, **columns: Any) -> None:
    pq.write_table(pa.table(columns), ctx.workdir / f"{name}.parquet")


def _write_json(ctx: StageContext, name: str, value: Any) -> None:
    (ctx.workdir / name).write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


_SUM = "the sum of each of its columns over"


def _noise(spec: JobSpec, agreement: Agreement) -> bool:
    return privacy_of(spec, agreement) is not None


def _bagged(spec: JobSpec, agreement: Agreement) -> bool:
    return int(spec.params.get("bags", 1)) > 1


LOOKALIKE = JobKind(
    name="lookalike",
    stages=(
        Stage("align", align_brand, common.align_provider, repeatable=True),
        Stage("fit", fit_brand, fit_provider),
        Stage("score", score_brand, score_provider, repeatable=True),
        Stage("release", release_brand, release_provider, repeatable=True),
    ),
    check=check,
    check_own=lambda spec, dataset, private: check_own(private),
    own=lambda spec: Own(chooser="label", least="seeds"),
    open_view=open_view,
    leakage={
        "brand": (
            "which of its seeds the provider has among its eligible people",
            "a score for every row of the provider's eligible people; of its own seeds it knows whose it is",
            "how many columns the model has, and which row numbers withdrew while the job ran",
            "figures of quality from its own held-out seeds",
        ),
        "provider": (
            If(
                _noise,
                "the brand's number of seeds, padded; if the job stops, whether too few",
                "the brand's number of seeds, padded, and how many are in the fit exactly; if the job stops, "
                "whether too few",
            ),
            If(_bagged, f"{_SUM} each random half of the matched seeds", f"{_SUM} the matched seeds"),
            If(_noise, "these sums with noise of this job's ε", "these sums exactly, without noise"),
            "its own model; not which of its people are seeds",
        ),
        "brand.zh": (
            "其种子人群中哪些在提供方的合格人群内",
            "提供方合格人群每个行号的得分；仅对匹配的己方种子知道行号对应的人",
            "模型列数，以及任务期间撤回同意的行号",
            "由品牌方自有留出种子算得的质量指标",
        ),
        "provider.zh": (
            If(
                _noise,
                "品牌方种子人数（填充后）；若任务中止，是否因种子过少",
                "品牌方种子人数（填充后），以及参与拟合的种子人数的精确值；若任务中止，是否因种子过少",
            ),
            If(_bagged, "其各列在每个随机一半匹配种子上的总和", "其各列在匹配种子上的总和"),
            If(_noise, "上述总和含本任务 ε 的噪声", "上述总和为精确值，不含噪声"),
            "自己的模型；不知道哪些人是种子",
        ),
    },
    aligned="brand",
    spends=spends,
    exact=lambda spec, agreement: not _noise(spec, agreement),
)
