"""An upgraded database of each kind, and a stream in it that is ready for commits."""

from collections.abc import Iterator

import pytest

from storage.engine import Database
from storage.ledger import Ledger
from tests.integration.storage.batches import Feed, open_feed


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with Database(database_url) as database:
        database.upgrade()
        yield database


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return Ledger(db)


@pytest.fixture
def feed(db: Database) -> Feed:
    """One stream with a model, a threshold at 10 and one claimed source at offset 0."""
    return open_feed(db)
