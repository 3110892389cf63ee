"""Storage room: how a connection to each kind of database is made and kept."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any, Literal

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Transaction

SQLITE_BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for a writer of another process (a command beside the daemon)."""

_POSTGRESQL_SESSION_SETTINGS = {
    # A frozen process must not hold the row of a position: its transaction is ended for it.
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "TimeZone": "UTC",
}
# The last is for what was sent and never acknowledged: without it a network that swallows packets holds a statement for
# a quarter of an hour.
_TCP_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def create_sqlite_engine(file: Path, role: Literal["writer", "reader", "read-only"]) -> sa.Engine:
    """Return an engine over one file; a `reader` may create it, `read-only` not even that."""
    mode = "ro" if role == "read-only" else "rwc"
    # Percent signs, question marks and hashes of a file name would be read as parts of the URI.
    uri = f"{file.absolute().as_uri()}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=SQLITE_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _configure_sqlite_connection(connection, role)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    engine = sa.create_engine(
        "sqlite://",
        creator=connect,
        poolclass=sa.pool.QueuePool,
        pool_size=1 if role == "writer" else 4,
        max_overflow=0 if role == "writer" else 8,
        pool_timeout=30,
    )
    begin = "BEGIN IMMEDIATE" if role == "writer" else "BEGIN"

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver begins nothing by itself (isolation_level=None): a deferred transaction that turns into a
        # writer fails at once with "locked" instead of waiting, so writers say IMMEDIATE.
        connection.exec_driver_sql(begin)

    return engine


def _configure_sqlite_connection(connection: sqlite3.Connection, role: str) -> None:
    if role == "writer":
        # Takes effect only before the first table, and before the journal mode writes the file's header.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        _enable_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    else:
        connection.execute("PRAGMA query_only=ON")


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Set write-ahead logging; two processes that do it at once get "locked" without SQLite's own waiting."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_S
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if mode != "wal":
            message = f"this file system cannot hold a SQLite write-ahead log (journal mode stays {mode})"
            raise sqlite3.NotSupportedError(message)
        return


def create_postgresql_engine(url: URL, *, read_only: bool) -> sa.Engine:
    """Return an engine whose sessions give up rather than hold a lock for long."""
    ours = {"application_name": "outrider", "connect_timeout": 10, **_TCP_KEEPALIVES}
    settings = _POSTGRESQL_SESSION_SETTINGS | ({"default_transaction_read_only": "on"} if read_only else {})
    engine = sa.create_engine(
        url,
        pool_size=4,
        max_overflow=8,
        pool_timeout=30,
        pool_pre_ping=True,
        pool_recycle=3600,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in ours.items() if name not in url.query},
    )

    @sa.event.listens_for(engine, "connect")
    def _settings(connection: psycopg.Connection[Any], _record: object) -> None:
        # By statement and not by `options`: poolers between us and the server refuse the latter.
        try:
            with connection.cursor() as cursor:
                for name, value in settings.items():
                    cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
            connection.commit()
        except psycopg.Error:
            connection.close()
            raise

    return engine


def rollback_or_invalidate(connection: Connection, transaction: Transaction) -> None:
    """Roll back, whatever state the connection is in; one that cannot is closed and not used again."""
    try:
        transaction.rollback()
    except (sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error):
        # The transaction ends with its connection. The caller is about to raise what went wrong first.
        with contextlib.suppress(sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error):
            connection.invalidate()
