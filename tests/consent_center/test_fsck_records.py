"""fsck finds a change in any column of any table: registry, snapshots, identifiers and all the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, ads, event, make, notice, phone

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.model import REASONS, Assessment

#: A higher counter of identifiers only skips numbers; the schema's number is judged when a center is opened.
#: `head_kept` tells a center whose head.note was lost from a new one; with the note there it says nothing.
HARMLESS = {("meta", "identifiers"), ("meta", "schema"), ("meta", "head_kept")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("records") / "c"
    with make(home) as center:
        center.put_assessment(Assessment("pia", "ads", "dms://1"))
        center.put_notice(notice(2, material=False))
        center.put_purpose(ads(2))
        center.switch_purpose("ads", False, "dpo")
        center.switch_purpose("ads", True, "dpo")
        center.put_notice(notice(3, purpose_version=2, material=False))
        now = {"purpose_version": 2, "notice_version": 3}
        for number in range(4):
            center.record(event(number, **now))
        child = {"action": "guardian_granted", "birth_date": date(2016, 1, 1), **now}
        center.record(event(4, **child))
        center.record(event(5, action="withdrawn"))
        center.erase("phone", phone(0), "dpo")
        assert center.decide(REQUEST, pa.array([phone(n) for n in range(6)]), "phone").eligible.sum() == 4
        center.snapshot(REQUEST, pa.array([phone(n) for n in range(6)]), "phone", "job")
        center.append_many([("filler", {"n": n}) for n in range(260)])
        assert center.fsck(center.checkpoint()) is None
    return home


@pytest.fixture
def database(home: Path) -> Iterator[sqlite3.Connection]:
    with (
        closing(sqlite3.connect(home / "center.db")) as opened,
        closing(sqlite3.connect(":memory:")) as keep,
    ):
        opened.backup(keep)
        yield opened
        keep.backup(opened)


def _flips(value: Any) -> list[Any]:
    """The value with one bit changed at its start and at its end, and as another type."""
    if isinstance(value, int):
        return [value ^ 1, value ^ (1 << 40), "x"]
    if isinstance(value, str):
        return [value + "x", chr(ord(value[0]) ^ 1) + value[1:]] if value else ["x"]
    if isinstance(value, bytes) and value:
        return [bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 1]), value[:-1]]
    return ["PIPL"]  # null or empty


TABLES = [
    "meta",
    "purposes",
    "notices",
    "assessments",
    "salts",
    "minors",
    "identifiers",
    "contexts",
    "descriptors",
    "events",
    "states",
    "tiles",
    "entries",
    "snapshots",
    "snapshot_tokens",
]


@pytest.mark.parametrize("table", TABLES)
def test_a_flip_in_any_column_is_found(home: Path, database: sqlite3.Connection, table: str) -> None:
    fields = [row[1:6:4] for row in database.execute(f"PRAGMA table_info({table})")]
    keys = [name for name, position in fields if position]
    rows = database.execute(f"SELECT {', '.join(keys)} FROM {table}").fetchall()
    assert rows
    some = {rows[0], rows[len(rows) // 2], rows[-1]} if table in ("entries", "events") else set(rows[:4])
    where = " AND ".join(f"{name} = ?" for name in keys)
    with Center.open(home) as center:
        for key in sorted(some):
            for name, _ in fields:
                query = f"SELECT {name} FROM {table} WHERE {where}"
                value = database.execute(query, key).fetchone()[0]
                for flipped in _flips(value):
                    moved = [flipped if n == name else k for n, k in zip(keys, key, strict=True)]
                    try:
                        database.execute(f"UPDATE {table} SET {name} = ? WHERE {where}", (flipped, *key))
                    except sqlite3.IntegrityError:
                        continue  # taken by another row, or no text in an integer key
                    database.commit()
                    found = (table, key[0]) in HARMLESS or center.fsck()
                    restored = database.execute(
                        f"UPDATE {table} SET {name} = ? WHERE {where}", (value, *moved)
                    )
                    assert restored.rowcount == 1
                    database.commit()
                    assert found, (table, key, name, flipped)
        assert center.fsck() is None


@pytest.mark.parametrize("table", [name for name in TABLES if name not in ("contexts", "descriptors")])
def test_a_row_that_is_removed_is_found(home: Path, database: sqlite3.Connection, table: str) -> None:
    database.execute(f"DELETE FROM {table} WHERE _rowid_ = (SELECT max(_rowid_) FROM {table})") if (
        table != "states"
    ) else database.execute("DELETE FROM states WHERE subject = 2")
    database.commit()
    with Center.open(home) as center:
        assert center.fsck() is not None


def test_rows_that_are_repeated_or_added_are_found(home: Path, database: sqlite3.Connection) -> None:
    copies = {
        "events": "SELECT sequence + 100, subject, descriptor, leaf, occurred_at, recorded_at, expires_at, "
        "salt, sealed FROM events WHERE sequence = 2",
        "entries": "SELECT leaf + 1000, kind, salt, payload FROM entries WHERE leaf = 1",
        "snapshots": "SELECT 'x', document, disclosure, signature, salt, regulation, eligible FROM snapshots",
        "purposes": "SELECT id, version + 1, body, 1 FROM purposes WHERE version = 2",
        "identifiers": "SELECT id + 100, randomblob(32), kind, subject, tag FROM identifiers WHERE id = 2",
        "minors": "SELECT 1, until FROM minors",
        "tiles": "SELECT level, number + 5, hashes FROM tiles WHERE level = 0 AND number = 0",
    }
    for table, copy in copies.items():
        database.execute(f"INSERT INTO {table} {copy}")
        with Center.open(home) as center:
            database.commit()
            assert center.fsck() is not None, table
        row = database.execute(f"SELECT max(_rowid_) FROM {table}").fetchone()
        database.execute(f"DELETE FROM {table} WHERE _rowid_ = ?", row) if table != "minors" else (
            database.execute("DELETE FROM minors WHERE ordinal = 1")
        )
        database.commit()
    with Center.open(home) as center:
        assert center.fsck() is None


def test_a_strangers_number_moved_to_a_consenting_person_is_found(
    home: Path, database: sqlite3.Connection
) -> None:
    """The one edit that makes a refused person eligible without touching an event."""
    database.execute("UPDATE identifiers SET subject = 1 WHERE subject = 5")
    database.commit()
    with Center.open(home) as center:
        finding = center.fsck()
    assert finding is not None and finding.where.startswith("identifiers")


@pytest.mark.parametrize("kind", ["purpose", "purpose.switch", "notice", "snapshot", "decision", "center"])
def test_nobody_else_writes_the_centers_own_leaves(tmp_path: Path, kind: str) -> None:
    with make(tmp_path / "c") as center, pytest.raises(ConsentError, match="ledger.payload"):
        center.append_many([("fine", {}), (kind, {"id": "ads", "version": 1, "active": True})])


def test_a_record_that_cannot_be_read_makes_everybody_stale(home: Path, database: sqlite3.Connection) -> None:
    database.execute("UPDATE descriptors SET body = '{'")
    database.commit()
    with Center.open(home) as center:
        decisions = center.decide(REQUEST, pa.array([phone(1)]), "phone")
        assert (REASONS[decisions.codes[0]], decisions.sequence) == ("stale", -1)
        with pytest.raises(ConsentError, match=r"ledger.corrupt.*fsck"):
            center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job")
        assert center.fsck() is not None


def test_keys_of_another_center_are_refused(home: Path, tmp_path: Path) -> None:
    """With another pseudonym key a withdrawal would be a stranger's and the person stay eligible."""
    make(tmp_path / "other").close()
    for name in ("pseudonym.key", "data.key", "signing.key"):
        file = home / "keys" / name
        own = file.read_text()
        file.write_text((tmp_path / "other/keys" / name).read_text())
        with pytest.raises(ConsentError, match="center.keys"):
            Center.open(home)
        file.write_text(own)
    Center.open(home).close()
