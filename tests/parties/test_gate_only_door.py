"""There is no second way to open a data set: shown from the source, not from what happens to run.

`lint-imports` holds the contract that only `parties.gate` may import `parties.rows`. Here every call that
could read a table is looked for in the syntax trees of `parties` and `pec`, and only the files named below
may have one.
"""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Calls that turn a file into rows, whatever object they are called on.
READERS = {
    "read_csv", "read_table", "read_parquet", "read_excel", "read_feather", "read_orc", "read_ipc",
    "read_sql", "read_pickle", "read_fwf", "read_xml", "read_pandas", "scan_csv", "scan_parquet",
    "open_csv", "ParquetFile", "ParquetDataset", "parquet_dataset", "from_csv_auto", "from_parquet",
    "genfromtxt", "loadtxt", "fromfile", "memmap", "DictReader",
}  # fmt: skip

#: Modules whose readers have common names: `duckdb.connect`, `csv.reader`, `pyarrow.dataset.dataset` …
MODULES = {
    "duckdb",
    "csv",
    "pandas",
    "polars",
    "sqlite3",
    "pyarrow.dataset",
    "pyarrow.csv",
    "pyarrow.json",
    "pyarrow.orc",
}

#: Who may, and why.
ALLOWED = {
    "parties/rows.py": "the reader itself",
    "parties/sql_filter.py": "evaluates a filter over arrays in memory; its DuckDB can't reach files",
    "parties/kinds/bucket_store.py": "reads back the items of a view that it has written itself, by bucket",
    "parties/kinds/lead_score.py": "reads back the scores that its two fits have just written for the brand",
    "parties/scratch.py": "keeps what a job has made from a view (Φ, keys) in a nameless file",
    "parties/store.py": "the database of jobs, which holds no person",
    "pec/tables.py": "prepares an evaluator's own files for `pec simulate`",
    "pec/audience.py": "reads and writes results that were released to the brand",
    "pec/cli_scores.py": "shows scores that were released to the brand",
    "pec/outcome.py": "reads results that were released to the brand, and measures them again",
    "pec/supervised.py": "reads results that were released to the brand, and measures them again",
    "pec/leads.py": "reads results that were released to the brand, and measures them again",
    "pec/cli_consent_rules.py": "reads the compliance staff's list of regions for the consent center",
    "pec/oracle.py": "knows the truth of demo and simulate, to compare with",
    "pec/pooled.py": "plain scikit-learn for demo, simulate and bench, where one person has both files",
    "pec/simulate.py": "plays both parties on an evaluator's own files",
}
ALLOWED_FOLDERS = {
    "pec/demo/": "makes the demo's data and knows the truth to compare with",
    "pec/bench/": "makes synthetic data",
    "pec/vertical/": "takes the brand's own tables, and reads results that were released to it",
}


