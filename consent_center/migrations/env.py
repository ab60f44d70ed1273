"""What Alembic runs for every migration: inside the caller's transaction, so that all of it holds or none."""

from __future__ import annotations

from alembic import context

from consent_center.schema import all_tables

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("migrations run in a center's own transaction: use `pec consent migrate`")
context.configure(connection=connection, target_metadata=all_tables(), render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
