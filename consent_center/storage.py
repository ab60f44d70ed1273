"""Where a center's database is: `center.db` in its directory, or the PostgreSQL database that `database.url`
names. That file may hold a password, so only its owner can read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from consent_center import dialects, schema
from consent_center.database import Database, set_meta
from consent_center.errors import ConsentError

FILE, SETTING = "center.db", "database.url"


def exists(home: Path) -> bool:
    """Whether a center's database was made or named in that directory."""
    return (home / FILE).is_file() or (home / SETTING).is_file()


def create(home: Path, url: str | None, controller: str) -> Database:
    """Make an empty database by the migrations. ConsentError `center.location`, `.exists`, `.unreachable`."""
    if url is None:
        (home / FILE).touch(mode=0o600)
        database = Database(home / FILE)
    else:
        database = Database(dialects.parse_url(url).render_as_string(hide_password=False))
    try:
        with database.write() as connection:
            if schema.current(connection) is not None:
                raise ConsentError(
                    "center.exists", f"the database {database.name} holds a center already; name another"
                )
            schema.build(connection)
            set_meta(connection, "controller", controller)
            set_meta(connection, "registry", "0")
        if url is not None:
            _write(home / SETTING, url)
    except BaseException:
        database.close()
        if url is None:
            (home / FILE).unlink(missing_ok=True)
        raise
    return database


def open_database(home: Path) -> Database:
    """The center's database, of whatever revision. ConsentError `center.missing`, `.keys`, `.location`."""
    if (home / SETTING).is_file():
        return Database(_read(home / SETTING))
    if not (home / FILE).is_file():
        raise ConsentError("center.missing", f"{home} holds no consent center; make one: pec consent init")
    return Database(home / FILE)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConsentError("center.location", f"{path.name} can't be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConsentError("center.keys", f"{path.name} is open to other users; run chmod 600 on it")
    return text
