"""The tables of the outbox, on the center's metadata: a message is written with what it tells, or not."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from consent_center.database import Int, metadata

recipients = Table(  # only those that were ever switched; all others are on
    "recipients",
    metadata,
    Column("id", Text, primary_key=True),
    Column("active", Int, nullable=False),
)
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("body", Text, nullable=False),  # canonical JSON
    Column("active", Int, nullable=False),
    Column("salt", LargeBinary, nullable=False),  # of its secret
)
outbox = Table(
    "outbox",
    metadata,
    Column("number", Int, primary_key=True, autoincrement=False),
    Column("webhook", Text, nullable=False),
    Column("leaf", Int, nullable=False),  # commits to number, webhook and body
    Column("created_at", Int, nullable=False),
    Column("body", Text, nullable=False),  # JSON as it is sent
    Column("state", Text, nullable=False),  # pending, delivered, dead
    Column("attempts", Int, nullable=False),
    Column("next_at", Int, nullable=False),  # not before; also the end of a dispatcher's claim
    Column("done_at", Int, nullable=False),  # -1: not yet
    Column("last", Text, nullable=False),  # what the last attempt brought
    Index("outbox_next", "state", "next_at"),
)
lease_checks = Table(  # up to which event the drops of a snapshot have been measured
    "lease_checks",
    metadata,
    Column("snapshot", Text, primary_key=True),
    Column("sequence", Int, nullable=False),
)
