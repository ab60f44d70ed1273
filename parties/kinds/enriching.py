"""The enrich stage at any size: one run of the protocol, or one a bucket, with checkpoint and resume.

    sender     hello: schema, its people and items, bucket size, where its files stand
    receiver   plan: its padded size, number of buckets, their key, the first bucket that is still to do
    …          one run of `protocols.enrich` a bucket, each bound to a session of its own

Buckets, files and what a killed node goes on with are those of `aligning`; there is one suite and no choice,
and buckets run in this thread alone. A person's records travel in the bucket of each of its items.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from parties.errors import NodeError
from parties.kinds import aligning
from parties.kinds.aligning import Bytes, Ints
from parties.kinds.bucket_store import MAX_ITEMS, BucketStore, Plan
from parties.stage import StageContext
from protocols import enrich
from protocols.align import buckets as bucketing
from protocols.errors import LocalError
from protocols.oprf.padding import padded_size

#: Fields of the sender's hello beside those of its caller.
HELLO = frozenset({"items", "bucket_rows", "plan", "done"})

#: Largest record.
MAX_WIDTH = 1 << 14

SUITE = "ecdh"

#: Items of one run; larger sets are cut into more buckets.
RUN_ROWS = 1 << 24


def send(
    ctx: StageContext,
    hello: dict[str, Any],
    items: Bytes,
    usable: npt.NDArray[np.bool_],
    width: int,
    records: Callable[[Ints], Bytes],
    forget: Callable[[], None],
) -> None:
    """The sender's side: `records(index)` gives the uint8[k, width] of items; asked for before the first run;
    `forget` is called when they are not needed any more.

    Items that are not `usable: bool[m]` match nobody. `hello` goes with this stage's own greeting.
    """
    store = BucketStore(ctx.state or ctx.workdir, "sender", "enrich")
    ctx.channel.send_json({**hello, "items": len(items), **_standing(ctx, store)})
    plan, first = _agreed(ctx.channel.receive_json(), store, len(items))
    cap = bucketing.capacity(plan.size, plan.buckets)
    asked = aligning.asking(ctx, cap * (plan.buckets - first))
    ctx.result.update(asked_at_most=asked, buckets=plan.buckets)
    if plan.buckets == 1:
        table = _blanked(records(np.arange(len(items))), usable)
        forget()
        machine = enrich.Sender(
            aligning.replaced(items, usable), table, ctx.channel.session("enrich"), _limits(), os.urandom
        )
        aligning.same_size(ctx.channel.run(machine, "enrich").padded_receiver_size, cap)
        return
    store.split(plan, items, records)
    forget()
    store.back_to(first)
    own_cap = bucketing.capacity(len(items), plan.buckets)
    for bucket in range(first, plan.buckets):
        held, index = store.bucket(bucket)
        table = np.zeros((own_cap, width), dtype=np.uint8)
        table[: len(index)] = _blanked(store.records(bucket), usable[index])
        # The table's order is that of its tags, so the filling need not be mixed with the rest.
        held = bucketing.fill(aligning.replaced(held, usable[index]), own_cap, os.urandom)
        machine = enrich.Sender(held, table, _session(ctx, bucket), _limits(), os.urandom)
        learned = ctx.channel.run(machine, "enrich", (bucket, plan.buckets))
        aligning.same_size(learned.padded_receiver_size, cap)
        store.finish(bucket)
    store.remove()


def receive(
    ctx: StageContext, theirs: dict[str, Any], items: Bytes, usable: npt.NDArray[np.bool_], width: int
) -> tuple[Ints, Bytes]:
    """(int64[k] rising, uint8[k, width]): the items that the sender has, and their records.

    `theirs` is the sender's hello, `width` what its schema says: a wider table would only take this side's
    memory. In a job that goes on `items` are the same ones in the same order; those that are not `usable:
    bool[n]` any more are not asked about.
    """
    store = BucketStore(ctx.state or ctx.workdir, "receiver", "enrich")
    plan, first = _plan(ctx, store, theirs, padded_size(len(items)))
    ctx.channel.send_json({"plan": plan.to_document(), "first": first})
    ctx.result["buckets"] = plan.buckets
    if plan.buckets == 1:
        machine = enrich.Receiver(
            aligning.replaced(items, usable), ctx.channel.session("enrich"), _limits(width), os.urandom
        )
        found = ctx.channel.run(machine, "enrich")
        index = np.flatnonzero(found.found)
        _same_width(found.records, width)
        return index, found.records[index]
    store.split(plan, items)
    store.back_to(first)
    cap = bucketing.capacity(plan.size, plan.buckets)
    for bucket in range(first, plan.buckets):
        held, index = store.bucket(bucket)
        held = bucketing.fill(aligning.replaced(held, usable[index]), cap, os.urandom)
        machine = enrich.Receiver(held, _session(ctx, bucket), _limits(width), os.urandom)
        found = ctx.channel.run(machine, "enrich", (bucket, plan.buckets))
        _same_width(found.records, width)
        hit = np.flatnonzero(found.found[: len(index)])
        store.finish_records(bucket, index[hit], found.records[hit])
    opened = store.opened(width)
    store.remove()
    return opened


def is_hello(message: dict[str, Any]) -> bool:
    """Whether the stage's own part of the sender's hello is one that this side can act on."""
    whole = all(type(message.get(n)) is int and message[n] >= 0 for n in ("items", "bucket_rows", "done"))
    return (
        whole
        and message["items"] <= MAX_ITEMS
        and message["bucket_rows"] >= 1
        and message["done"] <= bucketing.MOST
    )


def _limits(width: int = MAX_WIDTH) -> enrich.Limits:
    return enrich.Limits(max_receiver=RUN_ROWS, max_sender=RUN_ROWS, max_width=min(MAX_WIDTH, width))


def _same_width(records: Bytes, width: int) -> None:
    if records.shape[1] != width:
        raise NodeError("kind.message", "the records have another width than the schema", share=True)


def _blanked(records: Bytes, usable: npt.NDArray[np.bool_]) -> Bytes:
    """Records with zeros in the place of those who may not be used any more."""
    if usable.all():
        return records
    records = records.copy()
    records[~usable] = 0
    return records


def _session(ctx: StageContext, bucket: int) -> bytes:
    return ctx.channel.session(f"enrich bucket {bucket}")


def _standing(ctx: StageContext, store: BucketStore) -> dict[str, Any]:
    rows = aligning.BUCKET_ROWS if ctx.settings is None else int(ctx.settings.bucket_rows)
    plan = store.plan.to_document() if store.plan else None
    return {"bucket_rows": min(rows, RUN_ROWS >> 1), "plan": plan, "done": store.done}


def _plan(ctx: StageContext, store: BucketStore, theirs: dict[str, Any], size: int) -> tuple[Plan, int]:
    """The plan of an earlier attempt that both still have, or a new one."""
    if store.plan is not None and theirs["plan"] == store.plan.to_document() and store.plan.size == size:
        return store.plan, min(store.done, int(theirs["done"]))
    store.forget()
    rows, per = int(theirs["items"]), min(_standing(ctx, store)["bucket_rows"], int(theirs["bucket_rows"]))
    try:
        count = bucketing.count(size, rows, per)
    except LocalError as error:
        raise NodeError("job.spec", f"{error.detail}: raise bucket_rows in node.toml", share=True) from error
    made = Plan(SUITE, count, os.urandom(32).hex(), size, rows, rows, count > 1)
    return Plan.read(made.to_document()), 0


def _agreed(message: dict[str, Any], store: BucketStore, rows: int) -> tuple[Plan, int]:
    """The sender's check of the plan: its own sizes, and no bucket that it has not done."""
    plan, first = Plan.read(message.get("plan")), message.get("first")
    if set(message) != {"plan", "first"} or (plan.suite, plan.rows, plan.people) != (SUITE, rows, rows):
        raise NodeError("kind.message", "the plan has other sizes than the greeting", share=True)
    same = store.plan == plan
    if type(first) is not int or not 0 <= first <= (store.done if same else 0):
        raise NodeError("kind.message", "the plan begins where the two sides do not stand", share=True)
    if not same:
        store.forget()
    return plan, first
