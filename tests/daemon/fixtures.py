"""Fixtures around a daemon; a conftest imports those that its tests request."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows


@pytest.fixture
def stored(database_url: str) -> Iterator[StoredRows]:
    """Rows stored by the daemon of this test, once for each kind of database."""
    with closing(StoredRows(database_url)) as rows:
        yield rows


@pytest.fixture
def stored_in_postgres(postgres_url: str) -> Iterator[StoredRows]:
    """Rows stored by the daemon of this test in PostgreSQL."""
    with closing(StoredRows(postgres_url)) as watched:
        yield watched


@pytest.fixture
def stored_in_sqlite(sqlite_url: str) -> Iterator[StoredRows]:
    """Rows stored by the daemon of this test in an SQLite file."""
    with closing(StoredRows(sqlite_url)) as watched:
        yield watched


@pytest.fixture
def run_daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """A factory that starts daemons; they are killed at the end of the test."""
    daemons: list[DaemonProcess] = []

    def run(settings: dict[str, Any], name: str = "outrider") -> DaemonProcess:
        daemons.append(DaemonProcess(tmp_path, settings, name))
        return daemons[-1].start()

    yield run
    for daemon in daemons:
        daemon.close()
