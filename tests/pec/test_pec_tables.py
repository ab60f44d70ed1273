"""The oracle's reader and the node's must see the same lines: else different people would be compared."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parties.rows import Rows
from pec import oracle, tables
from pec.errors import PecError

TEXT = 'phone,城市,n\n13800138000,北京,1\n,上海,\n 13900139000 ,N/A,2.5\n\n13700137000,"广,州",-3\n'
FILES = {
    "plain.csv": TEXT.encode(),
    "mark.csv": codecs.BOM_UTF8 + TEXT.encode(),
    "gbk.csv": TEXT.encode("gb18030"),
    "utf16.csv": TEXT.encode("utf-16"),
    "semicolon.csv": TEXT.replace(",", ";").replace("广;州", "广,州").encode(),
    "tab.tsv": TEXT.replace(",", "\t").replace("广\t州", "广,州").encode(),
    "excel.csv": ("sep=;\n" + TEXT.replace(",", ";").replace("广;州", "广,州")).encode(),
    "windows.csv": TEXT.replace("\n", "\r\n").encode(),
    "packed.csv.gz": gzip.compress(TEXT.encode()),
}


@pytest.mark.parametrize("name", FILES)
def test_both_readers_see_the_same_lines(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    frame, rows = tables.read(path), Rows(path)
    assert len(frame) == rows.count == 4
    assert [tables.find(frame.columns, c, path) for c in rows.columns] == list(frame.columns)
    theirs = {c.name: c for c in rows.read(rows.columns)}
    assert frame["n"].tolist()[0] == theirs["n"].values[0] == 1
    assert np.array_equal(frame["n"].to_numpy(float), theirs["n"].values, equal_nan=True)
    levels = [theirs["城市"].levels[k] if k >= 0 else None for k in theirs["城市"].values]
    assert [None if pd.isna(v) else v for v in frame["城市"]] == levels == ["北京", "上海", None, "广,州"]
    assert tables.header(path) == list(frame.columns)


def test_parquet_with_types(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame(
        {"id": [1, 2], "flag": [True, False], "c": pd.Categorical(["x", None]), "f": [0.5, np.inf]}
    )
    frame.to_parquet(path)
    assert tables.header(path) == ["id", "flag", "c", "f"] and len(tables.read(path)) == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0, None], [True, False, False]),
        (["yes", "No", ""], [True, False, False]),
        (["是", "否", "是"], [True, False, True]),
        ([True, False, True], [True, False, True]),
        ([2.5, -1, 0], [True, False, False]),
        (["3", "0", "n/a"], [True, False, False]),
    ],
)
def test_labels(values: list[object], expected: list[bool]) -> None:
    assert tables.flags(pd.Series(values), "y").tolist() == expected


def test_labels_that_are_none() -> None:
    for values in (["maybe", "yes"], [0, 0], [None, None]):
        with pytest.raises(PecError, match=r"pec\.input"):
            tables.flags(pd.Series(values), "y")


def test_plain_join_takes_first_lines_and_normal_forms() -> None:
    brand = pd.Series(["138 0013 8000", None, "+8613900139000", "13800138000", "x"])
    provider = pd.Series([13900139000, 13700137000, 13800138000, 13800138000])
    pairs = oracle.join(brand, provider, "phone")
    assert dict(zip(pairs.brand.tolist(), pairs.provider.tolist(), strict=True)) == {0: 2, 2: 0}


def test_wrong_tags_are_counted() -> None:
    provider = pd.DataFrame({"city": ["a", None, "c"], "n": [1, 2.5, None]})
    pairs = oracle.Join(np.array([5, 6, 7]), np.array([0, 1, 2]))
    good = pd.DataFrame({"row": [5, 6, 7], "city": ["a", None, "c"], "n": [1.0, 2.5, np.nan]})
    assert oracle.wrong_tags(good, provider, pairs, ["city", "n"]) == 0
    bad = good.assign(city=["b", None, "c"], n=[1.0, 2.5, 0.0])
    assert oracle.wrong_tags(bad, provider, pairs, ["city", "n"]) == 2
    stranger = good.assign(row=[5, 6, 99])
    assert oracle.wrong_tags(stranger, provider, pairs, ["city", "n"]) == 1
