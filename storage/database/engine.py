"""Storage room: one database, SQLite or PostgreSQL, behind `read()` and `write()` transactions.

Every error that a retry can heal leaves here as `StorageUnavailable`; every other database error as it is,
because repeating a wrong statement does not make it right.
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
from storage.database.errors import CommitUnknown, StorageDamaged, StorageFull, translate_errors
from storage.database.fair_lock import FairLock
from storage.database.revisions import KNOWN_REVISIONS

__all__ = ["CommitUnknown", "Database", "StorageDamaged", "StorageFull"]

_URL_FORMS = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
_CLOCK_SQL_US = {
    # SQLite's clock is the machine's, to the millisecond.
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
}


class Database:
    """The store of one daemon or one reader.

    Opening connects to nothing: an absent server shows at the first transaction, as `StorageUnavailable`.

    Args:
        url: `sqlite:///FILE`, `postgresql://...` or `postgres://...`.
        read_only: Opens an existing SQLite file without the right to change or create it.

    Raises:
        ConfigError: The URL cannot be understood, or the folder of the SQLite file does not exist.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._url = _parse_url(url)
        self.read_only = read_only
        self.address = _displayed_address(self._url)
        self.dialect: Literal["sqlite", "postgresql"]
        if self._url.get_backend_name() == "sqlite":
            self.dialect = "sqlite"
            self.file: Path | None = _sqlite_file(self._url, must_exist=read_only)
            self._reader = dialects.create_sqlite_engine(self.file, "read-only" if read_only else "reader")
            self._writer = self._reader if read_only else dialects.create_sqlite_engine(self.file, "writer")
        else:
            self.dialect = "postgresql"
            self.file = None
            self._reader = self._writer = dialects.create_postgresql_engine(self._url, read_only=read_only)
        self._turns = FairLock()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection whose statements see the database without changing it.

        Raises:
            StorageUnavailable: The database cannot be reached now.
        """
        with self._transaction(self._reader) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that is one transaction: all of it when the block ends, nothing when it raises.

        On SQLite writers of this process take turns in the order in which they came, since SQLite lets one
        write at a time and does not queue fairly.

        Raises:
            StorageUnavailable: The database cannot be reached now, or it ended the transaction.
            StorageFull: The SQLite file cannot be written until a person acts.
            CommitUnknown: The connection broke during COMMIT, so that it may or may not have happened.
        """
        if self.read_only:
            message = f"{self.address} was opened read-only"
            raise RuntimeError(message)
        turn = self._turns if self.dialect == "sqlite" else contextlib.nullcontext()
        with turn, self._transaction(self._writer) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[Connection]:
        with translate_errors(self.address, self.file):
            connection = engine.connect()
        with connection:
            with translate_errors(self.address, self.file):
                transaction = connection.begin()
            try:
                with translate_errors(self.address, self.file):
                    yield connection
            except BaseException:
                dialects.rollback_or_invalidate(connection, transaction)
                raise
            with translate_errors(self.address, self.file, committing=True):
                try:
                    transaction.commit()
                except BaseException:
                    dialects.rollback_or_invalidate(connection, transaction)
                    raise

    def now_us(self, connection: Connection | None = None) -> int:
        """Return the database's clock in microseconds since 1970.

        The clock advances inside a transaction.

        Args:
            connection: The transaction to ask in; None opens one.
        """
        if connection is None:
            with self.read() as own:
                return self.now_us(own)
        return int(connection.scalar(sa.select(self.clock_expression())) or 0)

    def clock_expression(self) -> sa.ColumnElement[int]:
        """Return the database's clock as an SQL expression, for statements that compare or store it."""
        return sa.literal_column(_CLOCK_SQL_US[self.dialect], sa.BigInteger)

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT of this dialect, for its ON CONFLICT clause."""
        return sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)

    def schema_revision(self) -> str | None:
        """Return the schema's revision, or None where there is no schema of ours."""
        with self.read() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return None if found is None else str(found)

    def check_schema(self) -> None:
        """Refuse to work on a schema of another version.

        Raises:
            SchemaMismatch: The schema is missing, older or newer; says which and what to do.
        """
        found, wanted = self.schema_revision(), KNOWN_REVISIONS[-1]
        if found == wanted:
            return
        if found is None:
            message = f"{self.address} has no Outrider tables yet (schema {wanted}): run `outrider db upgrade`"
        elif found in KNOWN_REVISIONS:
            message = f"{self.address} has schema {found}, this Outrider needs {wanted}: run `outrider db upgrade`"
        else:
            message = (
                f"{self.address} has schema {found}, which a newer Outrider wrote; "
                f"this one knows up to {wanted}: install the newer Outrider"
            )
        raise SchemaMismatch(message)

    def check_writable(self) -> None:
        """Find out whether this user may write here, without writing.

        Raises:
            StorageFull: The SQLite file, or the folder in which it is to be made, cannot be written.
            ConfigError: The PostgreSQL server does not let this user make tables.
            StorageUnavailable: The database cannot be reached or written now.
        """
        if self.file is not None and not self.file.exists():
            if not os.access(self.file.parent, os.W_OK | os.X_OK, effective_ids=True):
                message = f"the database {self.file} cannot be made: this user may not write in {self.file.parent}"
                raise StorageFull(message)
            return
        with self.write() as connection:
            if self.dialect == "postgresql":
                self._check_privileges(connection)

    def _check_privileges(self, connection: Connection) -> None:
        read_only, schema, may_create, user = connection.exec_driver_sql(
            "SELECT current_setting('transaction_read_only') = 'on', current_schema(),"
            " has_schema_privilege(current_schema(), 'CREATE'), current_user"
        ).one()
        if read_only:
            message = f"{self.address} is read-only: name the primary server in database.url, or let user {user} write"
            raise StorageUnavailable(message)
        if not may_create:
            message = (
                f"{self.address} does not let user {user} make tables: run GRANT CREATE ON SCHEMA {schema or 'public'} "
                f"TO {user}, or name another user in database.url"
            )
            raise ConfigError(message)

    @contextlib.contextmanager
    def lock_for_daemon(self) -> Iterator[None]:
        """Hold the right to be the one daemon of a SQLite file; on PostgreSQL any number may run.

        Raises:
            ConfigError: Another daemon holds the file; names its process id.
        """
        if self.file is None:
            yield
            return
        # A file of its own: closing any descriptor of the database file itself would drop SQLite's own locks.
        lock_file = self.file.with_name(self.file.name + ".daemon-lock")
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
        """Move SQLite's write-ahead log into the file as far as readers allow; nothing on PostgreSQL."""
        self._run_pragma("PRAGMA wal_checkpoint(PASSIVE)")

    def vacuum_pages(self, pages: int) -> None:
        """Cut up to so many free pages off the SQLite file; nothing on PostgreSQL."""
        self._run_pragma(f"PRAGMA incremental_vacuum({pages})")

    def _run_pragma(self, pragma: str) -> None:
        """Run a statement of SQLite that begins and ends its own transaction, in the queue of the writers."""
        if self.dialect != "sqlite":
            return
        with self._turns, translate_errors(self.address, self.file), self._writer.connect() as connection:
            driver = connection.connection.driver_connection
            if not isinstance(driver, sqlite3.Connection):
                raise TypeError(type(driver))
            # A script runs each statement to its end; `execute` takes one step, which frees a single page.
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
        # What stands before an @ may hold a password.
        shown = text.rsplit("@", maxsplit=1)[-1]
        message = f"database.url {shown!r} is no URL: write {_URL_FORMS}"
        raise ConfigError(message) from None
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite" and driver in {"", "pysqlite"}:
        return url
    if backend in {"postgresql", "postgres"} and driver in {"", "psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    message = f"database.url has the unknown kind {url.drivername!r}: write {_URL_FORMS}"
    raise ConfigError(message)


def _sqlite_file(url: URL, *, must_exist: bool) -> Path:
    if url.database in {None, "", ":memory:"} or str(url.database).startswith("file:"):
        message = "database.url names no SQLite file: write sqlite:///FILE (a database in memory cannot be shared)"
        raise ConfigError(message)
    file = Path(str(url.database)).expanduser()
    # The real path, so that two names of one file share one lock.
    file = Path(os.path.realpath(file))
    if not file.parent.is_dir():
        message = f"the folder of the database {file} does not exist: create it or change database.url"
        raise ConfigError(message)
    if file.is_dir():
        message = f"the database {file} is a folder: name a file in database.url"
        raise ConfigError(message)
    if must_exist and not file.exists():
        message = f"there is no database {file}: start the daemon once, or give the right database.url"
        raise ConfigError(message)
    return file


def _displayed_address(url: URL) -> str:
    """Return the database as a person names it, without user's password or options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "localhost"
    host = host if isinstance(host, str) else ",".join(host)
    port = "" if host.startswith("/") else f":{url.port or 5432}"
    return f"PostgreSQL {url.database or ''} at {host}{port}".replace("  ", " ")
