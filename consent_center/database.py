"""Tables, transactions and the two ways in: `read()` sees one consistent state, `write()` is alone.

SQLite (WAL, synchronous FULL) or PostgreSQL (synchronous commit): a commit that returned survives a power
cut. Writers take turns instead of failing halfway: BEGIN IMMEDIATE, or an advisory lock; whoever waits longer
than `BUSY_SECONDS` gets `center.busy`. Statements are SQLAlchemy Core; what one database needs of its own
stands in `dialects.py`. The schema is made and changed by `migrations/` alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy import Column, Index, LargeBinary, MetaData, Table, Text, UniqueConstraint

from consent_center import dialects
from consent_center.dialects import Prepared as Prepared
from consent_center.errors import ConsentError

BUSY_SECONDS = 30.0

metadata = MetaData()

#: Whole numbers have 64 bits everywhere (times are microseconds); SQLite's rowid wants the name INTEGER.
Int = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = MetaData()

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

purposes = Table(
    "purposes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", Int, primary_key=True),
    Column("body", Text, nullable=False),  # canonical JSON without "active"
    Column("active", Int, nullable=False),
)
notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", Int, primary_key=True),
    Column("body", Text, nullable=False),
)
assessments = Table(
    "assessments", metadata, Column("id", Text, primary_key=True), Column("body", Text, nullable=False)
)

salts = Table(  # of 128 subjects a row, 32 bytes each, by ordinal; zeros after erasure
    "salts",
    metadata,
    Column("chunk", Int, primary_key=True, autoincrement=False),
    Column("salts", LargeBinary, nullable=False),
)
minors = Table(
    "minors",
    metadata,
    Column("ordinal", Int, primary_key=True, autoincrement=False),
    Column(
        "until", Int, nullable=False
    ),  # day (since 1970) of the birthday that ends the need for a guardian
)
identifiers = Table(
    "identifiers",
    metadata,
    Column("id", Int, primary_key=True, autoincrement=False),
    Column("pseudonym", LargeBinary, nullable=False, unique=True),
    Column("kind", Int, nullable=False),
    Column("subject", Int, nullable=False),
    Column(
        "tag", LargeBinary, nullable=False
    ),  # ties the pseudonym to its subject, see events.identifier_tags
)
contexts = Table(
    "contexts",
    metadata,
    Column("id", Int, primary_key=True),
    Column("controller", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("regulation", Text, nullable=False),
    UniqueConstraint("controller", "recipient", "purpose", "regulation"),
)
descriptors = Table(  # what many events share: everything that does not name a person
    "descriptors",
    metadata,
    Column("id", Int, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("context", Int, nullable=False),
    Column("body", Text, nullable=False),
)
events = Table(
    "events",
    metadata,
    Column("sequence", Int, primary_key=True, autoincrement=False),
    Column("subject", Int, nullable=False),
    Column("descriptor", Int, nullable=False),
    Column("leaf", Int, nullable=False),
    Column("occurred_at", Int, nullable=False),
    Column("recorded_at", Int, nullable=False),
    Column("expires_at", Int, nullable=False),  # -1: no end
    Column("salt", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # evidence and actor, AES-256-GCM under the subject's key
    Index("events_subject", "subject"),
)
states = Table(  # the fold of the events, written in their transaction
    "states",
    metadata,
    Column("context", Int, primary_key=True),
    Column("subject", Int, primary_key=True),
    Column("descriptor", Int, nullable=False),
    Column("explicit", Int, nullable=False),  # 0: assumed consent, which never outweighs a person's own word
    Column("rank", Int, nullable=False),
    Column("occurred_at", Int, nullable=False),
    Column("expires_at", Int, nullable=False),
    Column("sequence", Int, nullable=False),
    sqlite_with_rowid=False,
)

tiles = Table(
    "tiles",
    metadata,
    Column("level", Int, primary_key=True),
    Column("number", Int, primary_key=True),
    Column("hashes", LargeBinary, nullable=False),
)
entries = Table(  # leaves that are no consent events
    "entries",
    metadata,
    Column("leaf", Int, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # canonical JSON
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("disclosure", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("regulation", Text),
    Column("eligible", LargeBinary, nullable=False),  # serialised Roaring bitmap of ordinals
)
snapshot_tokens = Table(
    "snapshot_tokens",
    metadata,
    Column("snapshot", Text, primary_key=True),
    Column("chunk", Int, primary_key=True, autoincrement=False),
    Column("tokens", LargeBinary, nullable=False),
)


class Database:
    """The engine and its two kinds of transactions. Safe to use from several threads.

    `where`: the file of an SQLite database, or the URL of a PostgreSQL database.
    """

    def __init__(self, where: Path | str) -> None:
        self.name = where.name if isinstance(where, Path) else dialects.parse_url(where).database or ""
        self._engine = dialects.engine(where, BUSY_SECONDS)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        engine = self._engine
        if self.dialect == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with _translated(), engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The only writer, until the block ends; everything or nothing is committed."""
        engine = self._engine.execution_options(pec_write=True)
        with _translated(), engine.begin() as connection:
            dialects.lock(connection)
            yield connection

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise ConsentError("center.busy", "too many threads use this center at once; try again") from error
    except Exception as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if not isinstance(cause, sqlite3.Error) and not type(cause).__module__.startswith("psycopg"):
            raise
        busy, text = dialects.failure(cause)
        if busy:
            raise ConsentError(
                "center.busy", f"another process has kept the write lock for {BUSY_SECONDS} s; try again"
            ) from error
        # PostgreSQL's own text of an error can have a row's values: not into a log by way of the cause.
        shown = error if isinstance(cause, sqlite3.Error) else None
        raise ConsentError("center.unreachable", f"the consent database can't be used: {text}") from shown


