"""Jobs that are broken off go on: a node is killed without mercy, restarted, and the result is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nodes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consent_center.model import ConsentEvent, Notice
from parties import bundle
from parties.checkpoint import Checkpoints
from parties.datasets import Dataset
from parties.errors import NodeError
from parties.home import Home
from parties.kinds import KINDS
from parties.runner import can_go_on, repeatable

PEOPLE, SHARED = 900, 400
SETTINGS = "bucket_rows = 64\nsilence_seconds = 30.0\nresume_seconds = 60.0\nheartbeat_seconds = 0.5\n"

#: The node's program, which waits before the bucket that a file `pause` in its home names, from 0.
PAUSING = """
import sys, time
from pathlib import Path
from parties import node
from parties.kinds.bucket_store import BucketStore

pause, read = Path(sys.argv[2]) / "pause", BucketStore.bucket

def bucket(self, number):
    while pause.exists() and pause.read_text() == str(number):
        time.sleep(0.02)
    return read(self, number)

BucketStore.bucket = bucket
sys.exit(node.main())
"""


class RealNode(nodes.NodeProcess):
    """A node with the real kinds, in a process of its own."""

    def pause(self, bucket: int) -> None:
        """Wait before this bucket, from 0, until `kill`: no job may end before the test comes to it."""
        made = self.home.path / "pause.new"
        made.write_text(str(bucket))
        made.rename(self.home.path / "pause")

    def kill(self) -> None:
        super().kill()
        (self.home.path / "pause").unlink(missing_ok=True)

    def start(self) -> RealNode:
        ready = self.home.path / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.home.path / "stderr.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PAUSING, "--home", self.home.path, "--ready-file", ready],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            )
        deadline = time.monotonic() + 240
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(self.log()[-2000:])
            time.sleep(0.02)
        return self


def make_home(folder: Path, party: str, peer: str, people: list[str], settings: str = SETTINGS) -> Home:
    home = Home.create(folder / party, party)
    with (home.path / "node.toml").open("a") as file:
        file.write(settings)
    table = folder / f"{party}.csv"
    rows = "\n".join(f"{p},v{i % 7}" for i, p in enumerate(people))
    table.write_text(f"phone,tag\n{rows}\n")
    home.add_dataset(Dataset("people", str(table), "phone", "phone", {"tag": nodes.CATEGORY}))
    with home.center() as center:
        center.put_purpose(nodes.Purpose(nodes.PURPOSE, 1, {"en": "advertising"}, (nodes.CATEGORY,)))
        center.assume(pa.array(people), "phone", nodes.PURPOSE, peer, (nodes.CATEGORY,), "test", "test")
        nodes.file_assessment(center, nodes.PURPOSE, peer, "none: a test", "test")
    return Home.open(home.path)


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    """A brand and a provider that share SHARED people; about 64 buckets."""
    phones = [f"138{n:08d}" for n in range(2 * PEOPLE)]
    brand_home = make_home(tmp_path, "brand", "prov", phones[:PEOPLE])
    prov_home = make_home(tmp_path, "prov", "brand", phones[PEOPLE - SHARED : 2 * PEOPLE - SHARED])
    pair = RealNode(brand_home), RealNode(prov_home)
    try:
        for node in pair:
            node.start()
        nodes.introduce(*pair)
        terms = {"kinds": ["overlap", "enrich"], "preapproved": ["overlap", "enrich"], "tags": ["tag"]}
        nodes.agree(brand_home, prov_home, **terms)
        yield pair
    finally:
        for node in pair:
            node.kill()


def submit(node: RealNode, **changes: Any) -> str:
    with node.client() as client:
        return client.submit(
            {
                "kind": "overlap",
                "purpose": nodes.PURPOSE,
                "agreement": "brand-prov",
                "datasets": {"brand": "people", "provider": "people"},
                "categories": [nodes.CATEGORY],
                **changes,
            }
        )


def bucket_of(node: RealNode, job_id: str) -> int:
    """The bucket that is running, from 1; 0 before the first."""
    try:
        with node.client() as client:
            step = client.job(job_id).get("progress") or {}
    except NodeError:  # the provider has not heard of it yet
        return 0
    words = str(step.get("what", "")).split()
    return int(words[1]) if len(words) == 4 and words[0] in ("align", "enrich") else 0


def wait_for(what: Any, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not come to that")
        time.sleep(0.03)
    return found


def states(pair: Any, job_id: str, seconds: float = 240) -> list[dict[str, Any]]:
    """Both sides' views of the ended job."""
    found = []
    for node in pair:
        with node.client() as client:
            found.append(client.wait(job_id, seconds))
    return found


def withdraw(home: Home, people: list[str]) -> None:
    with home.center() as center:
        center.put_notice(Notice("n", 1, nodes.PURPOSE, 1, {"en": "text"}))
        now = datetime.now(UTC)
        for phone in people:
            event = ((("phone", phone),), nodes.PURPOSE, 1, "withdrawn", "brand", (nodes.CATEGORY,), now)
            center.record(ConsentEvent(*event, "n", 1))


