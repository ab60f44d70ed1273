"""What only PostgreSQL can do wrong: locks, lost connections, errors that tell too much, its setting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from consent_helpers import REQUEST, event, make, notice, phone, reason

from consent_center import database, dialects, storage
from consent_center.center import Center
from consent_center.errors import ConsentError

Fresh = Callable[[], str]


def center_at(home: Path, url: str) -> Center:
    made = Center.create(home, "brand", database=url)
    make_registry(made)
    return made


def make_registry(center: Center) -> None:
    from consent_helpers import ads

    center.put_purpose(ads())
    center.put_notice(notice())


def test_the_url_is_kept_apart_from_the_keys_and_closed_to_others(tmp_path: Path, postgresql: Fresh) -> None:
    center_at(tmp_path / "c", postgresql()).close()
    setting = tmp_path / "c" / storage.SETTING
    assert setting.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "c" / storage.FILE).exists()
    with Center.open(tmp_path / "c") as center:
        center.record(event(1))
        assert reason(center, 1) == "eligible"
    setting.chmod(0o640)
    with pytest.raises(ConsentError, match=r"center.keys.*chmod 600"):
        Center.open(tmp_path / "c")


def test_a_database_is_for_one_center(tmp_path: Path, postgresql: Fresh) -> None:
    url = postgresql()
    center_at(tmp_path / "c", url).close()
    with pytest.raises(ConsentError, match="center.exists"):
        Center.create(tmp_path / "d", "other", database=url)
    assert not (tmp_path / "d" / "keys").exists()  # the next attempt must not stumble over this one
    Center.create(tmp_path / "d", "other", database=postgresql()).close()


@pytest.mark.parametrize("url", ["mysql://a/b", "postgresql://", "nonsense", "postgresql://u:secret@h"])
def test_other_urls_are_refused_without_telling_the_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConsentError, match="center.location") as caught:
        Center.create(tmp_path / "c", "brand", database=url)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "c" / "keys").exists()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = f"postgresql://u:secret@/{'x'}?host={tmp_path}"
    with pytest.raises(ConsentError, match="center.unreachable") as caught:
        Center.create(tmp_path / "c", "brand", database=url)
    assert "secret" not in str(caught.value)
    Center.create(tmp_path / "c", "brand").close()


def test_lost_connections_fail_closed_and_come_back(tmp_path: Path, postgresql: Fresh) -> None:
    url = postgresql()
    with center_at(tmp_path / "c", url) as center:
        center.record(event(1))
        assert reason(center, 1) == "eligible"
        other = dialects.engine(url, 5)
        for transaction in (center._read, center._write):
            with pytest.raises(ConsentError, match="center.unreachable"), transaction() as connection:
                pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
                with other.begin() as killer:
                    killer.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 60000)")
                connection.exec_driver_sql("SELECT 1")
            assert reason(center, 1) == "eligible"
        center.record(event(1, action="withdrawn"))
        assert reason(center, 1) == "withdrawn"
        other.dispose()


def test_a_lock_that_is_never_released_makes_everybody_stale(
    tmp_path: Path, postgresql: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    center_at(tmp_path / "c", postgresql()).close()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with Center.open(tmp_path / "c") as center, Center.open(tmp_path / "c") as other:
        center.record(event(1))
        with other._write():
            assert reason(center, 1) == "stale"
            with pytest.raises(ConsentError, match="center.busy"):
                center.record(event(1, action="withdrawn"))
            assert center.explain("phone", phone(1)).events  # readers go on
        assert reason(center, 1) == "eligible"


def test_two_centers_in_one_database_do_not_wait_for_each_other(tmp_path: Path, postgresql: Fresh) -> None:
    with center_at(tmp_path / "c", postgresql()) as one, center_at(tmp_path / "d", postgresql()) as two:
        with one._write():
            assert two.record(event(1)).sequence == 1
        assert one.record(event(1)).sequence == 1


def test_errors_do_not_carry_the_row(tmp_path: Path, postgresql: Fresh) -> None:
    with center_at(tmp_path / "c", postgresql()) as center:
        center.record(event(1))
        with pytest.raises(ConsentError, match="center.unreachable") as caught, center._write() as connection:
            row = connection.execute(sa.select(database.identifiers)).one()
            database.insert_many(connection, database.identifiers, [(99, *row[1:])])
        told = str(caught.value) + repr(caught.value.__cause__)
        assert row.pseudonym.hex() not in told and "duplicate key" in told


def test_copy_and_single_statements_give_the_same(tmp_path: Path, postgresql: Fresh) -> None:
    """Few rows go by INSERT, many by COPY; a row is replaced by a greater one only, in both."""
    with center_at(tmp_path / "c", postgresql()) as center, center._write() as connection:
        for size in (3, 50):
            rows = [(size * 1000 + n, 100 + n) for n in range(size)]
            database.insert_many(connection, database.minors, iter(rows))
            raised = [(key, until + (-1) ** key) for key, until in rows]
            database.upsert_many(connection, database.minors, iter(raised), ("until",))
            table = database.minors
            query = sa.select(table).where(
                table.c.ordinal >= size * 1000, table.c.ordinal < size * 1000 + size
            )
            keys, until = database.columns(connection, query.order_by(table.c.ordinal))
            assert list(zip(keys.tolist(), until.tolist(), strict=True)) == [
                (key, max(old, new)) for (key, old), (_, new) in zip(rows, raised, strict=True)
            ]
        blobs = database.blob_column(connection, sa.select(database.salts.c.salts))
        assert (
            blobs == b""
            and database.columns(connection, sa.select(database.minors.c.until))[0].dtype == np.int64
        )


def test_decisions_of_many(tmp_path: Path, postgresql: Fresh) -> None:
    """More people than one portion of a cursor has, and more than are asked for one by one."""
    with center_at(tmp_path / "c", postgresql()) as center, Center.open(tmp_path / "c") as follower:
        people = pa.array([phone(n) for n in range(25_000)])
        assert reason(follower, 1) == "unknown_subject"
        center.assume(people, "phone", "ads", "provider", ["contact"], "trial", os.environ.get("USER", "me"))
        assert int(follower.decide(REQUEST, people, "phone").eligible.sum()) == 25_000
        with Center.open(tmp_path / "c") as fresh:
            assert int(fresh.decide(REQUEST, people, "phone").eligible.sum()) == 25_000
        assert center.fsck(center.checkpoint()) is None


def test_a_center_made_by_the_helper_is_on_sqlite(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        assert center._database.dialect == "sqlite"


def test_the_index_is_read_as_it_was_stored(tmp_path: Path, postgresql: Fresh) -> None:
    """Enough people that they are looked up in memory and written from columns; and erased ones are gone."""
    with center_at(tmp_path / "c", postgresql()) as center:
        people = pa.array([phone(n) for n in range(1500)])
        told = center.assume(people, "phone", "ads", "provider", ["contact"], "a test", "tester")
        assert told.subjects.tolist() == list(range(1500))
        center.erase("phone", phone(7), "tester")
        found = center.decide(REQUEST, people, "phone").ordinals
        assert found.tolist() == [n if n != 7 else -1 for n in range(1500)]
        assert center.fsck() is None