def insert_many(connection: sa.Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert whole rows (every column, in the table's order); `rows` may be an iterator."""
    dialects.insert_many(connection, table, rows)


def upsert_many(
    connection: sa.Connection, table: Table, rows: Iterable[tuple[Any, ...]], by: Sequence[str]
) -> None:
    """Insert whole rows, or replace the row with the same primary key if the columns `by` are greater."""
    dialects.upsert_many(connection, table, rows, by)


def insert_columns(
    connection: sa.Connection, table: Table, columns: Sequence[dialects.Values], by: Sequence[str] = ()
) -> None:
    """`insert_many`, or `upsert_many` by the columns `by`, of columns in the table's order.

    int64[n], uint8[n, k] (blobs of k bytes), a list of blobs, or one blob for all; at least one has a length.
    """
    dialects.insert_columns(connection, table, columns, by)


def columns(connection: sa.Connection, query: sa.Select[Any]) -> list[npt.NDArray[np.int64]]:
    """The integer columns of a query's answer, without nulls. Goes past SQLAlchemy's rows, for speed."""
    width = len(query.selected_columns)
    flat = np.fromiter(chain.from_iterable(raw(connection, query)), np.int64)
    return [np.ascontiguousarray(column) for column in flat.reshape(-1, width).T]


def blob_column(connection: sa.Connection, query: sa.Select[Any]) -> bytes:
    """The blobs of a query's only column, joined."""
    return b"".join(chain.from_iterable(raw(connection, query)))


def joined(
    connection: sa.Connection, blobs: sa.Column[Any], numbers: sa.Column[Any], where: sa.ColumnElement[bool]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(the bytes of the blobs, joined; int64[n] the numbers) of the rows `where`, in any one order for both.

    The database joins them, in a quarter of the time that fetching takes. For some 10,000 rows at a time.
    """
    held, listed = dialects.joined(connection, blobs, numbers, where)
    return np.frombuffer(held, np.uint8), np.fromstring(listed, np.int64, sep=",")


def raw(connection: sa.Connection, query: sa.Select[Any]) -> Any:
    """A cursor of the driver; its rows are plain tuples, made one at a time (no garbage to collect)."""
    return dialects.cursor(connection, query)


def chunks(values: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """`values` in pieces that fit a statement's limit of parameters."""
    return (values[start : start + size] for start in range(0, len(values), size))


_GET_META = Prepared(sa.select(meta.c.value).where(meta.c.key == sa.bindparam("of")))
_SET_META = Prepared(meta.update().where(meta.c.key == sa.bindparam("of")).values(value=sa.bindparam("to")))


def get_meta(connection: sa.Connection, key: str) -> str | None:
    row = _GET_META.first(connection, of=key)
    return None if row is None else str(row[0])


def set_meta(connection: sa.Connection, key: str, value: str) -> None:
    if _SET_META.run(connection, of=key, to=value).rowcount == 0:
        connection.execute(meta.insert().values(key=key, value=value))