@pytest.mark.slow
def test_either_side_killed_goes_on_at_its_bucket(pair: Any) -> None:
    """First the brand, then the provider, where people withdraw while it is down."""
    pair[0].pause(3)
    pair[1].pause(8)
    job_id = submit(pair[0])
    for victim, at in ((0, 3), (1, 8)):
        wait_for(lambda at=at: bucket_of(pair[0], job_id) == at)
        state = pair[victim].home.state(job_id)
        pair[victim].kill()
        (manifest,) = state.glob("align-*/manifest.json")
        assert json.loads(manifest.read_text())["done"] >= 2
        for path in (state, *state.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path  # nobody else may read what is kept of people
        with pair[1 - victim].client() as other:
            wait_for(lambda other=other: other.job(job_id)["state"] == "interrupted")
            # Whoever looks sees at which bucket the job stands, and how long the others will take.
            step = other.job(job_id)["progress"]
            assert step["stage"] == "align" and 2 <= step["done"] < step["total"] == 16, step
            assert step["what"] == f"align {step['done'] + 1} of 16 is next" and step["seconds_left"] > 0
        if victim == 1:
            withdraw(pair[1].home, [f"138{n:08d}" for n in range(PEOPLE - 50, PEOPLE)])
        pair[victim].start()
        nodes.introduce(*pair)  # a restarted node may have another port
    ours, theirs = states(pair, job_id)
    assert (ours["state"], theirs["state"]) == ("succeeded", "succeeded"), (ours["error"], theirs["error"])
    assert ours["result"]["count"] == SHARED - 50 and ours["attempts"] == theirs["attempts"] == 2
    assert theirs["counts"]["own"]["out"] == {"withdrawn_midway": 50}
    assert ours["result"]["alignment"]["buckets"] == 16
    for node, view in zip(pair, (ours, theirs), strict=True):
        report = bundle.verify(view["audit"])
        assert report.ok, report.checks
        assert any("taken up again 2 times" in text for _, _, text in report.checks)
        assert not node.home.state(job_id).exists() and not node.home.work(job_id).exists()
    # The last attempt only did the buckets that were left.
    (stage,) = [s for s in ours["stages"] if s["name"] == "align"]
    assert stage["bytes_sent"] < 0.8 * ours["result"]["alignment"]["estimate"]["sent"]
    enriched_after_a_kill(pair)
    # A bundle in which a stage ran again that must not is refused.
    kind = KINDS["overlap"]
    strict = replace(kind, stages=tuple(replace(s, repeatable=False) for s in kind.stages))
    KINDS["overlap"] = strict
    try:
        assert not bundle.verify(ours["audit"]).ok
    finally:
        KINDS["overlap"] = kind


def enriched_after_a_kill(pair: Any) -> None:
    """The provider is killed between two buckets of an enrich; every line of the result is right."""
    pair[1].pause(4)
    job_id = submit(pair[0], kind="enrich", columns=["tag"], outputs={"tags": "brand"})
    wait_for(lambda: bucket_of(pair[0], job_id) == 4)
    pair[1].kill()
    with pair[0].client() as client:
        wait_for(lambda: client.job(job_id)["state"] == "interrupted")
        assert client.job(job_id)["progress"]["what"].startswith("enrich ")
    pair[1].start()
    nodes.introduce(*pair)
    ours, theirs = states(pair, job_id)
    assert (ours["state"], theirs["state"]) == ("succeeded", "succeeded"), (ours["error"], theirs["error"])
    assert ours["attempts"] == theirs["attempts"] == 1 and ours["result"]["buckets"] == 16
    assert bundle.verify(theirs["audit"]).ok and not pair[1].home.state(job_id).exists()
    table = pq.read_table(Path(ours["path"]) / "enriched.parquet").to_pydict()
    # The provider's line i is the brand's line i + PEOPLE - SHARED; the last 50 have withdrawn.
    assert table["row"] == list(range(PEOPLE - SHARED, PEOPLE - 50))
    assert table["tag"] == [f"v{i % 7}" for i in range(SHARED - 50)]


@pytest.mark.slow
def test_the_peer_waits_no_longer_than_it_says(tmp_path: Path) -> None:
    """The provider's wait is over: its side fails, and the brand that comes back later learns why."""
    phones = [f"138{n:08d}" for n in range(PEOPLE)]
    short = SETTINGS.replace("resume_seconds = 60.0", "resume_seconds = 1.0")
    brand_home = make_home(tmp_path, "brand", "prov", phones)
    pair = RealNode(brand_home), RealNode(make_home(tmp_path, "prov", "brand", phones, short))
    try:
        for node in pair:
            node.start()
        nodes.introduce(*pair)
        nodes.agree(brand_home, pair[1].home, kinds=["overlap"], preapproved=["overlap"])
        pair[0].pause(3)
        job_id = submit(pair[0])
        wait_for(lambda: bucket_of(pair[1], job_id) >= 2)
        pair[0].kill()
        with pair[1].client() as client:
            theirs = client.wait(job_id, 120)
        assert (theirs["state"], theirs["error"]["code"]) == ("failed", "node.interrupted")
        assert not pair[1].home.state(job_id).exists() and not pair[1].home.work(job_id).exists()
        pair[0].start()
        nodes.introduce(*pair)
        with pair[0].client() as client:
            ours = client.wait(job_id, 120)
        assert (ours["state"], ours["error"]["code"]) == ("failed", "node.interrupted")
        assert not brand_home.state(job_id).exists()
    finally:
        for node in pair:
            node.kill()


def test_what_may_run_twice() -> None:
    lookalike, overlap = KINDS["lookalike"], KINDS["overlap"]
    assert [s.name for s in lookalike.stages if not s.repeatable] == ["fit"]  # its noise would average out
    assert repeatable(lookalike, 0, 0) and not repeatable(lookalike, 0, 1) and repeatable(lookalike, 2, 9)
    assert repeatable(overlap, 0, 2) and not repeatable(overlap, -1, 0)
    assert not any(s.repeatable for s in overlap.methods["private_join"].stages)


def test_checkpoints_keep_arrays_tables_and_results(tmp_path: Path) -> None:
    from protocols.lookalike.features import FitResult

    kept = Checkpoints(tmp_path / "state")
    assert kept.latest() == -1
    fit = FitResult(np.arange(3.0), 0.1, np.ones(4), 7, None, 256, 5.0, 20)
    carry = {
        "rows": np.array([1, -1, 2**40]),
        "mask": np.array([True, False]),
        "phi": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "table": pa.table({"x": pa.array(["a", None]).dictionary_encode(), "y": [1.5, None]}),
        "fit": fit,
        "more": {"n": np.int64(3), "f": float("nan"), "t": (1, [None, "x"])},
    }
    assert kept.save(0, {}, {}) and kept.save(1, carry, {"count": 3}) and kept.latest() == 1
    found = kept.load(1)
    assert found.result == {"count": 3} and found.carry["table"].equals(carry["table"])
    for name in ("rows", "mask", "phi"):
        assert (found.carry[name] == carry[name]).all() and found.carry[name].dtype == carry[name].dtype
    assert found.carry["phi"].flags.f_contiguous
    assert (found.carry["fit"].weights == fit.weights).all() and found.carry["fit"].padded_seeds == 256
    assert found.carry["more"]["t"] == (1, [None, "x"]) and np.isnan(found.carry["more"]["f"])
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert not kept.save(2, {"machine": object()}, {}) and kept.latest() == 1
    kept.keep(1)
    assert not (tmp_path / "state" / "at-0").exists()
    (tmp_path / "state" / "at-1" / "1.npy").write_bytes(b"cut off")
    with pytest.raises(NodeError, match=r"node\.interrupted"):
        kept.load(1)
    kept.back_to(-1)
    assert kept.latest() == -1 and not can_go_on(KINDS["overlap"], kept)
    kept.remove()
    assert not (tmp_path / "state").exists()


def test_buckets_that_are_done_are_counted(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    assert kept.buckets() is None
    manifest = tmp_path / "align-receiver" / "manifest.json"
    manifest.parent.mkdir()
    for text in ("", "[]", "{}", '{"done": 1, "plan": null}', '{"done": 0, "plan": {"buckets": 1}}'):
        manifest.write_text(text)
        assert kept.buckets() is None
    manifest.write_text('{"done": 3, "plan": {"buckets": 8}}')
    assert kept.buckets() == (3, 8)


def test_a_view_is_restored_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    from parties.gate import Gate

    home = make_home(tmp_path, "brand", "prov", [f"138{n:08d}" for n in range(50)])
    with home.center() as center:
        gate = Gate(center, home)
        view = gate.open("people", nodes.PURPOSE, "prov", (nodes.CATEGORY,), ("tag",), "job-1")
        view.save(tmp_path / "view")
        again = gate.restore(tmp_path / "view", "people")
        assert (again.items == view.items).all() and (again.own_rows() == view.own_rows()).all()
        assert again.snapshot.document == view.snapshot.document and again.counts == view.counts
        assert again.preflight == view.preflight and again.columns(["tag"]).equals(view.columns(["tag"]))
        assert again.recheck().active
        with (tmp_path / "brand.csv").open("a") as file:
            file.write("13900000000,v\n")
        with pytest.raises(NodeError, match=r"rows\.changed"):
            gate.restore(tmp_path / "view", "people")
        (tmp_path / "view" / "items.npy").unlink()
        with pytest.raises(NodeError, match=r"node\.interrupted"):
            gate.restore(tmp_path / "view", "people")
