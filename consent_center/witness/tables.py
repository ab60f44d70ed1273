"""The tables of both roles, on the center's own metadata."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from consent_center.database import Int, metadata

witnessed_logs = Table(  # whose logs this center cosigns, and how far it did
    "witnessed_logs",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("size", Int, nullable=False),
    Column("note", Text, nullable=False),  # the checkpoint last cosigned; empty for none
)
witnesses = Table(  # who cosigns this center's log
    "witnesses",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("private", Int, nullable=False),
    Column("size", Int, nullable=False),  # that it last cosigned
    Column("note", Text, nullable=False),  # that checkpoint with its cosignature; empty for none
)
