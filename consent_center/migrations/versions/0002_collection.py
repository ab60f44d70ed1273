"""Collection of consent, drafts of notices, rules and regions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from consent_center.database import Int

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("leaf", Int, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", Int, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("leaf"),
    )
    op.create_table(
        "links",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", Int, nullable=False),
        sa.Column("created_at", Int, nullable=False),
        sa.Column("expires_at", Int, nullable=False),
        sa.Column("used_at", Int, nullable=False),
        sa.Column("revoked_at", Int, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("links_subject", "links", ["subject"], unique=False)
    op.create_table(
        "shown_counts",
        sa.Column("day", Int, autoincrement=False, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("notice", sa.Text(), nullable=False),
        sa.Column("notice_version", Int, autoincrement=False, nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("shown", Int, nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "channel", "form", "purpose", "recipient", "notice", "notice_version", "language"
        ),
    )
    op.create_table(
        "notice_drafts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("updated_at", Int, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "regions",
        sa.Column("id", Int, autoincrement=False, nullable=False),
        sa.Column("ordinal", Int, nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("tag", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("ordinal"),
    )
    op.create_table(
        "rule_uses",
        sa.Column("leaf", Int, autoincrement=False, nullable=False),
        sa.Column("at", Int, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("people", Int, nullable=False),
        sa.PrimaryKeyConstraint("leaf"),
    )
    op.create_index("rule_uses_at", "rule_uses", ["at"], unique=False)


def downgrade() -> None:
    op.drop_index("rule_uses_at", table_name="rule_uses")
    for name in ("rule_uses", "regions", "notice_drafts", "shown_counts"):
        op.drop_table(name)
    op.drop_index("links_subject", table_name="links")
    op.drop_table("links")
    op.drop_table("settings")
