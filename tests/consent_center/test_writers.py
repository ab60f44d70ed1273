"""Several writers: the state is the fold of the events in any interleaving; a changed event is found."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from consent_helpers import START, Clock, event, make, phone, reason
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center import database as db
from consent_center.center import Center
from consent_center.model import RANK

ROOT = Path(__file__).resolve().parents[2]
_STEP = st.tuples(
    st.integers(0, 2),  # who writes
    st.integers(0, 3),  # about whom
    st.sampled_from(["granted", "denied", "withdrawn", "renewed"]),
    st.integers(0, 4),  # days ago
    st.sampled_from(["one", "batch", "soon", "keep", "erase"]),
)
_REASON = {"granted": "eligible", "renewed": "eligible", "denied": "denied", "withdrawn": "withdrawn"}


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_STEP, min_size=3, max_size=12))
@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_the_state_is_the_fold_in_any_interleaving(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch, make(Path(scratch) / "c", Clock()) as first:
        writers = [first, *(Center.open(Path(scratch) / "c", Clock()) for _ in range(2))]
        best: dict[int, tuple[Any, ...]] = {}
        for number, (writer, who, action, days, way) in enumerate(steps):
            center, at = writers[writer], START - timedelta(days=days)
            said = event(who, action=action, occurred_at=at)
            if way == "erase":
                if who in best:
                    center.erase("phone", phone(who), "dpo")
                    del best[who]
                continue
            if way == "keep":
                center.keep_state()
            if who not in best and _erased_before(center, who):
                continue
            if way == "batch":
                center.record_many([said, event(5, action=action, occurred_at=at)])
                best[5] = max(best.get(5, ()), (at, RANK[action], number, action))
            else:
                (center.record_soon if way == "soon" else center.record)(said)
            best[who] = max(best.get(who, ()), (at, RANK[action], number, action))
        for center in writers:
            for who in (0, 1, 2, 3, 5):
                expected = _REASON[best[who][3]] if who in best else "unknown_subject"
                assert reason(center, who) == expected
            assert center.fsck() is None
        for center in writers[1:]:
            center.close()


def _erased_before(center: Center, who: int) -> bool:
    """An erased person's old events are refused; that has its own tests."""
    with center._read() as connection:
        query = sa.select(db.descriptors.c.body)
        return any(json.loads(row[0])["action"] == "erased" for row in connection.execute(query))


@pytest.mark.usefixtures("store")
def test_any_change_of_the_event_table_is_found_and_named(tmp_path: Path) -> None:
    """Each column of some rows, one bit at a time; a row that is missing; two rows that are exchanged."""
    table = db.events
    with make(tmp_path / "c", Clock()) as center:
        center.record_many([event(n % 5, occurred_at=START - timedelta(days=n)) for n in range(12)])
        for row in _rows(center)[::4]:
            for column in table.columns:
                value = row[column.name]
                changed = (
                    value ^ 1
                    if isinstance(value, int)
                    else bytes([value[0] ^ 1]) + value[1:]
                    if value
                    else b"x"
                )
                if column.name == "sequence":
                    changed = value + 1000
                _set(center, row["sequence"], {column.name: changed})
                found = center.fsck()
                assert found is not None and found.what in ("changed", "missing", "reordered"), column.name
                assert "events" in found.where or "ledger" in found.where, (column.name, found)
                _set(center, changed if column.name == "sequence" else row["sequence"], {column.name: value})
        assert center.fsck() is None
        rows = _rows(center)
        with center._write() as connection:
            connection.execute(table.delete().where(table.c.sequence == 7))
        assert center.fsck() is not None and center.fsck().what == "missing"  # type: ignore[union-attr]
        with center._write() as connection:
            connection.execute(table.insert().values(**rows[6]))
        assert center.fsck() is None
        for old, new in ((3, 9000), (9, 3), (9000, 9)):
            _set(center, old, {"sequence": new})
        found = center.fsck()
        assert found is not None and "events" in found.where


def _rows(center: Center) -> list[dict[str, Any]]:
    with center._read() as connection:
        query = sa.select(db.events).order_by(db.events.c.sequence)
        return [dict(row) for row in connection.execute(query).mappings()]


def _set(center: Center, sequence: int, values: dict[str, Any]) -> None:
    with center._write() as connection:
        connection.execute(db.events.update().where(db.events.c.sequence == sequence).values(**values))


@pytest.mark.slow
def test_killed_writers_on_both_databases(tmp_path: Path, store: str) -> None:
    """Few rounds of what scripts/consent_kill.py does for longer."""
    import consent_helpers

    command = [sys.executable, "scripts/consent_kill.py", "--rounds", "3", "--writers", "8", "--seconds", "2"]
    if url := consent_helpers.storage():
        command += ["--database", url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr[-2000:])
    result = json.loads(done.stdout)
    assert result["acknowledged"] > 0 and np.isscalar(result["killed"])
