"""No module imports another in a circle; the import contracts (setup.cfg) say the same of packages.

And no two threads of a node import at once what could be begun from two ends (`parties.loading`).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp  # comes with import-linter
import pytest

PACKAGES = ("protocols", "consent_center", "parties", "pec")


def test_no_circle_of_modules() -> None:
    """Imports in functions and those for types alone count too."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert imports["parties.node"] and imports["consent_center.center"]
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(error.args[1])}")
    assert len(order) == len(imports) > 400


ROOT = Path(__file__).resolve().parent.parent


def _in_functions(source: Path) -> Iterator[str]:
    """Names of modules, or of things in them, that are imported inside functions of this file."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_node_has_imported_what_its_threads_import_before_it_has_any() -> None:
    code = (
        "import sys, threading, parties.engine, parties.operator, parties.transport.server\n"
        "from parties import loading; loading.before_threads()\n"
        "print(threading.active_count(), *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=240
    )
    threads, *loaded = done.stdout.split()
    assert threads == "1"
    checked = 0
    for source in [p for package in ("parties", "protocols") for p in (ROOT / package).rglob("*.py")]:
        if ".".join(source.relative_to(ROOT).with_suffix("").parts) not in loaded:
            continue  # a node never runs it
        for name in _in_functions(source):
            path = ROOT.joinpath(*name.split("."))
            module = name if path.is_dir() or path.with_suffix(".py").is_file() else name.rpartition(".")[0]
            if module.partition(".")[0] in ("parties", "protocols") and module != "parties":
                assert module in loaded, f"{source.relative_to(ROOT)} imports {module} in a thread"
                checked += 1
    assert checked > 10


def test_numba_does_without_scipy_and_other_threads_have_it() -> None:
    code = (
        "import sys, threading\n"
        "from protocols import parallel\n"
        "parallel._load_numba_without_scipy()\n"
        "print('numba.np.arraymath' in sys.modules, 'scipy.linalg' in sys.modules, len(sys.meta_path))\n"
        "sys.meta_path.insert(0, parallel._Hidden('scipy.linalg'))\n"
        "def load():\n"
        "    try:\n"
        "        import scipy.linalg; print(scipy.linalg.__name__)\n"
        "    except ImportError as error: print(error)\n"
        "load()\n"
        "thread = threading.Thread(target=load); thread.start(); thread.join()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    usual = subprocess.run(
        [sys.executable, "-c", "import sys, numba; print(len(sys.meta_path))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert done.stdout.splitlines() == [
        f"True False {usual.stdout.strip()}",
        "scipy.linalg is not looked for here",
        "scipy.linalg",
    ]
