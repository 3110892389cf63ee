"""Fixtures: real servers, each started once per pytest process by the first test that needs it."""

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

_MARK_OF_FIXTURE = {"kafka_server": "kafka", "postgres_server": "postgres", "browser": "browser"}
_LONGEST_FIRST = ("acceptance", "faults", "browser", "simulation", "integration")
"""Folders of the tests with daemons, servers and browsers, in the order in which they start."""
_TESTS = Path(__file__).parent
_MEMORY_FOLDER = Path("/dev/shm")
_MIN_FREE_BYTES = 2 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Put the temporary folders into memory if it is large enough, and ignore warnings of the Kafka client.

    SQLite waits for the disk at every commit. This protects against a loss of power, which the tests do not need.
    """
    _save_processor_time()
    if (
        _MEMORY_FOLDER.is_dir()
        and os.access(_MEMORY_FOLDER, os.W_OK)
        and shutil.disk_usage(_MEMORY_FOLDER).free >= _MIN_FREE_BYTES
    ):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY_FOLDER))
    _ignore_client_warnings(config)


def _save_processor_time() -> None:
    """Use one thread for linear algebra, and keep compiled modules, in this process and in its children.

    Two pytest processes, servers and daemons share the cores. More threads than cores wait for each other in busy
    loops: the oracle tests take 40 s of processor time with two threads and 14 s with one. Without a cache of byte
    code each daemon and each command compiles its modules again, and pytest rewrites the assertions of all tests.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _ignore_client_warnings(config: pytest.Config) -> None:
    """Ignore two warnings of kafka-python that its users cannot avoid.

    It reads its schemas with a function that Python 3.11 and 3.12 deprecate. And it leaves a socket to the garbage
    collector: an unconnected one when it is closed while it tries to reach an unavailable broker, and a connected one
    when its constructor gives up on a suspended broker. It also leaves a TLS socket when the handshake fails.
    """
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")
    for kind in (r"socket\.socket", r"ssl\.SSLSocket"):
        config.addinivalue_line(
            "filterwarnings",
            rf"ignore:unclosed <{kind} [^>]*proto=6, laddr=\('(0\.0\.0\.0|127\.0\.0\.1)':ResourceWarning",
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the servers that their fixtures start: `-m "not kafka"` then needs no Java."""
    for item in items:
        for fixture, mark in _MARK_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)
    items.sort(key=_place_in_run)


def _place_in_run(item: pytest.Item) -> int:
    """Return the place of a test's folder: long files start first, so that no process waits for the other's last file.

    The sort is stable, and the files of a folder keep their random order.
    """
    folder = item.path.relative_to(_TESTS).parts[0]
    return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)


@pytest.fixture(autouse=True)
def _reset_log() -> None:
    """Remove the log handlers of commands that ran in this process: their streams are closed by now."""
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if type(each) is not logging.StreamHandler]
    root.setLevel(logging.WARNING)


def _failed_run_log(request: pytest.FixtureRequest, server: str) -> Path | None:
    """Return the file for the log of a server if a test has failed; None otherwise, to discard the log."""
    if not request.session.testsfailed:
        return None
    return Path(tempfile.gettempdir()) / f"outrider-{server}-{os.getpid()}.log"


@pytest.fixture(scope="session")
def kafka_server(request: pytest.FixtureRequest) -> Iterator[KafkaServer]:
    """A running broker, shared by the session. A test that stops it has to start it again."""
    server = KafkaServer()
    try:
        server.start()
        yield server
    finally:
        server.close(keep_log=_failed_run_log(request, "kafka"))


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A running PostgreSQL server, shared by the session. A test that stops it has to start it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close(keep_log=_failed_run_log(request, "postgres"))


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database for this test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'outrider.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database for this test; the test runs once for each kind of database."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def kafka_topic(request: pytest.FixtureRequest, kafka_server: KafkaServer) -> Callable[..., str]:
    """A factory of topics for this test: `kafka_topic(2, **{"cleanup.policy": "compact"})`."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-").lower()

    def make(partitions: int = 1, **settings: str) -> str:
        name = f"{stem}-{os.urandom(4).hex()}"
        kafka_server.create_topic(name, partitions, settings)
        return name

    return make
