"""Φ: what it makes of real columns, that it names nobody, and that it ranks as plain scikit-learn does."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from parties import column_kernels as kernels
from parties import features
from parties.errors import NodeError
from parties.features import Plan, learn, matrix, narrow
from parties.gate import Column
from parties.rows import Rows
from protocols.parallel import read_only


class Table:
    """Columns in memory, in the shape that features read."""

    def __init__(self, **columns) -> None:
        self._columns = {}
        for name, values in columns.items():
            values = np.asarray(values)
            if values.dtype.kind in "fiub":
                values = values.astype(np.float64)
                self._columns[name] = Column(name, "empty" if np.isnan(values).all() else "numeric", values)
            else:
                codes, levels = pd.factorize(pd.Series(values, dtype=object))
                self._columns[name] = Column(name, "categorical", codes.astype(np.int32), tuple(levels))

    def read(self, names, rows=None, *, single=False):
        for name in names:
            column = self._columns[name]
            yield column if rows is None else column.take(rows)

    @property
    def names(self):
        return list(self._columns)

    def own_rows(self):
        return np.arange(max(len(c.values) for c in self._columns.values()))


def _plan(table: Table) -> Plan:
    return learn(table, table.names)


def test_numeric_columns_are_standardised():
    rng = np.random.default_rng(0)
    x = rng.normal(7, 3, 500)
    plan = _plan(Table(x=x))
    phi = matrix(plan, Table(x=x))
    assert plan.names == ("x",) and phi.dtype == np.float32 and phi.flags.f_contiguous
    assert np.allclose(phi[:, 0], (x - x.mean()) / x.std(), atol=1e-5)


@pytest.mark.parametrize("unit", [1e-140, 1e-20, 1e-12, 1e-9, 1.0, 1e12, 1e120])
@pytest.mark.parametrize("form", ["linear", "bins", "splines"])
def test_a_columns_unit_makes_no_difference(unit: float, form: str) -> None:
    x = np.random.default_rng(1).normal(0.2, 1.0, 600)
    plain, scaled = Table(x=x), Table(x=x * unit)
    every = np.arange(600)
    plans = [features.build(table, ["x"], every, form=form) for table in (plain, scaled)]
    assert not plans[1][0].notes and plans[0][1].shape == plans[1][1].shape
    assert np.allclose(plans[0][1], plans[1][1], atol=1e-4)


def test_values_that_only_rounding_tells_apart_are_dropped_with_a_note() -> None:
    table = Table(near=1.0 + 1e-15 * np.arange(600.0), tiny=1e-200 * np.arange(600.0), good=np.arange(600.0))
    plan = _plan(table)
    assert plan.names == ("good",) and plan.used == ("good",)
    assert [note.split(":")[0] for note in plan.notes] == ["near", "tiny"]
    assert all("too near" in note for note in plan.notes)


def test_missing_values_get_the_median_and_a_column_of_their_own():
    x = np.arange(100.0)
    x[:30] = np.nan
    plan = _plan(Table(x=x))
    phi = matrix(plan, Table(x=x))
    assert plan.names == ("x", "x=missing")
    assert phi[:, 1].tolist() == [1.0] * 30 + [0.0] * 70
    middle = plan.steps[0]
    assert middle.median == np.median(np.arange(30, 100))
    assert np.allclose(phi[:30, 0], (middle.median - middle.mean) * middle.scale, atol=1e-6)


def test_few_missing_values_get_no_column():
    x = np.arange(1000.0)
    x[:5] = np.nan
    plan = _plan(Table(x=x))
    assert plan.names == ("x",) and "5 missing" in plan.notes[0]


def test_a_note_says_why_no_level_of_a_column_is_used() -> None:
    days = [f"{1 + k % 28:02}/{1 + k % 12:02}/{2000 + k % 5}" for k in range(1000)]
    shops = [f"shop {k % 250}" for k in range(1000)]
    nearly = ["yes"] * 997 + ["no"] * 3
    table = Table(day=days, shop=shops, nearly=nearly, same=["x"] * 1000, good=np.arange(1000.0))
    plan = _plan(table)
    assert plan.used == ("good",)
    notes = dict(note.split(": ", 1) for note in plan.notes)
    assert notes["day"] == (
        f"dropped, each of its {len(set(days))} levels is rare (fewer than 10 people); dates are read as "
        "2024-02-29, and not with the year last"
    )
    assert notes["shop"] == "dropped, each of its 250 levels is rare (fewer than 10 people)"
    assert notes["nearly"] == "dropped, constant but for 3 of 1000 people"
    assert notes["same"] == "dropped, constant"
    every = Table(day=[f"{k % 28 + 1}.{k % 12 + 1}.{1000 + k}" for k in range(1000)], good=np.arange(1000.0))
    assert "look like an identifier; dates are read as" in _plan(every).notes[0]


def test_levels_rare_ones_together_and_missing_ones_apart():
    c = np.array(["a"] * 500 + ["b"] * 300 + ["c"] * 8 + ["d"] * 7 + [None] * 185, dtype=object)
    plan = _plan(Table(c=c))
    assert plan.names == ("c=a", "c=b", "c=other", "c=missing")
    phi = matrix(plan, Table(c=c))
    assert phi.sum(axis=0).tolist() == [500, 300, 15, 185] and (phi.sum(axis=1) == 1).all()


def test_no_column_speaks_of_a_handful():
    c = np.array(["a"] * 500 + ["b"] * 490 + ["c"] * 3 + [None] * 2, dtype=object)
    phi = matrix(_plan(Table(c=c)), Table(c=c))
    assert phi.sum(axis=0).tolist() == [500, 490]
    flag = np.zeros(2000)
    flag[:6] = 1
    plan = _plan(Table(flag=flag, x=np.arange(2000.0)))
    assert plan.names == ("x",) and "constant but for 6" in plan.notes[0]


def test_useless_columns_are_dropped_with_a_note():
    n = 400
    table = Table(
        same=np.ones(n),
        none=np.full(n, np.nan),
        text=["x"] * n,
        id=[f"u{i}" for i in range(n)],
        number=13_800_000_000 + np.arange(n),
        good=np.arange(n),
    )
    plan = _plan(table)
    dropped = {note.split(":")[0] for note in plan.notes}
    assert {"same", "none", "text", "id"} <= dropped and "good" in plan.names
    big = 13_800_000_000 + np.arange(2000)
    assert _plan(Table(number=big, good=np.arange(2000))).names == ("good",)


def test_a_note_says_what_a_column_is_that_can_not_be_used_or_is_text_by_a_slip():
    n = 2000
    age = [str(20 + i % 7) if i % 40 else "unknown" for i in range(n)]
    table = Table(age=age, plan=["A1" if i % 2 else "7" for i in range(n)], good=np.arange(n))
    microseconds = 1.7e15 + 1e9 * np.arange(n)
    table._columns["seen"] = Column("seen", "numeric", microseconds, unit="us")
    table._columns["tags"] = Column("tags", "unsupported", np.empty(0), unit="list<item: string>")
    plan = _plan(table)
    assert "seen" in plan.names  # a time, however large its number
    notes = set(plan.notes)
    assert "tags: dropped, nested or binary (list<item: string>)" in notes
    (note,) = [note for note in notes if note.startswith("age:")]
    assert "as 50 of 2000 values are no numbers ('unknown'): mend these" in note and "missing" in note
    assert not any(note.startswith("plan:") for note in notes)


def test_a_note_names_odd_values_that_say_nothing_of_one_person():
    values = [str(n % 50) for n in range(2000)]
    for at, odd in enumerate(["?", *["none"] * 10, "12 (Ms Li)", *["."] * 3]):
        values[at * 7] = odd
    (note,) = [note for note in _plan(Table(age=values)).notes if note.startswith("age:")]
    assert "15 of 2000 values are no numbers ('none', '.', '?'):" in note and "Li" not in note


def test_levels_beyond_the_most_frequent_are_grouped():
    values = np.concatenate([np.repeat([f"l{i}" for i in range(300)], 30), np.repeat("often", 40)])
    plan = _plan(Table(c=values))
    assert len(plan.names) == 257 and plan.names[0] == "c=often" and plan.names[-1] == "c=other"
    few = learn(Table(c=values, x=np.arange(len(values))), ["c", "x"], noisy=True)
    assert few.names == ("x",)  # each level is rarer than 0.5 %


def test_a_plan_survives_its_document_and_new_rows():
    rng = np.random.default_rng(1)
    table = Table(x=rng.normal(size=300), c=rng.choice(["u", "v"], 300))
    plan = Plan.from_document(json.loads(json.dumps(_plan(table).to_document())))
    assert plan == _plan(table)
    rows = np.array([5, 3, 200])
    assert np.array_equal(matrix(plan, table, rows), matrix(plan, table)[rows])
    unseen = matrix(plan, Table(x=[0.0, np.nan], c=["w", None]))
    assert unseen[:, 1:].tolist() == [[0, 0], [0, 0]] and np.isfinite(unseen).all()
    with pytest.raises(NodeError) as caught:
        matrix(plan, Table(x=["text", "text"], c=["u", "v"]))
    assert caught.value.code == "features.changed"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=30, max_size=60),
    st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=60, max_size=60),
)
def test_phi_is_finite_whatever_the_columns_hold(numbers, texts):
    n = len(numbers)
    x = np.array(numbers, dtype=np.float64)
    table = Table(x=x, c=np.array(texts[:n], dtype=object), good=np.arange(n))
    plan = _plan(table)
    phi = matrix(plan, table)
    assert phi.shape == (n, len(plan.names)) and np.isfinite(phi).all()
    assert len(set(plan.names)) == len(plan.names)


def _ours(frame: pd.DataFrame, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    table = Table(**{c: frame[c].to_numpy() for c in frame})
    phi = matrix(learn(table, table.names, train), table)
    return LogisticRegression(max_iter=1000).fit(phi[train], y[train]).decision_function(phi)


def _plain(frame: pd.DataFrame, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    numeric = frame.select_dtypes("number").columns
    texts = frame.columns.difference(numeric)
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
            (OneHotEncoder(handle_unknown="ignore"), texts),
        ),
        LogisticRegression(max_iter=1000),
    )
    return model.fit(frame.iloc[train], y[train]).decision_function(frame)


def test_auc_is_that_of_plain_scikit_learn_on_messy_columns():
    rng = np.random.default_rng(2)
    n = 6000
    x = rng.normal(size=(n, 3))
    city = rng.choice(["上海", "北京", "广州", "rare1", "rare2"], n, p=[0.5, 0.3, 0.19, 0.005, 0.005])
    y = rng.random(n) < 1 / (1 + np.exp(-(x[:, 0] - 0.7 * x[:, 1] + (city == "上海") - 1)))
    x[rng.random(n) < 0.1, 1] = np.nan
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": np.exp(3 * x[:, 2]), "city": city})
    train = np.arange(n) < n // 2
    rows = np.flatnonzero(train)
    ours, plain = _ours(frame, y, rows), _plain(frame, y, rows)
    assert abs(roc_auc_score(y[~train], ours[~train]) - roc_auc_score(y[~train], plain[~train])) < 0.005


def test_auc_on_credit_data(shared_data):
    with gzip.open(shared_data / "datasets/fate/default_credit_hetero_guest.csv.gz") as file:
        frame = pd.read_csv(file)
    y = frame.pop("y").to_numpy().astype(bool)
    frame = frame.drop(columns=["id"])
    train = np.arange(len(frame)) % 2 == 0
    rows = np.flatnonzero(train)
    ours, plain = _ours(frame, y, rows), _plain(frame, y, rows)
    assert abs(roc_auc_score(y[~train], ours[~train]) - roc_auc_score(y[~train], plain[~train])) < 0.005


def test_dates_and_amounts_in_text_are_numbers():
    days = [f"2024-01-{d:02}" for d in range(1, 29)] * 10
    money = [f"¥{v:,.2f}" for v in np.linspace(900, 90_000, 280)]
    plan = _plan(Table(when=days, money=money, mixed=["2024-01-01", "soon"] * 140))
    assert plan.names == ("when", "money", "mixed=2024-01-01", "mixed=soon")
    phi = matrix(plan, Table(when=days, money=money, mixed=["soon"] * 280))
    assert np.all(np.diff(phi[:28, 0]) > 0) and np.all(np.diff(phi[:, 1]) > 0)


def test_a_column_that_one_outlier_flattens_is_dropped_with_a_note():
    x = np.random.default_rng(3).normal(size=1000)
    x[7] = 1e12
    plan = _plan(Table(x=x, good=np.arange(1000)))
    assert plan.names == ("good",) and "extreme values" in plan.notes[0]


def test_an_indicator_stays_where_the_values_are_nearly_constant():
    x = np.where(np.arange(400) % 2 == 0, np.nan, 1.0)
    x[[1, 3, 5]] = 2.0
    plan = _plan(Table(x=x))
    assert plan.names == ("x=missing",)
    assert matrix(plan, Table(x=x)).sum() == 200


def test_narrow_takes_out_first_what_others_express():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(900, 4))
    table = Table(a=x[:, 0], twin=2 * x[:, 0] + 1, c=rng.choice(["u", "v", "w"], 900), b=x[:, 1])
    plan = _plan(table)
    phi = matrix(plan, table)
    same, same_phi = narrow(plan, phi, 6)
    assert same is plan and same_phi is phi
    four, narrowed = narrow(plan, phi, 4)
    assert len(four.names) == 4 and not any("dropped" in note for note in four.notes)
    assert set(four.used) >= {"c", "b"} and len({"a", "twin"} & set(four.used)) == 1
    again = matrix(Plan.from_document(json.loads(json.dumps(four.to_document()))), table)
    assert np.array_equal(narrowed, again)
    two, _ = narrow(plan, phi, 2)
    assert len(two.names) <= 2 and any("allow 2 columns" in note for note in two.notes)


def test_narrow_keeps_some_levels_when_one_category_is_all_there_is():
    table = Table(c=np.random.default_rng(6).choice([f"l{i}" for i in range(20)], 2000))
    plan = _plan(table)
    three, phi = narrow(plan, matrix(plan, table), 3)
    assert phi.shape == (2000, 3) and three.used == ("c",)


def test_one_pass_gives_what_two_give() -> None:
    rng = np.random.default_rng(0)
    n = 700
    file = {
        "x": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        "day": rng.integers(0, 3, n),
        "flat": np.ones(n),
    }
    place = rng.permutation(n)[:600]

    class View:
        def own_rows(self) -> np.ndarray:
            return place

        def read(self, names, rows=None, *, single=False):
            chosen = place if rows is None else place[rows]
            for name in names:
                if name == "day":
                    yield Column(name, "categorical", file[name][chosen].astype(np.int32), ("mo", "tu", "we"))
                else:
                    yield Column(name, "numeric", file[name][chosen])

    rows = np.flatnonzero(rng.random(600) < 0.8)
    plan, phi = features.build(View(), list(file), rows)
    assert plan.names == features.learn(View(), list(file), rows).names and len(plan.names) == 5
    assert np.allclose(phi, features.matrix(plan, View(), rows), atol=1e-6)
    assert phi.flags.f_contiguous
    with pytest.raises(NodeError, match=r"features\.none"):
        features.build(View(), ["flat"], rows)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_compiled_passes_over_a_column_are_numpys(missing: float, kind: type) -> None:
    rng = np.random.default_rng(5)
    column = (rng.standard_normal(5001) * 1e3 + 7).astype(kind)
    column[rng.random(5001) < missing] = np.nan
    values = column.astype(np.float64)
    there = values[~np.isnan(values)]
    column = read_only(column)
    count, total, low, high = kernels.summary(column)
    assert count == 5001 - len(there)
    assert total == pytest.approx(float(there.sum()), rel=1e-12)
    assert (low, high) == ((there.min(), there.max()) if len(there) else (np.inf, -np.inf))
    filled = np.where(np.isnan(values), 2.5, values)
    squares, different = kernels.spread(column, 2.5, 3.0, 2.5)
    assert squares == pytest.approx(float(((filled - 3.0) ** 2).sum()), rel=1e-12)
    assert different == np.count_nonzero(filled != 2.5)
    near = np.rint((filled - 3.0) * 0.01)
    assert kernels.differing(column, 2.5, 3.0, 0.01, near[0]) == np.count_nonzero(near != near[0])
    out = np.empty(5001, np.float32)
    kernels.standardise(column, 2.5, 3.0, 0.25, out)
    whole = ((filled - 3.0) * 0.25).astype(np.float32)
    assert np.array_equal(out, whole)
    where = rng.permutation(5001)
    kernels.place(column, where, 2.5, 3.0, 0.25, out)
    assert np.array_equal(out, whole[where])
    kernels.place_missing(column, where, out)
    assert np.array_equal(out, np.isnan(values)[where])


def test_a_plan_of_single_precision_columns_is_that_of_the_same_doubles(tmp_path) -> None:
    """Reading them as they are saves work, and changes nothing: missing values and infinities too."""
    rng = np.random.default_rng(9)
    n = 3000
    x = rng.normal(1e4, 3.0, (n, 4)).astype(np.float32)
    x[rng.random(n) < 0.02, 1] = np.nan  # an even number of them there or not: the median is of doubles
    x[rng.random(n) < 0.3, 2] = np.inf
    x[:, 3] = 5.0
    table = pa.table({f"x{k}": pa.array(x[:, k], from_pandas=True) for k in range(4)})
    pq.write_table(table, tmp_path / "single.parquet")
    doubles = pa.table({name: table[name].cast(pa.float64()) for name in table.column_names})
    pq.write_table(doubles, tmp_path / "double.parquet")
    place = rng.permutation(n)

    class View:
        def __init__(self, name: str) -> None:
            self.rows, self.kinds = Rows(tmp_path / name), set()

        def own_rows(self) -> np.ndarray:
            return place

        def read(self, names, rows=None, *, single=False):
            for column in self.rows.read(names, single=single):
                self.kinds.add(column.values.dtype.name)
                yield column.take(place if rows is None else place[rows])

    views = View("single.parquet"), View("double.parquet")
    people = np.flatnonzero(rng.random(n) < 0.9)
    (plan, phi), (other, double) = (features.build(view, table.column_names, people) for view in views)
    assert (views[0].kinds, views[1].kinds) == ({"float32"}, {"float64"})
    assert plan.notes == other.notes and plan.names == other.names
    for one, same in zip(plan.steps, other.steps, strict=True):
        assert one.median == same.median and one.missing == same.missing
        assert (one.mean, one.scale) == pytest.approx((same.mean, same.scale), rel=1e-12)
    assert np.allclose(phi, double, rtol=1e-6, atol=1e-6)
    assert np.array_equal(phi, features.matrix(plan, views[1], people))


def test_the_file_order_of_some_of_its_lines() -> None:
    own = np.array([7, 2, 9, 4], dtype=np.int64)
    order, back = features._file_order(own)
    assert own[order].tolist() == [2, 4, 7, 9]
    assert order[back].tolist() == [0, 1, 2, 3]
    assert [len(a) for a in features._file_order(np.empty(0, dtype=np.int64))] == [0, 0]


def test_a_full_disk_ends_the_job_and_not_the_node(tmp_path, monkeypatch):
    left = [45_000]

    def fallocate(number, at, size):
        left[0] -= size
        if left[0] < 0:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", fallocate, raising=False)
    monkeypatch.setattr(features, "IN_MEMORY", 0)
    rng = np.random.default_rng(0)
    table = Table(**{f"c{k}": rng.normal(size=2000) for k in range(8)})
    with pytest.raises(NodeError, match="No space left") as caught:
        features.build(table, table.names, np.arange(2000), scratch=tmp_path)
    assert caught.value.code == "node.disk" and left[0] > -9000  # no column was written without a block
