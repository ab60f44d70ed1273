"""Align over a line: agree on sizes, then one run, or one a bucket; buckets in this thread, or in workers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from parties import workers
from parties.errors import NodeError
from parties.lanes import Lanes
from parties.workers import Work
from protocols import align
from protocols.align import buckets
from protocols.labels import label
from protocols.machine import Machine
from protocols.oprf.padding import padded_size
from protocols.permute import taken

R = TypeVar("R")

#: Largest sets: what identifies a person fits into memory up to here.
MAX_ROWS = 1 << 27


@dataclass(frozen=True)
class Plan:
    """What both processes are started with. `engine`: where buckets are computed; `lanes`: how many at a time
    (`ray` alone; 0: one a core).
    """

    suite: str
    malicious: bool
    bucket_rows: int
    engine: str = workers.LOCAL
    lanes: int = 0


def receive(line: Any, items: np.ndarray, plan: Plan, clock: Any) -> np.ndarray:
    """int64[n]: the sender's row of each item, or -1."""
    size = padded_size(len(items))
    rows, session = _agree(line, plan, size)
    count, limits = _buckets(plan, size), align.Limits(MAX_ROWS, MAX_ROWS)
    if count == 1:
        common: dict[str, Any] = {"suite": plan.suite, "malicious": plan.malicious}
        machine = align.Receiver(items, session, limits, os.urandom, **common)
        clock.lap("hello")
        return _drive(line, machine, clock).rows
    found = np.full(len(items), -1, dtype=np.int64)
    cap, parts = buckets.capacity(size, count), _split(items, count, session)

    def ask(bucket: int, attempt: int) -> Work:
        filled = buckets.fill(taken(items, parts[bucket]), cap, os.urandom)
        key = _run_session(session, bucket, attempt)
        return Work("receiver", plan.suite, plan.malicious, key, count, limits, filled)

    def keep(bucket: int, result: align.AlignResult) -> None:
        got = result.rows[: len(parts[bucket])]
        if len(got) and int(got.max()) >= rows:
            raise NodeError("transport.malformed", "the sender numbers a row that it does not have")
        found[parts[bucket]] = got

    _run_buckets(line, plan, count, ask, keep, clock)
    return found


def send(line: Any, items: np.ndarray, plan: Plan, clock: Any) -> int:
    """The number of items that the receiver asked about at most, but for buckets that lost their worker."""
    size, session = _agree(line, plan, len(items))
    count, limits = _buckets(plan, size), align.Limits(MAX_ROWS, MAX_ROWS)
    if count == 1:
        common: dict[str, Any] = {"suite": plan.suite, "malicious": plan.malicious}
        machine = align.Sender(items, session, limits, os.urandom, **common)
        clock.lap("hello")
        _drive(line, machine, clock)
        return size
    cap, parts = buckets.capacity(len(items), count), _split(items, count, session)

    def answer(bucket: int, attempt: int) -> Work:
        chosen = parts[bucket]
        filled = buckets.fill(taken(items, chosen), cap, os.urandom)
        # Dummies match nobody, so that their number is never uncovered.
        numbers = np.concatenate([chosen, np.zeros(cap - len(chosen), dtype=np.int64)])
        key = _run_session(session, bucket, attempt)
        return Work("sender", plan.suite, plan.malicious, key, count, limits, filled, numbers)

    _run_buckets(line, plan, count, answer, lambda bucket, result: None, clock)
    return size


def _run_buckets(
    line: Any,
    plan: Plan,
    count: int,
    make: Callable[[int, int], Work],
    keep: Callable[[int, Any], None],
    clock: Any,
) -> None:
    """All buckets: one after the other in this thread, or several at a time in the engine's workers."""
    if plan.engine == workers.LOCAL:
        for bucket in range(count):
            keep(bucket, _drive(line, make(bucket, 0).machine(), clock))
        return
    clock.lap("hello")
    pool = workers.workers_of(plan.engine, plan.lanes)
    Lanes(
        0,
        count,
        pool.width,
        pool,
        send=line.send,
        receive=line.receive,
        work=make,
        finished=keep,
    ).run()
    clock.lap("buckets")


def _agree(line: Any, plan: Plan, own: int) -> tuple[int, bytes]:
    """(the other side's size, the session): both sizes, fresh nonces, and that both were started alike."""
    nonce = os.urandom(32)
    # The number of lanes too: a side opens as many buckets as it has, and the peer must have them open.
    asked = asdict(plan)
    line.send(json.dumps({**asked, "size": own, "nonce": nonce.hex()}).encode())
    try:
        theirs = json.loads(line.receive())
        other, peer_nonce = int(theirs["size"]), bytes.fromhex(theirs["nonce"])
        same = all(theirs[name] == value for name, value in asked.items())
    except (ValueError, KeyError, TypeError) as error:
        raise NodeError("transport.malformed", f"the other party's first message: {error}") from error
    if not same or len(peer_nonce) != 32 or not 0 <= other <= MAX_ROWS:
        raise NodeError("transport.binding", "the two parties were started with different settings")
    low, high = sorted([nonce, peer_nonce])
    session = hashlib.sha256(label("evaluation", "both", "session", low + high)).digest()
    return other, session


def _buckets(plan: Plan, size: int) -> int:
    """By the receiver's size alone: the sender works through its rows block by block anyway. Suite `ecdh`
    does so on both sides: it has buckets only where workers share them.
    """
    cut = plan.suite == "vole" or plan.engine != workers.LOCAL
    return buckets.count(size, 0, plan.bucket_rows) if cut else 1


def _split(items: np.ndarray, count: int, session: bytes) -> list[np.ndarray]:
    return list(buckets.split(buckets.assign(items, count, _session(session, "buckets")), count))


def _run_session(session: bytes, bucket: int, attempt: int) -> bytes:
    return _session(session, f"bucket {bucket}" + (f" attempt {attempt}" if attempt else ""))


def _session(session: bytes, usage: str) -> bytes:
    return hashlib.sha256(label("evaluation", "both", usage, session)).digest()


def _drive(line: Any, machine: Machine[R], clock: Any) -> R:
    for message in machine.start():
        line.send(message)
    while not machine.finished:
        message = line.receive()
        clock.lap("wait")
        for answer in machine.receive(message):
            line.send(answer)
        clock.lap("work")
    return machine.result
