"""The Alembic environment: runs the migrations on the connection that `upgrade` passes."""

from __future__ import annotations

from alembic import context

from storage.database import tables

connection = context.config.attributes["connection"]
# The caller has started the transaction that contains all migrations, and commits it.
context.configure(connection=connection, target_metadata=tables.metadata, transactional_ddl=False)
context.run_migrations()
