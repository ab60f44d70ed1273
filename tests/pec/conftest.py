"""Files for the command line's tests, and a way to run `pec` as its users do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

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


@pytest.fixture(scope="session")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A brand of 500 with a label, a provider of 600 with numbers, categories and gaps; 400 in both.

    The provider's is as files are: a byte-order mark, semicolons, blanks in the header, other spellings.
    """
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(4)
    numbers = 13_800_000_000 + rng.permutation(700)
    x = rng.normal(size=700)
    loyal = rng.random(700) < 1 / (1 + np.exp(-2 * x))
    brand = pd.DataFrame({"Phone": numbers[:500], "loyal": np.where(loyal[:500], "yes", "no"), "spend": 1.5})
    brand.to_csv(folder / "brand.csv", index=False)
    held = slice(100, 700)
    provider = pd.DataFrame(
        {
            " phone ": [f"+86 {n}" for n in numbers[held]],
            "score": np.where(rng.random(600) < 0.05, "", np.round(x[held], 4).astype(str)),
            "城市": rng.choice(["北京", "上海", "N/A"], 600),
            "constant": 1,
        }
    )
    text = provider.to_csv(index=False, sep=";")
    (folder / "provider.csv").write_text("\ufeff" + text, encoding="utf-8")
    return folder / "brand.csv", folder / "provider.csv"
