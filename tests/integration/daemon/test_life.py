"""Lifecycle of a daemon: graceful and immediate stop, exclusive use of a file, shared partitions."""

import signal
import sqlite3
from collections.abc import Callable

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, kafka_settings
from tests.daemon.stored import StoredRows, duplicates_and_missing
from tests.integration.daemon.conftest import PLAIN
from tests.servers.kafka import KafkaServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

EXPECTED = dict.fromkeys(range(4), PLAIN.events // 4)


def owners(stored: StoredRows) -> list[int]:
    """Return the process id of the owner of each partition."""
    return [int(owner.split(":")[1]) for (owner,) in stored.rows("SELECT owner FROM positions WHERE active")]


def test_sigterm_commits_the_fetched_events_and_releases_the_lease(
    kafka_server: KafkaServer, plain_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    stored = stored_in_sqlite
    daemon = run_daemon(kafka_settings(stored.url, kafka_server.bootstrap, plain_topic))
    daemon.wait_until(lambda: stored.progress() > 500, "some events are drained")
    assert daemon.terminate() == 0
    assert stored.count("leases") == 0
    assert stored.count("scores") == stored.progress(), "the positions match the stored scores"


def test_second_daemon_on_a_file_is_refused_and_a_second_signal_ends_the_first_at_once(
    kafka_server: KafkaServer, plain_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    stored = stored_in_sqlite
    settings = kafka_settings(stored.url, kafka_server.bootstrap, plain_topic)
    first = run_daemon(settings)
    first.wait_until(lambda: stored.progress() > 0, "events are drained")
    second = run_daemon(settings, "second")
    assert second.wait() == 2
    started, error = second.log.splitlines()
    assert "Starting stream" in started
    assert f"process {first.pid}" in error
    holder = sqlite3.connect(stored.url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    try:
        holder.execute(
            "BEGIN IMMEDIATE"
        )  # blocks the commit of the fetched events, so that the first signal does not end the process
        first.wait_until(lambda: "trying again" in first.log, "a commit waits")
        first.send(signal.SIGTERM)
        assert first.runs_for(0.5)
        first.send(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM
    finally:
        holder.close()


def test_daemons_on_one_postgresql_share_partitions_and_the_remaining_one_takes_over(
    kafka_server: KafkaServer,
    plain_topic: str,
    stored_in_postgres: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    stored = stored_in_postgres
    # Slow polling, so that both daemons have work.
    settings = kafka_settings(stored.url, kafka_server.bootstrap, plain_topic, client={"max_poll_records": 5})
    remaining, leaving = run_daemon(settings, "remaining"), run_daemon(settings, "leaving")
    both = sorted([remaining.pid, remaining.pid, leaving.pid, leaving.pid])
    remaining.wait_until(lambda: stored.count("positions") == 4, "the partitions are registered")
    remaining.wait_until(
        lambda: sorted(owners(stored)) == both if _all_owned(stored) else False, "each owns two partitions"
    )
    assert leaving.terminate() == 0
    remaining.wait_until(lambda: set(owners(stored)) == {remaining.pid}, "the remaining daemon owns all partitions")
    remaining.wait_until(lambda: stored.is_settled(PLAIN.events), "the topic is drained")
    assert remaining.terminate() == 0
    assert duplicates_and_missing(stored.dump(), EXPECTED) == ([], 0)


def _all_owned(stored: StoredRows) -> bool:
    return stored.number("SELECT count(owner) FROM positions WHERE active") == 4


def test_missing_topic_is_an_error_that_names_the_nearest_topic(
    kafka_server: KafkaServer, plain_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = run_daemon(kafka_settings(stored_in_sqlite.url, kafka_server.bootstrap, plain_topic[:-1]))
    assert daemon.wait() == 2
    assert f"did you mean {plain_topic}?" in daemon.log
    assert STREAM not in daemon.log or "Traceback" not in daemon.log
