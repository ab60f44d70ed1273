"""What SQLite and PostgreSQL each need of their own: connecting, bulk rows, cursors, and what an error means.

Nothing else in this package may depend on which of the two it runs on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Table, event

from consent_center.errors import ConsentError

#: Page cache in KiB; bulk inserts into the b-tree of pseudonyms want their inner pages in memory.
_CACHE_KIB = 128 * 1024
#: Rows in one INSERT statement.
_GROUP = 20
#: Up to so many rows an INSERT is quicker than a COPY.
_FEW = 8
#: Rows that a server-side cursor fetches at once.
_FETCH = 20_000
_NUMBERS = count()
_TYPES = {"BIGINT": "int8", "TEXT": "text", "BYTEA": "bytea"}


def parse_url(text: str) -> sa.URL:
    """The URL of a PostgreSQL database, for psycopg. ConsentError `center.location`, without the password."""
    with suppress(sa.exc.ArgumentError, ValueError):
        url = sa.make_url(text)
        if url.get_backend_name() in ("postgresql", "postgres") and url.database:
            return url.set(drivername="postgresql+psycopg")
    raise ConsentError(
        "center.location",
        "a database is given as postgresql://USER:PASSWORD@HOST:PORT/NAME; leave it out for SQLite",
    )


def engine(where: Path | str, busy_seconds: float) -> sa.Engine:
    """An engine on an SQLite file or a PostgreSQL URL; its errors carry no parameters (pseudonyms …)."""
    if isinstance(where, Path):
        made = sa.create_engine(
            sa.URL.create("sqlite", database=str(where)),
            connect_args={"timeout": busy_seconds, "check_same_thread": False},
            hide_parameters=True,
        )
        event.listen(made, "connect", lambda connection, _: _configure_sqlite(connection, busy_seconds))
        event.listen(made, "begin", _begin_sqlite)
        return made
    made = sa.create_engine(
        parse_url(where), hide_parameters=True, pool_pre_ping=True, isolation_level="READ COMMITTED"
    )
    event.listen(made, "connect", lambda connection, _: _configure_postgresql(connection, busy_seconds))
    return made


def _configure_sqlite(connection: Any, busy_seconds: float) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={int(busy_seconds * 1000)}",
        f"cache_size=-{_CACHE_KIB}",
        "secure_delete=ON",  # an erased salt is overwritten in the file
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("pec_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _configure_postgresql(connection: Any, busy_seconds: float) -> None:
    autocommit = connection.autocommit
    connection.autocommit = True
    # A server set to answer before the write is on disk must not turn our acknowledgements into guesses.
    for setting in (
        f"lock_timeout = {int(busy_seconds * 1000)}",
        "synchronous_commit = on",
        "TimeZone = 'UTC'",
    ):
        connection.execute(f"SET {setting}")
    connection.autocommit = autocommit


def lock(connection: sa.Connection) -> None:
    """Wait to be the only writer of this center (its schema); SQLite's BEGIN IMMEDIATE has done it already.

    Sequence numbers and leaves are given under this lock only, and each later statement sees what was
    committed before it, so that none is skipped or given twice. Readers go on.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 27560))")


def failure(error: BaseException | None) -> tuple[bool, str]:
    """(whether it passes when one waits, what to tell) for an error of a driver."""
    if isinstance(error, sqlite3.Error):
        text = str(error)
        return isinstance(error, sqlite3.OperationalError) and ("locked" in text or "busy" in text), text
    # lock_not_available, deadlock_detected, serialization_failure
    busy = getattr(error, "sqlstate", None) in ("55P03", "40P01", "40001")
    # The full text of a violated constraint has the row's values.
    told = getattr(getattr(error, "diag", None), "message_primary", None)
    return busy, str(told or str(error).partition("\n")[0])


def cursor(connection: sa.Connection, query: sa.Select[Any]) -> Any:
    """A driver's cursor on the answer; PostgreSQL's reads it in portions, so that memory stays bounded."""
    if connection.dialect.name == "sqlite" or query._limit_clause is not None:
        return connection.execute(query).cursor
    # Not SQLAlchemy's own streaming: its result has taken the first rows off the cursor already.
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    found = _driver(connection).cursor(name=f"rows_{next(_NUMBERS)}")
    found.itersize = _FETCH
    found.execute(str(compiled), compiled.params)
    return found


def joined(
    connection: sa.Connection, blobs: sa.Column[Any], numbers: sa.Column[Any]
) -> sa.ColumnElement[str]:
    """See `database.joined`."""
    if connection.dialect.name == "sqlite":
        row = sa.func.hex(blobs, type_=sa.Text) + sa.func.printf("%016x", numbers, type_=sa.Text)
    else:
        low = sa.func.lpad(sa.func.to_hex(numbers), 16, "0", type_=sa.Text)
        row = sa.func.encode(blobs, "hex", type_=sa.Text) + low
    return sa.func.aggregate_strings(row, "")


