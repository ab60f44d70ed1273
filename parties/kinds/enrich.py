"""`enrich`: these tags for these people of mine. Stages enrich, release.

    enrich   provider: the schema, then the encrypted table of everybody who is still in;
             brand: the records of those it asked for
    release  provider: which handles are still in; brand: deletes the records of the others, deletes its own
             withdrawn people, writes

The provider does not learn who was asked for, so it can't delete at its side what the brand should not keep.
It therefore names the records by their handles (random row numbers of this job, see `parties.tags`), and the
brand, bound by the agreement and the signed job, deletes them. A brand can't look up the handle of a record
that it never opened, so the list tells it nothing about anybody else.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties import tags
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.kinds import common, enriching
from parties.stage import JobKind, Own, Stage, StageContext, ViewRequest

PRIVATE = {"where": common.is_text, "label": common.is_text}

#: Name of the column with the brand's own line number (0 is the first line below the header).
ROW = "row"


def check(spec: JobSpec, agreement: Agreement) -> None:
    common.check_params(spec, {"suite": common.is_text})
    common.check_suite(spec, agreement, (common.SUITE,))
    if spec.columns == common.ALL:
        raise NodeError("job.spec", "enrich needs the names of the tags", share=True)
    common.check_columns(spec.columns, agreement.tags, "tag", agreement)
    common.check_outputs(spec, {"tags": "brand"})
    if ROW in spec.columns:
        raise NodeError("job.spec", f"a tag can't be called {ROW!r}", share=True)


def open_view(request: ViewRequest) -> ConsentedView:
    common.check_private(request.private, PRIVATE)
    return common.open_view(request)


def enrich_provider(ctx: StageContext) -> None:
    rows = common.same_people(ctx, np.flatnonzero(common.alive(ctx)))
    schema, records = tags.encode(ctx.view.read(ctx.spec.columns, rows), len(rows), ctx.spec.columns)
    # Handles are row numbers of the whole view, so that they name the same person in the next stage.
    records[:, : tags.HANDLE] = rows.astype("<u4").view(np.uint8).reshape(len(rows), tags.HANDLE)
    # With several identifiers a person's record stands under each of them.
    items, who = ctx.view.items_of(rows)
    usable = common.alive(ctx)[rows][who]
    hello = {"tags": schema.to_document(), "rows": ctx.view.rows}
    table = [records]
    del records  # all people's records: nobody needs them any more when the buckets are on disk

    def of(index: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(table[0][who[index]])

    enriching.send(ctx, hello, items, usable, schema.width, of, table.clear)
    ctx.result.update(rows=len(rows))


def enrich_brand(ctx: StageContext) -> None:
    message = ctx.channel.receive_json()
    total = message.get("rows")
    if (
        set(message) != {"tags", "rows"} | enriching.HELLO
        or not common.is_whole(0, common.MAX_ROWS)(total)
        or not enriching.is_hello(message)
    ):
        raise NodeError("kind.message", "the provider's schema message is malformed", share=True)
    schema = tags.Schema.from_document(message["tags"], ctx.spec.columns)
    people = common.same_people(ctx, common.chosen_people(ctx))
    items, who = ctx.view.items_of(people)
    index, records = enriching.receive(ctx, message, items, common.alive(ctx)[people][who], schema.width)
    # The first of each one's identifiers that has a record counts; both rise.
    first = np.diff(who[index], prepend=-1) > 0
    handles, table = tags.decode(schema, records[first])
    if len(handles) and int(handles.max()) >= int(message["rows"]):
        raise NodeError("tags.record", "a record's handle is outside the provider's rows")
    ctx.carry.update(people=people[who[index[first]]], rows=handles, sender_rows=total, table=table)
    ctx.result.update(asked=len(people))


def release_provider(ctx: StageContext) -> None:
    common.send_alive(ctx, "release")


def release_brand(ctx: StageContext) -> None:
    provider_alive = common.receive_alive(ctx, "release")
    people = ctx.carry["people"]
    keep = common.alive(ctx)[people] & provider_alive[ctx.carry["rows"]]
    at, lines = ctx.view.lines(people[keep])
    table = ctx.carry["table"].filter(pa.array(keep)).take(pa.array(at))
    table = table.add_column(0, ROW, pa.array(lines, pa.int64())).sort_by(ROW)
    pq.write_table(table, ctx.workdir / "enriched.parquet")
    known = {name: table.num_rows - table[name].null_count for name in ctx.spec.columns}
    ctx.result.update(found=int(keep.sum()), deleted=int(len(keep) - keep.sum()), known=known)
    text = json.dumps(ctx.result, ensure_ascii=False, indent=1, sort_keys=True)
    (ctx.workdir / "result.json").write_text(text + "\n")


ENRICH = JobKind(
    name="enrich",
    stages=(
        Stage("enrich", enrich_brand, enrich_provider, repeatable=True),
        Stage("release", release_brand, release_provider, repeatable=True),
    ),
    check=check,
    check_own=lambda spec, dataset, private: common.check_private(private, PRIVATE),
    own=lambda spec: Own(chooser="label"),
    open_view=open_view,
    aligned="brand",
    tabled=True,
    leakage={
        "brand": (
            "the agreed tags of those of its people whom the provider has among its eligible people",
            "the number of eligible people, the size of a record, levels that ten or more people have",
            "which of the people it asked about withdrew at the provider while the job ran",
        ),
        "provider": ("how many people were asked about, padded; not who",),
        "brand.zh": (
            "本方人群中，同时属于提供方合格人群者的约定标签",
            "提供方合格人数、记录长度，以及至少十人拥有的标签取值",
            "所询问的人中，任务期间在提供方撤回同意者",
        ),
        "provider.zh": ("被询问的人数（填充后）；不知道是谁",),
    },
)
