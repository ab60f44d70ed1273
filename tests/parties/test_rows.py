"""Files as real people have them: what is forgiven, what is refused, and that no identifier is bent."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parties.errors import NodeError
from parties.rows import Rows
from parties.sql_filter import columns_of


def _csv(tmp_path: Path, content: str | bytes, name: str = "people.csv") -> Rows:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Rows(path)


def _code(call, *args) -> str:
    with pytest.raises(NodeError) as caught:
        call(*args)
    return caught.value.code


def test_identifiers_survive_as_text(tmp_path):
    rows = _csv(
        tmp_path, "phone,x\n0013800138000,1\n+86 138 0013 8000,2\n 13800138000 ,3\n123456789012345678901,4\n"
    )
    assert rows.text("phone").to_pylist() == [
        "0013800138000",
        "+86 138 0013 8000",
        "13800138000",
        "123456789012345678901",
    ]


def test_header_oddities_are_forgiven_and_noted(tmp_path):
    text = '\ufeff"phone" , 年龄 ,,x,x\n13800138000,30,a,1,2\n'
    rows = _csv(tmp_path, text)
    assert rows.columns == ("phone", "年龄", "column_3", "x", "x_2")
    assert rows.count == 1 and len(rows.notes) == 2
    assert [c.values[0] for c in rows.read(["x", "x_2", "年龄"])] == [1, 2, 30]
    assert rows.resolve("PHONE") == "phone"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(tmp_path, encoding, delimiter):
    lines = [["手机", "城市", "note"], ["13800138000", "上海", "一"], ["13900139000", "北京", "二"]]
    rows = _csv(tmp_path, "\r\n".join(delimiter.join(x) for x in lines).encode(encoding))
    assert rows.columns == ("手机", "城市", "note")
    (city,) = rows.read(["城市"])
    assert [city.levels[c] for c in city.values] == ["上海", "北京"]


def test_gb18030_far_behind_ascii_is_found(tmp_path):
    body = b"phone,city\n" + b"13800138000,x\n" * 200_000 + "13900139000,上海\n".encode("gb18030")
    rows = _csv(tmp_path, body)
    assert rows.count == 200_001 and rows.text("city")[-1].as_py() == "上海"


def test_gzip_sep_line_and_quoted_newlines(tmp_path):
    body = gzip.compress(b'sep=;\nphone;"a;b"\n1;"two\nlines"\n\n2;z\n')
    rows = _csv(tmp_path, body, "people.csv.gz")
    assert rows.columns == ("phone", "a;b") and rows.count == 2
    assert rows.text("a;b").to_pylist() == ["two\nlines", "z"]


def test_missing_values_and_types(tmp_path):
    rows = _csv(tmp_path, "n,c,e,b\n1.5,x,,yes\nNA,-,null,no\nnan,NULL,NaN,yes\n-2e3,y,n/a,\n")
    n, c, e, b = rows.read(["n", "c", "e", "b"])
    assert n.kind == "numeric" and np.array_equal(np.isnan(n.values), [False, True, True, False])
    assert n.values[3] == -2000
    assert c.kind == "categorical" and c.values.tolist() == [0, -1, -1, 1]
    assert e.kind == "empty" and b.kind == "categorical"
    assert rows.flag("b").tolist() == [True, False, True, False]
    assert _code(rows.flag, "c") == "rows.label"


def test_parquet_types(tmp_path):
    table = pa.table(
        {
            "phone": pa.array([13800138000, None, 13900139000]),
            "float_id": pa.array([13800138000.0, float("nan"), 13900139000.0]),
            "d": pa.array(["x", "y", "x"]).dictionary_encode(),
            "t": pa.array([True, False, None]),
            "day": pa.array([0, 1, 2], pa.date32()),
            "nested": pa.array([[1], [2], [3]]),
            "talk": pa.array([1500, None, 3_600_000], pa.duration("ms")),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    rows = Rows(tmp_path / "p.parquet")
    assert rows.text("phone").to_pylist() == ["13800138000", None, "13900139000"]
    assert rows.text("float_id").to_pylist() == ["13800138000", None, "13900139000"]
    kinds = [c.kind for c in rows.read(["d", "t", "day", "nested"])]
    assert kinds == ["categorical", "numeric", "numeric", "unsupported"]
    nested, talk = rows.read(["nested", "talk"])
    assert nested.unit.startswith("list<") and talk.kind == "numeric"
    assert np.array_equal(talk.values, [1.5, np.nan, 3600.0], equal_nan=True)  # seconds


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "rows.empty"),
        (b"\n\n", "rows.empty"),
        (b"phone,x\n", "rows.empty"),
        (b"phone,x\n1,2\n3\n", "rows.unreadable"),
        (b"PK\x03\x04 a workbook", "rows.unreadable"),
        (b"PAR1 broken", "rows.unreadable"),
        (b"phone\n\x00\x01\x02\n", "rows.unreadable"),
        (b"phone\n\xff\xff\xff\n", "rows.unreadable"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, code):
    assert _code(_csv, tmp_path, content) == code


def test_absent_file_and_directory(tmp_path):
    assert _code(Rows, tmp_path / "no.csv") == "rows.unreadable"
    assert _code(Rows, tmp_path) == "rows.unreadable"


def test_missing_column_lists_what_exists_and_suggests(tmp_path):
    rows = _csv(tmp_path, "phone_number,city\n1,2\n")
    with pytest.raises(NodeError) as caught:
        rows.text("phonenumber")
    assert caught.value.code == "rows.column"
    assert "did you mean 'phone_number'" in caught.value.detail and "city" in caught.value.detail


def test_a_changed_file_ends_the_job(tmp_path):
    rows = _csv(tmp_path, "phone\n1\n2\n")
    (tmp_path / "people.csv").write_text("phone\n2\n1\n3\n")
    assert _code(rows.text, "phone") == "rows.changed"


def test_a_file_with_other_rows_and_the_old_time_ends_the_job(tmp_path):
    """Attack: a job that goes on after a kill reads rows in another order, in a file of the same size whose
    time of modification was put back: the consented row numbers would name other people."""
    path = tmp_path / "people.csv"
    rows = _csv(tmp_path, "phone\n1\n2\n")
    before = path.stat()
    until = time.monotonic() + 30
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock may be coarse
        assert time.monotonic() < until
        path.write_text("phone\n2\n1\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert _code(rows.text, "phone") == "rows.changed"


def test_where(tmp_path):
    rows = _csv(tmp_path, "tenure,合同,n\n30,One year,1\n5,Month,\n40,Two year,3\n,One year,4\n")
    assert rows.where("tenure >= 24 AND 合同 IN ('One year', 'Two year')").tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert rows.where("n IS NULL").tolist() == [False, True, False, False]
    assert rows.where("lower(合同) LIKE 'two%' -- comment").tolist() == [False, False, True, False]
    assert rows.where("TENURE BETWEEN 1 AND 10").tolist() == [False, True, False, False]


def test_where_keeps_the_types_of_parquet(tmp_path):
    table = pa.table(
        {
            "churn": pa.array([True, False, None]),
            "day": pa.array([0, 400, 800], pa.date32()),
            "n": pa.array([2**60 + 1, 2**60, None], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    rows = Rows(tmp_path / "p.parquet")
    assert rows.where("NOT churn").tolist() == [False, True, False]
    assert rows.where("day >= DATE '1971-01-01'").tolist() == [False, True, True]
    assert rows.where("n = 1152921504606846977").tolist() == [True, False, False]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "tenure >",
        "1=1) FROM data; DROP TABLE data; --",
        "1=1), (2=2",
        "1=1) WHERE (1=1",
        "1=1; SELECT 1",
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "EXISTS (SELECT 1)",
        "tenure IN (SELECT 1)",
        "count(*) > 0",
        "sum(tenure) > 0",
        "row_number() OVER () < 3",
        "unnest([true, false])",
        "getenv('HOME') = 'x'",
        "read_text('/etc/passwd') IS NOT NULL",
        "COLUMNS('t.*') > 1",
        "tenure > $1",
        "other.tenure > 1",
        "nope > 1",
        "city",
    ],
)
def test_where_refuses(tmp_path, expression):
    rows = _csv(tmp_path, "tenure,city\n30,x\n5,y\n")
    assert _code(rows.where, expression) in ("rows.filter", "rows.column")


def test_where_names_only_the_columns_it_uses():
    assert columns_of("\"a b\" > 1 OR x = 'select' AND CASE WHEN x THEN 1 ELSE y END = 1") == [
        "a b",
        "x",
        "y",
    ]
