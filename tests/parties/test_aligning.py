"""The align stage at any size: buckets give the rows of one run, forecasts hold, nonsense ends it."""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pair import QueueChannel, agreement, spec

from parties import cost
from parties.errors import NodeError
from parties.home import Settings
from parties.kinds import aligning, bucket_store
from parties.stage import StageContext

SETTINGS = Settings(party="x", bucket_rows=200, bandwidth_mbit=1000.0)


def items_of(*names: Any) -> np.ndarray:
    from hashlib import sha256

    return np.array([list(sha256(str(n).encode()).digest()) for n in names], np.uint8).reshape(len(names), 32)


def context(role: str, channel: QueueChannel, folder: Path, settings: Any, **changes: Any) -> StageContext:
    channel.stage = "align"
    return StageContext(
        job_id="job-1",
        role=role,  # type: ignore[arg-type]
        spec=spec("overlap", params=changes.get("params", {})),
        agreement=agreement(**changes.get("agreement", {})),
        private={},
        view=None,
        channel=channel,
        workdir=folder,
        record=lambda kind, payload: changes.setdefault("log", []).append((kind, payload)) or 0,
        settings=settings,
        state=folder,
    )


def both(folder: Path, receive: Any, send: Any, job: str = "job-1", **changes: Any) -> dict[str, Any]:
    """Run the two halves; {role: what it returned or raised}, and the contexts."""
    queues = queue.Queue(), queue.Queue()
    found: dict[str, Any] = {}
    threads = []
    for role, act, ends in (("brand", receive, queues), ("provider", send, queues[::-1])):
        channel = QueueChannel(*ends, job)
        (folder / role).mkdir(exist_ok=True)
        settings = changes.get(role, SETTINGS)
        ctx = context(role, channel, folder / role, settings, **changes)
        found[f"{role} context"] = ctx

        def run(role: str = role, act: Any = act, ctx: StageContext = ctx) -> None:
            from pair import FAILED

            try:
                found[role] = act(ctx)
            except Exception as error:
                found[role] = error
                ctx.channel._out.put(FAILED)  # type: ignore[attr-defined]

        threads.append(threading.Thread(target=run))
        threads[-1].start()
    for thread in threads:
        thread.join(400)
    return found


def oracle(mine: range, theirs: range) -> np.ndarray:
    row = {n: j for j, n in enumerate(theirs)}
    return np.array([row.get(n, -1) for n in mine])


@pytest.mark.parametrize(("mine", "theirs"), [(range(0, 500), range(300, 800)), (range(3), range(1, 500))])
def test_buckets_give_the_rows_of_a_plain_join(tmp_path: Path, mine: range, theirs: range) -> None:
    log: list[Any] = []
    left, right = items_of(*mine), items_of(*theirs)
    usable = np.ones(len(theirs), bool)
    usable[::7] = False
    found = both(
        tmp_path,
        lambda ctx: aligning.receive(ctx, left),
        lambda ctx: aligning.send(ctx, right, usable),
        log=log,
    )
    due = oracle(mine, theirs)
    due[np.isin(due, np.flatnonzero(~usable))] = -1
    assert (found["brand"].rows == due).all() and found["brand"].sender_rows == len(theirs)
    told = found["brand context"].result["alignment"]
    assert told["buckets"] == 4 and told["suite"] == "ecdh"
    # The ledger has the number before the first answer, paddings included.
    asked = [payload["asked_at_most"] for kind, payload in log if kind == "job.asked"]
    assert asked == [found["provider"]] and asked[0] >= len(mine)
    assert not list(tmp_path.glob("*/align-*"))  # items and rows are gone from the disk


