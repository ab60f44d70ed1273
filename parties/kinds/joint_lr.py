"""`joint-lr`: a regression on columns of both sides, for the brand's own people. Align, fit, score, release.

    align    the brand learns the provider's row of each of its people
    fit      provider: who is still in; brand: how many columns its labelled rows allow; both: the joint fit
    score    the brand gets the provider's part of the score of its own people, and of nobody else
             (protocols/select); with `errors`, both get the standard errors of their own weights
    release  provider: who is still in; brand: scores of its own people, figures on those held out, files

Rows of the results are lines of the brand's own file. Who withdraws between two stages is out of the later
ones, as in `lookalike`. `family`: logistic, linear or poisson.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties import column_texts, features, own_part
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError, examples
from parties.gate import Column, ConsentedView
from parties.kinds import common
from parties.kinds.metrics import measure
from parties.stage import If, JobKind, Own, Stage, StageContext, ViewRequest
from protocols import joint, select
from protocols.security import ROWS_PER_COLUMN

#: Share of the labelled people who are kept from the fit, to measure it.
HOLDOUT = 0.2

#: Fewer held-out people than this give no figure worth printing.
LEAST_HOLDOUT = 10

#: Words for yes and no in a label column of text.
YES = {"1", "1.0", "true", "t", "yes", "y", "是"}
NO = {"0", "0.0", "-1", "-1.0", "false", "f", "no", "n", "否"}

PARAMS = {
    "suite": common.is_text,
    "malicious": common.is_yes_or_no,
    "family": common.one_of(*joint.FAMILIES),
    "l2": common.is_number(1e-6, 1e6),
    "rank": common.is_whole(3, 12),
    "steps": common.is_whole(2, 40),
    "errors": common.is_yes_or_no,
}
PRIVATE = {
    "where": common.is_text,
    "label": common.is_text,
    "columns": lambda value: isinstance(value, list | tuple) and all(map(common.is_text, value)),
    "holdout": common.is_number(0.0, 0.5),
    "holdout_seed": common.is_whole(0, 2**53),
}


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, PARAMS, PRIVATE)
    common.check_suite(spec, agreement)
    common.check_columns(spec.columns, agreement.columns, "column", agreement)
    common.check_outputs(spec, {"scores": "brand"})
    if agreement.privacy is not None:
        raise NodeError(
            "agreement.privacy",
            f"agreement {agreement.id} asks for noise (ε {agreement.privacy.epsilon:g}), and a joint model "
            "gives each side exact gradients of its own weights",
            "sign an agreement without noise for it, or ask for a lookalike",
            share=True,
        )
    if spec.params.get("errors") and not agreement.standard_errors:
        raise NodeError(
            "agreement.errors",
            f"agreement {agreement.id} has no standard_errors: they tell more of shared people than a fit",
            "leave errors out, or sign an agreement with it; SECURITY.md says what it tells",
            share=True,
        )
    terms_of(spec, agreement)


def terms_of(spec: JobSpec, agreement: Agreement) -> joint.Terms:
    """The protocol's terms, equal on both sides because both derive them from what both signed."""
    chosen = {name: spec.params[name] for name in ("family", "rank", "steps") if name in spec.params}
    return joint.Terms(
        l2=float(spec.params.get("l2", 1.0)),
        exact=bool(spec.params.get("errors", False)),
        minimum_rows=agreement.minimum_seeds,
        max_rows=common.MAX_ROWS,
        **chosen,
    )


def check_own(spec: JobSpec, dataset: Dataset, private: Mapping[str, Any]) -> None:
    common.check_private(private, PRIVATE, PARAMS)
    common.own_columns(spec, dataset, private)


def own(spec: JobSpec) -> Own:
    family = str(spec.params.get("family", "logistic"))
    return Own(labels=(("label", lambda column: label_values(column, family)),), least="seeds")


def open_view(request: ViewRequest) -> ConsentedView:
    if request.role == "provider":
        return common.open_view(request)
    common.check_private(request.private, PRIVATE)
    return common.open_view(request, common.own_columns(request.spec, request.dataset, request.private))


# -- align ---------------------------------------------------------------------------------------------------


