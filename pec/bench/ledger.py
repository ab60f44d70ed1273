"""`pec bench ledger`: the log alone: leaf hashes, tiles and commits, then proofs checked by the verifier."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from consent_center.center import Center
from consent_center.hashing import big_endian
from consent_center.ledger import log, verify
from consent_center.ledger.checkpoint import Checkpoint
from consent_center.ledger.proof import check_inclusion
from pec.errors import PecError

Show = Callable[[str, float, float], None]
PROOFS, BODY = 2_000, 96


def run(events: int, batch: int, *, seed: int = 1, show: Show | None = None) -> dict[str, Any]:
    """Figures by name: leaves a second (commits included), milliseconds a proof."""
    note = show or (lambda what, done, total: None)
    rng = np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch,
        Center.create(Path(scratch) / "center", "brand") as center,
    ):
        spent, checkpoints, sample = 0.0, 0.0, []
        before = log_size(center)
        for start in range(0, events, batch):
            note("appending", start, events)
            count = min(batch, events - start)
            salts = rng.integers(0, 256, (count, verify.SALT_SIZE), np.uint8)
            bodies = np.hstack(
                [big_endian(np.arange(count)), rng.integers(0, 256, (count, BODY - 8), np.uint8)]
            )
            began = time.perf_counter()
            with center._write() as connection:
                hashes = log.event_leaves(salts, bodies)
                first = log.append_hashes(connection, hashes)
            spent += time.perf_counter() - began
            began = time.perf_counter()
            center.checkpoint()
            checkpoints = max(checkpoints, time.perf_counter() - began)
            sample += [(first + int(i), hashes[i].tobytes()) for i in rng.integers(0, count, 200)]
        note("proving", events, events)
        opened: Checkpoint = verify.checkpoint(center.checkpoint(), center.verifier_key())
        if opened.size != before + events:
            raise PecError("pec.check", f"the log has {opened.size} leaves, not {before + events}")
        times = []
        for index, leaf in [sample[int(i)] for i in rng.integers(0, len(sample), PROOFS)]:
            began = time.perf_counter()
            path = center.prove(index, opened.size)
            times.append(time.perf_counter() - began)
            check_inclusion(leaf, index, opened.size, path, opened.root)
        return {
            "bench": "ledger",
            "events": events,
            "batch": batch,
            "append_per_second": round(events / spent, 1),
            "checkpoint_ms": round(checkpoints * 1e3, 3),
            "proof_ms": round(float(np.median(times)) * 1e3, 3),
            "proof_p99_ms": round(float(np.percentile(times, 99)) * 1e3, 3),
            "proofs_checked": len(times),
        }


def log_size(center: Center) -> int:
    """Leaves in the center's log."""
    return int(center.checkpoint().split("\n")[1])
