"""SQLAlchemy engines for SQLite and PostgreSQL, with the settings of their connections."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Literal

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Transaction

CLOCK_SQL_US = {
    # SQLite reads the machine's clock, in milliseconds.
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
}
"""The time of the database's clock in microseconds since 1970, as SQL of each dialect."""

SQLITE_BUSY_TIMEOUT_S = 5.0
"""Time that a writer waits for a writer of another process, such as a command beside the daemon."""

PRIVATE_MODE = 0o600
"""Mode of new files: keys and features of events are for the owner only."""

_POSTGRESQL_SESSION_SETTINGS = {
    # A frozen process must not hold the lock on a position's row: the server ends its transaction.
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "TimeZone": "UTC",
}
# tcp_user_timeout bounds the wait for acknowledgement of sent data: without it a network that drops packets blocks a
# statement for a quarter of an hour.
_TCP_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def create_sqlite_engine(file: Path, role: Literal["writer", "reader", "read-only"], connections: int) -> sa.Engine:
    """Create an engine on one file.

    Args:
        file: The database file.
        role: A `writer` has one connection; a `reader` may create the file but not write; `read-only` may do neither.
        connections: The number of connections.
    """
    mode = "ro" if role == "read-only" else "rwc"
    # `as_uri` escapes percent signs, question marks and hashes, which would be parsed as parts of the URI.
    uri = f"{file.absolute().as_uri()}?mode={mode}"

    def connect() -> sqlite3.Connection:
        if mode == "rwc":
            _create_private_file(file)
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
        pool_size=connections,
        max_overflow=0 if role == "writer" else connections,
        pool_timeout=30,
    )
    begin = "BEGIN IMMEDIATE" if role == "writer" else "BEGIN"

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # With isolation_level=None the driver starts no transaction. A deferred transaction that becomes a writer fails
        # at once with "locked" instead of waiting, so writers use IMMEDIATE.
        connection.exec_driver_sql(begin)

    return engine


def _create_private_file(file: Path) -> None:
    """Create the database file for its owner only, if it does not exist.

    SQLite gives the write-ahead log and the shared memory the mode of the database file.
    """
    # An error is left to SQLite, which reports it with its own code. An empty file is a new database.
    with contextlib.suppress(OSError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE))


def _configure_sqlite_connection(connection: sqlite3.Connection, role: str) -> None:
    if role == "writer":
        # auto_vacuum takes effect only before the first table, and before the journal mode writes the file header.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        _enable_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    else:
        connection.execute("PRAGMA query_only=ON")


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Enable write-ahead logging, retrying: SQLite reports "locked" at once when two processes enable it together."""
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
            message = f"this file system does not support a SQLite write-ahead log (journal mode stays {mode})"
            raise sqlite3.NotSupportedError(message)
        return


def create_postgresql_engine(url: URL, *, read_only: bool, connections: int) -> sa.Engine:
    """Create an engine for sessions with timeouts, so that none holds a lock for long."""
    arguments = {"application_name": "outrider", "connect_timeout": 10, **_TCP_KEEPALIVES}
    settings = _POSTGRESQL_SESSION_SETTINGS | ({"default_transaction_read_only": "on"} if read_only else {})
    engine = sa.create_engine(
        url,
        pool_size=connections,
        # For a thread that reads inside a transaction; the number of threads is bounded by the caller.
        max_overflow=connections,
        pool_timeout=30,
        pool_pre_ping=True,
        pool_recycle=3600,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in arguments.items() if name not in url.query},
    )

    @sa.event.listens_for(engine, "connect")
    def _settings(connection: psycopg.Connection[Any], _record: object) -> None:
        # By statement, because connection poolers reject the `options` parameter.
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
    """Roll back a transaction; invalidate the connection if the rollback fails."""
    try:
        transaction.rollback()
    except (sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error):
        # The transaction ends with its connection. The caller raises the first error.
        with contextlib.suppress(sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error):
            connection.invalidate()
