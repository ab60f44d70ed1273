"""Restriction: a person whose data is kept and not used. Decisions refuse with the reason `restricted`."""

from __future__ import annotations

import sqlalchemy as sa

from consent_center import database as db
from consent_center.requests.tables import restrictions

#: Rises with every change of who is restricted or which identifiers lead to whom; followers read it.
META = "people"


def counter(connection: sa.Connection) -> int:
    return int(db.get_meta(connection, META) or "0")


def changed(connection: sa.Connection) -> None:
    """Tell the followers of this database that what they hold of people is old."""
    db.set_meta(connection, META, str(counter(connection) + 1))


def restrict(connection: sa.Connection, subject: int, now: int, leaf: int) -> None:
    """Restrict a subject; again changes nothing."""
    if not is_restricted(connection, subject):
        connection.execute(restrictions.insert().values(subject=subject, since=now, leaf=leaf))
        changed(connection)


def lift(connection: sa.Connection, subject: int) -> bool:
    """End a restriction; whether there was one."""
    if connection.execute(restrictions.delete().where(restrictions.c.subject == subject)).rowcount == 0:
        return False
    changed(connection)
    return True


def is_restricted(connection: sa.Connection, subject: int) -> bool:
    query = sa.select(restrictions.c.subject).where(restrictions.c.subject == subject)
    return connection.execute(query).first() is not None


def leaf_of(connection: sa.Connection, subject: int) -> int:
    """The leaf of the step that restricted a subject."""
    query = sa.select(restrictions.c.leaf).where(restrictions.c.subject == subject)
    return int(connection.execute(query).scalar_one())


def subjects(connection: sa.Connection) -> list[int]:
    """All restricted subjects."""
    return [int(row[0]) for row in connection.execute(sa.select(restrictions.c.subject))]
