"""An upgraded database of each kind."""

from collections.abc import Iterator

import pytest

from storage.engine import Database


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with Database(database_url) as database:
        database.upgrade()
        yield database


@pytest.fixture
def sqlite_db(sqlite_url: str) -> Iterator[Database]:
    with Database(sqlite_url) as database:
        database.upgrade()
        yield database
