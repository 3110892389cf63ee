"""Fixtures: a database with the newest schema for each test, without an upgrade for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.tables import metadata
from tests.servers.postgres import PostgresServer


def _upgrade(url: str) -> str:
    with Database(url) as database:
        upgrade(database)
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema."""
    file = tmp_path_factory.mktemp("template") / "template.db"
    _upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def shared_postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a PostgreSQL database with the newest schema; every user leaves its tables empty."""
    return _upgrade(postgres_server.create_database())


@pytest.fixture
def upgraded_sqlite_url(sqlite_template: Path, sqlite_url: str) -> str:
    """The URL of a SQLite database with the newest schema for this test."""
    shutil.copy(sqlite_template, sqlite_url.removeprefix("sqlite:///"))
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
