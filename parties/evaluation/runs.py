"""Align over a line: agree on sizes, then one run, or one a bucket."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from parties.errors import NodeError
from protocols import align
from protocols.align import buckets
from protocols.labels import label
from protocols.machine import Machine
from protocols.oprf.padding import padded_size

R = TypeVar("R")

#: Largest sets: what identifies a person fits into memory up to here.
MAX_ROWS = 1 << 27


@dataclass(frozen=True)
class Plan:
    """What both processes are started with."""

    suite: str
    malicious: bool
    bucket_rows: int


def receive(line: Any, items: np.ndarray, plan: Plan, clock: Any) -> np.ndarray:
    """int64[n]: the sender's row of each item, or -1."""
    size = padded_size(len(items))
    rows, session = _agree(line, plan, size)
    count, limits = _buckets(plan, size), align.Limits(MAX_ROWS, MAX_ROWS)
    common: dict[str, Any] = {"suite": plan.suite, "malicious": plan.malicious}
    if count == 1:
        machine = align.Receiver(items, session, limits, os.urandom, **common)
        clock.lap("hello")
        return _drive(line, machine, clock).rows
    found = np.full(len(items), -1, dtype=np.int64)
    cap = buckets.capacity(size, count)
    for number, chosen in enumerate(_split(items, count, session)):
        filled = buckets.fill(items[chosen], cap, os.urandom)
        key = _session(session, f"bucket {number}")
        machine = align.Receiver(filled, key, limits, os.urandom, numbered=True, runs=count, **common)
        got = _drive(line, machine, clock).rows[: len(chosen)]
        if len(got) and int(got.max()) >= rows:
            raise NodeError("transport.malformed", "the sender numbers a row that it does not have")
        found[chosen] = got
    return found


def send(line: Any, items: np.ndarray, plan: Plan, clock: Any) -> int:
    """The number of items that the receiver asked about at most."""
    size, session = _agree(line, plan, len(items))
    count, limits = _buckets(plan, size), align.Limits(MAX_ROWS, MAX_ROWS)
    common: dict[str, Any] = {"suite": plan.suite, "malicious": plan.malicious}
    if count == 1:
        machine = align.Sender(items, session, limits, os.urandom, **common)
        clock.lap("hello")
        _drive(line, machine, clock)
        return size
    cap = buckets.capacity(len(items), count)
    for number, chosen in enumerate(_split(items, count, session)):
        filled = buckets.fill(items[chosen], cap, os.urandom)
        # Dummies match nobody, so that their number is never uncovered.
        numbers = np.concatenate([chosen, np.zeros(cap - len(chosen), dtype=np.int64)])
        key = _session(session, f"bucket {number}")
        machine = align.Sender(filled, key, limits, os.urandom, numbers=numbers, runs=count, **common)
        _drive(line, machine, clock)
    return size


def _agree(line: Any, plan: Plan, own: int) -> tuple[int, bytes]:
    """(the other side's size, the session): both sizes, fresh nonces, and that both were started alike."""
    nonce = os.urandom(32)
    asked = {"suite": plan.suite, "malicious": plan.malicious, "bucket_rows": plan.bucket_rows}
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
    """By the receiver's size alone: the sender works through its rows block by block in any case."""
    return buckets.count(size, 0, plan.bucket_rows) if plan.suite == "vole" else 1


def _split(items: np.ndarray, count: int, session: bytes) -> Iterator[np.ndarray]:
    return buckets.split(buckets.assign(items, count, _session(session, "buckets")), count)


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
