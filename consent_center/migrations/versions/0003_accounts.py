"""Accounts of people and machines, their sessions and API tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from consent_center.database import Int

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("active", Int, nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("must_change", Int, nullable=False),
        sa.Column("totp", sa.LargeBinary(), nullable=False),
        sa.Column("totp_pending", sa.LargeBinary(), nullable=False),
        sa.Column("totp_step", Int, nullable=False),
        sa.Column("failures", Int, nullable=False),
        sa.Column("locked_until", Int, nullable=False),
        sa.Column("oidc", sa.Text(), nullable=False),
        sa.Column("created_at", Int, nullable=False),
        sa.Column("seen_at", Int, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("accounts_oidc", "accounts", ["oidc"], unique=False)
    op.create_table(
        "account_sessions",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("full", Int, nullable=False),
        sa.Column("opened_at", Int, nullable=False),
        sa.Column("seen_at", Int, nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("account_sessions_account", "account_sessions", ["account"], unique=False)
    op.create_table(
        "account_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", Int, nullable=False),
        sa.Column("expires_at", Int, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("account_tokens_account", "account_tokens", ["account"], unique=False)


def downgrade() -> None:
    op.drop_table("account_tokens")
    op.drop_table("account_sessions")
    op.drop_table("accounts")
