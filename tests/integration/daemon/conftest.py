"""A topic of plain events for tests of the daemon's lifecycle."""

import os

import pytest

from tests.daemon.events import BurstStream, produce_records
from tests.daemon.fixtures import run_daemon, stored, stored_in_postgres, stored_in_sqlite
from tests.servers.kafka import KafkaServer

__all__ = ["plain_topic", "run_daemon", "stored", "stored_in_postgres", "stored_in_sqlite"]

PLAIN = BurstStream(events=8_000, seconds=1_600)


@pytest.fixture(scope="session")
def plain_topic(kafka_server: KafkaServer) -> str:
    """Name of a topic with four partitions that contains the events of `PLAIN`."""
    name = f"plain-{os.urandom(4).hex()}"
    kafka_server.create_topic(name, 4)
    produce_records(kafka_server, name, PLAIN.records(), 4)
    return name
