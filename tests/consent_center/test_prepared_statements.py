"""Prepared statements answer as SQLAlchemy does, on both databases, and fail as `ConsentError` alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from consent_helpers import event, make

from consent_center import database as db
from consent_center import subjects
from consent_center.errors import ConsentError
from consent_center.hashing import as_rows

pytestmark = pytest.mark.usefixtures("store")


def test_prepared_statements_answer_as_sqlalchemy_does(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        for number in range(3):
            center.record(event(number))
        query = sa.select(db.identifiers.c.pseudonym, db.identifiers.c.subject, db.identifiers.c.id)
        query = query.where(db.identifiers.c.subject >= sa.bindparam("least")).order_by(db.identifiers.c.id)
        prepared = db.Prepared(query.limit(2))
        with center._read() as connection:
            for least in (0, 2, 1 << 62):
                plain = [tuple(row) for row in connection.execute(query.limit(2), {"least": least})]
                assert [tuple(row) for row in prepared.run(connection, least=least)] == plain
                assert prepared.first(connection, least=least) == (plain[0] if plain else None)
            known = [bytes(row[0]) for row in connection.execute(query, {"least": 0})]
            asked = [b"\0" * 32, *known, known[1]]
            assert subjects.sql_lookup(connection, as_rows(asked)).tolist() == [-1, 0, 1, 2, 1]
            assert subjects.sql_lookup(connection, np.empty((0, 32), np.uint8)).tolist() == []
        with center._write() as connection:
            assert db.get_meta(connection, "nothing") is None
            db.set_meta(connection, "a", "1")
            db.set_meta(connection, "a", "2")
            assert db.get_meta(connection, "a") == "2"
        lost = db.Prepared(sa.select(sa.table("nowhere", sa.column("x")).c.x))
        with pytest.raises(ConsentError, match="center.unreachable"), center._read() as connection:
            lost.first(connection)
