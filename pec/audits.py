"""Audit bundles: fetching a job's, and verifying in a process that has nothing but the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pec.errors import PecError
from pec.network import Party

BUNDLE = "audit.zip"
SECONDS = 120.0


def collect(party: Party, job_id: str, folder: Path) -> Path:
    """A copy of the job's bundle in `folder`, named after the job. Raises `pec.file`."""
    source = party.home.job(job_id) / BUNDLE
    if not source.is_file():
        raise PecError(
            "pec.file", f"{party.name} has no audit bundle of {job_id}", "only a finished job has one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{job_id}.zip"
    shutil.copyfile(source, target)
    return target


def verify_apart(bundle: Path, cards: Iterable[Mapping[str, Any]]) -> bool:
    """Whether `pec audit verify`, as a process of its own, accepts the bundle against these cards."""
    return verify_all_apart([bundle], cards)[0]["ok"] is True


def verify_all_apart(bundles: Sequence[Path], cards: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As `verify_apart`, for several bundles of the same parties in one process: {bundle, ok, checks} each.

    The process starts in an empty directory with no environment of ours that could lead it to a node's home.
    """
    with tempfile.TemporaryDirectory(prefix="pec-verify-") as empty:
        arguments = [str(b.absolute()) for b in bundles]
        for number, card in enumerate(cards):
            path = Path(empty) / f"card-{number}.json"
            path.write_text(json.dumps(card), encoding="utf-8")
            arguments += ["--trust", str(path)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("PEC_")}
        root = str(Path(__file__).resolve().parents[1])
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH", "")]))
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pec.cli", "audit", "verify", *arguments, "--json"],
                cwd=empty,
                env=env,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PecError("pec.timeout", f"pec audit verify did not end within {SECONDS:.0f} s") from None
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        found: list[dict[str, Any]] = answer["bundles"]
    except (IndexError, ValueError, KeyError, TypeError):
        said = (done.stderr or done.stdout).strip()[-400:]
        raise PecError("pec.bundle", f"pec audit verify ended with {done.returncode}: {said}") from None
    return found
