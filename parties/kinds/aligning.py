"""The align stage at any size: choose the suite, cut both sides into buckets, run them one after the other.

Both roles can be the receiver (who learns) or the sender. The receiver leads:

    receiver   hello: its padded size, bucket size, suites, where its files stand
    sender     hello: its rows, bucket size, suites, where its files stand
    receiver   plan: suite, number of buckets, key of the buckets, the first bucket that is still to do
    …          one run of the protocol a bucket, each bound to a session of its own

With more than one bucket the items lie in Parquet files of the job's state directory, one a bucket, beside a
manifest; a bucket is the unit of memory, progress, checkpoint and retry. After a node was killed the two
sides compare their manifests and go on with the first bucket that one of them has not finished. Buckets run
one after the other in this thread; where a side has workers, several at a time (`parties.lanes`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from parties import compiling, cost, prepared, private_files, workers
from parties.errors import NodeError
from parties.kinds.bucket_store import MAX_ITEMS, BucketStore, Plan
from parties.lanes import Lanes
from parties.stage import StageContext
from parties.workers import Work, Workers
from protocols import align
from protocols.align import buckets as bucketing
from protocols.errors import LocalError
from protocols.oprf.padding import ITEM, padded_size

#: Items in a bucket, unless node.toml says otherwise; a test uses far fewer.
BUCKET_ROWS = 1 << 20

#: Bytes that are timed to learn the line's speed, and the sizes from which that is worth it.
PROBE, PROBE_FROM = 1 << 18, 1 << 15

#: The suites that this node runs, by name.
SUITES = tuple(cost.SUITES)
VOLE = "vole"

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Learned:
    """`rows: int64[n]`, the sender's view row whose item i is, or -1; and how many the sender has."""

    rows: Ints
    sender_rows: int


def allowed_suites(ctx: StageContext) -> list[str]:
    """What the agreement and the job allow of the suites that this node runs."""
    asked = ctx.spec.params.get("suite", cost.AUTO)
    usable = [s for s in SUITES if s in ctx.agreement.suites and asked in (s, cost.AUTO)]
    return [s for s in usable if s == VOLE or not _malicious(ctx)]


def _malicious(ctx: StageContext) -> bool:
    """Whether job or agreement asks for the variant of `vole` that holds against peers that deviate."""
    return bool(ctx.spec.params.get("malicious", False)) or ctx.agreement.malicious_security


# -- the two sides -------------------------------------------------------------------------------------------


def receive(ctx: StageContext, items: Bytes, usable: npt.NDArray[np.bool_] | None = None) -> Learned:
    """Learn the sender's row of each of `items: uint8[n, 32]`, distinct.

    `usable: bool[n]`: who is still in; others are replaced by random items. In a job that goes on after an
    interruption `items` must be the same ones in the same order. Writes choice, forecast and what happened
    into the result (`alignment`).
    """
    began, before = time.monotonic(), _so_far(ctx)
    store = BucketStore(ctx.state or ctx.workdir, "receiver")
    size = padded_size(len(items))
    mbit = float(_setting(ctx, "bandwidth_mbit", 0.0))
    probe = not mbit and size >= PROBE_FROM
    hello = {"size": size, "probe": probe, **_hello(ctx, store)}
    ctx.channel.send_json(hello)
    theirs = _checked(ctx.channel.receive_json(), "rows", MAX_ITEMS)
    rates = cost.local_rates(_probe(ctx) if probe else mbit, ctx.neighbour)
    plan, choice, first = _plan(ctx, store, hello, theirs, rates)
    ctx.channel.send_json({"plan": plan.to_document(), "first": first})
    limits = align.Limits(max_receiver=2 * MAX_ITEMS, max_sender=2 * MAX_ITEMS)
    if plan.buckets == 1:
        items = replaced(items, usable)
        session = ctx.channel.session("align")
        machine = align.Receiver(
            items,
            session,
            limits,
            os.urandom,
            suite=plan.suite,
            malicious=_malicious(ctx),
            numbered=plan.numbered,
        )
        found = ctx.channel.run(machine, "align")
        rows = found.rows
        if int(found.sender_rows) != plan.rows:
            raise NodeError("kind.message", "the sender has other rows than it said", share=True)
    else:
        store.split(plan, items)
        store.back_to(first)
        cap = bucketing.capacity(size, plan.buckets)
        places: dict[int, Ints] = {}

        def ask(bucket: int, attempt: int) -> Work:
            held, places[bucket] = store.bucket(bucket)
            held = replaced(held, None if usable is None else usable[places[bucket]])
            held = bucketing.fill(held, cap, os.urandom)
            return _work(ctx, plan, "receiver", bucket, attempt, limits, held)

        def keep(bucket: int, result: align.AlignResult) -> None:
            index = places.pop(bucket)
            store.finish(bucket, index, result.rows[: len(index)])

        _run_buckets(ctx, (first, plan.buckets), _lanes(hello, theirs), ask, keep)
        rows = store.rows(len(items))
    if len(rows) and int(rows.max()) >= plan.people:
        raise NodeError("kind.message", "a matched row has a number outside the sender's", share=True)
    store.remove()
    _report(ctx, plan, time.monotonic() - began, before, choice, rates, first > 0)
    return Learned(rows, plan.people)


