"""Fixtures that call the command line in this process through its entry point."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from monitor.cli.main import main
from storage.database.engine import Database
from tests.unit.monitor.cli.payments_stream import PaymentsStream, store_spike, write_config
from tests.upgraded import shared_postgres_url, upgraded_postgres_url, upgraded_sqlite_url, upgraded_url

__all__ = ["shared_postgres_url", "upgraded_postgres_url", "upgraded_sqlite_url", "upgraded_url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


OutriderRunner = Callable[..., CommandResult]


@pytest.fixture
def url(sqlite_url: str) -> str:
    """URL of the test's database; test_both_databases.py overrides it with PostgreSQL too."""
    return sqlite_url


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    return write_config(tmp_path, url)


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with Database(url) as database:
        yield database


@pytest.fixture
def outrider(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> OutriderRunner:
    """Run `outrider -c CONFIG ARGUMENTS...` through its entry point."""

    def call(*arguments: object, config: Path = config) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["outrider", "-c", str(config), *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        written = capsys.readouterr()
        return CommandResult(code=code, out=written.out, err=written.err)

    return call


@pytest.fixture
def payments(db: Database, config: Path) -> PaymentsStream:
    """Stream `payments` with an open spike."""
    return store_spike(db, config)
