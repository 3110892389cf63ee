"""The broker or the database is unavailable while the daemon drains a topic, or when it starts."""

import sqlite3
from collections.abc import Callable
from typing import Literal

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows, TableDump, differences, duplicates_and_missing
from tests.faults.conftest import FilledTopic
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]


def logs_waiting(daemon: DaemonProcess, log_start: int) -> Callable[[], bool]:
    """Return a condition: the log contains a retry message after its first `log_start` characters."""
    return lambda: "trying again" in daemon.log[log_start:]


def assert_equals_reference(stored: StoredRows, topic: FilledTopic, reference: TableDump) -> None:
    dump = stored.dump()
    assert duplicates_and_missing(dump, topic.expected) == ([], 0)
    assert differences(dump, reference) == {}


@pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.long])],
    indirect=True,
)
def test_daemon_survives_a_restart_of_the_broker(
    kafka_server: KafkaServer,
    topic: FilledTopic,
    reference: TableDump,
    stored: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = run_daemon(topic.settings(stored.url))
    daemon.wait_until(lambda: stored.progress() > 0.2 * topic.records, "a fifth of the topic is drained")
    kafka_server.restart()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained by the same process")
    assert daemon.terminate() == 0
    assert_equals_reference(stored, topic, reference)


@pytest.mark.long
def test_daemon_started_without_the_broker_waits_for_it(
    kafka_server: KafkaServer,
    topic: FilledTopic,
    reference: TableDump,
    stored: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = run_daemon(topic.settings(stored.url))
    daemon.wait_until(lambda: stored.progress() > 0.5 * topic.records, "half of the topic is drained")
    kafka_server.stop()
    try:
        _start_and_wait(daemon)
    finally:
        kafka_server.start()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert_equals_reference(stored, topic, reference)


@pytest.mark.parametrize("mode", ["fast", pytest.param("immediate", marks=pytest.mark.long)])
def test_daemon_survives_a_restart_of_the_database_server(
    mode: Literal["fast", "immediate"],
    postgres_server: PostgresServer,
    topic: FilledTopic,
    reference: TableDump,
    stored_in_postgres: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    stored = stored_in_postgres
    daemon = run_daemon(topic.settings(stored.url))
    daemon.wait_until(lambda: stored.progress() > 0.2 * topic.records, "a fifth of the topic is drained")
    log_start = len(daemon.log)
    postgres_server.stop(mode)
    try:
        daemon.wait_until(logs_waiting(daemon, log_start), "it waits for the database")
    finally:
        postgres_server.start()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained by the same process")
    assert daemon.terminate() == 0
    assert_equals_reference(stored, topic, reference)


@pytest.mark.long
def test_daemon_started_without_the_database_server_waits_for_it(
    postgres_server: PostgresServer,
    topic: FilledTopic,
    reference: TableDump,
    stored_in_postgres: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    stored = stored_in_postgres
    daemon = run_daemon(topic.settings(stored.url))
    daemon.wait_until(lambda: stored.progress() > 0.5 * topic.records, "half of the topic is drained")
    postgres_server.stop()
    try:
        _start_and_wait(daemon)
    finally:
        postgres_server.start()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert_equals_reference(stored, topic, reference)


def _start_and_wait(daemon: DaemonProcess) -> None:
    """Restart the daemon while a server is unavailable; wait until it logs the retry."""
    daemon.kill()
    log_start = len(daemon.log)
    daemon.start().wait_until(logs_waiting(daemon, log_start), "it waits for the server")


def test_daemon_waits_for_a_process_that_locks_the_database_file_longer_than_the_timeout(
    topic: FilledTopic, reference: TableDump, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    stored = stored_in_sqlite
    daemon = run_daemon(topic.settings(stored.url))
    daemon.wait_until(lambda: stored.progress() > 0.2 * topic.records, "a fifth of the topic is drained")
    log_start = len(daemon.log)
    holder = sqlite3.connect(stored.url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    try:
        holder.execute("BEGIN IMMEDIATE")
        daemon.wait_until(logs_waiting(daemon, log_start), "it waits for the file")
        holder.execute("ROLLBACK")
    finally:
        holder.close()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert_equals_reference(stored, topic, reference)
