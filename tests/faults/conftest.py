"""One full topic for all fault tests, and the rows that an undisturbed daemon stores of it."""

import os
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.daemon.events import FEATURES, BurstStream, produce_records
from tests.daemon.fixtures import run_daemon, stored, stored_in_postgres, stored_in_sqlite
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows, TableDump
from tests.servers.kafka import KafkaServer

__all__ = ["reference", "run_daemon", "stored", "stored_in_postgres", "stored_in_sqlite", "topic"]

PARTITIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledTopic:
    """A topic with all its records produced."""

    name: str
    records: int
    bootstrap: str

    @property
    def expected(self) -> dict[int, int]:
        """Number of records by partition."""
        return {i: len(range(i, self.records, PARTITIONS)) for i in range(PARTITIONS)}

    def settings(self, database_url: str, **client: Any) -> dict[str, Any]:
        """Return the settings of a daemon that drains the topic; an energy depends on the events before it."""
        event = {"time": {"field": "ts"}, "id": "id", "features": list(FEATURES), "derive": list(FEATURES)}
        return kafka_settings(database_url, self.bootstrap, self.name, client=client, event=event)


@pytest.fixture(scope="session")
def topic(kafka_server: KafkaServer) -> FilledTopic:
    """The full topic; every test drains it into its own database."""
    name = f"faults-{os.urandom(4).hex()}"
    kafka_server.create_topic(name, PARTITIONS)
    records = BurstStream().records()
    produce_records(kafka_server, name, records, PARTITIONS)
    return FilledTopic(name=name, records=len(records), bootstrap=kafka_server.bootstrap)


@pytest.fixture(scope="session")
def reference(topic: FilledTopic, tmp_path_factory: pytest.TempPathFactory) -> TableDump:
    """Rows that a daemon on SQLite stores of the topic without any fault."""
    folder = tmp_path_factory.mktemp("reference")
    url = f"sqlite:///{folder / 'outrider.db'}"
    with closing(StoredRows(url)) as undisturbed, DaemonProcess(folder, topic.settings(url)).start() as daemon:
        daemon.wait_until(lambda: undisturbed.is_settled(topic.records), "the reference run")
        assert daemon.terminate() == 0
        dump = undisturbed.dump()
        assert undisturbed.number("SELECT count(*) FROM key_states") > 0, "the model derives features"
    assert len(dump["incidents"]) >= 3, "the planted bursts must open incidents, or there is little to compare"
    assert sum(row[5] for row in dump["windows"]) > 0, "some events are late"
    return dump
