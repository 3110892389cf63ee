"""Storage errors, and the translation of driver errors into errors that name the remedy."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import sqlalchemy as sa

from config.errors import ConfigError, OutriderError, StorageUnavailable
from storage.database.refused_connections import explain_refused_connection


class CommitUnknown(StorageUnavailable):
    """The connection broke during COMMIT: the transaction may or may not be committed, so read the position first."""


class StorageFull(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """The database file cannot be written: the disk is full, or the file or its folder is read-only."""


class StorageDamaged(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """The file is not a SQLite database, or it is damaged."""


# SQLSTATE classes and codes after which the same transaction may succeed: connection (08), shutdown and startup (57P),
# resources (53), rollback by the server (40), locks and timeouts.
_RETRYABLE_CLASSES = ("08", "53", "40", "57P")
_RETRYABLE_CODES = frozenset({"55P03", "57014", "25P03", "25006"})
_INSUFFICIENT_PRIVILEGE = "42501"
_READ_ONLY = "25006"
_DISK_FULL = "53100"

# The server has answered with a rollback or a constraint violation: the transaction is certainly not committed.
_ROLLED_BACK_CLASSES = ("40", "23")
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_SQLITE_UNWRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN})


@contextlib.contextmanager
def translate_errors(address: str, file: Path | None, *, committing: bool = False) -> Iterator[None]:
    """Translate errors of the drivers and of SQLAlchemy, raised in the block, by the action that the caller can take.

    Other errors pass unchanged.

    Args:
        address: The database's address for messages.
        file: The SQLite file, or None.
        committing: The block is a COMMIT, so that a lost connection leaves the outcome unknown.

    Raises:
        StorageUnavailable: A retry may succeed.
        CommitUnknown: The outcome of a COMMIT is unknown.
        StorageFull: The SQLite file cannot be written until an operator frees space or grants write access.
        StorageDamaged: The SQLite file is not a database, or it is damaged.
        ConfigError: PostgreSQL refuses the user, the database or a statement until an operator changes its settings.
    """
    try:
        yield
    except sa.exc.TimeoutError as error:
        message = f"no free connection to {address}: {error}"
        raise StorageUnavailable(message) from error
    except sa.exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        translated = _translate_error(cause, address, file, committing=committing)
        if translated is None:
            raise
        raise translated from error
    except (psycopg.Error, sqlite3.Error) as error:
        translated = _translate_error(error, address, file, committing=committing)
        if translated is None:
            raise
        raise translated from error


def _translate_error(error: Exception, address: str, file: Path | None, *, committing: bool) -> OutriderError | None:
    if isinstance(error, sqlite3.Error):
        return _translate_sqlite_error(error, file, committing=committing)
    if isinstance(error, psycopg.Error):
        return _translate_postgresql_error(error, address, committing=committing)
    return None


def _translate_postgresql_error(error: psycopg.Error, address: str, *, committing: bool) -> OutriderError | None:
    state = error.sqlstate
    reason = " ".join(str(error).split())
    if state is None and (refused := explain_refused_connection(error, reason)):
        return ConfigError(f"{address} {refused}")
    if state == _INSUFFICIENT_PRIVILEGE:
        return ConfigError(
            f"{address} denies this user a privilege ({reason.partition(' LINE ')[0]}): grant it (a first run needs "
            "CREATE on the schema, an upgrade the owner of the tables), or use another user in database.url"
        )
    if state is None:
        # An error of the driver itself: no connection, or a lost one. Its other error classes are misuse.
        retryable = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    else:
        retryable = state.startswith(_RETRYABLE_CLASSES) or state in _RETRYABLE_CODES
    if not retryable:
        return None
    if state == _READ_ONLY:
        reason = f"it is read-only ({reason}): use the primary server in database.url, or allow this user to write"
    elif state == _DISK_FULL:
        reason = f"its disk is full ({reason}): free space there, or shorten `retention`"
    if committing and (state is None or state == "40003" or not state.startswith(_ROLLED_BACK_CLASSES)):
        return CommitUnknown(f"the outcome of a commit to {address} is unknown: {reason}")
    return StorageUnavailable(f"{address} is not available: {_shorten_reason(reason)}")


def _shorten_reason(reason: str) -> str:
    """Return a message of the driver without the address, and with advice if the server did not answer."""
    text = re.sub(
        r'^connection (?:failed|is bad): |connection to server at "[^"]*"(?: \(.*?\))?, port \d+ failed: ', "", reason
    )
    text, question, _ = text.partition(" Is the server running")
    unreachable = question or "resolve host" in text or "timeout" in text
    return f"{text}; check database.url and that the server runs" if unreachable else text


def _translate_sqlite_error(error: sqlite3.Error, file: Path | None, *, committing: bool) -> OutriderError | None:
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
            sqlite3.SQLITE_READONLY: "allow this user to write the file and its folder",
            sqlite3.SQLITE_FULL: "free space on its disk, or shorten `retention`",
            sqlite3.SQLITE_CANTOPEN: "check that the folder exists and that this user may write in it",
        }[primary]
        return StorageFull(f"the database {file} cannot be written ({error}): {advice}")
    if primary in _SQLITE_DAMAGED:
        return StorageDamaged(f"{file}: {error}; restore it from a backup, or give another file in database.url")
    return None
