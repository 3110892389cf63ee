"""Databases with the newest schema, without an upgrade for each test; a conftest imports the fixtures."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.tables import metadata
from tests.servers.postgres import PostgresServer


def give_newest_schema(url: str) -> None:
    """Give an empty database the newest schema; a SQLite file that does not exist becomes a copy of an upgraded one."""
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:") and not file.exists():
        file.write_bytes(_upgraded_file())
        return
    with Database(url) as database:
        upgrade(database)


@functools.cache
def _upgraded_file() -> bytes:
    """Return the content of an empty SQLite file with the newest schema; made once in a process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "upgraded.db"
        with Database(f"sqlite:///{file}") as database:
            upgrade(database)
        return file.read_bytes()


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
