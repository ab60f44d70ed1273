"""The provider's side of an alignment prepared once: what is computed again, and what never comes back."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pair import agreement
from test_aligning import SETTINGS, both, items_of

from parties import prepared
from parties.errors import NodeError
from parties.kinds import aligning
from protocols import align
from protocols.align import sender as sending
from protocols.errors import LocalError

MINE = range(0, 300)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items the sender evaluated, call by call."""
    counts: list[int] = []
    original = sending.evaluate

    def evaluate(key: Any, items: Any) -> Any:
        counts.append(len(items))
        return original(key, items)

    monkeypatch.setattr(sending, "evaluate", evaluate)
    return counts


def job(
    root: Path, number: int, theirs: list[int], gone: tuple[int, ...] = (), **changes: Any
) -> dict[str, Any]:
    """One job against `theirs` in an order of its own; `gone`: who has withdrawn during it."""
    folder = root / f"job-{number}"
    folder.mkdir()
    order = np.random.default_rng(number).permutation(len(theirs))
    people = [theirs[i] for i in order]
    right, usable = items_of(*people), np.array([p not in gone for p in people])
    settings = replace(
        SETTINGS, prepared_hours=changes.pop("hours", 1.0), bucket_rows=changes.pop("rows", 1000)
    )

    def send(ctx: Any) -> int:
        ctx.prepared = root / "prepared"
        ctx.agreement = agreement(**changes)
        return aligning.send(ctx, right, usable, reuse=True)

    left, log = items_of(*MINE), []
    asking = {"brand": settings, "provider": settings, "log": log}
    found = both(folder, lambda ctx: aligning.receive(ctx, left), send, f"job-{number}", **asking)
    place = {p: j for j, p in enumerate(people) if p not in gone}
    assert (found["brand"].rows == [place.get(n, -1) for n in MINE]).all()
    found["log"] = [payload for kind, payload in log if kind == "job.asked"]
    found["prepared"] = found["provider context"].result.get("prepared")
    return found


@pytest.mark.parametrize("rows", [1000, 200])
def test_the_second_job_evaluates_nothing(tmp_path: Path, evaluated: list[int], rows: int) -> None:
    theirs = list(range(200, 700))
    first = job(tmp_path, 1, theirs, rows=rows)
    assert sum(evaluated) == 500 and not first["prepared"]["reused"]
    second = job(tmp_path, 2, theirs, gone=(205, 206), rows=rows)  # who is left out in the second
    assert sum(evaluated) == 500 and second["prepared"]["reused"]
    # What the receiver may have asked under this key, in both jobs, is in the ledger before it is answered.
    asked = [entry["asked_at_most"] for entry in (*first["log"], *second["log"])]
    assert second["log"][0]["asked_at_most_under_key"] == sum(asked) == 2 * asked[0]
    for path in (tmp_path / "prepared").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_whatever_changes_is_prepared_anew(tmp_path: Path, evaluated: list[int]) -> None:
    theirs = list(range(200, 400))
    keys = []

    def run(number: int, people: list[int], due: int, **changes: Any) -> None:
        evaluated.clear()
        job(tmp_path, number, people, **changes)
        assert sum(evaluated) == due
        keys.append({p.read_bytes() for p in (tmp_path / "prepared").rglob("key.npy")})

    run(1, theirs, 200)
    run(2, theirs, 0)
    run(3, [*theirs, 900], 201)  # one more in the file
    run(4, theirs[1:], 199)  # one has withdrawn since
    run(5, theirs[1:], 199, minimum_rows=30)  # another agreement: a folder of its own
    assert keys[0] == keys[1] and not keys[1] & keys[2] and not keys[2] & keys[3] and len(keys[4]) == 2
    run(6, theirs[1:], 199, hours=0.0)  # switched off: a key of this job alone
    (manifest, *_) = (tmp_path / "prepared").rglob("manifest.json")
    kept = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**kept, "until": time.time() - 1.0}))
    prepared.sweep(tmp_path / "prepared")
    assert not manifest.parent.exists() and len(list((tmp_path / "prepared").iterdir())) == 1


def test_too_many_questions_end_a_key(
    tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = list(range(100))
    first = job(tmp_path, 1, theirs)
    monkeypatch.setattr(prepared, "ASKED_MOST", 2 * first["provider"])
    job(tmp_path, 2, theirs)
    assert sum(evaluated) == 100
    third = job(tmp_path, 3, theirs)
    assert sum(evaluated) == 200 and third["prepared"]["asked_at_most_under_key"] == first["provider"]


def test_a_bucket_that_is_asked_again_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = np.frombuffer(os.urandom(32 * 40), dtype=np.uint8).reshape(40, 32)
    shelf = prepared.Shelf(tmp_path / "prepared", 1.0, {"agreement": "a"}, items)
    kept = shelf.find(256, lambda done: None)
    again = shelf.more(kept, 256)
    assert (kept.asked, again.asked, shelf.asked()) == (256, 512, 512)
    monkeypatch.setattr(prepared, "ASKED_MOST", 600)
    with pytest.raises(NodeError, match="asked again") as caught:
        shelf.more(again, 256)
    assert caught.value.code == "node.prepared" and shelf.asked() == 512


@pytest.mark.parametrize("name", ["key.npy", "outputs.npy", "manifest.json"])
def test_what_cannot_be_read_is_prepared_anew(tmp_path: Path, evaluated: list[int], name: str) -> None:
    job(tmp_path, 1, list(range(50)))
    (path,) = (tmp_path / "prepared").rglob(name)
    path.write_bytes(b"\x93NUMPY")
    job(tmp_path, 2, list(range(50)))
    assert sum(evaluated) == 100


def test_tags_of_two_jobs_have_nothing_in_common() -> None:
    """One key, two sessions: only who knows an output can tell that two tags are one item's."""
    import os

    items = items_of(*range(64))
    made = sending.prepare(items, os.urandom, 16, lambda n: None)
    seen = []
    for session in (bytes(32), b"\x01" * 32):
        machine = align.Sender(items, session, align.Limits(), os.urandom, prepared=made)
        receiver = align.Receiver(items[:3], session, align.Limits(), os.urandom)
        got: list[bytes] = []
        to_sender, to_receiver = list(receiver.start()), list(machine.start())
        while not receiver.finished:
            if to_sender:
                to_receiver += machine.receive(to_sender.pop(0))
            else:
                got.append(to_receiver.pop(0))
                to_sender += receiver.receive(got[-1])
        assert (receiver.result.rows == [0, 1, 2]).all()
        seen.append({got[-1][i : i + 7] for i in range(13, len(got[-1]) - 6)})
    assert not seen[0] & seen[1]
    with pytest.raises(LocalError, match="one an item"):
        align.Sender(items[:3], bytes(32), align.Limits(), os.urandom, prepared=made)
    with pytest.raises(LocalError, match="suite ecdh"):
        align.Sender(items, bytes(32), align.Limits(), os.urandom, suite="vole", prepared=made)
