"""One full topic for all fault tests, and what a daemon that nobody disturbs stores of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.events import Feed, fill
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import Dump, Stored
from tests.servers.kafka import KafkaServer

PARTITIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic whose records are all there."""

    name: str
    records: int
    bootstrap: str

    @property
    def expected(self) -> dict[int, int]:
        """The number of records by partition."""
        return {i: len(range(i, self.records, PARTITIONS)) for i in range(PARTITIONS)}

    def settings(self, database_url: str, **client: Any) -> dict[str, Any]:
        """Return the settings of a daemon that drains it."""
        return kafka_settings(database_url, self.bootstrap, self.name, client=client)


@pytest.fixture(scope="session")
def topic(kafka_server: KafkaServer) -> Topic:
    """The full topic: drained by every test into a database of its own."""
    name = f"faults-{os.urandom(4).hex()}"
    kafka_server.create_topic(name, PARTITIONS)
    records = Feed().records()
    fill(kafka_server, name, records, PARTITIONS)
    return Topic(name=name, records=len(records), bootstrap=kafka_server.bootstrap)


@pytest.fixture(scope="session")
def reference(topic: Topic, tmp_path_factory: pytest.TempPathFactory) -> Dump:
    """What a daemon on SQLite stores of the topic without any fault."""
    folder = tmp_path_factory.mktemp("reference")
    stored = Stored(f"sqlite:///{folder / 'outrider.db'}")
    with DaemonProcess(folder, topic.settings(stored.url)).start() as daemon, closing(stored):
        daemon.until(lambda: stored.is_settled(topic.records), "the reference run")
        assert daemon.terminate() == 0
        dump = stored.dump()
    assert len(dump["incidents"]) >= 3, "the planted bursts make incidents, or there is little to compare"
    assert sum(row[5] for row in dump["windows"]) > 0, "some events are late"
    return dump


@pytest.fixture
def stored(database_url: str) -> Iterator[Stored]:
    """What the daemon of this test stores."""
    with closing(Stored(database_url)) as watched:
        yield watched


@pytest.fixture
def run_daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """A factory of daemons that are started, and gone when the test is over."""
    made: list[DaemonProcess] = []

    def run(settings: dict[str, Any], name: str = "outrider") -> DaemonProcess:
        made.append(DaemonProcess(tmp_path, settings, name))
        return made[-1].start()

    yield run
    for daemon in made:
        daemon.close()
