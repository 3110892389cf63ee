"""Upgrade of a database to the newest revision, safe against concurrent upgrades."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from config.errors import OlderReplicasRunning
from storage.database import views
from storage.database.engine import Database
from storage.database.older_replicas import find_running_replicas
from storage.database.partitions import ensure_score_partitions
from storage.database.revisions import KNOWN_REVISIONS

_UPGRADE_LOCK_KEY = 0x6F757472_6D696772
"""The advisory lock that serialises upgrades: a second process waits and then has nothing to do. Any constant."""


def upgrade(db: Database, *, beside_older: bool = False) -> None:
    """Apply the missing revisions and recreate the views in one transaction; do nothing if none is missing.

    Then create today's and tomorrow's partitions of `scores`.

    Args:
        db: The database.
        beside_older: Upgrade also while processes of an earlier version run on the PostgreSQL database. On SQLite a
            lock on the file excludes them (`Database.lock_for_daemon`).

    Raises:
        OlderReplicasRunning: Processes of an earlier version run on the database; nothing was changed.
        SchemaMismatch: The database is newer than this program.
        StorageUnavailable: The database cannot be reached, or another upgrade takes longer than a minute.
    """
    with db.write() as connection:
        if db.dialect == "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0")
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK_KEY})
        revision = _read_revision(connection)
        if revision is None or revision in KNOWN_REVISIONS[:-1]:
            if revision is not None and db.dialect == "postgresql" and not beside_older:
                _require_no_older_replicas(db, connection)
            views.drop_views(connection, db.dialect)
            command.upgrade(_alembic_config(connection), "head")
            views.create_views(connection, db.dialect)
    db.check_schema()
    ensure_score_partitions(db)


def _require_no_older_replicas(db: Database, connection: sa.Connection) -> None:
    running = find_running_replicas(connection, db.now_us(connection))
    if running:
        raise OlderReplicasRunning(
            f"{db.address} is in use by an earlier version of Outrider ({', '.join(running)}): stop these processes, "
            "or upgrade beside them with `outrider run --upgrade`"
        )


def _read_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if revision is None else str(revision)


def _alembic_config(connection: sa.Connection) -> Config:
    config = Config()
    # Alembic parses % as the start of a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
