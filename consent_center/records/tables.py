"""The table of records, on the center's own metadata: versions, never changed."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from consent_center.database import Int, metadata

records = Table(
    "records",
    metadata,
    Column("kind", Text, primary_key=True),  # processing, agreement
    Column("id", Text, primary_key=True),
    Column("version", Int, primary_key=True),
    Column("leaf", Int, nullable=False),  # has the body
)
