"""The tables, on the center's own metadata, so that a new center has them and one transaction spans all."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from consent_center.database import Int, metadata

preferences = Table(  # append-only
    "preferences",
    metadata,
    Column("number", Int, primary_key=True, autoincrement=False),
    Column("subject", Int, nullable=False),
    Column(
        "slot", LargeBinary, nullable=False
    ),  # keyed hash of channel and topic: says nothing without the salt
    Column("leaf", Int, nullable=False),
    Column("occurred_at", Int, nullable=False),
    Column("recorded_at", Int, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # AES-256-GCM under the subject's key
    Index("preferences_subject", "subject"),
)
preference_states = Table(  # the fold: which preference is in force
    "preference_states",
    metadata,
    Column("subject", Int, primary_key=True, autoincrement=False),
    Column("slot", LargeBinary, primary_key=True),
    Column("number", Int, nullable=False),
)
contact_policies = Table(  # append-only; kind "policy": (channel, topic); kind "term": (channel|topic, id)
    "contact_policies",
    metadata,
    Column("number", Int, primary_key=True),
    Column("leaf", Int, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
)
contacts = Table(
    "contacts",
    metadata,
    Column("id", LargeBinary, primary_key=True),  # keyed hash of sender and contact id
    Column("subject", Int, nullable=False),
    Column("at", Int, nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("leaf", Int, nullable=False),  # -1: reserved only
    Column(
        "digest", LargeBinary, nullable=False
    ),  # of the row, under the subject's key; the leaf commits to it
    Column("expires_at", Int, nullable=False),  # of a reservation; -1: made
    Index("contacts_subject", "subject", "at"),
    Index("contacts_expiry", "expires_at"),
)

ALL_TABLES = (preferences, preference_states, contact_policies, contacts)
