"""The tables, on the center's own metadata, so that a new center has them and one transaction spans all."""

from __future__ import annotations

from sqlalchemy import BLOB, Column, Index, Integer, Table, Text

from consent_center.database import metadata

preferences = Table(  # append-only
    "preferences",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("subject", Integer, nullable=False),
    Column("slot", BLOB, nullable=False),  # keyed hash of channel and topic: says nothing without the salt
    Column("leaf", Integer, nullable=False),
    Column("occurred_at", Integer, nullable=False),
    Column("recorded_at", Integer, nullable=False),
    Column("sealed", BLOB, nullable=False),  # AES-256-GCM under the subject's key
    Index("preferences_subject", "subject"),
)
preference_states = Table(  # the fold: which preference is in force
    "preference_states",
    metadata,
    Column("subject", Integer, primary_key=True),
    Column("slot", BLOB, primary_key=True),
    Column("number", Integer, nullable=False),
)
contact_policies = Table(  # append-only; kind "policy": (channel, topic); kind "term": (channel|topic, id)
    "contact_policies",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("leaf", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
)
contacts = Table(
    "contacts",
    metadata,
    Column("id", BLOB, primary_key=True),  # keyed hash of sender and contact id
    Column("subject", Integer, nullable=False),
    Column("at", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("leaf", Integer, nullable=False),  # -1: reserved only
    Column("digest", BLOB, nullable=False),  # of the row, under the subject's key; the leaf commits to it
    Column("expires_at", Integer, nullable=False),  # of a reservation; -1: made
    Index("contacts_subject", "subject", "at"),
    Index("contacts_expiry", "expires_at"),
)

ALL_TABLES = (preferences, preference_states, contact_policies, contacts)