class Prepared:
    """A Core statement of the way of a single call: put into words once, then run at the driver.

    SQLAlchemy's own way costs ten times what SQLite needs for such a statement. For statements whose values
    are whole numbers, text and bytes, which both drivers take and give as they are.
    """

    def __init__(self, statement: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete) -> None:
        self._statement = statement
        self._ready: dict[str, tuple[str, list[str] | None, dict[str, Any]]] = {}

    def run(self, connection: sa.Connection, **values: Any) -> Any:
        """The driver's cursor, whose rows are plain tuples."""
        name = connection.dialect.name
        ready = self._ready.get(name)
        if ready is None:
            options = {"render_postcompile": True}
            made: Any = self._statement.compile(dialect=connection.dialect, compile_kwargs=options)
            ready = self._ready[name] = (str(made), made.positiontup, dict(made.params))
        sql, order, defaults = ready
        told = {**defaults, **values}
        return _driver(connection).execute(sql, told if order is None else [told[name] for name in order])

    def first(self, connection: sa.Connection, **values: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        found = self.run(connection, **values)
        row: tuple[Any, ...] | None = found.fetchone()
        found.close()
        return row


def insert_many(connection: sa.Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert whole rows. SQLite: twenty a statement, as starting one costs as much as a row; else COPY."""
    if connection.dialect.name == "postgresql":
        few, rest = _first(rows)
        if rest is None:
            _each(connection, f"INSERT INTO {table.name} VALUES ({_marks(table, '%s')})", few)  # noqa: S608 - ours
        else:
            _copy(connection, table.name, table, rest)
        return
    width = len(table.columns)
    one, flat, left = f"({_marks(table, '?')})", chain.from_iterable(rows), list[Any]()
    insert = f"INSERT INTO {table.name} VALUES "  # noqa: S608 - our own name

    def groups() -> Iterator[tuple[Any, ...]]:
        while len(part := tuple(islice(flat, _GROUP * width))) == _GROUP * width:
            yield part
        left.extend(part)

    _each(connection, insert + ", ".join([one] * _GROUP), groups())
    _each(connection, insert + one, zip(*[iter(left)] * width, strict=True))


def upsert_many(
    connection: sa.Connection, table: Table, rows: Iterable[tuple[Any, ...]], by: Sequence[str]
) -> None:
    """Insert whole rows, or replace the one with their primary key if the columns `by` are greater."""
    key = [column.name for column in table.primary_key]
    changed = [column.name for column in table.columns if column.name not in key]
    conflict = (
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in changed)}"
        f" WHERE ({', '.join(f'excluded.{c}' for c in by)}) > ({', '.join(f'{table.name}.{c}' for c in by)})"
    )
    into = f"INSERT INTO {table.name} "
    if connection.dialect.name != "postgresql":
        _each(connection, f"{into} VALUES ({_marks(table, '?')}){conflict}", rows)
        return
    few, rest = _first(rows)
    if rest is None:
        _each(connection, f"{into} VALUES ({_marks(table, '%s')}){conflict}", few)
        return
    # COPY knows no conflicts: through a table of this transaction's own.
    work = f"work_{table.name}"
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {work} (LIKE {table.name}) ON COMMIT DROP")
    _copy(connection, work, table, rest)
    connection.exec_driver_sql(f"{into} SELECT * FROM {work}{conflict}")  # noqa: S608 - ours
    connection.exec_driver_sql(f"DROP TABLE {work}")


def _marks(table: Table, mark: str) -> str:
    return ", ".join([mark] * len(table.columns))


def _first(rows: Iterable[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], Iterator[tuple[Any, ...]] | None]:
    """(all rows, None) when there are few, else ([], all of them)."""
    stream = iter(rows)
    few = list(islice(stream, _FEW + 1))
    return (few, None) if len(few) <= _FEW else ([], chain(few, stream))


def _each(connection: sa.Connection, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Run one prepared statement for every row. Straight to the driver: an iterator stays one."""
    driver = _driver(connection)
    if connection.dialect.name == "postgresql":
        with driver.cursor() as found:
            found.executemany(sql, rows)
    else:
        driver.executemany(sql, rows)


def _copy(connection: sa.Connection, name: str, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    types = [_TYPES[column.type.compile(connection.dialect)] for column in table.columns]
    with (
        _driver(connection).cursor() as found,
        found.copy(f"COPY {name} FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


def physical(connection: sa.Connection, tables: Iterable[str]) -> str | None:
    """The database's own check of its pages and indexes: what is wrong, or None.

    PostgreSQL's is the extension amcheck, where an administrator has installed it.
    """
    if connection.dialect.name == "sqlite":
        answer = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
        return None if answer == "ok" else answer.strip().replace("\n", " ")
    installed = connection.exec_driver_sql("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'").first()
    if installed is None:
        return None
    listed = sa.text(
        "SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam WHERE a.amname = 'btree' "
        "AND c.relnamespace = current_schema()::regnamespace AND c.relname IN :tables"
    ).bindparams(sa.bindparam("tables", expanding=True))
    for (index,) in connection.execute(listed, {"tables": list(tables)}).all():
        try:
            with connection.begin_nested():
                connection.execute(sa.text("SELECT bt_index_check(CAST(:i AS oid), true)"), {"i": index})
        except sa.exc.DBAPIError as error:
            return failure(error.orig)[1]
    return None
