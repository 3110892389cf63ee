"""Storage room: which database errors a retry can heal, and what a person reads about the others."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import sqlalchemy as sa

from config.errors import OutriderError, StorageUnavailable


class CommitUnknown(StorageUnavailable):
    """The connection broke during COMMIT, so that it may or may not be stored: read the position first."""


class StorageFull(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """The database file cannot be written: the disk is full, or the file or its folder is read-only."""


class StorageDamaged(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """The file is no SQLite database, or it is damaged."""


# SQLSTATE classes and codes after which the same transaction may well succeed: connection (08), shutdown and
# starting up (57P), resources (53), rollback by the server (40), locks and time-outs.
_RETRYABLE_CLASSES = ("08", "53", "40", "57P")
_RETRYABLE_CODES = frozenset({"55P03", "57014", "25P03", "25006"})
# The server has answered, so a commit that failed with one of these has certainly not happened.
_DECIDED_CLASSES = ("40", "23")
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_SQLITE_UNWRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN})


@contextlib.contextmanager
def translated(address: str, file: Path | None, *, committing: bool = False) -> Iterator[None]:
    """Raise the errors of drivers and SQLAlchemy in the words of what the caller can do.

    Args:
        address: The database as a person names it.
        file: The SQLite file, or None.
        committing: The block is a COMMIT, so a lost connection leaves the outcome unknown.

    Raises:
        StorageUnavailable: A retry may succeed.
        StorageFull: The SQLite file cannot be written until a person acts.
        StorageDamaged: The SQLite file cannot be read as a database.
    """
    try:
        yield
    except sa.exc.TimeoutError as error:
        message = f"no free connection to {address}: {error}"
        raise StorageUnavailable(message) from error
    except sa.exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        known = _known(cause, address, file, committing=committing)
        if known is None:
            raise
        raise known from error
    except (psycopg.Error, sqlite3.Error) as error:
        known = _known(error, address, file, committing=committing)
        if known is None:
            raise
        raise known from error


def _known(error: Exception, address: str, file: Path | None, *, committing: bool) -> OutriderError | None:
    if isinstance(error, sqlite3.Error):
        return _known_sqlite(error, file, committing=committing)
    if isinstance(error, psycopg.Error):
        return _known_postgresql(error, address, committing=committing)
    return None


def _known_postgresql(error: psycopg.Error, address: str, *, committing: bool) -> OutriderError | None:
    state = error.sqlstate
    if state is None:
        # The driver itself speaks: no connection, or the one we had is gone; other errors of its are misuse.
        retryable = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    else:
        retryable = state.startswith(_RETRYABLE_CLASSES) or state in _RETRYABLE_CODES
    if not retryable:
        return None
    reason = " ".join(str(error).split())
    if committing and (state is None or state == "40003" or not state.startswith(_DECIDED_CLASSES)):
        return CommitUnknown(f"the outcome of a commit to {address} is unknown: {reason}")
    return StorageUnavailable(f"{address} is not available: {reason}")


def _known_sqlite(error: sqlite3.Error, file: Path | None, *, committing: bool) -> OutriderError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary in _SQLITE_BUSY:
        return StorageUnavailable(f"the database {file} is locked by another process: {error}")
    if primary == sqlite3.SQLITE_IOERR:
        kind = CommitUnknown if committing else StorageUnavailable
        return kind(f"the database {file} cannot be read or written now: {error}")
    if primary in _SQLITE_UNWRITABLE:
        advice = {
            sqlite3.SQLITE_READONLY: "give this user the right to write the file and its folder",
            sqlite3.SQLITE_FULL: "free space on its disk, or shorten `retention`",
            sqlite3.SQLITE_CANTOPEN: "check that the folder exists and that this user may write in it",
        }[primary]
        return StorageFull(f"the database {file} cannot be written ({error}): {advice}")
    if primary in _SQLITE_DAMAGED:
        return StorageDamaged(f"{file}: {error}; restore it from a backup, or name another file in database.url")
    return None
