"""The examples run from a clone without a network: the script as a whole, the notebook by cells."""

from __future__ import annotations

import ast
import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.mark.slow(seconds=25)
def test_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "lookalike_and_boost.py"), run_name="__main__")
    out = capsys.readouterr().out
    line = next(text for text in out.splitlines() if "together" in text and "alone" in text and "AUC" in text)
    together, alone = (float(part.split()[-1]) for part in line.split(","))
    assert together > 0.97 and together > alone
    assert "audience of 50" in out


@pytest.mark.slow(seconds=25)
def test_the_notebook() -> None:
    """Every code cell, in order, in one namespace; no Jupyter is needed."""
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are not kept in the repository"
            text = "".join(cell["source"])
            exec(compile(ast.parse(text), f"{cell['id']}", "exec"), names)  # noqa: S102
    assert float(names["together"]) > float(names["alone"]) > 0.6  # type: ignore[arg-type]
