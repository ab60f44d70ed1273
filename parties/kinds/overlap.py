"""`overlap`: how many people do we share? The count is rounded to the nearest 10; below the agreement's
`minimum_seeds` only "<minimum" is given. Two methods, by the parameter `method`:

- `align` (the default): the count of people who are in at both sides when the result is released. The brand's
  machine holds the matched rows for the length of the job, never writes them, and gives out the count.
- `private_join` (if the agreement's suites have it): both sides learn a count with noise, of the people who
  are in when the join starts, and no machine ever knows who they are (protocols/private_join/README.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from parties.budget import Spend
from parties.datasets import ID_KINDS
from parties.documents import Agreement, JobSpec, Sum, sum_of
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.kinds import common
from parties.stage import If, JobKind, Own, Stage, StageContext, ViewRequest
from protocols.errors import LocalError
from protocols.machine import Machine

if TYPE_CHECKING:
    from protocols import private_join

ROUND = 10

#: An agreement may allow a lookalike less privacy than this; a join then gives more than is agreed.
MOST_EPSILON, MOST_DELTA = 10.0, 1e-3

PRIVATE = {"where": common.is_text, "label": common.is_text}


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(
        spec, {"suite": common.is_text, "method": lambda v: v == "align", "malicious": common.is_yes_or_no}
    )
    common.check_suite(spec, agreement)
    common.check_outputs(spec, {"count": "brand"})
    check_columns(spec)


def check_columns(spec: JobSpec) -> None:
    if spec.columns:
        raise NodeError("job.spec", "overlap reads no columns", share=True)


def open_view(request: ViewRequest) -> ConsentedView:
    common.check_private(request.private, PRIVATE)
    return common.open_view(request)


def align_brand(ctx: StageContext) -> None:
    common.align_brand(ctx, common.chosen_people(ctx))


def rounded(count: int, minimum: int) -> tuple[int | None, str]:
    """(rounded count or None, text) by the module's rule."""
    if count < minimum:
        return None, f"<{minimum}"
    nearest = (count + ROUND // 2) // ROUND * ROUND
    return nearest, str(nearest)


def release_brand(ctx: StageContext) -> None:
    provider_alive = common.receive_alive(ctx, "release")
    count, text = rounded(len(common.matched(ctx, provider_alive)), ctx.agreement.minimum_seeds)
    ctx.result.update(count=count, text=text, rounded_to=ROUND, asked=len(ctx.carry["people"]))
    if "matched_by" in ctx.result:
        # Their exact sum would be the count that is rounded here.
        least = ctx.agreement.minimum_seeds
        ctx.result["matched_by"] = {c: rounded(n, least)[1] for c, n in ctx.result["matched_by"].items()}
    ctx.carry.clear()
    (ctx.workdir / "result.json").write_text(json.dumps(ctx.result, indent=1, sort_keys=True) + "\n")


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


# -- by private_join -----------------------------------------------------------------------------------------


def check_private_join(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(
        spec,
        {
            "method": lambda v: v == common.PRIVATE_JOIN,
            "identifier": lambda v: v in ID_KINDS,
            "sum": common.is_text,
        },
    )
    if common.PRIVATE_JOIN not in agreement.suites:
        raise NodeError(
            "agreement.suite",
            f"suite {common.PRIVATE_JOIN!r} is not in agreement {agreement.id}",
            "ask for what is agreed, or sign a new agreement",
            share=True,
        )
    common.check_security(agreement, "a private join")
    wanted = asked_sum(spec, agreement)
    if wanted is None:
        common.check_outputs(spec, {"count": "both"})
        check_columns(spec)
    else:
        common.check_outputs(spec, {"count": "both", "sum": wanted.learner})
        due = (wanted.column,) if wanted.side == "provider" else ()
        if spec.columns != due:
            raise NodeError("job.spec", f"columns must be {list(due)} for that sum", share=True)
    terms_of(agreement, wanted)


def asked_sum(spec: JobSpec, agreement: Agreement) -> Sum | None:
    """The sum that the job asks for, by the agreement's terms; None for a count alone."""
    asked = spec.params.get("sum")
    return None if asked is None else sum_of(agreement, str(asked))


def open_join_view(request: ViewRequest) -> ConsentedView:
    """As `open_view`; the brand's view may read its own column that is summed."""
    common.check_private(request.private, PRIVATE)
    wanted = asked_sum(request.spec, request.agreement)
    if wanted is None or wanted.side != "brand" or request.role != "brand":
        return common.open_view(request)
    category = request.dataset.categories.get(wanted.column)
    if category not in request.spec.categories:
        raise NodeError(
            "dataset.category",
            f"column {wanted.column!r} of {request.dataset.name} is {category!r}, and the job covers "
            f"{', '.join(request.spec.categories)}",
        )
    return common.open_view(request, (wanted.column,))


def terms_of(agreement: Agreement, wanted: Sum | None = None) -> private_join.Terms:
    """The join's noise: by the agreement's privacy, or the protocol's own where it asks for none.

    A sum has noise of the same epsilon, is withheld below the agreement's `minimum_seeds`, and no person
    counts for more than the agreed bound.
    """
    asked = agreement.privacy
    epsilon, delta = (1.0, 1e-6) if asked is None else (asked.epsilon, asked.delta)
    from protocols import private_join  # the other method does without

    try:
        return private_join.Terms(
            epsilon=min(epsilon, MOST_EPSILON),
            delta=min(delta, MOST_DELTA),
            **_sum_terms(agreement, wanted, min(epsilon, MOST_EPSILON)),
            max_holder=common.MEMORY_ROWS,
            max_valuer=common.MEMORY_ROWS,
        )
    except LocalError as error:
        what = f"no join has the privacy of agreement {agreement.id}: {error.detail}"
        raise NodeError("job.spec", what, share=True) from error


def spends(spec: JobSpec, agreement: Agreement) -> Spend:
    """(epsilon, delta) of the size, and with a sum of both (protocols/private_join/README.md)."""
    wanted = asked_sum(spec, agreement)
    terms = terms_of(agreement, wanted)
    more = 0.0 if terms.sum_epsilon is None else terms.sum_epsilon
    return Spend(spec.kind, "laplace", terms.epsilon + more, terms.delta * (2 if more else 1))


def items_of(ctx: StageContext, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items that are joined by, and whose of `people` each is: one a person, of the named kind."""
    kind = ctx.spec.params.get("identifier")
    if kind is None and ctx.view.several:
        # Counting by several would count people twice, and not by the same identifier on both sides.
        raise NodeError(
            "job.spec",
            "a private join needs one identifier, and a data set has several",
            "name its kind: --param identifier=phone",
            share=True,
        )
    found: tuple[np.ndarray, np.ndarray] = (
        ctx.view.items_of(people) if kind is None else ctx.view.items_by(kind, people)
    )
    return found


def _sum_terms(agreement: Agreement, wanted: Sum | None, epsilon: float) -> dict[str, Any]:
    if wanted is None:
        return {}
    # The side whose column it is holds the values and the Paillier key: the valuer.
    learner = "valuer" if wanted.learner == wanted.side else "holder"
    return {
        "bounds": (wanted.bound,),
        "sum_to": learner,
        "sum_epsilon": epsilon,
        "minimum": agreement.minimum_seeds,
    }


def join_brand(ctx: StageContext) -> None:
    people = common.chosen_people(ctx)
    ctx.result["asked"] = len(people)
    _join(ctx, people)


def join_provider(ctx: StageContext) -> None:
    people = np.flatnonzero(common.alive(ctx))
    _join(ctx, people)


def _join(ctx: StageContext, people: np.ndarray) -> None:
    """Run this side's half: the valuer's is that of the side whose column is summed, else the provider's."""
    from protocols import private_join

    wanted = asked_sum(ctx.spec, ctx.agreement)
    session, terms = ctx.channel.session("join"), terms_of(ctx.agreement, wanted)
    items, who = items_of(ctx, people)
    machine: Machine[private_join.JoinResult]
    if ctx.role == ("provider" if wanted is None else wanted.side):
        values = None if wanted is None else _values(ctx, people[who], wanted)
        machine = private_join.Valuer(items, values, session, terms, os.urandom)
    else:
        machine = private_join.Holder(items, session, terms, os.urandom)
    ctx.spend()  # before the first message: no noise of this side has left it
    learned = ctx.channel.run(machine, "join")
    if ctx.role == "provider":
        common.record_asked(ctx, learned.peer_size)
    if wanted is not None:
        _give_out_sum(ctx, learned, terms, wanted)
    _give_out(ctx, learned, terms)


def _values(ctx: StageContext, people: np.ndarray, wanted: Sum) -> np.ndarray:
    """int64[n, 1]: the column's values, rounded; missing ones count 0, larger ones the bound."""
    (column,) = ctx.view.read([wanted.column], people)
    if column.kind != "numeric" or column.unit:
        raise NodeError("rows.column", f"column {wanted.column!r} holds no numbers, so it has no sum")
    values = np.nan_to_num(column.values, nan=0.0)
    if len(values) and float(values.min()) < 0:
        raise NodeError("rows.column", f"column {wanted.column!r} has values below 0, which can't be summed")
    whole: np.ndarray = np.minimum(np.rint(values), wanted.bound).astype(np.int64).reshape(-1, 1)
    return whole


def _give_out_sum(
    ctx: StageContext, learned: private_join.JoinResult, terms: private_join.Terms, wanted: Sum
) -> None:
    ctx.result["sum_of"] = f"{wanted.side}.{wanted.column}"
    ctx.result["sum_withheld"] = learned.withheld
    if learned.sums is not None:
        (noise,) = terms.sum_noise
        ctx.result.update(
            sum=int(learned.sums[0]),
            sum_bound=wanted.bound,
            sum_noise_scale=float(1 / noise.rate),
            sum_noise_at_most=noise.bound,
        )


def _give_out(ctx: StageContext, learned: private_join.JoinResult, terms: private_join.Terms) -> None:
    """The noisy size by the module's rule, with what its noise is."""
    count, text = rounded(learned.size, ctx.agreement.minimum_seeds)
    ctx.result.update(
        count=count,
        text=f"{text}, with noise of scale {learned.size_scale:g}",
        rounded_to=ROUND,
        method=common.PRIVATE_JOIN,
        epsilon=terms.epsilon,
        delta=terms.delta,
        noise_scale=learned.size_scale,
        noise_at_most=terms.size_noise.bound,
    )
    (ctx.workdir / "result.json").write_text(json.dumps(ctx.result, indent=1, sort_keys=True) + "\n")


def _sum_to(learner: str) -> Callable[[JobSpec, Agreement], bool]:
    """Whether the job asks for a sum that the agreement gives to this side."""

    def holds(spec: JobSpec, agreement: Agreement) -> bool:
        wanted = asked_sum(spec, agreement)
        return wanted is not None and wanted.learner == learner

    return holds


PRIVATE_OVERLAP = JobKind(
    name="overlap",
    stages=(Stage("join", join_brand, join_provider),),
    check=check_private_join,
    check_own=lambda spec, dataset, private: common.check_private(private, PRIVATE),
    own=lambda spec: Own(chooser="label"),
    open_view=open_join_view,
    spends=spends,
    leakage={
        "brand": (
            f"the number of shared people with the provider's noise, but not who; what is written down is "
            f"rounded to {ROUND}, or that it is below the agreed minimum",
            "the provider's number of people, padded",
            If(_sum_to("brand"), "the sum that the job asks for, with noise"),
        ),
        "provider": (
            f"the number of shared people with the brand's noise, but not who; what is written down is "
            f"rounded to {ROUND}, or that it is below the agreed minimum",
            "the brand's number of people, padded",
            If(_sum_to("provider"), "the sum that the job asks for, with noise"),
        ),
        "brand.zh": (
            f"共同人数（含提供方加入的噪声），不知是谁；写出的结果四舍五入到 {ROUND}，或仅知低于约定下限",
            "提供方人数（填充后）",
            If(_sum_to("brand"), "任务所要求的共同人群上的总和（含噪声）"),
        ),
        "provider.zh": (
            f"共同人数（含品牌方加入的噪声），不知是谁；写出的结果四舍五入到 {ROUND}，或仅知低于约定下限",
            "品牌方人数（填充后）",
            If(_sum_to("provider"), "任务所要求的共同人群上的总和（含噪声）"),
        ),
    },
)

OVERLAP = JobKind(
    name="overlap",
    stages=(
        Stage("align", align_brand, common.align_provider, repeatable=True),
        Stage("release", release_brand, release_provider, repeatable=True),
    ),
    check=check,
    check_own=lambda spec, dataset, private: common.check_private(private, PRIVATE),
    own=lambda spec: Own(chooser="label"),
    open_view=open_view,
    leakage={
        "brand": (
            f"the number of shared people, rounded to {ROUND}, or that it is below the agreed minimum",
            "the provider's number of eligible people, and how many withdrew while the job ran",
            "by this method its machine holds the matched rows while the job runs; they are not written",
        ),
        "provider": ("the brand's number of people, padded",),
        "brand.zh": (
            f"共同人数（四舍五入到 {ROUND}），或仅知低于约定下限",
            "提供方合格人数，以及任务期间撤回的人数",
            "此方法下，品牌方程序在任务运行期间持有匹配行号，但不写出",
        ),
        "provider.zh": ("品牌方人数（填充后）",),
    },
    methods={common.PRIVATE_JOIN: PRIVATE_OVERLAP},
    aligned="brand",
)
