"""The command line, called in this process as a shell would call it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from monitor.cli.main import main
from storage.database.engine import Database
from tests.unit.monitor.cli.payments_stream import PaymentsStream, store_spike, write_config


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command left behind."""

    code: int
    out: str
    err: str


OutriderRunner = Callable[..., CommandResult]


@pytest.fixture
def url(sqlite_url: str) -> str:
    """The database of a test; test_both_databases.py has it be PostgreSQL too."""
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
    """`outrider -c CONFIG ARGUMENTS...` through its entry point."""

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
    """The stream payments with an open spike."""
    return store_spike(db, config)
