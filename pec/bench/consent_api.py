"""`pec bench consent-api`: the service under gunicorn, its clients in another process, both on this machine.

Decisions write their ledger leaf, events their states and leaf; each answer comes after its commit (SQLite,
synchronous FULL). Batches go as Arrow over the same service. Afterwards fsck must find nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from consent_center.center import Center
from consent_center.client import open_center
from consent_center.model import Notice, Purpose
from pec.errors import PecError

Show = Callable[[str, float, float], None]
PEOPLE, BATCHES = 20_000, 4
_ASK = {"purpose": "ads", "recipient": "partner", "categories": ["contact"]}


def run(
    clients: int, seconds: float, batch: int, workers: int, threads: int, show: Show | None = None
) -> dict[str, Any]:
    """Figures by name: a second, milliseconds, CPU seconds."""
    note = show or (lambda what, done, total: None)
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        home = Path(scratch) / "center"
        note("making a center", 0, 4)
        with Center.create(home, "brand") as center:
            center.put_purpose(Purpose("ads", 1, {"en": "Benchmark"}, ("contact",), duration_days=365))
            center.put_notice(Notice("text", 1, "ads", 1, {"en": "Benchmark"}))
            center.record_many(events(0, PEOPLE, "139"))
        with served(home, workers, threads) as (pid, port, location):
            plan = {
                "pid": pid,
                "port": port,
                "clients": clients,
                "seconds": seconds,
                "people": PEOPLE,
                "token": (home / "rest.token").read_text().strip(),
            }
            note("decisions", 1, 4)
            asked = {"what": "decisions", "body": {**_ASK, "kind": "phone"}, "expect": '"eligible"'}
            load({**plan, **asked, "seconds": min(2.0, seconds)})  # warms the workers
            decisions = load({**plan, **asked})
            note("events", 2, 4)
            at = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
            told = {**_ASK, "purpose_version": 1, "action": "granted", "notice": "text", "notice_version": 1}
            single = load(
                {**plan, "what": "events", "body": {**told, "occurred_at": at}, "expect": '"sequence"'}
            )
            note("batches", 3, 4)
            with open_center(location) as remote:
                rates = []
                for number in range(BATCHES):
                    table = events(number * batch, batch, "137")
                    began = time.perf_counter()
                    if remote.record_many(table).count != batch:
                        raise PecError("pec.check", "a batch was not recorded whole")
                    rates.append(batch / (time.perf_counter() - began))
        with Center.open(home) as center:
            found = center.fsck()
            if found is not None:
                raise PecError("pec.check", f"fsck: {found}")
            total = center.record_many(events(0, 1, "136")).first_sequence - 1
        expected = PEOPLE + int(single["count"]) + BATCHES * batch
        if total != expected:
            raise PecError("pec.check", f"{total} events are stored, {expected} were acknowledged")
    return {
        "bench": "consent-api",
        "clients": clients,
        "workers": workers,
        "threads": threads,
        "decisions_per_second": round(decisions["count"] / decisions["seconds"], 1),
        "p50_ms": round(decisions["p50_ms"], 2),
        "p99_ms": round(decisions["p99_ms"], 2),
        "worst_ms": round(decisions["worst_ms"], 2),
        "events_per_second": round(single["count"] / single["seconds"], 1),
        "events_p99_ms": round(single["p99_ms"], 2),
        "batch": batch,
        "batch_events_per_second": round(max(rates), 1),
        "batch_events_per_second_worst": round(min(rates), 1),
        "cpu_seconds": {
            "client": round(decisions["cpu_seconds"], 2),
            "server": round(decisions["server_cpu_seconds"], 2),
            "client_events": round(single["cpu_seconds"], 2),
            "server_events": round(single["server_cpu_seconds"], 2),
        },
    }


def events(first: int, count: int, prefix: str) -> pa.Table:
    """Grants of `count` people, as a table for `record_many`."""
    numbers = np.char.add(prefix, np.char.zfill(np.arange(first, first + count).astype("U8"), 8))
    at = int((datetime.now(UTC) - timedelta(days=1)).timestamp()) * 1_000_000

    def all_rows(value: Any) -> pa.Array:
        return pa.array([value]).take(pa.array(np.zeros(count, np.int64)))

    return pa.table(
        {
            "phone": pa.array(numbers),
            **{name: all_rows(value) for name, value in _ASK.items() if name != "categories"},
            "categories": all_rows("contact"),
            "purpose_version": all_rows(1),
            "action": all_rows("granted"),
            "notice": all_rows("text"),
            "notice_version": all_rows(1),
            "occurred_at": all_rows(at).cast(pa.timestamp("us", "UTC")),
        }
    )


@contextmanager
def served(home: Path, workers: int, threads: int) -> Iterator[tuple[int, int, str]]:
    """`pec consent serve` in a process of its own: (process, port, what `open_center` takes)."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "pec",
        "consent",
        "serve",
        "--center",
        str(home),
        "--port",
        "0",
        "--json",
    ]
    command += ["--workers", str(workers), "--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                _, told = process.communicate(timeout=10)
                raise PecError("pec.internal", f"the service did not start: {told.strip()[-400:]}")
            data = json.loads(line)
            yield process.pid, int(data["url"].rpartition(":")[2]), data["center"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def load(plan: dict[str, Any]) -> dict[str, float]:
    """Run `pec.bench.load` in a process of its own."""
    command = [sys.executable, "-P", "-m", "pec.bench.load"]
    used = cpu_of(plan["pid"])
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=False)
    if done.returncode:
        raise PecError("pec.internal", f"the load generator failed: {done.stderr.strip()[-400:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return {**found, "server_cpu_seconds": cpu_of(plan["pid"]) - used}


def cpu_of(master: int) -> float:
    """Processor seconds of the service: its master and its workers."""
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    used = 0
    for pid in (master, *workers):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")
