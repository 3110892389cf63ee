"""Storage room: what Alembic runs for every command; works on the connection that `upgrade` hands over."""

from __future__ import annotations

from alembic import context

from storage.database import tables

connection = context.config.attributes["connection"]
# The caller has begun the one transaction in which everything happens, and commits it.
context.configure(connection=connection, target_metadata=tables.metadata, transactional_ddl=False)
context.run_migrations()
