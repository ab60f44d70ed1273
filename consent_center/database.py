"""Tables, transactions and the two ways in: `read()` sees one consistent state, `write()` is alone.

SQLite in WAL mode with synchronous FULL: a commit that returned survives a power cut. Writers begin with
BEGIN IMMEDIATE, so several processes take turns instead of failing halfway; whoever waits longer than
`BUSY_SECONDS` gets `center.busy`. SQLAlchemy Core keeps the SQL portable; what is SQLite's own stands in this
file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy import BLOB, Column, Index, Integer, MetaData, Table, Text, UniqueConstraint, event

from consent_center.errors import ConsentError

SCHEMA_VERSION = 2
BUSY_SECONDS = 30
#: Page cache in KiB; bulk inserts into the b-tree of pseudonyms want their inner pages in memory.
_CACHE_KIB = 128 * 1024
#: Rows in one INSERT statement.
_GROUP = 20

metadata = MetaData()

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

purposes = Table(
    "purposes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("body", Text, nullable=False),  # canonical JSON without "active"
    Column("active", Integer, nullable=False),
)
notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("body", Text, nullable=False),
)
assessments = Table(
    "assessments", metadata, Column("id", Text, primary_key=True), Column("body", Text, nullable=False)
)

salts = Table(  # of 128 subjects a row, 32 bytes each, by ordinal; zeros after erasure
    "salts",
    metadata,
    Column("chunk", Integer, primary_key=True),
    Column("salts", BLOB, nullable=False),
)
minors = Table(
    "minors",
    metadata,
    Column("ordinal", Integer, primary_key=True),
    Column(
        "until", Integer, nullable=False
    ),  # day (since 1970) of the birthday that ends the need for a guardian
)
identifiers = Table(
    "identifiers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pseudonym", BLOB, nullable=False, unique=True),
    Column("kind", Integer, nullable=False),
    Column("subject", Integer, nullable=False),
    Column("tag", BLOB, nullable=False),  # ties the pseudonym to its subject, see events.identifier_tags
)
contexts = Table(
    "contexts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("controller", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("regulation", Text, nullable=False),
    UniqueConstraint("controller", "recipient", "purpose", "regulation"),
)
descriptors = Table(  # what many events share: everything that does not name a person
    "descriptors",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", BLOB, nullable=False, unique=True),
    Column("context", Integer, nullable=False),
    Column("body", Text, nullable=False),
)
events = Table(
    "events",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("subject", Integer, nullable=False),
    Column("descriptor", Integer, nullable=False),
    Column("leaf", Integer, nullable=False),
    Column("occurred_at", Integer, nullable=False),
    Column("recorded_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),  # -1: no end
    Column("salt", BLOB, nullable=False),
    Column("sealed", BLOB, nullable=False),  # evidence and actor, AES-256-GCM under the subject's key
    Index("events_subject", "subject"),
)
states = Table(  # the fold of the events, written in their transaction
    "states",
    metadata,
    Column("context", Integer, primary_key=True),
    Column("subject", Integer, primary_key=True),
    Column("descriptor", Integer, nullable=False),
    Column(
        "explicit", Integer, nullable=False
    ),  # 0: assumed consent, which never outweighs a person's own word
    Column("rank", Integer, nullable=False),
    Column("occurred_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    sqlite_with_rowid=False,
)

tiles = Table(
    "tiles",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("hashes", BLOB, nullable=False),
)
entries = Table(  # leaves that are no consent events
    "entries",
    metadata,
    Column("leaf", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("salt", BLOB, nullable=False),
    Column("payload", BLOB, nullable=False),  # canonical JSON
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("document", BLOB, nullable=False),
    Column("disclosure", BLOB, nullable=False),
    Column("signature", BLOB, nullable=False),
    Column("salt", BLOB, nullable=False),
    Column("regulation", Text),
    Column("eligible", BLOB, nullable=False),  # serialised Roaring bitmap of ordinals
)
snapshot_tokens = Table(
    "snapshot_tokens",
    metadata,
    Column("snapshot", Text, primary_key=True),
    Column("chunk", Integer, primary_key=True),
    Column("tokens", BLOB, nullable=False),
)


class Database:
    """The engine and its two kinds of transactions. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            hide_parameters=True,  # an error's text must not carry pseudonyms or sealed parts into a log
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)

    def create(self, controller: str) -> None:
        """Make the tables in an empty file."""
        with self.write() as connection:
            metadata.create_all(connection)
            set_meta(connection, "schema", str(SCHEMA_VERSION))
            set_meta(connection, "controller", controller)
            set_meta(connection, "registry", "0")

    def check(self) -> str:
        """The controller; ConsentError `center.version` unless the file has this program's schema."""
        with self.read() as connection:
            found, controller = get_meta(connection, "schema"), get_meta(connection, "controller")
        if found != str(SCHEMA_VERSION):
            raise ConsentError(
                "center.version",
                f"{self.path.name} has schema {found}, this program knows {SCHEMA_VERSION}",
            )
        return controller or ""

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The only writer, until the block ends; everything or nothing is committed."""
        engine = self._engine.execution_options(pec_write=True)
        with _translated(), engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin`, not by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        f"cache_size=-{_CACHE_KIB}",
        "secure_delete=ON",  # an erased salt is overwritten in the file
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("pec_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sqlite3.OperationalError) as error:
        text = str(getattr(error, "orig", error))
        if "locked" in text or "busy" in text:
            raise ConsentError(
                "center.busy", f"another process has kept the write lock for {BUSY_SECONDS} s; try again"
            ) from error
        raise ConsentError("center.unreachable", f"the consent database can't be used: {text}") from error
    except sa.exc.TimeoutError as error:
        raise ConsentError("center.busy", "too many threads use this center at once; try again") from error
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        text = str(getattr(error, "orig", error))
        raise ConsentError("center.unreachable", f"the consent database can't be used: {text}") from error


def insert_many(connection: sa.Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert whole rows (every column, in the table's order); `rows` may be an iterator.

    Twenty rows a statement: starting a statement costs as much as writing a row.
    """
    width = len(table.columns)
    one = f"({', '.join('?' * width)})"
    insert = f"INSERT INTO {table.name} VALUES "  # noqa: S608 - our own name
    flat, rest = chain.from_iterable(rows), list[Any]()

    def groups() -> Iterator[tuple[Any, ...]]:
        while len(part := tuple(islice(flat, _GROUP * width))) == _GROUP * width:
            yield part
        rest.extend(part)

    write_many(connection, insert + ", ".join([one] * _GROUP), groups())
    write_many(connection, insert + one, zip(*[iter(rest)] * width, strict=True))


