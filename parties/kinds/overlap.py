"""`overlap`: how many people do we share? The brand learns a rounded count.

Rule: the count of people who are in at both sides when the result is released, rounded to the nearest 10;
below the agreement's `minimum_seeds` only "<minimum" is given. In this first form the count comes from
`align`: the brand's machine holds the matched rows for the length of the job, never writes them, and gives
out the count.
"""

from __future__ import annotations

import json

from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.kinds import common
from parties.stage import JobKind, Stage, StageContext, ViewRequest

ROUND = 10

PRIVATE = {"where": common.is_text, "label": common.is_text}


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, {"suite": common.is_text})
    common.check_suite(spec, agreement)
    common.check_outputs(spec, {"count": "brand"})
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
    ctx.carry.clear()
    (ctx.workdir / "result.json").write_text(json.dumps(ctx.result, indent=1, sort_keys=True) + "\n")


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


OVERLAP = JobKind(
    name="overlap",
    stages=(
        Stage("align", align_brand, common.align_provider),
        Stage("release", release_brand, release_provider),
    ),
    check=check,
    open_view=open_view,
    leakage={
        "brand": (
            f"the number of shared people, rounded to {ROUND}, or that it is below the agreed minimum",
            "the provider's number of eligible people, and how many withdrew while the job ran",
            "in this form its machine holds the matched rows while the job runs; they are not written",
        ),
        "provider": ("the brand's number of people, padded",),
        "brand.zh": (
            f"共同人数（四舍五入到 {ROUND}），或仅知低于约定下限",
            "提供方合格人数，以及任务期间撤回的人数",
            "本版本中，品牌方程序在任务运行期间持有匹配行号，但不写出",
        ),
        "provider.zh": ("品牌方人数（填充后）",),
    },
)
