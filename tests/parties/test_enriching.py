"""The enrich stage in buckets: the records of one run, memory of one bucket, and on after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_aligning import SETTINGS, both, items_of

from parties.errors import NodeError
from parties.kinds import enriching
from parties.stage import StageContext
from protocols.align import buckets as bucketing

WIDTH = 12
ONE_RUN = replace(SETTINGS, bucket_rows=1 << 20)


def records_of(*names: int) -> np.ndarray:
    out = np.zeros((len(names), WIDTH), np.uint8)
    out[:, :8] = np.array(names, "<i8").view(np.uint8).reshape(-1, 8)
    out[:, 8:] = 7
    return out


def run(
    folder: Path, mine: range, theirs: range, usable: np.ndarray | None = None, **changes: Any
) -> dict[str, Any]:
    """One stage between `mine` and `theirs`; the log of the ledger is in `changes["log"]`."""
    items, table = items_of(*theirs), records_of(*theirs)
    alive = np.ones(len(theirs), bool) if usable is None else usable
    receiving = changes.pop("receiving", lambda ctx: None)
    held = [table]

    def receive(ctx: StageContext) -> Any:
        receiving(ctx)
        hello = ctx.channel.receive_json()
        assert enriching.is_hello(hello)
        everyone = np.ones(len(mine), bool)
        return enriching.receive(ctx, hello, items_of(*mine), everyone, WIDTH)

    def send(ctx: StageContext) -> None:
        enriching.send(ctx, {"tags": []}, items, alive, WIDTH, lambda index: held[0][index], held.clear)

    folder.mkdir(exist_ok=True)
    return both(folder, receive, send, **changes)


def right(found: dict, mine: range, theirs: range, without: tuple[int, ...] = ()) -> bool:
    index, records = found["brand"]
    due = [n for n in mine if n in theirs and n not in without]
    names = records[:, :8].copy().view("<i8").ravel()
    return bool((np.array(mine)[index] == due).all() and (names == due).all() and (records[:, 8:] == 7).all())


@pytest.mark.parametrize(
    ("mine", "theirs"), [(range(0, 500), range(300, 800)), (range(3), range(1, 500)), (range(600), range(0))]
)
def test_buckets_give_the_records_of_one_run(tmp_path: Path, mine: range, theirs: range) -> None:
    gone = np.array([n % 7 != 0 for n in theirs], dtype=bool)
    without = tuple(n for n in theirs if n % 7 == 0)
    log: list[Any] = []
    cut = run(tmp_path / "cut", mine, theirs, gone, log=log)
    whole = run(tmp_path / "whole", mine, theirs, gone, brand=ONE_RUN, provider=ONE_RUN)
    assert cut["provider context"].result["buckets"] > 1 == whole["provider context"].result["buckets"]
    for found in (cut, whole):
        assert right(found, mine, theirs, without)
    # In the ledger before the first answer, paddings included.
    asked = [payload["asked_at_most"] for kind, payload in log if kind == "job.asked"]
    assert asked == [cut["provider context"].result["asked_at_most"]] and asked[0] >= len(mine)
    assert not list(tmp_path.glob("*/*/enrich-*"))  # items and records are gone from the disk


def test_the_senders_view_of_a_bucket_is_of_one_size(tmp_path: Path) -> None:
    sizes = []
    for k, mine in enumerate((range(355), range(5000, 5380))):  # one padded size
        found = run(tmp_path / str(k), mine, range(400))
        assert found["provider context"].result["buckets"] > 1
        sizes.append([len(m) for m in found["brand context"].channel.log[1:]])  # the first has numbers
    assert sizes[0] == sizes[1]


class Dies(Exception):
    pass


def test_an_interrupted_side_goes_on_at_its_bucket(tmp_path: Path) -> None:
    """The receiver dies in bucket 2 of 8; both begin anew there, without who has withdrawn meanwhile."""
    mine, theirs = range(900), range(500, 2000)

    def dying(ctx: StageContext) -> None:
        original = ctx.channel.run

        def counted(machine: Any, label: str = "", part: Any = None) -> Any:
            if part == (2, 8):
                raise Dies
            return original(machine, label, part)

        ctx.channel.run = counted  # type: ignore[method-assign]

    log: list[Any] = []
    first = run(tmp_path, mine, theirs, receiving=dying, log=log)
    assert isinstance(first["brand"], Dies)
    manifest = json.loads((tmp_path / "brand" / "enrich-receiver" / "manifest.json").read_text())
    assert manifest["done"] == 2
    for path in tmp_path.glob("*/enrich-*/*"):
        assert path.stat().st_mode & 0o077 == 0, path
    usable = np.ones(len(theirs), bool)
    usable[:200] = False
    second = run(tmp_path, mine, theirs, usable, log=log, job="another session")
    index, records = second["brand"]
    names = records[:, :8].copy().view("<i8").ravel()
    assert (names == index).all()  # mine is 0, 1, 2, …
    key = bytes.fromhex(manifest["plan"]["key"])
    before = bucketing.assign(items_of(*mine), 8, key) < 2
    due = [n for n in mine if n in theirs and (n >= 700 or before[n])]
    assert list(index) == due  # the withdrawn ones of the first two buckets: the release deletes them
    asked = [payload["asked_at_most"] for kind, payload in log if kind == "job.asked"]
    assert asked[0] * 6 == asked[1] * 8
    assert second["provider context"].result["asked_at_most"] == sum(asked)


PLAN = {
    "suite": "ecdh",
    "buckets": 4,
    "key": "00" * 32,
    "size": 256,
    "rows": 300,
    "people": 300,
    "numbered": True,
}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"plan": PLAN},
        {"plan": PLAN, "first": 1},
        {"plan": PLAN, "first": -1},
        {"plan": PLAN, "first": "0"},
        {"plan": PLAN, "first": 0, "more": 1},
        {"plan": {**PLAN, "rows": 299}, "first": 0},
        {"plan": {**PLAN, "suite": "vole"}, "first": 0},
        {"plan": {**PLAN, "buckets": 3}, "first": 0},
        {"plan": {**PLAN, "size": 1 << 40}, "first": 0},
    ],
)
def test_what_a_receiver_may_not_ask(tmp_path: Path, message: dict) -> None:
    items = items_of(*range(300))

    def deviate(ctx: StageContext) -> None:
        ctx.channel.receive_json()
        ctx.channel.send_json(message)

    def send(ctx: StageContext) -> None:
        table = records_of(*range(300))
        enriching.send(ctx, {}, items, np.ones(300, bool), WIDTH, lambda i: table[i], lambda: None)

    log: list[Any] = []
    found = both(tmp_path, deviate, send, log=log)
    assert isinstance(found["provider"], NodeError) and found["provider"].code == "kind.message"
    assert not log  # nothing was answered


@pytest.mark.parametrize(
    "changes", [{"items": -1}, {"items": True}, {"items": 1 << 40}, {"bucket_rows": 0}, {"done": 1 << 20}]
)
def test_a_greeting_that_makes_no_sense(changes: dict) -> None:
    good = {"items": 3, "bucket_rows": 64, "plan": None, "done": 0}
    assert enriching.is_hello(good) and not enriching.is_hello({**good, **changes})
