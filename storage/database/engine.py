"""A SQLite or PostgreSQL database behind `read()` and `write()` transactions.

Database errors that a retry can resolve are raised as `StorageUnavailable`. All others pass unchanged: repeating a
wrong statement does not make it right.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url

from config.errors import ConfigError, SchemaMismatch, StorageUnavailable
from storage.database import dialects
from storage.database.errors import StorageFull, translate_errors
from storage.database.fair_slots import FairSlots
from storage.database.revisions import INCOMPLETE_COPY, KNOWN_REVISIONS
from storage.database.shared_writes import SharedWrites

_URL_FORMS = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
# The first table that this user may not write. Partitions are written through their parent, the revision by the owner.
_DENIED_TABLE_SQL = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'alembic_version'
    AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
ORDER BY c.relname LIMIT 1
"""


class Database:
    """One database, opened by a daemon or by a reader.

    The constructor does not connect: an unreachable server is reported by the first transaction, as
    `StorageUnavailable`.

    Args:
        url: `sqlite:///FILE`, `postgresql://...` or `postgres://...`.
        read_only: Open an existing SQLite file without the right to change or create it, or PostgreSQL sessions that
            are read-only by default.
        connections: The number of connections to PostgreSQL; on SQLite, of readers beside the one writer. Threads
            wait for a connection in the order in which they asked.

    Raises:
        ConfigError: The URL is invalid, or the folder of the SQLite file does not exist.
    """

    def __init__(self, url: str, *, read_only: bool = False, connections: int = 4) -> None:
        self._slots = FairSlots(connections)
        self._url = _parse_url(url)
        self.read_only = read_only
        self.address = _displayed_address(self._url)
        self.dialect: Literal["sqlite", "postgresql"]
        if self._url.get_backend_name() == "sqlite":
            self.dialect = "sqlite"
            self.file: Path | None = _sqlite_file(self._url, must_exist=read_only)
            self._reader = dialects.create_sqlite_engine(self.file, "read-only" if read_only else "reader", connections)
            self._writer = self._reader if read_only else dialects.create_sqlite_engine(self.file, "writer", 1)
        else:
            self.dialect = "postgresql"
            self.file = None
            self._reader = self._writer = dialects.create_postgresql_engine(
                self._url, read_only=read_only, connections=connections
            )
        self._shared_writes = SharedWrites(self._writer, self._translate_errors)

    @property
    def identity(self) -> tuple[object, ...]:
        """Return the file, or the server and the name: equal for two addresses of one database."""
        if self.file is not None:
            return (self.file,)
        options = sorted((name, value) for name, value in self._url.query.items() if not name.startswith("ssl"))
        return (self._url.host, self._url.port or 5432, self._url.database, *options)

    def with_own_connections(self, connections: int) -> Database:
        """Return the same database with other connections, so that the threads of two tasks do not wait for each other.

        On SQLite it is this object: all writers of the process share one queue.
        """
        if self.dialect == "sqlite":
            return self
        return Database(
            self._url.render_as_string(hide_password=False), read_only=self.read_only, connections=connections
        )

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that only reads.

        Raises:
            StorageUnavailable: The database cannot be reached now.
        """
        with self._slots.hold(), self._transaction(self._reader, writes=False) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in a transaction: commit when the block ends, roll back when it raises.

        On SQLite the writers of this process wait in a first-in, first-out queue, since SQLite allows one writer at a
        time and does not queue fairly; those that wait share one COMMIT.

        Raises:
            StorageUnavailable: The database cannot be reached now, or it ended the transaction.
            StorageFull: The SQLite file cannot be written until an operator frees space or grants write access.
            CommitUnknown: The connection broke during COMMIT; the transaction may or may not be committed.
        """
        if self.read_only:
            message = f"{self.address} was opened read-only"
            raise RuntimeError(message)
        if self.dialect == "sqlite":
            with self._shared_writes.block() as connection:
                yield connection
            return
        with self._slots.hold(), self._transaction(self._writer, writes=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, engine: sa.Engine, *, writes: bool) -> Iterator[Connection]:
        """Yield a connection in a transaction. The outcome of a lost COMMIT is unknown only if it writes."""
        with self._translate_errors():
            connection = engine.connect()
        with connection:
            with self._translate_errors():
                transaction = connection.begin()
            try:
                with self._translate_errors():
                    yield connection
            except BaseException:
                dialects.rollback_or_invalidate(connection, transaction)
                raise
            with self._translate_errors(committing=writes):
                try:
                    transaction.commit()
                except BaseException:
                    dialects.rollback_or_invalidate(connection, transaction)
                    raise

    def _translate_errors(self, *, committing: bool = False) -> contextlib.AbstractContextManager[None]:
        return translate_errors(self.address, self.file, committing=committing)

    def now_us(self, connection: Connection | None = None) -> int:
        """Return the time of the database's clock, in microseconds since 1970.

        The clock advances inside a transaction.

        Args:
            connection: The transaction that reads the clock; None opens one.
        """
        if connection is None:
            with self.read() as own:
                return self.now_us(own)
        return int(connection.scalar(sa.select(self.clock_expression())) or 0)

    def clock_expression(self) -> sa.ColumnElement[int]:
        """Return an SQL expression for the database's clock, for statements that compare or store the time."""
        return sa.literal_column(dialects.CLOCK_SQL_US[self.dialect], sa.BigInteger)

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT of this dialect, which supports ON CONFLICT."""
        return sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)

    def schema_revision(self) -> str | None:
        """Return the revision of the schema, or None if the database has no Outrider tables."""
        with self.read() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return None if revision is None else str(revision)

    def check_schema(self) -> None:
        """Check that the schema has the revision of this version.

        Raises:
            SchemaMismatch: The schema is missing, older or newer; the message names the revisions and the remedy.
        """
        revision, required = self.schema_revision(), KNOWN_REVISIONS[-1]
        if revision == required:
            return
        if revision is None:
            message = f"{self.address} has no Outrider tables yet (schema {required}): run `outrider db upgrade`"
        elif revision == INCOMPLETE_COPY:
            message = (
                f"{self.address} is the target of an incomplete copy: wait until `outrider db copy` has ended, or "
                "delete this database and copy again"
            )
        elif revision in KNOWN_REVISIONS:
            message = f"{self.address} has schema {revision}, this Outrider needs {required}: run `outrider db upgrade`"
        else:
            message = (
                f"{self.address} has schema {revision}, written by a newer Outrider; "
                f"this one supports schemas up to {required}: install the newer Outrider"
            )
        raise SchemaMismatch(message)

    def count_connections(self) -> tuple[int, int] | None:
        """Return the connections that the server allows to users without special rights, and those that are open now.

        None on SQLite, which has no limit.
        """
        if self.dialect == "sqlite":
            return None
        with self.read() as connection:
            allowed, used = connection.exec_driver_sql(
                "SELECT current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int,"
                " (SELECT sum(numbackends) FROM pg_stat_database)::int"
            ).one()
            return int(allowed), int(used)

    def check_writable(self) -> None:
        """Check that this user may write to the database, without writing.

        Raises:
            StorageFull: The SQLite file, or the folder in which it will be created, cannot be written.
            ConfigError: The PostgreSQL server does not allow this user to create tables and they do not exist, or to
                write one of them.
            StorageUnavailable: The database cannot be reached or written now.
        """
        if self.file is not None and not self.file.exists():
            if not os.access(self.file.parent, os.W_OK | os.X_OK, effective_ids=True):
                message = f"the database {self.file} cannot be created: this user may not write in {self.file.parent}"
                raise StorageFull(message)
            return
        is_current = self.file is None and self.schema_revision() == KNOWN_REVISIONS[-1]
        with self.write() as connection:
            if self.dialect == "postgresql":
                self._check_privileges(connection, is_current=is_current)

    def _check_privileges(self, connection: Connection, *, is_current: bool) -> None:
        read_only, schema, may_create, user = connection.exec_driver_sql(
            "SELECT current_setting('transaction_read_only') = 'on', current_schema(),"
            " has_schema_privilege(current_schema(), 'CREATE'), current_user"
        ).one()
        if read_only:
            message = (
                f"{self.address} is read-only: use the primary server in database.url, or allow user {user} to write"
            )
            raise StorageUnavailable(message)
        if is_current:
            denied = connection.exec_driver_sql(_DENIED_TABLE_SQL).scalar()
            if denied is not None:
                message = (
                    f"{self.address} does not allow user {user} to write {denied}: run GRANT SELECT, INSERT, UPDATE, "
                    f"DELETE ON ALL TABLES IN SCHEMA {schema} TO {user}, or use another user in database.url"
                )
                raise ConfigError(message)
        elif not may_create:
            message = (
                f"{self.address} does not allow user {user} to create tables: "
                f"run GRANT CREATE ON SCHEMA {schema or 'public'} TO {user}, or use another user in database.url"
            )
            raise ConfigError(message)

    @contextlib.contextmanager
    def lock_for_daemon(self) -> Iterator[None]:
        """Hold the lock of the only daemon on a SQLite file; on PostgreSQL any number of daemons may run.

        Raises:
            ConfigError: Another daemon holds the lock; the message gives its process id.
            StorageFull: This user may not write the lock, which lies beside the file.
        """
        if self.file is None:
            yield
            return
        # A separate file: closing any descriptor of the database file would release SQLite's own locks.
        lock_file = self.file.with_name(self.file.name + ".daemon-lock")
        try:
            descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, dialects.PRIVATE_MODE)
        except PermissionError as error:
            message = (
                f"the database {self.file} cannot be opened: its lock {lock_file} cannot be written; "
                "allow this user to write the file and its folder"
            )
            raise StorageFull(message) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                message = (
                    f"{self.file} is in use by another Outrider daemon (process {holder}): stop it, "
                    f"give this one another database.url, or use PostgreSQL to run several"
                )
                raise ConfigError(message) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
            yield
        finally:
            os.close(descriptor)

    def checkpoint_wal(self) -> None:
        """Copy SQLite's write-ahead log into the file as far as readers allow; do nothing on PostgreSQL."""
        self._run_pragma("PRAGMA wal_checkpoint(PASSIVE)")

    def vacuum_pages(self, pages: int) -> None:
        """Remove up to `pages` free pages from the SQLite file; do nothing on PostgreSQL."""
        self._run_pragma(f"PRAGMA incremental_vacuum({pages})")

    def _run_pragma(self, pragma: str) -> None:
        """Run a pragma that manages its own transaction, in the queue of the SQLite writers."""
        if self.dialect != "sqlite":
            return
        with self._shared_writes.exclusive(), self._translate_errors(), self._writer.connect() as connection:
            driver = connection.connection.driver_connection
            if not isinstance(driver, sqlite3.Connection):
                raise TypeError(type(driver))
            # `executescript` runs the statement to its end; `execute` takes one step, which frees a single page.
            driver.executescript(pragma)

    def close(self) -> None:
        """Close every idle connection."""
        self._reader.dispose()
        self._writer.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse_url(text: str) -> URL:
    try:
        url = make_url(text)
    except sa.exc.ArgumentError:
        # The part before an @ may contain a password.
        shown = text.rsplit("@", maxsplit=1)[-1]
        message = f"database.url {shown!r} is not a URL: write {_URL_FORMS}"
        raise ConfigError(message) from None
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite" and driver in {"", "pysqlite"}:
        return url
    if backend in {"postgresql", "postgres"} and driver in {"", "psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    message = f"database.url has the unknown scheme {url.drivername!r}: write {_URL_FORMS}"
    raise ConfigError(message)


def _sqlite_file(url: URL, *, must_exist: bool) -> Path:
    if url.database in {None, "", ":memory:"} or str(url.database).startswith("file:"):
        message = "database.url names no SQLite file: write sqlite:///FILE (an in-memory database cannot be shared)"
        raise ConfigError(message)
    # The real path, so that two names of one file share one lock.
    file = Path(os.path.realpath(Path(str(url.database)).expanduser()))
    if not file.parent.is_dir():
        message = f"the folder of the database {file} does not exist: create it, or change database.url"
        raise ConfigError(message)
    if file.is_dir():
        message = f"the database {file} is a folder: give a file in database.url"
        raise ConfigError(message)
    if must_exist and not file.exists():
        message = f"the database {file} does not exist: start the daemon once, or correct database.url"
        raise ConfigError(message)
    return file


def _displayed_address(url: URL) -> str:
    """Return the database's address for messages, without user, password and options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "localhost"
    host = host if isinstance(host, str) else ",".join(host)
    port = "" if host.startswith("/") else f":{url.port or 5432}"
    return f"PostgreSQL {url.database or ''} at {host}{port}".replace("  ", " ")
