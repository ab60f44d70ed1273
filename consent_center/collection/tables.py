"""Tables of collection: documents in force, signed links, how often a notice was shown."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from consent_center.database import Int, metadata

settings = Table(  # forms, sites, experiments: each row is what its leaf says
    "settings",
    metadata,
    Column("leaf", Int, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("version", Int, nullable=False),
    Column("body", Text, nullable=False),
)
links = Table(
    "links",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Int, nullable=False),
    Column("created_at", Int, nullable=False),
    Column("expires_at", Int, nullable=False),
    Column("used_at", Int, nullable=False),  # -1: not yet; only links for one use end with it
    Column("revoked_at", Int, nullable=False),  # -1: not
    Column("body", Text, nullable=False),  # what it is for; names nobody
    Column("sealed", LargeBinary, nullable=False),  # what names somebody, under the subject's key
    Index("links_subject", "subject"),
)
shown_counts = Table(  # how often a notice was shown: a day, not a person
    "shown_counts",
    metadata,
    Column("day", Int, primary_key=True, autoincrement=False),
    Column("channel", Text, primary_key=True),
    Column("form", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("recipient", Text, primary_key=True),
    Column("notice", Text, primary_key=True),
    Column("notice_version", Int, primary_key=True, autoincrement=False),
    Column("language", Text, primary_key=True),
    Column("shown", Int, nullable=False),
)
