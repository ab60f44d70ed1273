"""What imports of millions go through: rows from columns, salts of a stretch, people each their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from consent_helpers import make
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from consent_center import database, dialects, importer, subjects
from consent_center.batch import NEVER
from consent_center.ends import Ends
from consent_center.errors import ConsentError
from consent_center.import_files import Batch, Problem

_METADATA = sa.MetaData()
_TABLE = sa.Table(
    "wide",
    _METADATA,
    sa.Column("key", database.Int, primary_key=True, autoincrement=False),
    sa.Column("number", database.Int, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("shared", sa.LargeBinary, nullable=False),
)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Connection]:
    held = database.Database(tmp_path_factory.mktemp("bulk") / "one.db")
    with held.write() as open_:
        _METADATA.create_all(open_)
        yield open_
    held.close()


def told(connection: sa.Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(sa.select(_TABLE).order_by(_TABLE.c.key))]


WIDE = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.one_of(
    st.lists(WIDE, min_size=1, max_size=40),
    st.builds(lambda n, first: [first] * n, st.integers(1, 600), WIDE),
    st.builds(lambda n, first: list(range(first, first + n)), st.integers(1, 600), st.integers(-9, 2**62)),
    st.lists(st.integers(-12, 12), min_size=1, max_size=300),
)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.integers(0, 2**40), st.integers(1, 40), st.binary(max_size=9), st.randoms())
def test_columns_give_the_rows_that_tuples_give(
    connection: sa.Connection, numbers: list[int], first: int, width: int, shared: bytes, rng: Any
) -> None:
    rows = len(numbers)
    keys = [first + i for i in range(rows)]
    rng.shuffle(keys)
    blobs = np.frombuffer(rng.randbytes(rows * width), np.uint8).reshape(rows, width)
    columns = (np.array(keys, np.int64), np.array(numbers, np.int64), blobs, shared)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for least in (1, 1 << 30):  # by a statement that counts, by tuples
            patch.setattr(dialects, "_SOME", least)
            connection.execute(_TABLE.delete())
            database.insert_columns(connection, _TABLE, columns)
            found.append(told(connection))
        listed = (*columns[:2], [bytes(row) for row in blobs], shared)  # blobs of any length, as a list
        connection.execute(_TABLE.delete())
        database.insert_columns(connection, _TABLE, listed)
    wanted = sorted(zip(keys, numbers, (bytes(row) for row in blobs), [shared] * rows, strict=True))
    assert found == [wanted, wanted] and told(connection) == wanted


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.integers(0, 30), st.integers(-5, 5), min_size=1),
    st.dictionaries(st.integers(0, 30), st.integers(-5, 5), min_size=1),
)
def test_a_greater_row_replaces_and_no_other(
    connection: sa.Connection, old: dict[int, int], new: dict[int, int]
) -> None:
    connection.execute(_TABLE.delete())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialects, "_SOME", 1)
        for number, rows in enumerate((old, new)):
            columns = (
                np.array([*rows], np.int64),
                np.array([*rows.values()], np.int64),
                b"",
                bytes([number]),
            )
            database.insert_columns(connection, _TABLE, columns, ("number",))
    wanted = {key: (value, 0) for key, value in old.items()}
    wanted |= {key: (value, 1) for key, value in new.items() if key not in old or value > old[key]}
    assert {key: (number, shared[0]) for key, number, _, shared in told(connection)} == wanted


def test_columns_over_several_stretches(connection: sa.Connection) -> None:
    connection.execute(_TABLE.delete())
    rows = 2 * dialects._STRETCH + 300
    numbers = np.random.default_rng(1).integers(-(2**62), 2**62, rows)
    blobs = np.arange(rows, dtype=np.uint32).view(np.uint8).reshape(rows, 4)
    database.insert_columns(connection, _TABLE, (np.arange(rows), numbers, blobs, b"x"))
    keys, found = database.columns(
        connection, sa.select(_TABLE.c.key, _TABLE.c.number).order_by(_TABLE.c.key)
    )
    assert (keys == np.arange(rows)).all() and (found == numbers).all()
    joined = database.blob_column(connection, sa.select(_TABLE.c.blob).order_by(_TABLE.c.key))
    assert joined == blobs.tobytes()


def test_salts_of_a_stretch_are_those_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(tmp_path / "c") as center:
        phones = pa.array([f"138{n:08d}" for n in range(700)])
        center.assume(phones, "phone", "ads", "provider", ["contact"], "a test", "tester")
        wanted = np.array([699, 130, 131, 400, 130])
        with center._read() as connection:
            one_by_one = subjects.salts_of(connection, wanted)
            monkeypatch.setattr(subjects, "_MANY", 2)
            assert (subjects.salts_of(connection, wanted) == one_by_one).all()
            assert (subjects.salts_of(connection, np.arange(700)) == subjects.all_salts(connection)).all()
        with center._write() as connection:
            connection.execute(database.salts.delete().where(database.salts.c.chunk == 2))
        with center._read() as connection, pytest.raises(ConsentError, match="ledger.corrupt"):
            subjects.salts_of(connection, wanted)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40), st.integers(0, 1000))
def test_people_with_one_identifier_each(rows: list[tuple[bool, bool]], first: int) -> None:
    """(usable, known) of each row: new people are numbered in the order of the rows."""
    count = len(rows)
    found = np.random.default_rng(count).integers(0, 256, (count, 32), dtype=np.uint8)
    usable = np.array([use for use, _ in rows], bool)
    known = np.array([7 + i if seen else -1 for i, (_, seen) in enumerate(rows)], np.int64)
    got = subjects.resolve(np.arange(count), np.full(count, 2), found, known, count, usable, first)
    wanted, new = [], 0
    for i, (use, seen) in enumerate(rows):
        wanted.append(-1 if not use else 7 + i if seen else first + new)
        new += use and not seen
    assert got.ordinals.tolist() == wanted and got.new_subjects == new and not got.conflict.any()
    told = {bytes(row): subject for row, subject in zip(got.fresh[0], got.fresh[2].tolist(), strict=True)}
    assert told == {bytes(found[i]): wanted[i] for i, (use, seen) in enumerate(rows) if use and not seen}
    assert [*told] == sorted(told) and set(got.fresh[1].tolist()) <= {2}


def test_ends_of_people_who_came_later_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consent_center.ends._RECENT", 0)
    held, model = Ends(), dict[int, int]()
    for start in (0, 100, 200, 150):  # the last ones stand in the middle
        who = np.arange(start, start + 100)
        ends = np.where(who % 3 == 0, NEVER, who * 10)
        held.put(who, ends)
        model |= dict(zip(who.tolist(), ends.tolist(), strict=True))
    everybody = np.array(sorted(model))
    assert held.of(everybody).tolist() == [model[one] for one in everybody.tolist()]
    assert set(held.ended(2000, BitMap(everybody))) == {
        one for one, end in model.items() if NEVER < end <= 2000
    }


def test_an_import_joins_what_a_reader_gives_up_to_a_transaction() -> None:
    def part(first: int, count: int) -> Batch:
        rows = np.arange(first, first + count)
        return Batch(rows, {"phone": pa.array([str(i) for i in rows])}, [Problem(first, "phone", "")])

    def broken() -> Iterator[Batch]:
        yield part(2, 3)
        yield Batch(np.zeros(0, np.int64), {}, [Problem(5, "", "")])
        yield part(6, 4)
        yield part(10, 5)
        raise ConsentError("import.file", "the rest can't be split")

    got = []
    with pytest.raises(ConsentError, match="import.file"):
        for batch in importer._joined(broken(), 8):
            got.append(batch)
    assert [batch.rows.tolist() for batch in got] == [[2, 3, 4, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    assert [[p.row for p in batch.problems] for batch in got] == [[2, 5, 6], [10]]
    assert [batch.columns["phone"].to_pylist() for batch in got] == [
        [str(row) for row in batch.rows.tolist()] for batch in got
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "few", "remove"]), st.integers(0, 40)), max_size=8),
    st.booleans(),
)
def test_the_index_is_a_dictionary(steps: list[tuple[str, int]], alike: bool) -> None:
    """`alike`: all pseudonyms begin alike, so that only the whole tells one from the other."""
    rng = np.random.default_rng(len(steps))
    index, model, number = subjects.SubjectIndex(), dict[bytes, int](), 0
    for what, size in steps:
        if what == "remove":
            gone = np.array([subject for subject in model.values() if subject % 41 == size], np.int64)
            index.remove(gone)
            model = {key: subject for key, subject in model.items() if subject not in set(gone.tolist())}
            continue
        count = size * 4 if what == "add" else min(size, 3)
        rows = rng.integers(0, 256, (count, 32), dtype=np.uint8)
        rows[:, :8] *= not alike
        index.add(rows, np.arange(number, number + count))
        model |= {bytes(row): number + i for i, row in enumerate(rows)}
        number += count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "_AT_ONCE", 17)
        strange = rng.integers(0, 256, (20, 32), dtype=np.uint8)
        asked = np.concatenate([np.array([list(key) for key in model], np.uint8).reshape(-1, 32), strange])
        rng.shuffle(asked)
        assert index.lookup(asked).tolist() == [model.get(bytes(row), -1) for row in asked]