def sources() -> list[Path]:
    found = [p for package in ("parties", "pec") for p in sorted((ROOT / package).rglob("*.py"))]
    return [p for p in found if not p.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """The trees are large: not kept beyond this file."""
    yield
    nodes.cache_clear()


@cache
def nodes(source: str) -> list[ast.AST]:
    """The syntax tree's nodes; each module is looked through by several tests."""
    return list(ast.walk(ast.parse(source)))


def openings(source: str) -> list[str]:
    """Names of calls and imports in a module that could read a table."""
    hits = []
    for node in nodes(source):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in READERS:
                hits.append(f"{name} in line {node.lineno}")
        elif isinstance(node, ast.Import):
            hits += [f"import {a.name} in line {node.lineno}" for a in node.names if a.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            imported = {a.name for a in node.names} & READERS
            hits += [f"import {n} in line {node.lineno}" for n in sorted(names & MODULES) + sorted(imported)]
        elif isinstance(node, ast.Attribute) and node.attr in READERS and not isinstance(node.ctx, ast.Store):
            hits.append(f"{node.attr} in line {node.lineno}")  # passed on without being called
    return hits


def allowed(path: str) -> bool:
    return path in ALLOWED or path.startswith(tuple(ALLOWED_FOLDERS))


def test_nobody_else_reads_tables():
    found = {}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if not allowed(name) and (hits := openings(path.read_text())):
            found[name] = hits
    assert not found, f"a data set could be opened beside the gate: {found}"


def test_what_parties_may_is_as_small_as_it_says():
    """In `parties`, only rows.py may name a file reader; the filter uses DuckDB on arrays only."""
    for name in ("parties/sql_filter.py", "parties/persons.py"):
        hits = [h for h in openings((ROOT / name).read_text()) if not h.startswith("import duckdb")]
        assert not hits, f"{name} names a reader: {hits}"


@pytest.mark.parametrize(
    "source",
    [
        "import duckdb",
        "from csv import reader",
        "import pandas as pd\nframe = pd.read_csv('x')",
        "from pyarrow.parquet import ParquetFile",
        "import pyarrow.dataset as ds",
        "from pyarrow import csv",
        "import pyarrow.parquet as pq\nf = pq.read_table\nf('x')",
        "import numpy as np\nnp.genfromtxt('x')",
    ],
)
def test_the_search_finds_what_it_should(source):
    assert openings(source)


def test_only_the_gate_imports_rows():
    importers = []
    for path in sources():
        for node in nodes(path.read_text()):
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Import):
                names = {a.name for a in node.names}
            else:
                continue
            if "parties.rows" in names:
                importers.append(path.relative_to(ROOT).as_posix())
    assert importers == ["parties/gate.py"]


def test_the_import_contract_is_in_place():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    contract = config["importlinter:contract:gate"]
    assert contract["type"] == "protected"
    assert contract["protected_modules"].split() == ["parties.rows"]
    assert contract["allowed_importers"].split() == ["parties.gate"]


def test_only_evaluations_may_assume_consent():
    """`gate.assume_file` is for processes that no node starts; nothing that a node runs names it."""
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if name == "parties/gate.py" or name.startswith("parties/evaluation/"):
            continue
        tree = nodes(path.read_text())
        named = {n.attr for n in tree if isinstance(n, ast.Attribute)}
        named |= {n.id for n in tree if isinstance(n, ast.Name)}
        named |= {a.name for n in tree if isinstance(n, ast.ImportFrom) for a in n.names}
        assert not named & {"assume_file", "AssumedView"}, f"{name} could open a file without consent"
        imported = {f"{n.module}.{a.name}" for n in tree if isinstance(n, ast.ImportFrom) for a in n.names}
        imported |= {a.name for n in tree if isinstance(n, ast.Import) for a in n.names}
        assert not any(i.startswith("parties.evaluation") for i in imported), f"{name} imports an evaluation"
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    contract = config["importlinter:contract:evaluation"]
    assert contract["type"] == "forbidden" and contract["forbidden_modules"].split() == ["parties.evaluation"]
    assert {"parties.node", "parties.runner", "parties.kinds", "pec"} <= set(
        contract["source_modules"].split()
    )


def test_a_view_with_assumed_consent_is_good_for_nothing_else(tmp_path):
    from parties import gate
    from parties.errors import PartyError

    file = tmp_path / "people.csv"
    file.write_text("id,age\n13800000001,3\n13800000002,4\n13800000001,5\nx,6\n")
    with pytest.raises(PartyError, match=r"gate\.assumed"):
        gate.assume_file(str(file), "id", reason=" ")
    view = gate.assume_file(str(file), "id", "phone", reason="a test")
    assert view.snapshot.document["consent"] == "assumed" and view.snapshot.document["reason"] == "a test"
    assert not hasattr(view.snapshot, "signature")
    assert sorted(view.values.take(np.arange(2)).to_pylist()) == ["+8613800000001", "+8613800000002"]
    digests = gate.digests(view.values.take(np.arange(2)), "phone")
    assert (view.items == digests).all() and len(view.items) == 2
    assert view.counts == {"in": 2, "out": {"identifier_invalid": 1, "identifier_duplicate": 1}}
    assert sorted(view.own_rows().tolist()) == [0, 1]
    with pytest.raises(PartyError, match=r"consent\.unavailable"):
        view.recheck()
    with pytest.raises(PartyError, match=r"gate\.column"):
        list(view.read(["age"]))


def test_a_view_can_only_be_made_by_the_gate():
    """Machines are fed from views; a view needs a `Rows`, which only the gate can make."""
    for path in sources():
        if path.name == "gate.py":
            continue
        calls = [n for n in nodes(path.read_text()) if isinstance(n, ast.Call)]
        names = {
            n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, "id", "") for n in calls
        }
        assert not names & {"AssumedView", "ConsentedView", "Rows"}, f"{path.name} makes a view or opens rows"
