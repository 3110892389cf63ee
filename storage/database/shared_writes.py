"""The write transactions of one process on a SQLite file: one after another, and several of them in one COMMIT.

A COMMIT waits for the disk. While one thread waits, others queue; their blocks then run one after another in one
transaction of the file, each in a savepoint, and wait together for its COMMIT. So 50 streams wait for the disk as often
as one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Transaction

from config.errors import OutriderError, StorageUnavailable
from storage.database import dialects
from storage.database.errors import CommitUnknown
from storage.database.fair_lock import FairLock

_MAX_DURATION_S = 0.05
"""A transaction takes no further blocks after this time, so that readers and other processes see its rows soon."""

_ABANDONED_S = 1.0
"""Time after which a thread ends a transaction itself that nobody has ended: the next thread left the queue."""


class _SharedTransaction:
    """An open transaction of the file; `done` is set after its end, and `error` is why it is not stored, if so."""

    def __init__(self, connection: Connection, transaction: Transaction) -> None:
        self.connection = connection
        self.transaction = transaction
        self.began_s = time.monotonic()
        self.done = threading.Event()
        self.error: Exception | None = None


class SharedWrites:
    """Runs blocks of statements in transactions that they share.

    Args:
        engine: The engine of the writer, with one connection.
        translate: Returns a context that translates the errors of the driver; `committing=True` for a COMMIT.
    """

    def __init__(self, engine: sa.Engine, translate: Callable[..., AbstractContextManager[None]]) -> None:
        self._engine = engine
        self._translate = translate
        self._lock = FairLock()
        self._open: _SharedTransaction | None = None

    @contextlib.contextmanager
    def block(self) -> Iterator[Connection]:
        """Yield the connection for a block that is stored, or rolled back, as a whole; return after its COMMIT.

        A block that raises is rolled back alone. Blocks run one at a time, in the order of their threads.
        """
        with self._lock:
            shared = self._open
            is_first = shared is None
            if shared is None:
                shared = self._open = self._begin()
            try:
                with self._run_first(shared) if is_first else self._run_further(shared):
                    yield shared.connection
            finally:
                is_late = time.monotonic() - shared.began_s >= _MAX_DURATION_S
                if self._open is shared and (is_late or not self._lock.n_waiting):
                    self._commit(shared)
        self._wait(shared)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep all blocks out, with no transaction open, for statements that manage their own transaction."""
        with self._lock:
            if self._open is not None:
                self._commit(self._open)
            yield

    def _begin(self) -> _SharedTransaction:
        with self._translate():
            connection = self._engine.connect()
        try:
            with self._translate():
                return _SharedTransaction(connection, connection.begin())
        except BaseException:
            connection.close()
            raise

    @contextlib.contextmanager
    def _run_first(self, shared: _SharedTransaction) -> Iterator[None]:
        """Run the first block; if it fails, nothing else is lost with the transaction."""
        try:
            with self._translate():
                yield
        except BaseException:
            self._roll_back(shared)
            raise

    @contextlib.contextmanager
    def _run_further(self, shared: _SharedTransaction) -> Iterator[None]:
        """Run a further block in a savepoint; if it fails, the blocks before it remain."""
        with self._translate():
            savepoint = shared.connection.begin_nested()
            try:
                yield
                savepoint.commit()
            except BaseException as error:
                dialects.rollback_or_invalidate(shared.connection, savepoint)
                if not _is_in_transaction(shared.connection):
                    # A full disk or an error of the file rolls back the whole transaction.
                    shared.error = StorageUnavailable(f"a write was rolled back together with a failed one: {error}")
                    self._roll_back(shared)
                raise

    def _roll_back(self, shared: _SharedTransaction) -> None:
        dialects.rollback_or_invalidate(shared.connection, shared.transaction)
        self._close(shared)

    def _commit(self, shared: _SharedTransaction) -> None:
        """Commit a transaction; its error, if any, is raised by each of its blocks."""
        shared.error = CommitUnknown("a COMMIT was interrupted")
        try:
            with self._translate(committing=True):
                shared.transaction.commit()
            shared.error = None
        except (OutriderError, sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            shared.error = error
            dialects.rollback_or_invalidate(shared.connection, shared.transaction)
        finally:
            self._close(shared)

    def _close(self, shared: _SharedTransaction) -> None:
        self._open = None
        try:
            shared.connection.close()
        finally:
            shared.done.set()

    def _wait(self, shared: _SharedTransaction) -> None:
        while not shared.done.wait(_ABANDONED_S):
            with self._lock:
                if self._open is shared:
                    self._commit(shared)
        if shared.error is not None:
            raise shared.error


def _is_in_transaction(connection: Connection) -> bool:
    if connection.invalidated:
        return False
    driver = connection.connection.driver_connection
    return isinstance(driver, sqlite3.Connection) and driver.in_transaction
