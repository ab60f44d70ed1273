"""`pec bench align`: two processes that align two files over gRPC with mutual TLS on loopback.

Measured is the whole of both processes, from starting the first to the end of the last: interpreter, imports,
reading CSV, normal forms and hashes, protocol, Parquet of the matched rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pec.bench import data, peer
from pec.bench.ports import free_port
from pec.errors import PecError
from pec.version import __version__

RECEIVER, SENDER = "receiver", "sender"
REASON = "a benchmark on files that whoever runs it may use"
Show = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Inputs:
    """What to measure: sizes of synthetic sets, or two files with a column `id` of identifiers."""

    receiver: int
    sender: int
    suite: str = "vole"
    malicious: bool = False
    receiver_file: Path | None = None
    sender_file: Path | None = None
    id: str = "id"
    kind: str = ""
    seed: int = 1
    runs: int = 1
    peer_python: Path | None = None
    bucket_rows: int | None = None
    engine: str = "local"
    workers: int = 0


def run(given: Inputs, show: Show | None = None) -> dict[str, Any]:
    """Figures of the fastest of `runs` runs; PecError pec.check if synthetic sets match in another number."""
    note = show or (lambda what, done, total: None)
    if (given.receiver_file is None) != (given.sender_file is None):
        raise PecError("pec.usage", "give both --receiver-file and --sender-file, or none of them")
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        root, expected = Path(scratch), None
        if given.receiver_file is None or given.sender_file is None:
            note("making data", 0, 1)
            files = data.align_csv(root, given.receiver, given.sender, seed=given.seed)
            paths, expected, kind = {RECEIVER: files.brand, SENDER: files.provider}, files.expected, "phone"
        else:
            paths, kind = {RECEIVER: given.receiver_file, SENDER: given.sender_file}, given.kind
        keys = _keys(root / "keys")
        found = []
        for number in range(given.runs):
            note(f"run {number + 1}", number, given.runs)
            found.append(_once(given, paths, kind, keys, root / f"run{number}"))
            if expected is not None and found[-1]["matched"] != expected:
                raise PecError("pec.check", f"{found[-1]['matched']} matched, {expected} are in both files")
        out = min(found, key=lambda one: float(one["seconds"]))
        out |= {"runs": [one["seconds"] for one in found], "expected": expected}
        if given.suite == "ecdh":
            note("bare cost", 0, 1)
            bare = _python("parties.evaluation.bare", str(out["sizes"][RECEIVER]), str(out["sizes"][SENDER]))
            out["bare_seconds"] = json.loads(bare)["seconds"]
            out["ratio"] = round(out["seconds"] / out["bare_seconds"], 3)
        if given.peer_python is not None:
            note("the peer", 0, 1)
            peers = [
                peer.run(given.peer_python, paths, given.id, root, given.suite) for _ in range(given.runs)
            ]
            out["peer"] = min(peers, key=lambda one: float(one["seconds"]))
            out["times_faster"] = round(out["peer"]["seconds"] / out["seconds"], 2)
    return out


def _once(given: Inputs, paths: dict[str, Path], kind: str, keys: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    port, processes = free_port(), {}
    environment = {**os.environ, **threads()}
    began = time.monotonic()
    for role in (SENDER, RECEIVER):
        command = [sys.executable, "-P", "-m", "parties.evaluation.align", role, "--file", str(paths[role])]
        command += ["--id", given.id, "--kind", kind, "--suite", given.suite, "--reason", REASON]
        command += ["--keys", str(keys), "--port", str(port), "--out", str(folder), "--began", repr(began)]
        command += ["--malicious"] if given.malicious else []
        command += ["--bucket-rows", str(given.bucket_rows)] if given.bucket_rows else []
        command += ["--engine", given.engine, "--workers", str(given.workers)]
        processes[role] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(processes)
    seconds = time.monotonic() - began
    sides = {role: json.loads((folder / f"{role}.json").read_text()) for role in processes}
    mine = sides[RECEIVER]
    return {
        "bench": "align",
        "version": __version__,
        "cores": os.cpu_count(),
        "suite": given.suite,
        "malicious": given.malicious,
        "engine": given.engine,
        "sizes": {role: side["items"] for role, side in sides.items()},
        "seconds": round(seconds, 3),
        "matched": mine["matched"],
        "bytes_sent": mine["bytes_sent"],
        "bytes_received": mine["bytes_received"],
        "peak_rss_mb": {role: side["peak_rss_mb"] for role, side in sides.items()},
        "cpu_seconds": {role: side["cpu_seconds"] for role, side in sides.items()},
        "stages": mine["stages"],
        "stages_sender": sides[SENDER]["stages"],
    }


def wait_for(processes: dict[str, subprocess.Popen[str]], timeout: float = 3600.0) -> None:
    """Until all have ended; when one fails the others are ended as well, and its own words are the error."""
    failed, end = "", time.monotonic() + timeout
    while any(process.poll() is None for process in processes.values()) and not failed:
        for role, process in processes.items():
            if process.poll():
                failed = role
        if time.monotonic() > end:
            failed = "time"
        time.sleep(0.002)
    for role, process in processes.items():
        if failed and process.poll() is None:
            process.kill()
        said = (process.communicate()[1] or "").strip()
        if process.returncode and role == (failed or role):
            raise PecError(
                "pec.bench", f"the {role}'s process ended with {process.returncode}: {said[-600:]}"
            )
    if failed:
        raise PecError("pec.bench", f"no end after {timeout:.0f} s")


def threads() -> dict[str, str]:
    """Both parties share this machine: each gets its part of the cores for loops that run on all."""
    if "NUMBA_NUM_THREADS" in os.environ:
        return {}
    return {"NUMBA_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2)), "OMP_NUM_THREADS": "1"}


def _keys(folder: Path) -> Path:
    from parties import identity

    for role in (RECEIVER, SENDER):
        identity.create(folder / role, role)
    return folder


def _python(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PecError("pec.bench", f"{module} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout
