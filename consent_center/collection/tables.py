"""Tables of collection: documents in force, signed links, how often a notice was shown."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from consent_center.database import metadata

settings = Table(  # forms, sites, experiments: each row is what its leaf says
    "settings",
    metadata,
    Column("leaf", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
)
links = Table(
    "links",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),  # -1: not yet; only links for one use end with it
    Column("revoked_at", BigInteger, nullable=False),  # -1: not
    Column("body", Text, nullable=False),  # what it is for; names nobody
    Column("sealed", LargeBinary, nullable=False),  # what names somebody, under the subject's key
    Index("links_subject", "subject"),
)
shown_counts = Table(  # how often a notice was shown: a day, not a person
    "shown_counts",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("channel", Text, primary_key=True),
    Column("form", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("recipient", Text, primary_key=True),
    Column("notice", Text, primary_key=True),
    Column("notice_version", Integer, primary_key=True, autoincrement=False),
    Column("language", Text, primary_key=True),
    Column("shown", BigInteger, nullable=False),
)