def write_many(connection: sa.Connection, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Run one prepared statement for every row. Straight to the driver: an iterator stays one."""
    connection.connection.driver_connection.executemany(sql, rows)  # type: ignore[union-attr]


def columns(connection: sa.Connection, sql: str, *parameters: Any) -> list[npt.NDArray[np.int64]]:
    """The integer columns of a query's answer, without nulls. Goes past SQLAlchemy's rows, for speed."""
    cursor = raw(connection, sql, *parameters)
    width = len(cursor.description)
    flat = np.fromiter(chain.from_iterable(cursor), np.int64)
    return [np.ascontiguousarray(column) for column in flat.reshape(-1, width).T]


def blob_column(connection: sa.Connection, sql: str, *parameters: Any) -> bytes:
    """The blobs of a query's only column, joined."""
    return b"".join(chain.from_iterable(raw(connection, sql, *parameters)))


def raw(connection: sa.Connection, sql: str, *parameters: Any) -> Any:
    """A cursor of the driver; its rows are plain tuples, made one at a time (no garbage to collect)."""
    return connection.connection.driver_connection.execute(sql, parameters)  # type: ignore[union-attr]


def chunks(values: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """`values` in pieces that fit a statement's limit of parameters."""
    return (values[start : start + size] for start in range(0, len(values), size))


def get_meta(connection: sa.Connection, key: str) -> str | None:
    return connection.execute(sa.select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()


def set_meta(connection: sa.Connection, key: str, value: str) -> None:
    if connection.execute(meta.update().where(meta.c.key == key).values(value=value)).rowcount == 0:
        connection.execute(meta.insert().values(key=key, value=value))