def send(
    ctx: StageContext,
    items: Bytes,
    usable: npt.NDArray[np.bool_],
    owner: Ints | None = None,
    people: int = 0,
    reuse: bool = False,
) -> int:
    """The other side of `receive`: `items[j]` is of view row `owner[j]` of `people` (of row j if None).

    Items that are not `usable: bool[m]` match nobody. `reuse`: what was computed for these items in an
    earlier job may be used, where node.toml allows it. Returns how many items were asked about at most.
    """
    if owner is not None and people == len(items) and bool((owner == np.arange(len(items))).all()):
        owner = None  # one item a person: rows need no numbers of their own
    began, before = time.monotonic(), _so_far(ctx)
    store = BucketStore(ctx.state or ctx.workdir, "sender")
    theirs = _checked(ctx.channel.receive_json(), "size", 2 * MAX_ITEMS)
    shelf = prepared.shelf(ctx, items) if reuse and align.suites.ECDH in allowed_suites(ctx) else None
    hello = {"rows": len(items), **_hello(ctx, store)}
    if shelf is not None:
        before_this = shelf.asked()
        # For the receiver's choice of a suite. It says that nobody came or went since an earlier job, which
        # the time that the tags take would tell as well (protocols/align/README.md, section 2.2).
        if before_this is not None and before_this + theirs["size"] <= prepared.ASKED_MOST:
            hello["prepared"] = True
    hello |= {"people": len(items) if owner is None else people, "numbered": owner is not None}
    ctx.channel.send_json(hello)
    if theirs["probe"]:
        for _ in range(2):
            ctx.channel.send_json({"probe": len(str(ctx.channel.receive_json().get("fill")))})
    message = ctx.channel.receive_json()
    plan, first = _agreed(ctx, store, message, theirs, hello)
    cap = bucketing.capacity(plan.size, plan.buckets)
    due = cap * (plan.buckets - first)
    kept = None
    if shelf is not None and plan.suite == align.suites.ECDH:
        kept = shelf.find(due, lambda done: ctx.channel.progress(done, len(items), "prepare"))
        ctx.result["prepared"] = {"reused": kept.reused, "asked_at_most_under_key": kept.asked}
    asked = asking(ctx, due, kept)
    limits = align.Limits(max_receiver=2 * MAX_ITEMS, max_sender=2 * MAX_ITEMS)
    if plan.buckets == 1:
        session = ctx.channel.session("align")
        machine = align.Sender(
            replaced(items, usable),
            session,
            limits,
            os.urandom,
            suite=plan.suite,
            malicious=_malicious(ctx),
            numbers=owner,
            prepared=_outputs(kept, np.arange(len(items)), usable, len(items)),
        )
        same_size(ctx.channel.run(machine, "align").padded_receiver_size, cap)
    else:
        store.split(plan, items)
        store.back_to(first)
        own_cap = bucketing.capacity(len(items), plan.buckets)

        def answer(bucket: int, attempt: int) -> Work:
            held, index = store.bucket(bucket)
            held = bucketing.fill(replaced(held, usable[index]), own_cap, os.urandom)
            # Rows in a bucket stand in view order, the filling behind; the order is secret, but the boundary
            # would tell the bucket's size.
            order = np.argsort(np.frombuffer(os.urandom(8 * own_cap), dtype=np.uint64), kind="stable")
            numbers = np.zeros(own_cap, dtype=np.int64)
            numbers[: len(index)] = index if owner is None else owner[index]
            held = np.ascontiguousarray(held[order])
            known = _outputs(kept, index, usable, own_cap)
            if known is not None:
                known = align.Prepared(known.key, known.outputs[order])
            return _work(ctx, plan, "sender", bucket, attempt, limits, held, numbers[order], known)

        def ended(bucket: int, result: align.SenderResult) -> None:
            same_size(result.padded_receiver_size, cap)
            store.finish(bucket)

        lanes = _lanes(hello, theirs)

        def again(_bucket: int) -> int:
            nonlocal kept
            if kept is not None and shelf is not None:
                kept = shelf.more(kept, cap)
                ctx.result["prepared"]["asked_at_most_under_key"] = kept.asked
            return asking(ctx, cap, kept)

        _run_buckets(ctx, (first, plan.buckets), lanes, answer, ended, again)
        asked = int(ctx.result["asked_at_most"])
    store.remove()
    _report(ctx, plan, time.monotonic() - began, before)
    return asked


