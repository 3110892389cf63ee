"""Fixtures: a database with the newest schema for each test, without an upgrade for each test."""

from collections.abc import Iterator

import psycopg
import pytest

from storage.database.tables import metadata
from tests.servers.postgres import PostgresServer
from tests.upgraded import give_newest_schema


@pytest.fixture(scope="session")
def shared_postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a PostgreSQL database with the newest schema; every user leaves its tables empty."""
    url = postgres_server.create_database()
    give_newest_schema(url)
    return url


@pytest.fixture
def upgraded_sqlite_url(sqlite_url: str) -> str:
    """The URL of a SQLite database with the newest schema for this test."""
    give_newest_schema(sqlite_url)
    return sqlite_url


@pytest.fixture
def upgraded_postgres_url(shared_postgres_url: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with the newest schema and empty tables; a test must not change the schema."""
    yield shared_postgres_url
    with psycopg.connect(shared_postgres_url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def upgraded_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the newest schema for this test; the test runs once for each kind of database."""
    fixture = {"sqlite": "upgraded_sqlite_url", "postgresql": "upgraded_postgres_url"}[request.param]
    return str(request.getfixturevalue(fixture))
