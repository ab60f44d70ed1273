"""`retarget`: let the media show this to my segment. Align with the output at the other side.

    align    the provider learns which of its people are in the brand's segment (the brand is the sender)
    release  brand: who of the segment is still in; provider: removes everybody else, writes its audience, and
             tells the brand how many it can address, rounded

The brand's segment is filled with random items up to a padded size, so that the provider learns its size only
roughly, and its row numbers are those of a secret order. Below the agreement's `minimum_seeds` the provider
writes nobody and says so. The disclosure is the brand's: its gate admits only people whose consent covers
this purpose with the provider as recipient.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.kinds import aligning, common, overlap, transfer
from parties.stage import JobKind, Own, Stage, StageContext, ViewRequest
from protocols.oprf.padding import ITEM, padded_size

PRIVATE = {"where": common.is_text, "label": common.is_text}

#: Name of the column with the provider's own line number (0 is the first line below the header).
ROW = "row"


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, {"suite": common.is_text, "malicious": common.is_yes_or_no})
    common.check_suite(spec, agreement)
    common.check_outputs(spec, {"audience": "provider", "size": "brand"})
    if spec.columns:
        raise NodeError("job.spec", "retarget reads no columns", share=True)


def open_view(request: ViewRequest) -> ConsentedView:
    common.check_private(request.private, PRIVATE)
    return common.open_view(request)


def align_brand(ctx: StageContext) -> None:
    """Offer the segment; carry `people`, the view row of each offered row, fillings behind them."""
    chosen = common.chosen_people(ctx)
    if len(chosen) < ctx.agreement.minimum_seeds:
        raise NodeError(
            "agreement.minimum_seeds",
            f"{len(chosen)} people in the segment, the agreement asks for {ctx.agreement.minimum_seeds}",
            "choose a larger segment",
        )
    people = common.same_people(ctx, chosen)
    items, who = ctx.view.items_of(people)
    filling = padded_size(len(items)) - len(items)
    random = np.frombuffer(os.urandom(ITEM * filling), dtype=np.uint8).reshape(filling, ITEM)
    usable = np.concatenate([common.alive(ctx)[people][who], np.ones(filling, dtype=bool)])
    # Rows of the filling are people of their own, whom nobody has.
    owner = np.concatenate([who, len(people) + np.arange(filling)])
    aligning.send(ctx, np.concatenate([items, random]), usable, owner, len(people) + filling)
    ctx.carry.update(people=people, offered=len(people) + filling)
    ctx.result.update(segment=len(people))


def align_provider(ctx: StageContext) -> None:
    common.align_receiver(ctx, np.flatnonzero(common.alive(ctx)))


def release_brand(ctx: StageContext) -> None:
    mask = np.ones(ctx.carry["offered"], dtype=bool)
    people = ctx.carry["people"]
    mask[: len(people)] = common.alive(ctx)[people]
    session = ctx.channel.session("release")
    ctx.channel.run(transfer.Sender(np.packbits(mask), "release", session), "release")
    message = ctx.channel.receive_json()
    count = message.get("size")
    minimum = ctx.agreement.minimum_seeds
    if set(message) != {"size"} or not (
        count is None or (common.is_whole(0, common.MAX_ROWS)(count) and count % overlap.ROUND == 0)
    ):
        raise NodeError("kind.message", "the provider's number of people is malformed", share=True)
    text = f"<{minimum}, nobody is addressed" if count is None else str(count)
    ctx.result.update(count=count, text=text, rounded_to=overlap.ROUND)
    _write(ctx)


def release_provider(ctx: StageContext) -> None:
    offered = ctx.carry["sender_rows"]
    session = ctx.channel.session("release")
    raw = ctx.channel.run(transfer.Receiver((offered + 7) // 8, "release", session), "release")
    still_in = np.unpackbits(raw, count=offered).astype(bool)
    rows, people = ctx.carry["rows"], ctx.carry["people"]
    hit = (rows >= 0) & common.alive(ctx)[people]
    hit[hit] = still_in[rows[hit]]
    chosen = people[hit]
    # By the segment's people, not by this side's: two of its users may be one of the brand's.
    count, _ = overlap.rounded(len(np.unique(rows[hit])), ctx.agreement.minimum_seeds)
    if count is None:
        chosen = chosen[:0]
    _, lines = ctx.view.lines(chosen)
    pq.write_table(pa.table({ROW: pa.array(np.sort(lines), pa.int64())}), ctx.workdir / "audience.parquet")
    ctx.channel.send_json({"size": count})
    ctx.result.update(addressed=len(chosen), lines=len(lines), released=count is not None)
    ctx.carry.clear()
    _write(ctx)


def _write(ctx: StageContext) -> None:
    text = json.dumps(ctx.result, ensure_ascii=False, indent=1, sort_keys=True)
    (ctx.workdir / "result.json").write_text(text + "\n")


RETARGET = JobKind(
    name="retarget",
    stages=(
        Stage("align", align_brand, align_provider, repeatable=True),
        Stage("release", release_brand, release_provider, repeatable=True),
    ),
    check=check,
    check_own=lambda spec, dataset, private: common.check_private(private, PRIVATE),
    own=lambda spec: Own(chooser="label", least="seeds"),
    open_view=open_view,
    leakage={
        "brand": (
            f"how many of its segment the provider can address, rounded to {overlap.ROUND}, or that it is "
            "below the agreed minimum; not who",
            "the provider's number of eligible people, padded",
        ),
        "provider": (
            "which of its own people are in the brand's segment; below the agreed minimum nobody is written, "
            "but its machine holds the matches while the job runs",
            "the size of the segment, padded, and how many of it withdrew while the job ran",
        ),
        "brand.zh": (
            f"提供方可触达的人数（四舍五入到 {overlap.ROUND}），或仅知低于约定下限；不知是谁",
            "提供方合格人数（填充后）",
        ),
        "provider.zh": (
            "己方用户中哪些在品牌方的人群内；低于约定下限时不写出任何人，但程序在任务运行期间持有匹配结果",
            "品牌方人群的人数（填充后），以及任务期间撤回的人数",
        ),
    },
    aligned="provider",
)
