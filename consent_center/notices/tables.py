"""Drafts of notices: working papers, outside of the ledger until they are published."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from consent_center.database import Int, metadata

notice_drafts = Table(
    "notice_drafts",
    metadata,
    Column("id", Text, primary_key=True),  # of the notice
    Column("body", Text, nullable=False),
    Column("updated_at", Int, nullable=False),
    Column("actor", Text, nullable=False),
)
