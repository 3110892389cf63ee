"""Storage room: bring a database to the newest revision, once, whoever else tries at the same time."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from storage.database import views
from storage.database.engine import Database
from storage.database.partitions import ensure_score_partitions
from storage.database.revisions import KNOWN_REVISIONS

_UPGRADE_LOCK_KEY = 0x6F757472_6D696772
"""Any constant that all Outriders share: the second upgrader waits behind it and finds the work done."""


def upgrade(db: Database) -> None:
    """Apply the missing revisions and recreate the views in one transaction; nothing if nothing is missing.

    Raises:
        SchemaMismatch: The database is newer than this program.
        StorageUnavailable: The database cannot be reached, or another upgrade takes longer than a minute.
    """
    with db.write() as connection:
        if db.dialect == "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0")
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK_KEY})
        found = _read_revision(connection)
        if found is None or found in KNOWN_REVISIONS[:-1]:
            views.drop_views(connection, db.dialect)
            command.upgrade(_alembic_config(connection), "head")
            views.create_views(connection, db.dialect)
    db.check_schema()
    ensure_score_partitions(db)


def _read_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def _alembic_config(connection: sa.Connection) -> Config:
    config = Config()
    # Alembic reads % as the start of a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
