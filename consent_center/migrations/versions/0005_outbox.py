"""Webhooks, their outbox, recipients that are switched off, measured lease checks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from consent_center.database import Int

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recipients",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("active", Int, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("active", Int, nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "outbox",
        sa.Column("number", Int, nullable=False),
        sa.Column("webhook", sa.Text(), nullable=False),
        sa.Column("leaf", Int, nullable=False),
        sa.Column("created_at", Int, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", Int, nullable=False),
        sa.Column("next_at", Int, nullable=False),
        sa.Column("done_at", Int, nullable=False),
        sa.Column("last", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("outbox_next", "outbox", ["state", "next_at"])
    op.create_table(
        "lease_checks",
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.Column("sequence", Int, nullable=False),
        sa.PrimaryKeyConstraint("snapshot"),
    )


def downgrade() -> None:
    op.drop_table("lease_checks")
    op.drop_index("outbox_next", table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("webhooks")
    op.drop_table("recipients")
