"""Tests: fixtures around a daemon; a conftest imports those that its tests ask for."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows


@pytest.fixture
def stored(database_url: str) -> Iterator[StoredRows]:
    """What the daemon of this test stores; the test runs once for each kind of database."""
    with closing(StoredRows(database_url)) as watched:
        yield watched


@pytest.fixture
def stored_in_postgres(postgres_url: str) -> Iterator[StoredRows]:
    """What the daemon of this test stores in PostgreSQL."""
    with closing(StoredRows(postgres_url)) as watched:
        yield watched


@pytest.fixture
def stored_in_sqlite(sqlite_url: str) -> Iterator[StoredRows]:
    """What the daemon of this test stores in a file."""
    with closing(StoredRows(sqlite_url)) as watched:
        yield watched


@pytest.fixture
def run_daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """A factory of daemons that are started, and gone when the test is over."""
    made: list[DaemonProcess] = []

    def run(settings: dict[str, Any], name: str = "outrider") -> DaemonProcess:
        made.append(DaemonProcess(tmp_path, settings, name))
        return made[-1].start()

    yield run
    for daemon in made:
        daemon.close()
