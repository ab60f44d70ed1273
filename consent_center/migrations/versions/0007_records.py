"""The processing register and the register of agreements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from consent_center.database import Int

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "records",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", Int, nullable=False),
        sa.Column("leaf", Int, nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", "version"),
    )


def downgrade() -> None:
    op.drop_table("records")
