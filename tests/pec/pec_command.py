"""Two ways to run `pec`: as its users do, and in the test's own process (two seconds of imports less)."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pec import cli_common
from pec.cli import cli

ROOT = Path(__file__).resolve().parents[2]


class Answer:
    """What a run of `pec` left: exit code, text, and the last line as JSON."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out.strip().splitlines()[-1])

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


def pec(*arguments: str | Path, timeout: float = 400) -> Answer:
    """Run `python -m pec.cli`; the process is waited for, and what it started must be gone with it."""
    command = [sys.executable, "-m", "pec.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def pec_here(*arguments: str | Path) -> Answer:
    """The same command line without a process of its own; the nodes that it starts have theirs."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli_common.run(cli, [str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())
