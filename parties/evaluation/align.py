"""One party of `pec bench align`: a file in, one aligned set out, nothing else.

    python -m parties.evaluation.align receiver --file a.csv --id id --keys DIR --port P --out DIR …

The receiver writes `matched.parquet` (its identifiers that the sender has, and the sender's row of each) into
`--out`; both write `<role>.json`: sizes, bytes, seconds of each stage, peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

RECEIVER, SENDER = "receiver", "sender"

#: Receivers of more padded items than this work by bucket, in suite `vole`: bounds what a bucket's run holds.
BUCKET_ROWS = 1 << 21


class Clock:
    """Seconds of each stage, from the moment at which the starter started the process."""

    def __init__(self, began: float) -> None:
        self._at = began
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.stages[stage] = round(self.stages.get(stage, 0.0) + now - self._at, 4)
        self._at = now


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    clock = Clock(options.began or time.monotonic())
    from parties.errors import PartyError
    from protocols import packs

    if os.environ.get("NUMBA_NUM_THREADS") == "1":
        packs.enable()  # with one core there is nothing that numba's parallel loops could add
    else:
        packs.enable_for_small()

    try:
        return _run(options, clock)
    except PartyError as error:
        print(json.dumps({"error": {"code": error.code, "detail": error.detail}}), file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, clock: Clock) -> int:
    from parties import gate, memory, workers
    from parties.evaluation import link, runs

    clock.lap("start")
    workers.check(options.engine)
    plan = runs.Plan(options.suite, options.malicious, options.bucket_rows, options.engine, options.workers)
    if options.engine != workers.LOCAL:
        # Before the line opens: Ray sets up processes of its own, and the peer must not wait for them.
        plan = replace(plan, lanes=workers.start_ray(options.workers).width)
        clock.lap("engine")
    view = gate.assume_file(
        options.file, options.id, options.kind, reason=options.reason, values=options.role == RECEIVER
    )
    clock.lap("read")
    out: dict[str, Any] = {"rows": view.preflight.read, "items": view.rows, "consent": view.snapshot.document}

    items, values = view.items, view.values
    del view  # its row numbers are as many bytes again as the items

    def receive(line: link.Line) -> None:
        found = runs.receive(line, items, plan, clock)
        _write(options.out / "matched.parquet", options.id, values, found)
        out["matched"] = int((found >= 0).sum())
        clock.lap("write")
        out.update(bytes_sent=line.bytes_sent, bytes_received=line.bytes_received)

    def send(line: link.Line) -> None:
        out["asked_at_most"] = runs.send(line, items, plan, clock)
        out.update(bytes_sent=line.bytes_sent, bytes_received=line.bytes_received)

    try:
        (link.connect if options.role == RECEIVER else link.serve)(
            options.keys, options.port, receive if options.role == RECEIVER else send
        )
        clock.lap("end")
    finally:
        workers.stop_ray()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    out |= {
        "stages": clock.stages,
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_rss_mb": round(memory.peak_mb(), 1),
    }
    (options.out / f"{options.role}.json").write_text(json.dumps(out))
    return 0


def _write(path: Path, name: str, values: Any, found: Any) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from parties import gate

    hit = np.flatnonzero(found >= 0)
    table = pa.table({name: values.take(hit), "sender_row": gate.integers(found[hit])})
    pq.write_table(table, path, compression="none", use_dictionary=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="One party of an alignment of two files.")
    parser.add_argument("role", choices=(RECEIVER, SENDER))
    parser.add_argument("--file", required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--kind", default="")
    parser.add_argument("--suite", default="vole")
    parser.add_argument("--malicious", action="store_true")
    parser.add_argument("--bucket-rows", type=int, default=BUCKET_ROWS)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--reason", required=True)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--began", type=float, default=0.0)
    return parser


if __name__ == "__main__":
    code = main()
    # What is left is the interpreter's tidying up; files are closed and the line is.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