def same_size(asked: int, due: int) -> None:
    # A bucket of another size could ask about more people than were announced, and than the ledger has.
    if asked != due:
        raise NodeError("kind.message", f"{asked} items were asked about, {due} were announced", share=True)


def _outputs(
    kept: prepared.Kept | None, index: Ints, usable: npt.NDArray[np.bool_], count: int
) -> align.Prepared | None:
    """What was prepared for the items `index`, then filling up to `count`: random, as is everything of those
    who may not be used any more.
    """
    if kept is None:
        return None
    outputs = np.frombuffer(os.urandom(64 * count), dtype=np.uint8).reshape(count, 64).copy()
    alive = np.flatnonzero(usable[index])
    outputs[alive] = kept.value.outputs[index[alive]]
    return align.Prepared(kept.value.key, outputs)


def asking(ctx: StageContext, count: int, kept: prepared.Kept | None = None) -> int:
    """Into ledger, bundle and result, before any answer is given: how many items may be asked about.

    Nothing in the protocols ties them to the receiver's snapshot; this number is what an auditor can compare.
    An attempt that was broken off counts: its answers may have arrived. Returns the sum of all attempts.
    """
    total, path = count, None
    if ctx.state is None:
        total += int(ctx.result.get("asked_at_most", 0))
    else:
        path = private_files.folder(ctx.state) / "asked.json"
        if path.exists():
            total += int(json.loads(path.read_text()))
    more = {} if kept is None else {"asked_at_most_under_key": kept.asked}
    ctx.record("job.asked", {"job": ctx.job_id, "asked_at_most": count, **more})
    if path is not None:
        with private_files.writing(path) as file:
            file.write(str(total).encode())
    ctx.result["asked_at_most"] = total
    return total


def _session(ctx: StageContext, bucket: int, attempt: int = 0) -> bytes:
    """A session for each bucket, attempt at it, and session of the job: a transcript of one can't be played
    in another.
    """
    return ctx.channel.session(f"align bucket {bucket}" + (f" attempt {attempt}" if attempt else ""))


def _work(
    ctx: StageContext,
    plan: Plan,
    role: Literal["receiver", "sender"],
    bucket: int,
    attempt: int,
    limits: align.Limits,
    items: Bytes,
    numbers: Ints | None = None,
    known: align.Prepared | None = None,
) -> Work:
    """One attempt at one bucket's run."""
    session = _session(ctx, bucket, attempt)
    return Work(role, plan.suite, _malicious(ctx), session, plan.buckets, limits, items, numbers, known)


def _lanes(hello: dict[str, Any], theirs: dict[str, Any]) -> int:
    """How many buckets run at a time; 0 if no side computes in workers."""
    widths = [int(side.get("lanes", 0)) for side in (hello, theirs)]
    return min(max(1, width) for width in widths) if any(widths) else 0


def _run_buckets(
    ctx: StageContext,
    buckets: tuple[int, int],
    lanes: int,
    make: Callable[[int, int], Work],
    keep: Callable[[int, Any], None],
    again: Callable[[int], Any] = lambda bucket: None,
) -> None:
    """The buckets from the first of `buckets` to before the second: one after the other in this thread, or
    several at a time in workers. `again(bucket)` before a bucket that lost its worker runs once more.
    """
    first, count = buckets
    if not lanes:
        for bucket in range(first, count):
            keep(bucket, ctx.channel.run(make(bucket, 0).machine(), "align", (bucket, count)))
        return
    complete = [first]

    def finished(bucket: int, result: Any) -> None:
        keep(bucket, result)
        complete[0] += 1

    def progress(bucket: int, step: tuple[int, int]) -> None:
        done, total = step
        ctx.channel.progress(complete[0] * total + done, count * total, f"align {bucket + 1} of {count}")

    run = Lanes(
        first,
        count,
        lanes,
        _workers(ctx),
        send=ctx.channel.send_bytes,
        receive=ctx.channel.receive_bytes,
        work=make,
        finished=finished,
        restarting=again,
        progress=progress,
    )
    run.run()
    ctx.result["restarted_buckets"] = run.restarts


