"""Buckets in workers: the rows of a plain join, also when a worker is killed; a local Ray cluster of two."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_aligning import SETTINGS, both, items_of, oracle

from parties import lanes, workers
from parties.errors import NodeError
from parties.evaluation import runs
from parties.evaluation.align import Clock
from parties.kinds import aligning

MINE, THEIRS = range(0, 500), range(300, 800)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Two workers on this machine; nothing of it is left afterwards."""
    if find_spec("ray") is None:  # and no import: its settings are read from the environment then
        pytest.skip("Ray is not installed: pip install 'pec[ray]'")
    workers.start_ray(2)
    try:
        yield
    finally:
        workers.stop_ray()


def align(folder: Path, engines: tuple[str, str], usable: np.ndarray | None = None, **changes: Any) -> dict:
    usable = np.ones(len(THEIRS), bool) if usable is None else usable
    left, right = items_of(*MINE), items_of(*THEIRS)
    brand, provider = (replace(SETTINGS, engine=engine, workers=2) for engine in engines)
    return both(
        folder,
        lambda ctx: aligning.receive(ctx, left),
        lambda ctx: aligning.send(ctx, right, usable),
        brand=brand,
        provider=provider,
        **changes,
    )


class Mortal:
    """Local workers in threads; `deaths`: the calls (counted over all workers) at which a worker is lost."""

    def __init__(self, width: int = 3, deaths: tuple[int, ...] = ()) -> None:
        self.width, self.deaths = width, set(deaths)
        self.calls = self.alive = self.most = 0
        self._lock, self._free = threading.Lock(), threading.Semaphore(width)

    def take(self) -> Any:
        self._free.acquire()
        with self._lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        return _Dying(self)

    def give(self, worker: Any, lost: bool = False) -> None:
        with self._lock:
            self.alive -= 1
        self._free.release()

    def close(self) -> None:
        pass

    def count(self) -> None:
        with self._lock:
            self.calls += 1
            if self.calls in self.deaths:
                raise workers.WorkerLost("by the test")


class _Dying:
    def __init__(self, owner: Mortal) -> None:
        self._owner, self._run = owner, workers.BucketRun()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self._owner.count()
            time.sleep(0.001)  # so that buckets do overlap
            return getattr(self._run, name)(*arguments)

        return call


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put `Mortal` workers in the place of Ray's on the sides that say "ray"; the latest first."""
    made: list[Mortal] = []

    def use(deaths: tuple[int, ...], width: int = 3) -> list[Mortal]:
        def workers_of(engine: str, size: int = 0, address: str = "") -> Any:
            if engine == workers.LOCAL:
                return workers.LocalWorkers()
            made.append(Mortal(width, deaths))
            return made[-1]

        monkeypatch.setattr(workers, "workers_of", workers_of)
        monkeypatch.setattr(workers, "start_ray", lambda *_: workers.Cluster(width))
        return made

    return use


def right_rows(found: dict, usable: np.ndarray | None = None) -> bool:
    due = oracle(MINE, THEIRS)
    if usable is not None:
        due[np.isin(due, np.flatnonzero(~usable))] = -1
    return bool((found["brand"].rows == due).all())


def test_several_buckets_at_a_time_give_the_rows_of_a_plain_join(tmp_path: Path, mortal: Any) -> None:
    made = mortal(())
    usable = np.ones(len(THEIRS), bool)
    usable[::7] = False
    found = align(tmp_path, ("ray", "ray"), usable)
    assert right_rows(found, usable)
    assert max(m.most for m in made) > 1 and all(m.alive == 0 for m in made)
    assert found["brand context"].result["restarted_buckets"] == 0
    assert not list(tmp_path.glob("*/align-*"))


@pytest.mark.parametrize("engines", [("ray", "ray"), ("ray", "local"), ("local", "ray")])
@pytest.mark.parametrize("deaths", [(1,), (3, 5), (4, 6, 9)])
def test_a_lost_worker_costs_its_bucket(tmp_path: Path, mortal: Any, engines: Any, deaths: Any) -> None:
    mortal(deaths)
    log: list[Any] = []
    found = align(tmp_path, engines, log=log)
    assert right_rows(found)
    restarts = found["brand context"].result["restarted_buckets"]
    assert restarts == found["provider context"].result["restarted_buckets"] >= 1
    # Each attempt is in the sender's ledger before it begins, and in the number that it reports.
    asked = [payload["asked_at_most"] for kind, payload in log if kind == "job.asked"]
    assert len(asked) == 1 + restarts and sum(asked) == found["provider"]


def test_workers_that_always_die_end_the_job(tmp_path: Path, mortal: Any) -> None:
    mortal(tuple(range(1, 10000)))
    found = align(tmp_path, ("ray", "local"))
    assert isinstance(found["brand"], NodeError) and found["brand"].code == "node.worker"


