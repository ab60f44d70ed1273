"""Columns as bins: kinds, missing values, rare levels, and the same plan applied to other people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from parties import binning
from parties.errors import PartyError
from parties.gate import Column


class Columns:
    """A view of columns in memory."""

    def __init__(self, **columns: object) -> None:
        self._columns = {name: _column(name, values) for name, values in columns.items()}

    def read(self, names: Sequence[str], rows: np.ndarray | None = None) -> Iterator[Column]:
        for name in names:
            column = self._columns[name]
            yield column if rows is None else column.take(rows)


def _column(name: str, values: object) -> Column:
    array = np.asarray(values)
    if array.dtype.kind in "fi":
        return Column(name, "numeric", array.astype(float))
    levels = tuple(sorted({v for v in array.tolist() if v is not None}))
    codes = [levels.index(v) if v is not None else -1 for v in array.tolist()]
    return Column(name, "categorical", np.array(codes, dtype=np.int32), levels)


N = 1000
EVERYBODY = np.arange(N)


def learned(most: int = 16, **columns: object) -> tuple[binning.BinPlan, object]:
    view = Columns(**columns)
    plan = binning.learn(view, list(columns), EVERYBODY, most)
    return plan, binning.table(plan, view, EVERYBODY)


def test_numbers_are_cut_at_quantiles_and_missing_ones_are_apart() -> None:
    values = np.arange(N, dtype=float)
    values[::10] = np.nan
    plan, table = learned(x=values)
    sizes = np.bincount(table.bins[:, 0])
    assert len(sizes) == 16 and sizes[0] == 100 and sizes[1:].min() >= 59
    assert table.missing.tolist() == [True] and table.categorical.tolist() == [False]
    assert binning.BinPlan.from_document(plan.to_document()) == plan


def test_a_few_missing_values_have_no_bin_of_their_own() -> None:
    values = np.arange(N, dtype=float)
    values[:3] = np.nan
    _, table = learned(x=values)
    assert not table.missing[0] and np.bincount(table.bins[:, 0]).min() >= 10


def test_rare_levels_share_a_bin() -> None:
    city = np.array(["a"] * 500 + ["b"] * 480 + ["c"] * 9 + ["d"] * 11, dtype=object)
    plan, table = learned(city=city)
    sizes = np.bincount(table.bins[:, 0])
    assert table.categorical[0] and sizes.min() >= 10 and sizes.sum() == N
    assert "c" not in plan.steps[0].levels  # type: ignore[union-attr]


def test_more_levels_than_bins() -> None:
    city = np.array([f"c{i % 30}" for i in range(N)], dtype=object)
    _, table = learned(8, city=city)
    assert table.bins.max() == 7


@pytest.mark.parametrize(
    "values", [np.full(N, 3.0), np.full(N, np.nan), np.arange(N) == 5, [None] * N, ["x"] * N]
)
def test_columns_that_say_nothing_are_left_out(values: object) -> None:
    values = np.asarray(values, dtype=object if isinstance(values, list) else float)
    view = Columns(x=values, y=np.arange(N, dtype=float))
    plan = binning.learn(view, ["x", "y"], EVERYBODY, 16)
    assert plan.names == ("y",) and plan.notes and plan.notes[0].startswith("x: ")
    with pytest.raises(PartyError, match=r"features\.none"):
        binning.learn(view, ["x"], EVERYBODY, 16)


def test_a_note_says_what_a_column_is() -> None:
    slip = np.array([str(i % 5) if i % 20 else "none" for i in range(N)], dtype=object)
    view = Columns(x=[f"u{i}" for i in range(N)], slip=slip, y=np.arange(N, dtype=float))
    view._columns["tags"] = Column("tags", "unsupported", np.empty(0), unit="list<item: string>")
    plan = binning.learn(view, ["x", "slip", "y", "tags"], EVERYBODY, 16)
    assert set(plan.names) == {"slip", "y"} and set(plan.notes) == {
        "x: dropped, 1000 distinct texts in 1000 rows look like an identifier",
        "slip: read as text, as 50 of 1000 values are no numbers ('none'): mend these, or empty them where "
        "they mean that it is missing",
        "tags: dropped, nested or binary (list<item: string>)",
    }


def test_dates_and_amounts_in_text_are_ordered() -> None:
    days = np.array([f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(N)], dtype=object)
    plan, _ = learned(day=days)
    assert plan.steps[0].kind == "ordered"


def test_a_plan_is_applied_to_others_as_it_is() -> None:
    plan, _ = learned(x=np.arange(N, dtype=float), city=np.array(["a", "b"] * (N // 2), dtype=object))
    others = Columns(x=[-5.0, 1e9, np.nan], city=np.array(["b", "new", None], dtype=object))
    table = binning.table(plan, others, np.arange(3))
    assert table.bins[:, 0].tolist() == [0, 15, 0]
    assert table.bins[0, 1] == plan.steps[1].levels.index("b")  # type: ignore[union-attr]
    with pytest.raises(PartyError, match=r"features\.changed"):
        binning.table(
            plan, Columns(x=np.array(["p", "q", "r"], dtype=object), city=[1.0, 2.0, 3.0]), np.arange(3)
        )


def test_many_levels_are_spread_over_columns_of_bins() -> None:
    rng = np.random.default_rng(3)
    text = [f"L{k:02}" for k in rng.integers(0, 20, N)]
    view = Columns(text=text, number=rng.random(N))
    plan = binning.learn(view, ["text", "number"], EVERYBODY, 8, tails=True, spread=3)
    assert plan.names == ("text", "text (2)", "text (3)", "number")
    assert plan.sources == ("text", "text", "text", "number")
    again = binning.BinPlan.from_document(plan.to_document())
    assert again == plan
    table = binning.table(again, view, EVERYBODY)
    assert table.bins.max() < 8 and table.categorical.tolist() == [True, True, True, False]
    # Who shares all three bins has the same level: 3 × 7 ≥ 20.
    assert len(np.unique(table.bins[:, :3], axis=0)) == len(set(text)) == 20
    for column in range(3):
        assert np.bincount(table.bins[:, column]).min() >= 10
    assert binning.learn(view, ["text", "number"], EVERYBODY, 8).names == ("text", "number")
    twice = Columns(text=text, **{"text (2)": rng.random(N)})
    assert binning.learn(twice, ["text", "text (2)"], EVERYBODY, 8, spread=3).names == ("text", "text (2)")


def test_own_numbers_have_finer_bins_and_no_column_need_be_left() -> None:
    values = np.concatenate((np.zeros(N - 4), [1.0, 2.0, 2.0, 3.0]))
    view = Columns(
        x=values, same=np.ones(N), none=np.full(N, np.nan), city=np.array(["a"] * (N - 3) + ["b"] * 3)
    )
    plan = binning.learn(view, ["x", "same", "none", "city"], EVERYBODY, 255, own=True)
    assert plan.names == ("x",) and len(plan.notes) == 3 and "same value" in plan.notes[0]
    assert np.bincount(binning.table(plan, view, EVERYBODY).bins[:, 0]).tolist() == [N - 4, 1, 2, 1]
    nothing = binning.learn(view, ["same", "none"], EVERYBODY, 255, own=True)
    assert binning.table(nothing, view, EVERYBODY).bins.shape == (N, 0)
    with pytest.raises(PartyError, match=r"features\.none"):
        binning.learn(view, ["same", "none"], EVERYBODY, 255)
