"""Faults: the broker or the database goes away while the daemon drains a topic, and is away when it starts."""

import sqlite3
from collections.abc import Callable

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import Dump, Stored, differences, repeated_and_missing
from tests.faults.conftest import Topic
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]


def says_that_it_waits(daemon: DaemonProcess, already: int) -> Callable[[], bool]:
    """Return a condition: the daemon has said, since `already` characters of its log, that it will try again."""
    return lambda: "trying again" in daemon.log[already:]


def assert_as_if_nothing_had_been(stored: Stored, topic: Topic, reference: Dump) -> None:
    dump = stored.dump()
    assert repeated_and_missing(dump, topic.expected) == ([], 0)
    assert differences(dump, reference) == {}


def test_the_broker_goes_away_and_comes_back(
    kafka_server: KafkaServer,
    topic: Topic,
    reference: Dump,
    stored: Stored,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = run_daemon(topic.settings(stored.url))
    daemon.until(lambda: stored.progress() > 0.2 * topic.records, "a fifth of the topic is drained")
    kafka_server.restart()
    daemon.until(lambda: stored.progress() > 0.6 * topic.records, "more is drained by the same process")
    kafka_server.stop()
    try:
        daemon.kill()
        said = len(daemon.log)
        daemon.start().until(says_that_it_waits(daemon, said), "it waits for the broker")
    finally:
        kafka_server.start()
    daemon.until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert_as_if_nothing_had_been(stored, topic, reference)


@pytest.mark.parametrize("mode", ["fast", pytest.param("immediate", marks=pytest.mark.long)])
def test_the_database_server_goes_away_and_comes_back(
    mode: str,
    postgres_server: PostgresServer,
    topic: Topic,
    reference: Dump,
    postgres_url: str,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    stored = Stored(postgres_url)
    daemon = run_daemon(topic.settings(postgres_url))
    daemon.until(lambda: stored.progress() > 0.2 * topic.records, "a fifth of the topic is drained")
    said = len(daemon.log)
    _away(postgres_server, mode, lambda: daemon.until(says_that_it_waits(daemon, said), "it waits for the database"))
    daemon.until(lambda: stored.progress() > 0.6 * topic.records, "more is drained by the same process")
    _away(postgres_server, mode, lambda: _start_without_database(daemon))
    daemon.until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert_as_if_nothing_had_been(stored, topic, reference)
    stored.close()


def _away(server: PostgresServer, mode: str, meanwhile: Callable[[], object]) -> None:
    server.stop("immediate" if mode == "immediate" else "fast")
    try:
        meanwhile()
    finally:
        server.start()


def _start_without_database(daemon: DaemonProcess) -> None:
    daemon.kill()
    said = len(daemon.log)
    daemon.start().until(says_that_it_waits(daemon, said), "it waits for the database")


def test_another_process_holds_the_database_file_for_longer_than_one_waits(
    topic: Topic, reference: Dump, sqlite_url: str, run_daemon: Callable[..., DaemonProcess]
) -> None:
    stored = Stored(sqlite_url)
    daemon = run_daemon(topic.settings(sqlite_url))
    daemon.until(lambda: stored.progress() > 0.2 * topic.records, "a fifth of the topic is drained")
    said = len(daemon.log)
    holder = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    try:
        holder.execute("BEGIN IMMEDIATE")
        daemon.until(says_that_it_waits(daemon, said), "it waits for the file")
        holder.execute("ROLLBACK")
    finally:
        holder.close()
    daemon.until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert_as_if_nothing_had_been(stored, topic, reference)
    stored.close()