FRAME = lanes._HEAD


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"\x01"], "lacks its head"),
        ([FRAME.pack(1, 3, 0)], "not open"),
        ([FRAME.pack(1, 0, 1)], "not open"),
        ([FRAME.pack(3, 0, 2)], "not open"),
        ([FRAME.pack(9, 0, 0)], "kind 9"),
        ([FRAME.pack(2, 0, 0), FRAME.pack(1, 0, 0) + b"x"], "after its end"),
        ([FRAME.pack(2, 0, 0), FRAME.pack(3, 0, 1)], "after its end"),
        ([FRAME.pack(3, 0, n) for n in range(1, 10)], "workers were lost"),
    ],
)
def test_frames_that_make_no_sense_end_it(frames: list[bytes], words: str) -> None:
    from protocols import align as protocol

    left = list(frames)

    def receive() -> bytes:
        if not left:
            time.sleep(5)
        return left.pop(0)

    def work(bucket: int, attempt: int) -> workers.Work:
        limits = protocol.Limits()
        return workers.Work("sender", "ecdh", False, bytes(32), 4, limits, items_of(1, 2), np.arange(2))

    run = lanes.Lanes(
        0,
        4,
        2,
        workers.LocalWorkers(),
        send=lambda message: None,
        receive=receive,
        work=work,
        finished=lambda bucket, result: None,
    )
    with pytest.raises(NodeError, match=words):
        run.run()


def test_ray_that_is_not_there_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NodeError, match=r"node\.engine.*not installed"):
        workers.check("ray")
    found = align(tmp_path, ("ray", "local"))
    assert found["brand"].code == "node.engine"


@pytest.mark.slow
def test_ray_gives_the_same_and_survives_a_killed_worker(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    plain = align(tmp_path / "plain", ("local", "local"))
    (tmp_path / "ray").mkdir()
    told = align(tmp_path / "ray", ("local", "ray"))
    assert right_rows(plain) and (plain["brand"].rows == told["brand"].rows).all()

    killed: list[int] = []
    original = workers._Remote.receive

    def receive(self: Any, message: bytes) -> Any:
        if not killed:
            killed.append(self.process())
            assert killed[0] != os.getpid()
            os.kill(killed[0], signal.SIGKILL)
        return original(self, message)

    monkeypatch.setattr(workers._Remote, "receive", receive)
    (tmp_path / "kill").mkdir()
    found = align(tmp_path / "kill", ("ray", "local"))
    assert killed and right_rows(found)
    assert found["brand context"].result["restarted_buckets"] >= 1


class _Line:
    """One end of the line of `pec bench align`, in this process."""

    def __init__(self, outgoing: queue.Queue, incoming: queue.Queue) -> None:
        self._outgoing, self._incoming = outgoing, incoming

    def send(self, message: bytes) -> None:
        self._outgoing.put(message)

    def receive(self) -> bytes:
        message = self._incoming.get(timeout=240)
        if isinstance(message, BaseException):
            raise NodeError("transport.lost", "the other party ended")
        return message


def bench(plans: tuple[runs.Plan, runs.Plan]) -> Any:
    """int64[n] of the receiver by `parties.evaluation.runs`, or the error of whoever failed first."""
    ways: tuple[queue.Queue, queue.Queue] = (queue.Queue(), queue.Queue())
    clock = Clock(time.monotonic())
    failed: list[BaseException] = []

    def half(role: Any, line: _Line, items: np.ndarray, plan: runs.Plan) -> Any:
        try:
            return role(line, items, plan, clock)
        except BaseException as error:
            failed.append(error)
            line.send(error)
            return None

    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(half, runs.send, _Line(ways[1], ways[0]), items_of(*THEIRS), plans[1])
        rows = half(runs.receive, _Line(ways[0], ways[1]), items_of(*MINE), plans[0])
        other.result(60)
    if failed:
        raise failed[0]
    return rows


@pytest.mark.parametrize("suite", ["vole", "ecdh"])
def test_the_bench_finds_the_same_in_workers(mortal: Any, suite: str) -> None:
    plan = runs.Plan(suite, False, 128)
    plain = bench((plan, plan))
    made = mortal((3, 9))  # and if some of them are lost
    ray = replace(plan, engine="ray", lanes=3)
    assert (bench((ray, ray)) == plain).all() and (plain == oracle(MINE, THEIRS)).all()
    assert len(made) == 2 and max(m.most for m in made) > 1


def test_the_bench_needs_the_same_engine_on_both_sides() -> None:
    plan = runs.Plan("vole", False, 128)
    with pytest.raises(NodeError, match=r"transport\.binding"):
        bench((plan, replace(plan, engine="ray", lanes=2)))


@pytest.mark.slow
def test_the_bench_finds_the_same_in_ray(ray_cluster: None) -> None:
    plan = runs.Plan("ecdh", False, 256)
    ray = replace(plan, engine="ray", lanes=2)
    assert (bench((ray, ray)) == oracle(MINE, THEIRS)).all()


@pytest.mark.slow
def test_the_cluster_is_of_this_machine_alone(ray_cluster: None) -> None:
    """No port of it listens beyond 127.0.0.1."""
    family = {int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and of_ray(p)}
    assert len(family) >= 2
    inodes = set()
    for number in family:
        # Ended meanwhile: it listens no more. What the system says then is one of three things.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for link in Path(f"/proc/{number}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    target = os.readlink(link)
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
    own = {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.add(fields[1].split(":")[0])
    assert listening and listening <= own


def of_ray(process: Path) -> bool:
    """Whether a process descends from this one."""
    number = int(process.name)
    while number > 1 and number != os.getpid():
        try:
            number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return number == os.getpid()
