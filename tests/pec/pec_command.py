"""A way to run `pec` as its users do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Answer:
    """What a run of `pec` left: exit code, text, and the last line as JSON."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out.strip().splitlines()[-1])

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


def pec(*arguments: str | Path, timeout: float = 120) -> Answer:
    """Run `python -m pec.cli`; the process is waited for, and what it started must be gone with it."""
    command = [sys.executable, "-m", "pec.cli", *map(str, arguments)]
    return Answer(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    )
