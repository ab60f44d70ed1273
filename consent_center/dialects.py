"""What SQLite and PostgreSQL each need of their own: connecting, bulk rows, cursors, and what an error means.

Nothing else in this package may depend on which of the two it runs on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy import Table, event

from consent_center.errors import ConsentError
from consent_center.hashing import blobs

#: A column of a table: int64[n], uint8[n, k] of blobs, a list of blobs, or the blob that all rows have.
Values = npt.NDArray[Any] | list[bytes] | bytes

#: Page cache in KiB; bulk inserts into the b-tree of pseudonyms want their inner pages in memory.
_CACHE_KIB = 128 * 1024
#: Rows in one INSERT statement.
_GROUP = 20
#: Up to so many rows an INSERT is quicker than a COPY.
_FEW = 8
#: Rows that a statement takes from columns at once, and from how many on SQLite counts them itself.
_SIDE = 256
_STRETCH, _SOME = _SIDE * _SIDE, 1024
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
    connection: sa.Connection, blobs: sa.Column[Any], numbers: sa.Column[Any], where: sa.ColumnElement[bool]
) -> tuple[bytes, str]:
    """See `database.joined`: the blobs one after the other, and the numbers with commas between them."""
    if connection.dialect.name == "sqlite":
        # What SQLite joins is text to it, but it looks at no byte of a blob on the way, zeros included.
        whole: sa.ColumnElement[bytes] = sa.cast(sa.func.group_concat(blobs, ""), sa.LargeBinary)
        listed = sa.func.group_concat(numbers, ",", type_=sa.Text)
    else:
        whole = sa.func.string_agg(blobs, sa.literal(b"", sa.LargeBinary), type_=sa.LargeBinary)
        listed = sa.func.string_agg(sa.cast(numbers, sa.Text), ",", type_=sa.Text)
    found = connection.execute(sa.select(whole, listed).where(where)).one()
    return found[0] or b"", found[1] or ""


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
    conflict = _conflict(table, by)
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


def _conflict(table: Table, by: Sequence[str]) -> str:
    key = [column.name for column in table.primary_key]
    changed = [column.name for column in table.columns if column.name not in key]
    return (
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in changed)}"
        f" WHERE ({', '.join(f'excluded.{c}' for c in by)}) > ({', '.join(f'{table.name}.{c}' for c in by)})"
    )


def insert_columns(
    connection: sa.Connection, table: Table, columns: Sequence[Values], by: Sequence[str] = ()
) -> None:
    """`insert_many`, or with `by` `upsert_many`, of columns: those of the table, in its order.

    SQLite takes thousands of rows from one statement that counts through them and cuts each blob out of one
    parameter: no Python object is made a row. At least one column has a length.
    """
    rows = next(len(column) for column in columns if not isinstance(column, bytes))
    lists = any(isinstance(column, list) for column in columns)
    if connection.dialect.name == "sqlite" and rows >= _SOME and not lists:
        for start in range(0, rows, _STRETCH):
            count = min(rows - start, _STRETCH)
            cut = [c if isinstance(c, bytes) else c[start : start + count] for c in columns]
            told = [_told(column) for column in cut]
            select = f"INSERT INTO {table.name} SELECT {', '.join(sql for sql, _ in told)} {_COUNTED}"
            values = [value for _, value in told]
            _driver(connection).execute(
                select + (_conflict(table, by) if by else ""), [*values, -(-count // _SIDE), count]
            )
        return
    listed = _rows_of(columns, rows)
    if by:
        upsert_many(connection, table, listed, by)
    else:
        insert_many(connection, table, listed)


#: i from 0 on: two short lists are looped through in a third of the time that a recursive query takes.
_LIST = f"(VALUES {', '.join(f'({i})' for i in range(_SIDE))})"
_BOTH = f"{_LIST} a CROSS JOIN {_LIST} b WHERE a.column1 < ?"
_COUNTED = f"FROM (SELECT {_SIDE} * a.column1 + b.column1 AS i FROM {_BOTH}) WHERE i < ?"  # noqa: S608 - ours


def _told(column: Any) -> tuple[str, Any]:
    """(an expression of i, the value of its parameter) for a stretch of a column."""
    if isinstance(column, bytes):
        return "?", column
    if column.dtype == np.uint8:
        width = column.shape[1]
        return f"substr(?, 1 + {width} * i, {width})", column.tobytes()
    steps = np.diff(column)
    for step, sql in ((0, "?"), (1, "? + i")):
        if (steps == step).all():
            return sql, int(column[0])
    # There is no other way from a blob to a number than by its digits.
    left = np.abs(column).astype(np.uint64)  # the least number stays itself, which is its size unsigned
    width = len(str(int(left.max()))) + 1
    digits = np.empty((len(column), width), np.uint8)
    for place in range(width - 1, 0, -1):
        digits[:, place] = left % np.uint64(10) + ord("0")
        left //= np.uint64(10)
    digits[:, 0] = np.where(column < 0, ord("-"), ord("0"))
    return f"CAST(substr(?, 1 + {width} * i, {width}) AS INTEGER)", digits.tobytes()


def _rows_of(columns: Sequence[Any], rows: int) -> Iterator[tuple[Any, ...]]:
    """The rows as tuples of plain objects, made for a stretch at a time."""
    for start in range(0, rows, _STRETCH):
        cut = (c if isinstance(c, bytes) else c[start : start + _STRETCH] for c in columns)
        yield from zip(*(_plain(column) for column in cut), strict=False)


def _plain(column: Any) -> Iterable[Any]:
    if isinstance(column, bytes):
        return repeat(column)
    if isinstance(column, list):
        return column
    return blobs(column) if column.dtype == np.uint8 else column.tolist()


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