def _workers(ctx: StageContext) -> Workers:
    return workers.workers_of(
        str(_setting(ctx, "engine", workers.LOCAL)),
        int(_setting(ctx, "workers", 0)),
        str(_setting(ctx, "ray_address", "")),
    )


def replaced(items: Bytes, usable: npt.NDArray[np.bool_] | None) -> Bytes:
    """Items with those that are not usable replaced by random bytes, so that rows keep their numbers."""
    if usable is None or usable.all():
        return items
    items = items.copy()
    count = int((~usable).sum())
    items[~usable] = np.frombuffer(os.urandom(ITEM * count), dtype=np.uint8).reshape(count, ITEM)
    return items


# -- agreeing on a plan --------------------------------------------------------------------------------------


def _setting(ctx: StageContext, name: str, default: Any) -> Any:
    return default if ctx.settings is None else getattr(ctx.settings, name)


def _hello(ctx: StageContext, store: BucketStore) -> dict[str, Any]:
    return {
        "bucket_rows": int(_setting(ctx, "bucket_rows", BUCKET_ROWS)),
        "suites": allowed_suites(ctx),
        **_width(ctx),
        "plan": store.plan.to_document() if store.plan else None,
        "done": store.done,
    }


def _width(ctx: StageContext) -> dict[str, int]:
    """How many buckets this side has in workers at a time; nothing where it has none."""
    engine = str(_setting(ctx, "engine", workers.LOCAL))
    if engine == workers.LOCAL:
        return {}
    size, address = int(_setting(ctx, "workers", 0)), str(_setting(ctx, "ray_address", ""))
    return {"lanes": workers.start_ray(size, address).width}


def _checked(message: dict[str, Any], name: str, most: int) -> dict[str, Any]:
    """The peer's hello. `kind.message` for anything that this side could not act on."""
    size, per, done = message.get(name), message.get("bucket_rows"), message.get("done")
    lanes = message.get("lanes", 0)
    whole = all(type(v) is int and v >= 0 for v in (size, per, done, lanes))
    names = message.get("suites")
    known = {name, "bucket_rows", "suites", "plan", "done", "lanes"}
    if name == "rows":
        known |= {"people", "numbered", "prepared"}
        whole &= type(message.get("people")) is int and type(message.get("numbered")) is bool
        whole &= type(message.get("prepared", False)) is bool
    else:
        known |= {"probe"}
    if (
        not whole
        or not isinstance(names, list)
        or not all(isinstance(s, str) for s in names)
        or not set(message) <= known
        or int(per or 0) < 1
        or int(done or 0) > bucketing.MOST
        or int(lanes) > workers.MAX_WIDTH
    ):
        raise NodeError("kind.message", "the greeting of the alignment is malformed", share=True)
    if int(size or 0) > most:
        raise NodeError("kind.message", f"a set of {size} people; {most} is the most", share=True)
    return {**message, "probe": bool(message.get("probe"))}


def _probe(ctx: StageContext) -> float:
    """The line's speed in megabits a second, by the time that a larger message takes beyond a small one."""
    took = []
    for size in (16, PROBE):
        start = time.monotonic()
        ctx.channel.send_json({"fill": "x" * size})
        ctx.channel.receive_json()
        took.append(time.monotonic() - start)
    return float(8e-6 * PROBE / max(took[1] - took[0], 1e-4))


