"""Benchmarks of the kinds that learn from labels: scikit-learn's `make_classification`, split by columns."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pec import oracle, outcome, supervised
from pec.bench import data
from pec.bench.run import Bench, Show, measure, silent


def files(folder: Path, rows: int, columns: tuple[int, int], seed: int) -> data.Files:
    """The same `rows` people at both; `columns` of the brand, beside its label, and of the provider.

    Half of all columns are informative, as `make_classification` calls it; which side has them is by lot.
    """
    from sklearn.datasets import make_classification

    mine, theirs = columns
    x, y = make_classification(
        rows, mine + theirs, n_informative=max(2, (mine + theirs) // 2), random_state=seed
    )
    rng = np.random.default_rng(seed)
    ids = data.numbers(0, rows, rng)
    folder.mkdir(parents=True, exist_ok=True)
    out = data.Files(folder / "brand.parquet", folder / "provider.parquet", rows)
    brand = {"phone": _text(ids), "label": pa.array(y.astype(np.int8))}
    brand |= {f"b{k:03d}": pa.array(x[:, k].astype(np.float32)) for k in range(mine)}
    pq.write_table(pa.table(brand), out.brand)
    order = rng.permutation(rows)
    provider = {"phone": _text(ids[order])}
    provider |= {f"p{k:03d}": pa.array(x[order, mine + k].astype(np.float32)) for k in range(theirs)}
    pq.write_table(pa.table(provider), out.provider)
    return out


def _text(values: Any) -> pa.Array:
    return pa.array(values).cast(pa.string())


def boost(
    rows: int,
    columns: tuple[int, int],
    params: dict[str, Any],
    *,
    seed: int = 1,
    pooled: bool = True,
    show: Show | None = None,
) -> dict[str, Any]:
    """A forest over `columns` of the brand and of the provider; `seconds` is the whole job with align.

    `pooled`: scikit-learn beside it.
    """
    out = _run("boost", rows, columns, params, seed, pooled, show)
    return {**out, **params}


def _run(
    kind: str,
    rows: int,
    columns: tuple[int, int],
    params: dict[str, Any],
    seed: int,
    pooled: bool,
    show: Show | None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        root, note = Path(scratch), show or silent
        note("making data", 0, 1)
        made = files(root, rows, columns, seed)
        own = [f"b{k:03d}" for k in range(columns[0])]
        private = {"label": "label", "columns": own, "holdout_seed": seed}
        request = {"columns": ["*"], "params": params, "private": private}
        out, seen, keep = measure(root, Bench(kind, made, request), note)
        measured = {
            "rows": rows,
            "features_brand": columns[0],
            "features_provider": columns[1],
            **outcome.learning_seconds(out["stages"], out["stages_provider"]),
            "disk_bytes": {"brand": seen["result"]["disk_bytes"], "provider": keep["other"]["disk_bytes"]},
        }
        if not pooled:
            labels = pq.read_table(made.brand, columns=["label"])["label"].to_numpy()
            auc = supervised.held_out_auc(keep["folder"], seen["result"], labels > 0)
            counts = {name: seen["result"][name] for name in ("fitted", "held_out")}
            return out | measured | {"auc": auc, "pooled_auc": None, **counts}
        note("pooled fit", 0, 1)
        brand, provider = (pd.read_parquet(path) for path in (made.brand, made.provider))
        pairs = oracle.join(brand["phone"], provider["phone"], "phone")
        frames = (brand.drop(columns="phone"), provider.drop(columns="phone"), pairs)
        learned = {"columns": list(frames[1].columns), "notes": []}
        figures = supervised.figures(kind, keep["folder"], seen["result"], learned, "label", frames)
        found = {name: figures[name] for name in ("auc", "pooled_auc", "fitted", "held_out")}
        return out | measured | found
