"""Fixtures: an upgraded database for each test, and a stream with a claimed source."""

from collections.abc import Iterator

import pytest

from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import ClaimedStream, claim_stream


@pytest.fixture
def db(upgraded_url: str) -> Iterator[Database]:
    """Yield an upgraded database of this test alone."""
    with Database(upgraded_url) as database:
        yield database


@pytest.fixture
def ledger(db: Database) -> Ledger:
    """Return the ledger of the test's database."""
    return Ledger(db)


@pytest.fixture
def feed(db: Database) -> ClaimedStream:
    """Return a stream with a model, a threshold of 10 and one claimed source at offset 0."""
    return claim_stream(db)
