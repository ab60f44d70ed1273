"""The tables of rights requests, on the center's own metadata, so that one transaction spans all."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from consent_center.database import Int, metadata

rights_requests = Table(
    "rights_requests",
    metadata,
    Column("number", Int, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),  # the fold of the steps, written in their transaction
    Column("subject", Int, nullable=False),  # -1: nobody, or not known yet
    Column("received_at", Int, nullable=False),
    Column("due_at", Int, nullable=False),
    Column("done_at", Int, nullable=False),  # -1: not done
    Column("salt", LargeBinary, nullable=False),  # of the key of what names the person; zeros once purged
    Index("rights_requests_state", "state", "due_at"),
)
rights_steps = Table(  # append-only; each is a leaf
    "rights_steps",
    metadata,
    Column("request", Int, primary_key=True, autoincrement=False),
    Column("position", Int, primary_key=True, autoincrement=False),
    Column("leaf", Int, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # AES-256-GCM under the request's key
)
restrictions = Table(
    "restrictions",
    metadata,
    Column("subject", Int, primary_key=True, autoincrement=False),
    Column("since", Int, nullable=False),
    Column("leaf", Int, nullable=False),
)
erased_identifiers = Table(
    "erased_identifiers",
    metadata,
    Column("tag", LargeBinary, primary_key=True),  # HMAC of the pseudonym under the key of this list alone
    Column("leaf", Int, primary_key=True, autoincrement=False),
    Column("erased_at", Int, nullable=False),
)
