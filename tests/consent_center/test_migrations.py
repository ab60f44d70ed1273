"""The schema's revisions: one line of them, equal to the models, up and down with data, on both databases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import consent_helpers
import pyarrow as pa
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from consent_helpers import LASTING, REQUEST, Clock, event, make, phone, reason

from consent_center import registry, schema, storage
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.ledger import log
from pec.cli_common import run
from pec.cli_consent import consent

pytestmark = pytest.mark.usefixtures("store")

REVISIONS = [script.revision for script in reversed(list(schema.script_directory().walk_revisions()))]


def filled(home: Path) -> str:
    """A center with a little of everything; its checkpoint."""
    with make(home, days=LASTING) as center:
        center.record_many([event(n, birth_date=None) for n in range(20)])
        center.record(event(3, action="withdrawn"))
        center.erase("phone", phone(4), "dpo")
        center.snapshot(REQUEST, pa.array([phone(n) for n in range(30)]), "phone", "job")
        return center.checkpoint()


def rows(connection: sa.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the tables of the baseline hold."""
    found = {}
    for name in sa.inspect(connection).get_table_names():
        if name != "alembic_version":
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            found[name] = sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
    return found


def test_there_is_one_head() -> None:
    assert schema.script_directory().get_heads() == [schema.head()]


def test_the_models_are_what_the_migrations_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first database of a process, for which Alembic runs, and in the next, which repeats it."""
    monkeypatch.setattr(schema, "_written", {})
    for name in ("first", "next"):
        make(tmp_path / name).close()
        assert len(schema._written) == 1
        database = storage.open_database(tmp_path / name)
        with database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.all_tables()) == []
            schema.check(connection)
        database.close()


def test_down_and_up_again_keeps_the_data(tmp_path: Path) -> None:
    """Every revision is undone and done again; what the baseline has is never touched."""
    note = filled(tmp_path / "c")
    database = storage.open_database(tmp_path / "c")
    with database.read() as connection:
        before = rows(connection)
    for revision in [*reversed(REVISIONS[:-1]), *REVISIONS[1:]]:
        with database.write() as connection:
            assert schema.migrate(connection, revision)[1] == revision
        with database.read() as connection:
            if revision != REVISIONS[-1]:
                with pytest.raises(ConsentError, match="center.version"):
                    schema.check(connection)
            now = rows(connection)
            assert {name: now[name] for name in ("events", "states", "tiles", "entries", "identifiers")} == {
                name: before[name] for name in ("events", "states", "tiles", "entries", "identifiers")
            }
    with database.write() as connection:
        assert schema.migrate(connection) == (REVISIONS[-1], REVISIONS[-1])
    database.close()
    with Center.open(tmp_path / "c") as center:
        assert center.fsck(note) is None
        assert [reason(center, n) for n in (0, 3, 4)] == ["eligible", "withdrawn", "unknown_subject"]


def test_the_way_down_to_nothing_and_back(tmp_path: Path) -> None:
    make(tmp_path / "c").close()
    database = storage.open_database(tmp_path / "c")
    with database.write() as connection:
        assert schema.migrate(connection, "base") == (REVISIONS[-1], None)
        assert rows(connection) == {}
    with database.write() as connection:
        assert schema.migrate(connection) == (None, REVISIONS[-1])
    database.close()


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    note = filled(tmp_path / "c")
    database = storage.open_database(tmp_path / "c")
    with database.read() as connection:
        before = rows(connection)
    with pytest.raises(ConsentError, match="center.version: revision 'none'"), database.write() as connection:
        schema.migrate(connection, "none")
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        schema.migrate(connection, "base")
        raise ZeroDivisionError
    with database.read() as connection:
        assert rows(connection) == before
    database.close()
    with Center.open(tmp_path / "c") as center:
        assert center.fsck(note) is None


def test_a_center_from_before_assessments_were_the_default_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first leaf and its `meta` say nothing of them: jobs run as before, and every migration says so."""
    with monkeypatch.context() as old:
        append = log.append_entries
        old.setattr(registry, "REQUIRED_META", "not yet thought of")
        old.setattr(log, "append_entries", lambda c, told: append(c, [(k, _older(p)) for k, p in told]))
        make(tmp_path / "c").close()
    with Center.open(tmp_path / "c", Clock()) as center:
        assert center.assessments_required() is None and center.fsck() is None
        center.put_assessment(replace(center.assessments()[0], status="withdrawn"))
        center.record(event(1))
        assert center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job").decisions.eligible.all()
    assert run(consent, ["migrate", "--center", str(tmp_path / "c")]) == 0
    assert "run without one (PIPL 55)" in " ".join(capsys.readouterr().out.split())
    with Center.open(tmp_path / "c", Clock()) as center:
        center.require_assessments(False, "dpo")  # a decision, not the same as none
        assert center.assessments_required() is False and center.fsck() is None
        center.require_assessments(True, "dpo")
        with pytest.raises(ConsentError, match="assessment.missing"):
            center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job")
        assert center.fsck() is None
    assert run(consent, ["migrate", "--center", str(tmp_path / "c"), "--json"]) == 0
    assert "warning" not in json.loads(capsys.readouterr().out)


def _older(payload: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in payload.items() if name != "not yet thought of"}


@pytest.mark.sqlite
def test_a_center_from_before_revisions_is_taken_over(tmp_path: Path) -> None:
    note = filled(tmp_path / "c")
    database = storage.open_database(tmp_path / "c")
    with database.write() as connection:
        schema.migrate(connection, schema.BASELINE)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql("INSERT INTO meta VALUES ('schema', '2')")
    with pytest.raises(ConsentError, match=r"center.version.*pec consent migrate"):
        Center.open(tmp_path / "c")
    with database.write() as connection:
        assert schema.migrate(connection) == (schema.BASELINE, schema.head())
    with Center.open(tmp_path / "c") as center:
        assert center.fsck(note) is None
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql("UPDATE meta SET value = '1' WHERE key = 'schema'")
    with pytest.raises(ConsentError, match="schema 1"), database.write() as connection:
        schema.migrate(connection)
    database.close()


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "c").close()
    database = storage.open_database(tmp_path / "c")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(ConsentError, match=r"center.version.*9999.*update the program"):
        Center.open(tmp_path / "c")


def test_the_command_migrates_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(tmp_path / "c")
    url = consent_helpers.storage()
    more = ["--database", url] if url else []
    assert run(consent, ["init", "--center", home, "--controller", "brand", *more]) == 0
    assert run(consent, ["migrate", "--center", home, "--check"]) == 0
    capsys.readouterr()
    assert run(consent, ["migrate", "--center", home, "--down", "base", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["now"] is None
    assert run(consent, ["migrate", "--center", home, "--check"]) == 1
    assert run(consent, ["fsck", "--center", home]) != 0
    assert "pec consent migrate" in capsys.readouterr().err
    assert run(consent, ["migrate", "--center", home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["now"] == schema.head()
