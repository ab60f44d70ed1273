"""Rights requests, restrictions, the list of the erased.

The list is made again from its leaves; requests that were taken in are lost on the way down.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from consent_center.database import Int

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rights_requests",
        sa.Column("number", Int, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("subject", Int, nullable=False),
        sa.Column("received_at", Int, nullable=False),
        sa.Column("due_at", Int, nullable=False),
        sa.Column("done_at", Int, nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("rights_requests_state", "rights_requests", ["state", "due_at"])
    op.create_table(
        "rights_steps",
        sa.Column("request", Int, nullable=False),
        sa.Column("position", Int, nullable=False),
        sa.Column("leaf", Int, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request", "position"),
    )
    op.create_table(
        "restrictions",
        sa.Column("subject", Int, nullable=False),
        sa.Column("since", Int, nullable=False),
        sa.Column("leaf", Int, nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    erased = op.create_table(
        "erased_identifiers",
        sa.Column("tag", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", Int, nullable=False),
        sa.Column("erased_at", Int, nullable=False),
        sa.PrimaryKeyConstraint("tag", "leaf"),
    )
    entries = sa.table(
        "entries", sa.column("leaf", Int), sa.column("kind"), sa.column("payload", sa.LargeBinary)
    )
    query = sa.select(entries.c.leaf, entries.c.payload).where(entries.c.kind == "erasure")
    for leaf, payload in op.get_bind().execute(query).all():
        told = json.loads(payload)
        at = (datetime.fromisoformat(told["at"]) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            microseconds=1
        )
        rows = [{"tag": bytes.fromhex(tag), "leaf": leaf, "erased_at": at} for tag in told["tags"]]
        if rows:
            op.bulk_insert(erased, rows)


def downgrade() -> None:
    op.drop_table("erased_identifiers")
    op.drop_table("restrictions")
    op.drop_table("rights_steps")
    op.drop_index("rights_requests_state", table_name="rights_requests")
    op.drop_table("rights_requests")
