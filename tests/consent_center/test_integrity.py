"""The state is the fold of the events in any order; fsck finds any flip; processes share a database."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import consent_helpers
import pyarrow as pa
import pytest
import sqlalchemy as sa
from consent_helpers import LASTING, REQUEST, START, Clock, event, make, notice, phone
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.center import Center
from consent_center.ledger import verify
from consent_center.model import ACTIONS, GRANTS, RANK, REASONS, ConsentEvent

pytestmark = pytest.mark.usefixtures("store")

Step = tuple[int, int, str, str, int]

steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # person
        st.integers(0, 4),  # hour: few, so that ties happen
        st.sampled_from([a for a in ACTIONS if a != "guardian_granted"]),
        st.sampled_from(["provider", "other"]),
        st.integers(0, 1),  # which of two open centers writes
    ),
    max_size=14,
)


def made(step: Step) -> ConsentEvent:
    person, hour, action, recipient, _ = step
    return event(person, action=action, recipient=recipient, occurred_at=START - timedelta(hours=10 - hour))


def model(events: list[Step]) -> dict[int, str]:
    """The documented fold, naively: the greatest (time, rank, sequence) of each (person, recipient)."""
    best: dict[tuple[int, str], tuple[int, int, int]] = {}
    for sequence, (person, hour, action, recipient, _) in enumerate(events):
        key = (person, recipient)
        best[key] = max(best.get(key, (-1, -1, -1)), (hour, RANK[action], sequence))
    answers = {}
    for person in range(4):
        mine, other = best.get((person, "provider")), best.get((person, "other"))
        if mine is None and other is None:
            answers[person] = "unknown_subject"
        elif mine is None:
            answers[person] = "recipient_out_of_scope"
        else:
            action = events[mine[2]][2]
            answers[person] = "eligible" if action in GRANTS else action
    return answers


@settings(max_examples=6, deadline=None)
@given(events=steps, cut=st.integers(0, 14))
def test_state_is_the_fold_in_any_order_by_any_writer(
    tmp_path_factory: pytest.TempPathFactory, events: list[Step], cut: int
) -> None:
    """Two open centers write in turns and follow each other; one decides midway, one opens afterwards."""
    home = tmp_path_factory.mktemp("fold") / "c"
    values = pa.array([phone(n) for n in range(4)])

    def answers(center: Center) -> dict[int, str]:
        codes = center.decide(REQUEST, values, "phone").codes
        return {n: REASONS[code] for n, code in enumerate(codes)}

    with make(home) as one, Center.open(home, Clock()) as two:
        for number, step in enumerate(events):
            if number == cut:
                assert answers(one) == model(events[:number])
            (one, two)[step[4]].record(made(step))
        wanted = model(events)
        assert answers(one) == answers(two) == wanted
        with Center.open(home, Clock()) as fresh:
            assert answers(fresh) == wanted
        assert one.fsck(one.checkpoint()) is None


@settings(max_examples=6, deadline=None)
@given(events=steps)
def test_a_batch_folds_like_single_events(
    tmp_path_factory: pytest.TempPathFactory, events: list[Step]
) -> None:
    home = tmp_path_factory.mktemp("batch")
    values = pa.array([phone(n) for n in range(4)])
    with make(home / "a") as single, make(home / "b") as many:
        for step in events:
            single.record(made(step))
        if events:
            many.record_many([made(step) for step in events])
        codes = [c.decide(REQUEST, values, "phone").codes.tolist() for c in (single, many)]
        assert codes[0] == codes[1]
        assert [REASONS[c] for c in codes[0]] == list(model(events).values())


# ---- fsck ----------------------------------------------------------------------------------------

TAMPERING: dict[str, tuple[str, str, str]] = {
    "event's time": (
        "UPDATE events SET occurred_at = occurred_at + 1 WHERE sequence = 3",
        "changed",
        "events 3",
    ),
    "event's end": ("UPDATE events SET expires_at = -1 WHERE sequence = 4", "changed", "events 4"),
    "event's subject": ("UPDATE events SET subject = 0 WHERE sequence = 3", "changed", "events 3"),
    "event's evidence": ("UPDATE events SET sealed = x'00' WHERE sequence = 5", "changed", "events 5"),
    "event's descriptor": ("UPDATE events SET descriptor = 2 WHERE sequence = 2", "changed", "events 2"),
    "the text of a descriptor": (
        "UPDATE descriptors SET body = replace(body, 'denied', 'granted')",
        "changed",
        "events 6",
    ),
    "an event removed": ("DELETE FROM events WHERE sequence = 4", "missing", "events 4"),
    "the last event removed": ("DELETE FROM events WHERE sequence = 6", "missing", "ledger"),
    "two events exchanged": (
        "UPDATE events SET leaf = CASE sequence WHEN 2 THEN 6 ELSE 5 END WHERE sequence IN (2, 3)",
        "reordered",
        "events 3",
    ),
    "an entry's payload": ("UPDATE entries SET payload = x'7b7d' WHERE leaf = 1", "changed", "entries 1"),
    "an entry removed": ("DELETE FROM entries WHERE leaf = 1", "missing", "ledger 1"),
    "a state": ("UPDATE states SET descriptor = 1 WHERE subject = 5", "changed", "states 1/5"),
    "a state removed": ("DELETE FROM states WHERE subject = 5", "missing", "states 1/5"),
    "a leaf's hash": (
        "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0",
        "changed",
        "entries 0",
    ),
    "an upper tile": ("UPDATE tiles SET hashes = zeroblob(32) WHERE level = 1", "changed", "tiles 1/0"),
}


def filled(home: Path) -> tuple[Center, str]:
    center = make(home)
    for number in range(5):
        center.record(event(number))
    center.record(event(5, action="denied"))
    center.append_many([("filler", {"n": n}) for n in range(250)])
    return center, center.checkpoint()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    home = tmp_path_factory.mktemp("fsck") / "c"
    center, checkpoint = filled(home)
    center.close()
    return home, checkpoint


@pytest.mark.sqlite
@pytest.mark.parametrize("name", TAMPERING)
def test_fsck_names_the_first_difference(original: tuple[Path, str], name: str) -> None:
    home, checkpoint = original
    sql, what, where = TAMPERING[name]
    database = sqlite3.connect(home / "center.db")
    keep = sqlite3.connect(":memory:")
    database.backup(keep)
    try:
        assert database.execute(sql).rowcount >= 1, "the tampering must hit something"
        database.commit()
        with Center.open(home) as center:
            finding = center.fsck(checkpoint)
        assert finding is not None
        assert (finding.what, finding.where[: len(where)]) == (what, where)
    finally:
        keep.backup(database)
        database.close()
        keep.close()


TABLES = ("events", "descriptors", "entries", "states", "tiles")


@pytest.fixture(scope="module")
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, postgresql: Callable[[], str]
) -> Iterator[tuple[Path, str, Any]]:
    """The same center in PostgreSQL, and a connection that changes it behind its back."""
    home, url = tmp_path_factory.mktemp("fsck") / "p", postgresql()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consent_helpers, "storage", lambda: url)
        center, checkpoint = filled(home)
    center.close()
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as raw:
        for table in TABLES:
            raw.exec_driver_sql(f"CREATE TABLE kept_{table} AS TABLE {table}")
        yield home, checkpoint, raw
    engine.dispose()


def put_back(raw: Any) -> None:
    for table in TABLES:
        raw.exec_driver_sql(f"DELETE FROM {table}")
        raw.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM kept_{table}")


@pytest.mark.sqlite  # `store` does not matter here
def test_fsck_names_the_first_difference_in_postgresql_too(elsewhere: tuple[Path, str, Any]) -> None:
    home, checkpoint, raw = elsewhere
    for name, (sql, what, where) in TAMPERING.items():
        theirs = re.sub(r"x'([0-9a-f]+)'", r"'\\x\1'::bytea", sql)
        theirs = re.sub(r"zeroblob\((.+?\)?)\)( |$)", r"decode(repeat('00', \1), 'hex')\2", theirs)
        assert raw.exec_driver_sql(theirs).rowcount >= 1, name
        with Center.open(home) as center:
            finding = center.fsck(checkpoint)
        assert finding is not None, name
        assert (finding.what, finding.where[: len(where)]) == (what, where), name
        put_back(raw)
    for column in ("occurred_at", "recorded_at", "expires_at", "salt", "sealed"):
        value = raw.exec_driver_sql(f"SELECT {column} FROM events WHERE sequence = 3").scalar_one()
        wrong = value ^ 1 if isinstance(value, int) else _flipped(bytes(value), -1)
        raw.exec_driver_sql(f"UPDATE events SET {column} = %s WHERE sequence = 3", (wrong,))
        with Center.open(home) as center:
            finding = center.fsck()
        assert finding is not None and finding.where == "events 3", column
        put_back(raw)
    with Center.open(home) as center:
        assert center.fsck() is None


@pytest.mark.sqlite
def test_fsck_finds_nothing_in_an_honest_log_and_a_cut_log_by_its_checkpoint(
    original: tuple[Path, str],
) -> None:
    home, checkpoint = original
    with Center.open(home) as center:
        assert center.fsck(checkpoint) is None
        longer = verify.checkpoint(checkpoint, center.verifier_key())
        center.append("later", {})
        forged = center.checkpoint()
        assert center.fsck(forged) is None and longer.size == 260
    database = sqlite3.connect(home / "center.db")
    database.execute("DELETE FROM entries WHERE leaf = 260")
    row = database.execute("SELECT hashes FROM tiles WHERE level = 0 AND number = 1").fetchone()[0]
    database.execute("UPDATE tiles SET hashes = ? WHERE level = 0 AND number = 1", (row[:-32],))
    database.commit()
    database.close()
    with Center.open(home) as center:
        assert center.fsck() is None  # consistent in itself …
        finding = center.fsck(forged)  # … but not what was signed
        assert finding is not None and finding.what == "missing"


@pytest.mark.sqlite
def test_every_flipped_byte_of_an_event_is_found(original: tuple[Path, str]) -> None:
    """One flip in each column that the leaf commits to, at both ends of its value."""
    home, _ = original
    database = sqlite3.connect(home / "center.db")
    columns = ["occurred_at", "recorded_at", "expires_at", "salt", "sealed"]
    row = database.execute(f"SELECT {', '.join(columns)} FROM events WHERE sequence = 3").fetchone()
    flip: Callable[[Any, int], Any] = lambda value, at: (  # noqa: E731
        value ^ (1 << (60 * at)) if isinstance(value, int) else _flipped(value, -at)
    )
    for column, value in zip(columns, row, strict=True):
        for at in (0, 1):
            database.execute(f"UPDATE events SET {column} = ? WHERE sequence = 3", (flip(value, at),))
            database.commit()
            with Center.open(home) as center:
                finding = center.fsck()
            assert finding is not None and finding.where == "events 3", column
        database.execute(f"UPDATE events SET {column} = ? WHERE sequence = 3", (value,))
        database.commit()
    database.close()
    with Center.open(home) as center:
        assert center.fsck() is None


def _flipped(value: bytes, at: int) -> bytes:
    changed = bytearray(value)
    changed[at] ^= 1
    return bytes(changed)


# ---- processes -----------------------------------------------------------------------------------

WRITER = textwrap.dedent(
    """
    import sys
    from datetime import UTC, datetime
    from pathlib import Path
    from consent_center.center import Center
    from consent_center.model import ConsentEvent

    home, first = Path(sys.argv[1]), int(sys.argv[2])
    with Center.open(home) as center:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(first, first + 10):
            center.record(ConsentEvent((("phone", f"138{number:08d}"),), "ads", 1, "granted", "provider",
                ("contact",), datetime(2026, 1, 1, tzinfo=UTC), "ads-notice", 1))
            center.append("test", {"number": number})
    """
)


def test_two_processes_write_and_a_third_follows(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        command = [sys.executable, "-c", WRITER, str(tmp_path / "c")]
        root = Path(__file__).resolve().parents[2]
        with (
            subprocess.Popen([*command, "0"], stdin=-1, stdout=-1, text=True, cwd=root) as one,
            subprocess.Popen([*command, "100"], stdin=-1, stdout=-1, text=True, cwd=root) as two,
        ):
            writers = (one, two)
            for writer in writers:
                assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.write("go\n")
                writer.stdin.flush()
            values = pa.array([phone(n) for n in [*range(10), *range(100, 110)]])
            seen = [-1]
            while any(writer.poll() is None for writer in writers):
                decisions = center.decide(REQUEST, values, "phone")
                # What the sequence number claims to have seen is what was counted.
                assert int(decisions.eligible.sum()) == decisions.sequence
                assert decisions.sequence >= seen[-1]
                seen.append(decisions.sequence)
            assert [writer.returncode for writer in writers] == [0, 0]
        assert center.decide(REQUEST, values, "phone").counts() == {"in": 20, "out": {}}
        assert center.fsck(center.checkpoint()) is None
        shares = {
            center.explain("phone", phone(n)).events[0]["sequence"] for n in [*range(10), *range(100, 110)]
        }
        assert shares == set(range(1, 21))


def test_one_process_switches_a_purpose_off_and_another_refuses(tmp_path: Path) -> None:
    with make(tmp_path / "c", days=LASTING) as one, Center.open(tmp_path / "c") as two:
        one.record(event(1))
        values = pa.array([phone(1)])
        assert two.decide(REQUEST, values, "phone").codes.tolist() == [0]
        one.put_notice(notice(2))
        assert REASONS[two.decide(REQUEST, values, "phone").codes[0]] == "outdated_notice"
        one.switch_purpose("ads", False, "dpo")
        assert REASONS[two.decide(REQUEST, values, "phone").codes[0]] == "purpose_inactive"