def _plan(
    ctx: StageContext, store: BucketStore, hello: dict[str, Any], theirs: dict[str, Any], rates: cost.Rates
) -> tuple[Plan, cost.Choice, int]:
    """The receiver's decision: the plan of an earlier attempt that both still have, or a new one."""
    suites = [s for s in hello["suites"] if s in theirs["suites"]]
    if not suites:
        asked = ctx.spec.params.get("suite", cost.AUTO)
        raise NodeError(
            "agreement.suite",
            f"suite {asked!r}: the agreement has {', '.join(ctx.agreement.suites)}, "
            f"this side runs {', '.join(hello['suites']) or 'none of them'}",
            "sign an agreement with a suite that both sides run",
            share=True,
        )
    per = min(hello["bucket_rows"], theirs["bucket_rows"])
    try:
        count = bucketing.count(hello["size"], theirs["rows"], per)
    except LocalError as error:
        raise NodeError("job.spec", f"{error.detail}: raise bucket_rows in node.toml", share=True) from error
    choice = cost.choose(
        str(ctx.spec.params.get("suite", cost.AUTO)),
        suites,
        cost.Work(
            hello["size"],
            theirs["rows"],
            count,
            bool(theirs.get("prepared")),
            _malicious(ctx),
            bool(theirs["numbered"]),
        ),
        rates,
    )
    if store.plan is not None and theirs["plan"] == store.plan.to_document() and store.plan.suite in suites:
        return store.plan, choice, min(store.done, theirs["done"])
    store.forget()
    made = Plan(
        choice.suite,
        count,
        os.urandom(32).hex(),
        hello["size"],
        theirs["rows"],
        theirs["people"],
        theirs["numbered"] or count > 1,
    )
    return Plan.read(made.to_document()), choice, 0


def _agreed(
    ctx: StageContext,
    store: BucketStore,
    message: dict[str, Any],
    theirs: dict[str, Any],
    hello: dict[str, Any],
) -> tuple[Plan, int]:
    """The sender's check of the plan: nothing that it did not offer, and no bucket that it has not done."""
    plan, first = Plan.read(message.get("plan")), message.get("first")
    if plan.suite not in allowed_suites(ctx):
        raise NodeError("agreement.suite", f"suite {plan.suite[:40]!r} is not agreed", share=True)
    own = (hello["rows"], hello["people"], hello["numbered"] or plan.buckets > 1)
    if (plan.size, (plan.rows, plan.people, plan.numbered)) != (theirs["size"], own):
        raise NodeError("kind.message", "the plan has other sizes than the greetings", share=True)
    same = store.plan == plan
    if type(first) is not int or not 0 <= first <= (min(store.done, theirs["done"]) if same else 0):
        raise NodeError("kind.message", "the plan begins where the two sides do not stand", share=True)
    if not same:
        store.forget()
    return plan, first


def _so_far(ctx: StageContext) -> tuple[int, int, float]:
    """Bytes sent, bytes received, seconds in which this process compiled kernels."""
    return ctx.channel.bytes_sent, ctx.channel.bytes_received, compiling.seconds()


def _report(
    ctx: StageContext,
    plan: Plan,
    seconds: float,
    before: tuple[int, int, float],
    choice: cost.Choice | None = None,
    rates: cost.Rates | None = None,
    resumed: bool = False,
) -> None:
    """Forecast beside fact, for `pec job show` and for whoever checks the model."""
    now = _so_far(ctx)
    sent, received, compiled = now[0] - before[0], now[1] - before[1], now[2] - before[2]
    found: dict[str, Any] = {
        "role": "sender" if choice is None else "receiver",
        "suite": plan.suite,
        "malicious": _malicious(ctx),
        "buckets": plan.buckets,
        "receiver_rows": plan.size,
        "sender_rows": plan.rows,
        "seconds": round(seconds, 3),
        "bytes_sent": sent,
        "bytes_received": received,
    }
    if choice is not None:
        found["why"] = choice.why
        estimate = choice.of(plan.suite)
        found["estimate"] = estimate.to_document()
        found["alternatives"] = [c.to_document() for c in choice.costs if c.suite != plan.suite]
        if not resumed:  # otherwise only the buckets that were left have run
            found["warnings"] = estimate.compared(seconds, sent + received)
    if compiled >= cost.NOTABLE:
        found["compile_seconds"] = round(compiled, 1)
        what = f"kernels were compiled for {compiled:.0f} s of it: pec warmup does that beforehand"
        found.setdefault("warnings", []).append(what)
    opening = getattr(ctx.view, "opening", None)
    if opening is not None:
        read = ctx.view.preflight
        found["opening"] = {"rows": read.read, "seconds": round(opening, 3)}
        if rates is not None:
            guess = cost.opening(read.read * len(read.identifiers), rates)
            found["opening"]["estimate"] = round(guess, 3)
    ctx.result["alignment"] = found