@pytest.mark.slow
@pytest.mark.parametrize("asked_by", ["nobody", "the job", "the agreement"])
def test_the_same_rows_by_vole_in_buckets(tmp_path: Path, asked_by: str) -> None:
    malicious = asked_by != "nobody"
    left, right = items_of(*range(500)), items_of(*range(300, 900))
    usable = np.ones(600, bool)
    usable[::5] = False
    found = both(
        tmp_path,
        lambda ctx: aligning.receive(ctx, left),
        lambda ctx: aligning.send(ctx, right, usable, np.arange(600) // 2, 300),
        agreement={"suites": ["ecdh", "vole"], "malicious_security": asked_by == "the agreement"},
        params={"nobody": {"suite": "vole"}, "the job": {"malicious": True}}.get(asked_by, {}),
    )
    due = oracle(range(500), range(300, 900))
    due[np.isin(due, np.flatnonzero(~usable))] = -1
    assert (found["brand"].rows == np.where(due >= 0, due // 2, -1)).all()
    told = found["brand context"].result["alignment"]
    assert told["suite"] == "vole" and told["buckets"] == 4 and found["brand"].sender_rows == 300
    assert told["malicious"] is malicious
    assert 0.85 < told["estimate"]["bytes"] / (told["bytes_sent"] + told["bytes_received"]) < 1.15
    assert told["warnings"] == []


def test_messages_do_not_tell_which_people_are_asked_about(tmp_path: Path) -> None:
    sizes = []
    for k, n in enumerate((905, 950)):  # one padded size
        folder = tmp_path / str(k)
        folder.mkdir()
        right = items_of(*range(1000))
        found = both(
            folder,
            lambda ctx, n=n, k=k: aligning.receive(ctx, items_of(*range(5000 * k, 5000 * k + n))),
            lambda ctx, right=right: aligning.send(ctx, right, np.ones(1000, bool)),
        )
        sizes.append([len(m) for m in found["brand context"].channel.log])
    # The plan's numbers are the same as well; only the bucket key differs, in value and not in length.
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("n", "m"), [(10, 200), (600, 2000)])
def test_the_forecast_of_bytes_is_close(tmp_path: Path, n: int, m: int) -> None:
    found = both(
        tmp_path,
        lambda ctx: aligning.receive(ctx, items_of(*range(n))),
        lambda ctx: aligning.send(ctx, items_of(*range(m)), np.ones(m, bool)),
    )
    told = found["brand context"].result["alignment"]
    guess, fact = told["estimate"]["bytes"], told["bytes_sent"] + told["bytes_received"]
    # The channel here has no frames; that part of the forecast is taken off.
    guess -= cost.CONTROL + cost.FRAME * len(found["brand context"].channel.log) * 3
    assert 0.9 * guess < fact < 1.15 * (guess + 3000)


def test_auto_takes_the_suite_that_ends_first_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(work: cost.Work, rates: cost.Rates) -> cost.Cost:
        sent = 20_000_000
        return cost.Cost("vole", work.buckets, 0.3 + cost.wire_seconds(sent, rates.mbit), sent, 0)

    monkeypatch.setitem(cost.SUITES, "vole", other)  # so that the figures of the day don't matter
    rates = cost.Rates(cores=2, mbit=1000)
    big, small = cost.Work.of(1 << 20, 1 << 20, 1 << 20), cost.Work.of(300, 300, 1 << 20)
    assert cost.choose("auto", ["ecdh", "vole"], big, rates).suite == "vole"
    chosen = cost.choose("auto", ["vole", "ecdh"], small, replace(rates, mbit=10))
    assert chosen.suite == "ecdh" and "10 Mbit/s" in chosen.why and "vole" in chosen.why
    assert cost.choose("auto", ["ecdh"], big, rates).why.startswith("the only suite")
    assert cost.choose("vole", ["ecdh", "vole"], small, rates).suite == "vole"
    assert 1e-7 < cost.calibrate() < 0.01


def test_forecasts_grow_with_the_work() -> None:
    sizes = [cost.Work.of(1 << k, 1 << k, 1 << 16) for k in (10, 14, 18, 22)]
    costs = [cost.ecdh(work, cost.Rates()) for work in sizes]
    assert all(a.seconds < b.seconds and a.bytes < b.bytes for a, b in zip(costs, costs[1:], strict=False))
    # 2^20 × 2^20 in one run: the README's 34 MB up and 44 MB down, and the frames.
    one = cost.ecdh(cost.Work.of(1 << 20, 1 << 20, 1 << 20), cost.Rates())
    assert one.sent == pytest.approx(34e6, rel=0.03) and one.received == pytest.approx(44e6, rel=0.08)


GREETING = {"size": 256, "bucket_rows": 300, "suites": ["ecdh"], "plan": None, "done": 0, "probe": False}
PLAN = {"suite": "ecdh", "buckets": 4, "key": "00" * 32, "size": 256, "rows": 900}
PLAN |= {"people": 900, "numbered": True}


@pytest.mark.parametrize(
    ("greeting", "plan", "code"),
    [
        ({"size": -1}, {}, "kind.message"),
        ({"size": True}, {}, "kind.message"),
        ({"size": 3 * bucket_store.MAX_ROWS}, {}, "kind.message"),
        ({"bucket_rows": 0}, {}, "kind.message"),
        ({"suites": [1]}, {}, "kind.message"),
        ({"more": 1}, {}, "kind.message"),
        ({}, {"plan": {**PLAN, "suite": "vole"}}, "agreement.suite"),  # which the agreement lacks
        ({}, {"plan": {**PLAN, "buckets": 3}}, "kind.message"),
        ({}, {"plan": {**PLAN, "buckets": 1 << 20}}, "kind.message"),
        ({}, {"plan": {**PLAN, "key": "zz"}}, "kind.message"),
        ({}, {"plan": {**PLAN, "size": 512}}, "kind.message"),
        ({}, {"plan": {**PLAN, "more": 1}}, "kind.message"),
        ({}, {"plan": {**PLAN, "numbered": False}}, "kind.message"),
        ({}, {"plan": {**PLAN, "people": 901}}, "kind.message"),
        ({}, {"first": 2}, "kind.message"),
        ({}, {"first": -1}, "kind.message"),
        ({}, {"first": "0"}, "kind.message"),
        ({}, {"plan": None}, "kind.message"),
    ],
)
def test_what_a_receiver_may_not_ask(tmp_path: Path, greeting: dict, plan: dict, code: str) -> None:
    def deviate(ctx: StageContext) -> None:
        ctx.channel.send_json({**GREETING, **greeting})
        ctx.channel.receive_json()
        ctx.channel.send_json({"plan": PLAN, "first": 0, **plan})

    right = items_of(*range(900))
    found = both(tmp_path, deviate, lambda ctx: aligning.send(ctx, right, np.ones(900, bool)))
    assert isinstance(found["provider"], NodeError) and found["provider"].code == code


def test_a_receiver_asks_in_buckets_of_the_announced_size_only(tmp_path: Path) -> None:
    from protocols import align

    def deviate(ctx: StageContext) -> None:
        ctx.channel.send_json(GREETING)
        ctx.channel.receive_json()
        ctx.channel.send_json({"plan": PLAN, "first": 0})
        limits = align.Limits()
        machine = align.Receiver(
            items_of(*range(5000)), aligning._session(ctx, 0), limits, __import__("os").urandom,
            numbered=True, runs=4,
        )  # fmt: skip
        ctx.channel.run(machine, "align")

    right = items_of(*range(900))
    found = both(tmp_path, deviate, lambda ctx: aligning.send(ctx, right, np.ones(900, bool)))
    assert found["provider"].code in ("kind.message", "protocol.too_large")


def test_an_interrupted_side_goes_on_at_its_bucket(tmp_path: Path) -> None:
    """The receiver dies in bucket 2 of 8; both begin anew at bucket 2 with the files of the first attempt."""
    left, right = items_of(*range(900)), items_of(*range(500, 2000))

    class Dies(Exception):
        pass

    def dying(ctx: StageContext) -> Any:
        run = ctx.channel.run

        def counted(machine: Any, label: str = "", part: Any = None) -> Any:
            if part == (2, 8):
                raise Dies
            return run(machine, label, part)

        ctx.channel.run = counted  # type: ignore[method-assign]
        return aligning.receive(ctx, left)

    log: list[Any] = []
    usable = np.ones(1500, bool)
    first = both(tmp_path, dying, lambda ctx: aligning.send(ctx, right, usable), log=log)
    assert isinstance(first["brand"], Dies)
    manifest = tmp_path / "brand" / "align-receiver" / "manifest.json"
    assert json.loads(manifest.read_text())["done"] == 2
    for path in (tmp_path / "brand").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    usable[0] = usable[1499] = False  # and withdrew meanwhile
    second = both(
        tmp_path,
        lambda ctx: aligning.receive(ctx, left),
        lambda ctx: aligning.send(ctx, right, usable),
        job="another session",
        log=log,
    )
    due = oracle(range(900), range(500, 2000))
    wrong = np.flatnonzero(second["brand"].rows != due)
    assert set(wrong) <= {500}  # the withdrawn one, if its bucket was still to do
    runs = [m for m in second["brand context"].channel.log if len(m) == 41]  # a Request a bucket
    assert len(runs) == 6
    cap = [payload["asked_at_most"] for kind, payload in log if kind == "job.asked"]
    assert cap[0] * 6 == cap[1] * 8 and second["provider"] == sum(cap)


def test_other_people_mean_another_plan(tmp_path: Path) -> None:
    """What an earlier attempt left is not used for another set, nor if one side has lost it."""
    right = items_of(*range(900))
    usable = np.ones(900, bool)
    store = tmp_path / "brand" / "align-receiver"
    store.mkdir(parents=True)
    (store / "manifest.json").write_text(json.dumps({"plan": PLAN, "done": 4}))
    found = both(
        tmp_path,
        lambda ctx: aligning.receive(ctx, items_of(*range(100))),
        lambda ctx: aligning.send(ctx, right, usable),
    )
    assert (found["brand"].rows == np.arange(100)).all()
    (tmp_path / "brand" / "align-receiver").mkdir()
    (tmp_path / "brand" / "align-receiver" / "manifest.json").write_text("{")
    found = both(
        tmp_path,
        lambda ctx: aligning.receive(ctx, items_of(*range(100))),
        lambda ctx: aligning.send(ctx, right, usable),
    )
    assert (found["brand"].rows == np.arange(100)).all()
