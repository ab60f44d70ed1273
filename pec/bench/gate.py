"""`pec bench gate`: bulk decisions with reasons over a stored state, in a process that opens it cold.

The population's states are drawn and stored as `keep_state` stores them; its events, leaves and identifiers
are not written, as nothing that is measured reads them. People who withdraw are recorded with all of that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from consent_center import database as db
from consent_center.batch import NEVER, micros
from consent_center.center import Center
from consent_center.hashing import hmac_strings
from consent_center.identifiers import normalise
from consent_center.model import REASONS, ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.subjects import SALT_SIZE, SALTS_A_ROW, SubjectIndex
from parties import memory
from pec.errors import PecError

Show = Callable[[str, float, float], None]
RECIPIENT, CATEGORY = "partner", "contact"
WITHDRAWALS = 400
ROUNDS = 3
#: Of the population: who granted, refused and withdrew; the rest has no event for the purpose.
SHARES = {"granted": 0.7, "denied": 0.1, "withdrawn": 0.1}


def run(subjects: int, purposes: int, *, seed: int = 1, show: Show | None = None) -> dict[str, Any]:
    """Figures by name: seconds, MiB, milliseconds."""
    note = show or (lambda what, done, total: None)
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        home = Path(scratch) / "center"
        note("drawing the population", 0, 3)
        stored = build(home, subjects, purposes, seed)
        note("deciding", 1, 3)
        child = [
            sys.executable,
            "-P",
            "-m",
            "pec.bench.gate",
            "decide",
            str(home),
            str(subjects),
            str(purposes),
        ]
        out = {"bench": "gate", "subjects": subjects, "purposes": purposes, **_child(child)}
        note("looking up identifiers", 2, 3)
        child = [sys.executable, "-P", "-m", "pec.bench.gate", "identifiers", str(subjects)]
        return out | {"state_file_mb": round(stored / (1 << 20), 1), **_child(child)}


def _child(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PecError("pec.internal", f"the measured process failed: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def phone(number: int) -> str:
    """Of the people who are recorded by the ordinary way."""
    return f"139{number:08d}"


def _event(purpose: int, number: int, action: str, at: datetime) -> ConsentEvent:
    who = (("phone", phone(number)),)
    return ConsentEvent(
        who, f"purpose{purpose}", 1, action, RECIPIENT, (CATEGORY,), at, f"notice{purpose}", 1
    )


def build(home: Path, subjects: int, purposes: int, seed: int) -> int:
    """A center whose state has `subjects` people in each of `purposes`; bytes of the stored state."""
    rng, now = np.random.default_rng(seed), datetime.now(UTC)
    with Center.create(home, "brand") as center:
        for n in range(purposes):
            center.put_purpose(Purpose(f"purpose{n}", 1, {"en": "Benchmark"}, (CATEGORY,), duration_days=365))
            center.put_notice(Notice(f"notice{n}", 1, f"purpose{n}", 1, {"en": "Benchmark"}))
        with center._write() as connection:
            _salts(connection, subjects, rng)
        # These make the contexts and descriptors, and are the people who withdraw later.
        long_ago = now - timedelta(days=100)
        center.record_many([_event(0, n, "granted", long_ago) for n in range(WITHDRAWALS)])
        for n in range(purposes):
            for action in SHARES:
                center.record(_event(n, 0, action, long_ago - timedelta(days=1)))
        state = center._state
        with center._read() as connection:
            state.catch_up(connection)
        for n in range(purposes):
            _populate(center, f"purpose{n}", subjects, rng, now)
        center.keep_state(-1)
    return (home / "state.bitmaps").stat().st_size


def _salts(connection: Any, subjects: int, rng: np.random.Generator) -> None:
    """So that the people recorded later are numbered after the population."""
    full, rest = divmod(subjects, SALTS_A_ROW)
    sizes = [SALTS_A_ROW] * full + [rest] * bool(rest)
    rows = ((chunk, rng.bytes(SALT_SIZE * size)) for chunk, size in enumerate(sizes))
    db.insert_many(connection, db.salts, rows)


def _populate(center: Center, purpose: str, subjects: int, rng: np.random.Generator, now: datetime) -> None:
    state = center._state
    (id,) = [id for id, context in state.contexts.items() if context.purpose == purpose]
    context = state.contexts[id]
    drawn = rng.random(subjects, np.float32)
    begin = 0.0
    for action, share in SHARES.items():
        who = np.flatnonzero((drawn >= begin) & (drawn < begin + share))
        begin += share
        (descriptor,) = [
            d for d, c in state.context_of.items() if c == id and state.descriptors[d]["action"] == action
        ]
        ends = np.full(len(who), NEVER, np.int64)
        if action == "granted":  # in the last 400 days, for 365: some have ended
            ends = micros(now) + rng.integers(-35 * 86_400, 365 * 86_400, len(who)) * 1_000_000
        context.put(who, np.full(len(who), descriptor, np.int64), ends)


def decide(home: Path, subjects: int, purposes: int) -> dict[str, Any]:
    """The measured process."""
    rng = np.random.default_rng(2)
    began = time.perf_counter()
    center = Center.open(home)
    requests = [DecisionRequest(f"purpose{n}", RECIPIENT, (CATEGORY,)) for n in range(purposes)]
    for request in requests:
        center.decide_subjects(request, np.zeros(1, np.int64))
    opened = time.perf_counter() - began
    if center._state.file_sequence == 0:
        raise PecError("pec.check", "the stored state was not used")
    candidates = rng.permutation(np.arange(subjects, dtype=np.int32))
    seconds, counts = [], {}
    for _ in range(ROUNDS):
        slowest = 0.0
        for request in requests:
            began = time.perf_counter()
            found = center.decide_subjects(request, candidates)
            slowest = max(slowest, time.perf_counter() - began)
            counts[request.purpose] = found.counts()
            del found
        seconds.append(slowest)
    lags = []
    for number in range(WITHDRAWALS):
        person = pa.array([phone(number)])
        if number and not center.decide(requests[0], person, "phone").eligible.all():
            raise PecError("pec.check", f"person {number} should be eligible before the withdrawal")
        began = time.perf_counter()
        center.record(_event(0, number, "withdrawn", datetime.now(UTC)))
        code = center.decide(requests[0], person, "phone").codes[0]
        lags.append(time.perf_counter() - began)
        if REASONS[code] != "withdrawn":
            raise PecError("pec.check", f"the withdrawal of person {number} was not enforced")
    center.close()
    return {
        "decide_seconds": round(min(seconds), 4),
        "decide_seconds_worst": round(max(seconds), 4),
        "open_seconds": round(opened, 4),
        "peak_rss_mb": round(memory.peak_mb(), 1),
        "withdrawal_lag_p50_ms": round(float(np.percentile(lags, 50)) * 1e3, 2),
        "withdrawal_lag_p99_ms": round(float(np.percentile(lags, 99)) * 1e3, 2),
        "counts": counts,
    }


def identifiers(subjects: int) -> dict[str, Any]:
    """From a column of raw telephone numbers to subjects, by the index in memory."""
    key = bytes(32)

    def hashed(column: pa.Array) -> Any:
        return hmac_strings(key, b"phone\x00", normalise(column, "phone").values)

    people = pa.array((np.arange(subjects) + 13_000_000_000).astype("U11"))
    index = SubjectIndex()
    began = time.perf_counter()
    index.add(hashed(people), np.arange(subjects))
    built = time.perf_counter()
    order = np.random.default_rng(3).permutation(subjects)
    asked = people.take(pa.array(order))
    asked_at = time.perf_counter()
    pseudonyms = hashed(asked)
    looked = time.perf_counter()
    found = index.lookup(pseudonyms)
    done = time.perf_counter()
    if (found != order).any():
        raise PecError("pec.check", "an identifier led to another subject")
    return {
        "identifier_index_seconds": round(built - began, 3),
        "identifier_hash_seconds": round(looked - asked_at, 3),
        "identifier_lookup_seconds": round(done - looked, 3),
    }


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    measured = decide(Path(rest[0]), *map(int, rest[1:])) if what == "decide" else identifiers(int(rest[0]))
    print(json.dumps(measured))
