"""Which revision of the schema a database has, and moving it up or down (Alembic).

A database from before there were revisions (`meta` says schema 2) counts as `BASELINE`: that is its schema.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.errors import ConsentError

FOLDER = Path(__file__).parent / "migrations"
BASELINE = "0001"
_OLD_SCHEMA = "2"
_VERSION_TABLE = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32)))
_REVISION = re.compile(r'^(revision|down_revision)\s*=\s*"([^"]+)"', re.MULTILINE)


def all_tables() -> sa.MetaData:
    """The metadata with the tables of every feature: each `consent_center/<feature>/tables.py`."""
    for path in sorted(Path(__file__).parent.glob("*/tables.py")):
        import_module(f"consent_center.{path.parent.name}.tables")
    return db.metadata


@lru_cache
def head() -> str:
    """The newest revision, from the files: opening a center needs no Alembic. A test compares the two."""
    revisions, parents = set[str](), set[str]()
    for path in (FOLDER / "versions").glob("*.py"):
        for name, value in _REVISION.findall(path.read_text(encoding="utf-8")):
            (revisions if name == "revision" else parents).add(value)
    newest = sorted(revisions - parents)
    if len(newest) != 1:
        raise RuntimeError(
            f"the revisions end in {newest}: set down_revision of the later one to the earlier"
        )
    return newest[0]


def current(connection: sa.Connection) -> str | None:
    """The database's revision; None for an empty one. ConsentError `center.version` if it can't be told."""
    tables = sa.inspect(connection)
    if tables.has_table(_VERSION_TABLE.name):
        return connection.execute(sa.select(_VERSION_TABLE)).scalar_one_or_none()
    if not tables.has_table(db.meta.name):
        return None
    found = db.get_meta(connection, "schema")
    if found != _OLD_SCHEMA:
        raise ConsentError(
            "center.version", f"the database has schema {found}, from which this program can't migrate"
        )
    return BASELINE


def check(connection: sa.Connection) -> None:
    """ConsentError `center.version` unless the database has the newest revision."""
    tagged = None
    if sa.inspect(connection).has_table(_VERSION_TABLE.name):
        tagged = connection.execute(sa.select(_VERSION_TABLE)).scalar_one_or_none()
    if tagged == head():
        return
    if tagged is None:
        found = "a schema from before revisions were counted, or none"
    else:
        found = f"revision {tagged}"
        if not any(FOLDER.glob(f"versions/{tagged}_*.py")):
            raise ConsentError(
                "center.version",
                f"the database has {found}, which this program does not know: update the program",
            )
    raise ConsentError(
        "center.version",
        f"the database has {found}, this program needs {head()}: make a backup, then run pec consent migrate",
    )


#: What the migrations wrote into an empty database, by dialect; they write the same into the next.
_written: dict[str, list[tuple[str, Any]]] = {}


def build(connection: sa.Connection) -> None:
    """An empty database to the newest revision. Alembic runs once a process; further databases repeat its
    statements.
    """
    known = _written.get(connection.dialect.name)
    if known is not None:
        for statement, parameters in known:
            connection.exec_driver_sql(statement, parameters)
        return
    written: list[tuple[str, Any]] = []

    def listen(_: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA", "WITH")):  # questions
            written.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", listen)
    try:
        migrate(connection)
    finally:
        sa.event.remove(connection, "before_cursor_execute", listen)
    _written[connection.dialect.name] = written


def migrate(connection: sa.Connection, revision: str = "head") -> tuple[str | None, str | None]:
    """Move to `revision` ("head", a revision, "-1", "base"); (before, after). ConsentError `center.version`.

    Runs in the caller's transaction: if a step fails, nothing has changed.
    """
    from alembic import command, util

    before = current(connection)
    config = _config(connection)
    try:
        if before is not None and not sa.inspect(connection).has_table(_VERSION_TABLE.name):
            command.stamp(config, before)
        if _is_down(revision, before):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
    except util.CommandError as error:
        raise ConsentError("center.version", f"revision {revision!r}: {error}") from error
    return before, current(connection)


def _is_down(revision: str, before: str | None) -> bool:
    if revision == "base" or revision.startswith("-"):
        return True
    known = [script.revision for script in script_directory().walk_revisions()]  # newest first
    return before in known and revision in known and known.index(revision) > known.index(before or "")


def script_directory() -> Any:
    """Alembic's view of the revisions."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(None))


def _config(connection: sa.Connection | None) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
