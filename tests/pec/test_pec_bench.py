"""Synthetic data: deterministic, with the overlap and the signal that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pec_command import pec, pec_here
from sklearn.metrics import roc_auc_score

from pec import pooled
from pec.bench import data
from pec.errors import PecError


def ids(path: Path) -> np.ndarray:
    return pq.read_table(path, columns=["phone"])["phone"].to_numpy().astype(np.int64)


def test_align_files_share_what_they_should(tmp_path: Path) -> None:
    made = data.align_files(tmp_path / "a", 1000, 3000)
    brand, provider = ids(made.brand), ids(made.provider)
    assert (brand.size, provider.size) == (1000, 3000) == (np.unique(brand).size, np.unique(provider).size)
    assert np.intersect1d(brand, provider).size == made.expected == 500
    again = data.align_files(tmp_path / "b", 1000, 3000)
    assert again.brand.read_bytes() == made.brand.read_bytes()
    assert (np.diff(brand) < 0).any(), "the order must not tell who is shared"


def test_lookalike_files_have_signal(tmp_path: Path) -> None:
    made = data.lookalike_files(tmp_path, 5000, 7, 600)
    table = pq.read_table(made.provider)
    assert table.num_rows == 5000 and table.num_columns == 8
    seeds = np.isin(ids(made.provider), ids(made.brand))
    assert seeds.sum() == 600
    scores = pooled.pooled_scores(table.drop_columns(["phone"]).to_pandas(), seeds)
    assert 0.7 < roc_auc_score(seeds, scores) < 0.95


def test_pooled_auc_takes_every_kind_of_column(tmp_path: Path) -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    y = rng.random(2000) < 0.3
    frame = pd.DataFrame(
        {
            "n": np.where(rng.random(2000) < 0.1, np.nan, rng.normal(size=2000) + y),
            "c": pd.Series(np.where(y, "a", "b")).mask(rng.random(2000) < 0.5),
            "flag": rng.random(2000) < 0.5,
            "gone": np.nan,
            "inf": np.where(rng.random(2000) < 0.01, np.inf, 0.0),
        }
    )
    held = y & (rng.random(2000) < 0.2)
    assert pooled.pooled_auc(frame, y & ~held, held) > 0.8


def test_sizes_that_can_not_be(tmp_path: Path) -> None:
    for arguments in ((0, 5), (5, 0)):
        with pytest.raises(PecError, match=r"pec\.usage"):
            data.align_files(tmp_path, *arguments)
    with pytest.raises(PecError, match=r"pec\.usage"):
        data.lookalike_files(tmp_path, 100, 3, 100)


@pytest.mark.slow
def test_one_line_of_figures() -> None:
    answer = pec("bench", "lookalike", "--rows", "2000", "--features", "5", "--seeds", "300", "--json")
    assert answer.code == 0, answer.out + answer.err
    found = answer.json
    for side in ("brand", "provider"):
        assert found[side]["cpu_seconds"] > 0 and 50 < found[side]["peak_rss_mb"] < 2000
    assert 0 < found["train_seconds"] + found["score_seconds"] < found["seconds"]
    assert found["bytes_sent"] > 0 and found["bytes_received"] > 0 and found["seeds_matched"] == 300
    assert abs(found["auc"] - found["pooled_auc"]) < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["joint-lr", "boost"])
def test_one_line_of_figures_of_both_sides_columns(kind: str) -> None:
    more = ("--trees", "3", "--depth", "2", "--bins", "8") if kind == "boost" else ()
    answer = pec_here(
        *(
            "bench",
            kind,
            "--rows",
            "600",
            "--features-brand",
            "3",
            "--features-provider",
            "3",
            *more,
            "--json",
        )
    )
    assert answer.code == 0, answer.out + answer.err
    found = answer.json
    assert found["train_seconds"] > 0 and found["score_seconds"] >= 0 and found["seconds"] > 0
    assert found["bytes_sent"] > 0 and found["bytes_received"] > 0 and found["rows"] == 600
    assert 0.5 < found["auc"] <= 1 and abs(found["auc"] - found["pooled_auc"]) < 0.05
    assert all(50 < found["peak_rss_mb"][side] < 2000 for side in ("brand", "provider"))