def align_brand(ctx: StageContext) -> None:
    mask = common.alive(ctx)
    if ctx.private.get("where"):
        mask &= ctx.view.where(ctx.private["where"])
    people = np.flatnonzero(mask)
    common.align_brand(ctx, people)
    rows = ctx.carry["rows"]
    # Two of the own people who are one at the provider: the first counts, or a row would be there twice.
    first = np.zeros(len(rows), dtype=bool)
    first[np.unique(rows, return_index=True)[1]] = True
    keep = np.flatnonzero(first & (rows >= 0))
    ctx.carry.update(people=people[keep], rows=rows[keep])
    ctx.result.update(people_asked=len(people), people_matched=len(keep))


# -- fit -----------------------------------------------------------------------------------------------------


def fit_brand(ctx: StageContext) -> None:
    provider_alive = common.receive_alive(ctx, "fit alive")
    if int(provider_alive.sum()) < ctx.agreement.minimum_rows:
        # A provider that names a few people as the only ones left would learn who of them takes part.
        raise NodeError("agreement.minimum_rows", "too few of the provider's people are left", share=True)
    terms = terms_of(ctx.spec, ctx.agreement)
    people, rows = ctx.carry["people"], ctx.carry["rows"]
    usable = np.flatnonzero(provider_alive[rows] & common.alive(ctx)[people])
    people, rows = people[usable], rows[usable]
    if not len(people):
        raise NodeError("joint.rows", "nobody of the own people is at the provider", "check the identifiers")
    label = ctx.private["label"]
    labels = label_values(next(iter(ctx.view.read([label], people))), terms.family)
    known = np.flatnonzero(~np.isnan(labels))
    held = known[_hold_out(ctx, people[known], labels[known])]
    train = np.setdiff1d(known, held, assume_unique=True)
    if len(train) < max(ctx.agreement.minimum_seeds, ROWS_PER_COLUMN):
        raise NodeError(
            "joint.rows",
            f"{len(train)} labelled people for the fit, the agreement asks for {ctx.agreement.minimum_seeds}",
            "use a larger file, or another provider",
        )
    ctx.fitted(people[:0], people[train], labels[train], common.drawn_anew(ctx, held))
    # That there are ten rows a column, so that nothing has to go, may show: else there would be no fit.
    room = max(1, len(train) // ROWS_PER_COLUMN - 1)
    # Where something has to go, the exact number would undo the padding of the rows of the fit; fits of
    # fewer than all that are padded alike would keep hardly any column, so they tell a power of two.
    least = max(ctx.agreement.minimum_seeds, ROWS_PER_COLUMN, joint.least(len(train)))
    at_most = max(least // ROWS_PER_COLUMN - 1, 1 << room.bit_length() - 1)
    plan, phi = _own_features(ctx, people, train, room, at_most)
    theirs = _number(ctx.channel.receive_json(), "columns")
    ctx.channel.send_json({"columns_at_most": at_most if theirs is None or theirs > room else None})
    # Rows are numbered anew without the withdrawn: both sides know who that is from the bitmap.
    number = np.cumsum(provider_alive) - 1
    machine = joint.Brand(
        number[rows[train]],
        np.ascontiguousarray(phi[train]),
        labels[train],
        int(provider_alive.sum()),
        ctx.channel.session("fit"),
        terms,
        os.urandom,
    )
    fit = ctx.channel.run(machine, "fit")
    names = plan.names if plan else ()
    own = fit.own(phi)
    role = np.zeros(len(people), dtype=np.int8)  # 0 unlabelled, 1 in the fit, 2 held out
    role[train], role[held] = 1, 2
    ctx.carry.update(people=people, rows=rows, labels=labels, role=role, fit=fit, own=own, plan=plan)
    if ctx.spec.params.get("errors"):
        ctx.carry.update(phi=phi, numbers=number[rows], fit_rows=int(provider_alive.sum()))
    weights = dict(zip(names, fit.weights.tolist(), strict=True))
    ctx.result.update(
        family=terms.family,
        rows_fit=len(train),
        rows_held_out=len(held),
        rows_unlabelled=len(people) - len(known),
        columns_own=len(names),
        used_own=list(plan.used) if plan else [],
        columns=fit.columns,
        steps=fit.steps,
        convergence=float(fit.sizes[-1] / fit.sizes[0]) if fit.sizes[0] > 0 else 0.0,
        converged=fit.converged,
        notes=[*(plan.notes if plan else ()), *_ended(fit, terms.family)],
        weights=weights,
        intercept=fit.intercept,
    )
    model = {"weights": weights, "intercept": fit.intercept, "scale": fit.scale, "offset": fit.offset}
    document = plan.to_document() if plan else None
    common.write_json(ctx, "model.json", {"family": terms.family, "plan": document, **model})


def _ended(fit: joint.BrandResult, family: str) -> list[str]:
    """A note on a fit that ended before its minimum: its last step, where the metric tells its size."""
    if fit.converged:
        return []
    weights = len(fit.weights) + 1 + fit.columns
    last = (
        ""
        if family == "linear"
        else f"; its last step was {(fit.sizes[-1] / weights) ** 0.5:.2g} of a standard error a weight"
    )
    return [
        f"the fit ended after its {fit.steps} gradients, before the minimum{last}: columns that are nearly "
        "sums of others on both sides need more, or a larger l2"
    ]


def _own_names(ctx: StageContext) -> list[str]:
    """The brand's columns that may take part."""
    asked = ctx.private.get("columns")
    return [n for n in ctx.view.allowed if n != ctx.private["label"] and (asked is None or n in asked)]


def _own_features(
    ctx: StageContext, people: np.ndarray, train: np.ndarray, room: int, at_most: int
) -> tuple[features.Plan | None, np.ndarray]:
    """The brand's columns as float32[n, d], learned from the rows of the fit; no columns are no error.

    Of more than `room` columns `at_most` are kept.
    """
    names = _own_names(ctx)
    none = np.zeros((len(people), 0), dtype=np.float32, order="F")
    if not names or at_most < 1:
        return None, none
    try:
        plan = features.learn(ctx.view, names, people[train])
    except NodeError as error:
        if error.code != "features.none":
            raise
        ctx.result["notes_own"] = error.detail
        return None, none
    phi = features.matrix(plan, ctx.view, people)
    return (plan, phi) if phi.shape[1] <= room else features.narrow(plan, phi, at_most)


def label_values(column: Column, family: str) -> np.ndarray:
    """float64[n], NaN where missing: 0 and 1 of a yes/no column for logistic, else the column's numbers."""
    if column.kind == "empty":
        raise NodeError("rows.label", f"label column {column.name!r} has no value at all")
    if family == "logistic" and column.kind == "categorical":
        words = [level.strip().lower() for level in column.levels]
        if not set(words) <= YES | NO:
            odd = sorted(set(words) - YES - NO)
            raise NodeError(
                "rows.label",
                f"label column {column.name!r} is no yes/no column: {len(odd)} other values"
                f"{examples(odd, len(set(words)))}",
                "give 1 and 0, or yes and no",
            )
        table = np.array([*(float(word in YES) for word in words), np.nan])
        values: np.ndarray = table[column.values]
        return values
    if column.kind != "numeric":
        raise NodeError(
            "rows.label",
            f"label column {column.name!r} holds text{column_texts.not_numbers(column)}; "
            f"a {family} model needs numbers",
        )
    values = column.values
    if family == "logistic":
        present = set(np.unique(values[~np.isnan(values)]).tolist())
        if odd := sorted(present - {-1.0, 0.0, 1.0}):
            shown = examples((f"{value:g}" for value in odd), len(present))
            what = f"label column {column.name!r} has numbers beside 0 and 1{shown}"
            raise NodeError("rows.label", what, "give 1 and 0")
        return np.where(np.isnan(values), np.nan, (values > 0).astype(np.float64))
    return values


def _hold_out(ctx: StageContext, people: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions kept from the fit, 20 % by default; none where that would leave less than the minimum.

    With `holdout_seed` the choice is a function of the seed and the order of the brand's own file.
    """
    share = ctx.private.get("holdout")
    wanted = round(float(HOLDOUT if share is None else share) * len(people))
    count = min(wanted, len(people) - ctx.agreement.minimum_seeds)
    if count < LEAST_HOLDOUT:
        return np.zeros(0, dtype=np.int64)
    fixed = ctx.private.get("holdout_seed")
    order = np.argsort(ctx.view.own_rows()[people], kind="stable")
    # Not a secret: who is held out is the brand's own affair. A counter-based generator, the same everywhere.
    seed = int.from_bytes(os.urandom(6), "big") if fixed is None else int(fixed)
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(people))[:count]
    found: np.ndarray = np.sort(order[chosen])
    return found


def fit_provider(ctx: StageContext) -> None:
    rows = np.flatnonzero(common.send_alive(ctx, "fit alive"))
    terms = terms_of(ctx.spec, ctx.agreement)
    ctx.channel.progress(0, 2, "features")
    plan, phi = features.build(ctx.view, common.spec_columns(ctx), rows)
    ctx.channel.send_json({"columns": phi.shape[1]})
    at_most = _number(ctx.channel.receive_json(), "columns_at_most")
    if at_most is not None:
        plan, phi = features.narrow(plan, phi, at_most)
    ctx.channel.progress(2, 2, "features")
    machine = joint.Provider(phi, plan.names, ctx.channel.session("fit"), terms, os.urandom)
    fit = ctx.channel.run(machine, "fit")
    ctx.carry.update(part=fit.part(phi), phi_rows=rows)
    if ctx.spec.params.get("errors"):
        ctx.carry.update(phi=phi)
    weights = dict(zip(plan.names, fit.weights.tolist(), strict=True))
    ctx.result.update(
        family=terms.family,
        rows=len(rows),
        columns=len(plan.names),
        used=list(plan.used),
        notes=list(plan.notes),
        padded_rows=fit.padded_rows,
        steps=fit.steps,
        weights=weights,
    )
    common.write_json(
        ctx, "model.json", {"family": terms.family, "plan": plan.to_document(), "weights": weights}
    )


def _number(message: dict[str, Any], name: str) -> int | None:
    """A number of columns in a message of this name alone; None where it is null."""
    value = message.get(name)
    if set(message) != {name} or not (value is None or common.is_whole(1, common.MAX_ROWS)(value)):
        raise NodeError("kind.message", "the other side's number of columns is malformed", share=True)
    return None if value is None else int(value)


# -- score ---------------------------------------------------------------------------------------------------


def score_provider(ctx: StageContext) -> None:
    part = np.full(ctx.view.rows, np.nan)
    part[ctx.carry["phi_rows"]] = ctx.carry.pop("part")
    part[~common.alive(ctx)] = np.nan
    values = part.astype("<f4").view(np.uint8).reshape(-1, 4)
    # By oblivious transfer: the brand gets the parts of its own people and of nobody else.
    ctx.channel.run(select.Holder(values, ctx.channel.session("parts"), os.urandom), "parts")
    if ctx.spec.params.get("errors"):
        terms = terms_of(ctx.spec, ctx.agreement)
        machine = joint.Columns(ctx.carry.pop("phi"), ctx.channel.session("errors"), terms, os.urandom)
        _keep_errors(ctx, ctx.channel.run(machine, "errors").errors)


def _keep_errors(ctx: StageContext, errors: np.ndarray) -> None:
    """Standard errors, in the order of the weights, and two-sided p-values into the result and the model."""
    weights = ctx.result["weights"]
    chances = joint.p_values(np.array(list(weights.values())), errors)
    found = {
        "errors": dict(zip(weights, errors.tolist(), strict=True)),
        "p_values": dict(zip(weights, chances.tolist(), strict=True)),
    }
    ctx.result.update(found)
    model = json.loads((ctx.workdir / "model.json").read_text(encoding="utf-8"))
    common.write_json(ctx, "model.json", {**model, **found})


def score_brand(ctx: StageContext) -> None:
    rows = ctx.carry["rows"]
    chosen = np.zeros(ctx.carry["sender_rows"], dtype=bool)
    chosen[rows] = True
    machine = select.Chooser(chosen, 4, ctx.channel.session("parts"), os.urandom)
    parts = ctx.channel.run(machine, "parts").view("<f4").ravel()[rows].astype(np.float64)
    if np.isinf(parts).any():
        raise NodeError("kind.message", "the provider sent infinite scores", share=True)
    fit = ctx.carry["fit"]
    if not ctx.spec.params.get("errors"):  # those are of the weights that the fit had
        _settle(ctx, parts)
    ctx.carry["scores"] = fit.offset + fit.scale * (ctx.carry["own"] + parts)
    if ctx.spec.params.get("errors"):
        _errors_brand(ctx, ctx.carry["own"] + parts)


def _settle(ctx: StageContext, parts: np.ndarray) -> None:
    """Own weights once more, with the levels and columns that the fit had no room for, where there are any.

    `parts` float64[n] is the provider's part of each matched person's score. Nothing is sent.
    """
    fit, family, plan = ctx.carry["fit"], ctx.result["family"], ctx.carry.pop("plan")
    names, people = _own_names(ctx), ctx.carry["people"]
    if not names or (plan is not None and not plan.notes and plan.kept is None):
        return
    rows = np.flatnonzero((ctx.carry["role"] == 1) & ~np.isnan(parts) & common.alive(ctx)[people])
    labels = (ctx.carry["labels"][rows] - fit.offset) / fit.scale
    if len(rows) < max(ctx.agreement.minimum_seeds, ROWS_PER_COLUMN) or labels.min() == labels.max():
        return  # nearly all have withdrawn since: the fit's own weights stay
    found = own_part.settle(
        ctx.view.read(names, people),
        rows,
        labels,
        parts[rows],
        family,
        float(ctx.spec.params.get("l2", 1.0)),
        {**ctx.result["weights"], "": fit.intercept},
    )
    if found is None or list(found.weights) == list(ctx.result["weights"]):
        return
    # Weights of levels of a few people stand in the model alone, not in results and cards that others see.
    shown = {
        name: weight
        for (name, weight), count in zip(found.weights.items(), found.people, strict=True)
        if count >= features.MIN_PEOPLE
    }
    rare = len(found.weights) - len(shown)
    more = (
        f"own weights were fitted once more after the joint fit, which groups rare levels to protect the "
        f"provider's people: {len(found.weights)} instead of {ctx.result['columns_own']}"
    )
    few = f"; {rare} are of fewer than {features.MIN_PEOPLE} people and stand in model.json only"
    ended = _ended(fit, family)
    ctx.carry["own"] = found.own
    ctx.result.update(
        columns_own=len(found.weights),
        used_own=list(found.plan.used),
        notes=[*found.plan.notes, more + (few if rare else ""), *ended],
        weights=shown,
        intercept=found.intercept,
    )
    model = json.loads((ctx.workdir / "model.json").read_text(encoding="utf-8"))
    model |= {"plan": found.plan.to_document(), "weights": found.weights, "intercept": found.intercept}
    common.write_json(ctx, "model.json", model)


def _errors_brand(ctx: StageContext, eta: np.ndarray) -> None:
    """Standard errors from those of the fit who are still in on both sides; `eta` as the fit has it."""
    fit, family = ctx.carry["fit"], ctx.result["family"]
    phi, numbers = ctx.carry.pop("phi"), ctx.carry.pop("numbers")
    used = (ctx.carry["role"] == 1) & ~np.isnan(eta) & common.alive(ctx)[ctx.carry["people"]]
    expected, dispersion = mean(eta[used], family), 1.0
    curvature = expected if family == "poisson" else expected * (1 - expected)
    if family == "linear":
        residual = (ctx.carry["labels"][used] - fit.offset) / fit.scale - expected
        free = int(used.sum()) - fit.columns - phi.shape[1] - 1
        curvature, dispersion = np.ones(len(expected)), float(residual @ residual) / max(free, 1)
    machine = joint.Weights(
        numbers[used],
        np.ascontiguousarray(phi[used]),
        curvature,
        ctx.carry.pop("fit_rows"),
        dispersion,
        ctx.channel.session("errors"),
        terms_of(ctx.spec, ctx.agreement),
        os.urandom,
    )
    found = ctx.channel.run(machine, "errors").errors
    _keep_errors(ctx, found[:-1])
    ctx.result.update(
        intercept_error=float(found[-1]),
        intercept_p_value=float(joint.p_values(np.array([ctx.result["intercept"]]), found[-1:])[0]),
    )


# -- release -------------------------------------------------------------------------------------------------


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


def release_brand(ctx: StageContext) -> None:
    provider_alive = common.receive_alive(ctx, "release")
    people, rows, scores = ctx.carry["people"], ctx.carry["rows"], ctx.carry["scores"]
    role, labels, family = ctx.carry["role"], ctx.carry["labels"], ctx.result["family"]
    keep = np.flatnonzero(common.alive(ctx)[people] & provider_alive[rows] & ~np.isnan(scores))
    lines = ctx.view.own_rows()[people[keep]]
    keep, lines = keep[np.argsort(lines)], np.sort(lines)
    scores, role, labels = scores[keep], role[keep], labels[keep]
    names = pa.array(np.array(["unlabelled", "fit", "held_out"])[role])
    table = pa.table({"row": lines, "score": scores, "prediction": mean(scores, family), "role": names})
    pq.write_table(table, ctx.workdir / "scores.parquet")
    held = role == 2
    ctx.result.update(figures(scores[held], labels[held], family), rows=len(keep))
    common.write_json(ctx, "result.json", ctx.result)


def mean(scores: np.ndarray, family: str) -> np.ndarray:
    """The prediction that belongs to a linear predictor: a probability, a value, an expected count."""
    if family == "linear":
        return np.asarray(scores)
    if family == "poisson":
        found: np.ndarray = np.exp(np.minimum(scores, 50.0))
        return found
    e = np.exp(-np.abs(scores))
    chance: np.ndarray = np.where(scores >= 0, 1.0, e) / (1.0 + e)
    return chance


def figures(scores: np.ndarray, labels: np.ndarray, family: str) -> dict[str, Any]:
    """Quality on held-out people: AUC and the like, R² and root mean square error, or deviance explained."""
    if family == "logistic":
        measured = measure(scores, labels == 1)
        del measured["unlabelled"]  # here they are those labelled 0
        return {**measured, "held_out": len(labels), "positives": int((labels == 1).sum())}
    if len(labels) < 2:
        return {"held_out": len(labels), "r2": None}
    found = mean(scores, family)
    if family == "linear":
        error, spread = float(np.mean((found - labels) ** 2)), float(np.var(labels))
        return {"held_out": len(labels), "rmse": error**0.5, "r2": 1 - error / spread if spread else None}
    average = np.full(len(labels), max(float(labels.mean()), 1e-12))
    whole = _deviance(labels, average)
    share = 1 - _deviance(labels, found) / whole if whole else None
    return {"held_out": len(labels), "deviance_explained": share}


def _deviance(labels: np.ndarray, found: np.ndarray) -> float:
    found = np.maximum(found, 1e-300)
    logs = np.where(labels > 0, labels * np.log(np.where(labels > 0, labels, 1.0) / found), 0.0)
    return float(2 * np.sum(logs - labels + found))


_NO_LIST = (
    "no list of who was in the fit, no labels; but where a level is that of one person of the fit, the exact "
    "sums show that there is one"
)
_NO_LIST_ZH = "没有参与者名单和标签；但若某取值在参与拟合的人中只有一人，精确求和会显示有这样一人"


def _errors(spec: JobSpec, agreement: Agreement) -> bool:
    return bool(spec.params.get("errors"))


JOINT_LR = JobKind(
    name="joint-lr",
    stages=(
        Stage("align", align_brand, common.align_provider),
        Stage("fit", fit_brand, fit_provider),
        Stage("score", score_brand, score_provider),
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
            "the weights of its own columns, and the gradient of each step with respect to them",
            "the score of its own people; as it knows its own part, also the provider's part of these scores",
            "how many columns and eligible people the provider has, the spreads of its part of the scores, "
            "and inner products of its steps",
            If(
                _errors,
                "as it gives standard errors: the covariance of its own weights, and so how well the "
                "provider's columns together explain each of its own",
            ),
        ),
        "provider": (
            "the weights of its own columns, and the gradient of each step with respect to them: exact sums "
            "over the people of the fit",
            "for each of its columns a sum that says how much it varies among the people of the fit",
            "how many people are asked about and how many are in the fit, padded, and whether these are ten "
            "for each column (if not, up to 256 within a factor of two); how many columns the brand has; "
            "location and spreads of the brand's part of the scores, in coarse steps",
            If(
                _errors,
                "as it gives standard errors: the covariance of its own weights, and sums of products of its "
                "columns over the people of the fit, weighted by the curvature of their scores",
            ),
            If(
                _errors,
                f"{_NO_LIST}, the label and, by these errors, who",
                f"{_NO_LIST} and the label",
            ),
        ),
        "brand.zh": (
            "本方人群中哪些在提供方的合格人群内",
            "本方各列的权重，以及每一步对这些权重的梯度",
            "本方人群的得分；因知道自己的部分，也就知道提供方在这些得分中的部分",
            "提供方的列数、合格人数、其得分部分的离散程度及各步的内积",
            If(_errors, "因计算标准误：本方权重的协方差，即提供方各列合起来对本方每一列的解释程度"),
        ),
        "provider.zh": (
            "己方各列的权重，以及每一步对这些权重的梯度：对参与拟合人群的精确求和",
            "己方每一列在参与拟合人群中变化程度的一个总和",
            "被询问人数和参与拟合人数（填充后）、后者是否足够每列十人（若不足且少于 256 人，"
            "则其两倍以内的范围）、品牌方列数、品牌方得分部分的位置与离散程度（粗粒度）",
            If(_errors, "因计算标准误：己方权重的协方差，以及己方各列乘积对参与拟合人群的加权求和"),
            If(_errors, f"{_NO_LIST_ZH}、其标签，并因计算标准误还会显示是谁", f"{_NO_LIST_ZH}及其标签"),
        ),
    },
)
