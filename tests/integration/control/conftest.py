"""Fixtures: an upgraded database of each kind, with a stream and a source."""

from collections.abc import Iterator

import pytest

from storage.control.windows import WindowStore
from storage.database.engine import Database
from tests.integration.control.source_commits import CommittingSource
from tests.integration.control.worker_bench import open_stream


@pytest.fixture
def db(upgraded_url: str) -> Iterator[Database]:
    with Database(upgraded_url) as database:
        yield database


@pytest.fixture
def sqlite_db(upgraded_sqlite_url: str) -> Iterator[Database]:
    with Database(upgraded_sqlite_url) as database:
        yield database


@pytest.fixture
def stream_id(db: Database) -> int:
    return open_stream(db, partitions=3)


@pytest.fixture
def source(db: Database, stream_id: int) -> CommittingSource:
    return CommittingSource(db, stream_id)


@pytest.fixture
def control(db: Database) -> WindowStore:
    return WindowStore(db)
