"""Tables of the rules: where people are, and what was used of a limit."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from consent_center.database import Int, metadata

regions = Table(  # the newest row of a person counts; ids only rise, so that followers can read on
    "regions",
    metadata,
    Column("id", Int, primary_key=True, autoincrement=False),
    Column("ordinal", Int, nullable=False, unique=True),
    Column("region", Text, nullable=False),
    Column("tag", LargeBinary, nullable=False),  # ties the region to the person, under the data key
)
rule_uses = Table(  # one row a decision or snapshot that a limit counts, by its leaf
    "rule_uses",
    metadata,
    Column("leaf", Int, primary_key=True, autoincrement=False),
    Column("at", Int, nullable=False),
    Column("kind", Text, nullable=False),  # decision, snapshot
    Column("purpose", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("people", Int, nullable=False),  # how many were eligible
    Index("rule_uses_at", "at"),
)
