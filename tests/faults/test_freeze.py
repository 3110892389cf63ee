"""A daemon is frozen between two statements for longer than its session, and resumes after it was replaced.

The test holds a lock that the daemon's next statement waits for, stops the process there and releases the lock. The
server then executes the statement of the frozen client inside a transaction that stays open.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows, TableDump, differences, duplicates_and_missing
from tests.faults.conftest import PARTITIONS, FilledTopic
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]

# The server ends the open work of a frozen client: a transaction after 10 s, a COPY after 30 s.
RELEASED_WITHIN_S = 240.0


@contextmanager
def block_writers(url: str, table: str) -> Iterator[psycopg.Connection]:
    """Block every statement that writes to a table; readers are not blocked."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        connection.execute(f'LOCK TABLE "{table}" IN SHARE MODE')
        yield connection


def is_writer_waiting(connection: psycopg.Connection, table: str) -> bool:
    """Return whether a session waits for a lock on the table."""
    query = "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
    row = connection.execute(query, (table,)).fetchone()
    return row is not None and row[0] > 0


def is_replaced_by(other: DaemonProcess, stored: StoredRows) -> bool:
    """Return whether the other daemon has claimed every partition."""
    owned = "SELECT count(*) FROM positions WHERE active AND owner LIKE :owner"
    return stored.number(owned, owner=f"%:{other.pid}:%") == PARTITIONS


@pytest.mark.parametrize(
    "table",
    [
        "window_parts",
        pytest.param("windows", marks=pytest.mark.long),
        pytest.param("positions", marks=pytest.mark.long),
        pytest.param("scores", marks=pytest.mark.long),
        pytest.param("outliers", marks=pytest.mark.long),
        pytest.param("streams", marks=pytest.mark.long),
        pytest.param("thresholds", marks=pytest.mark.long),
        pytest.param("calibrations", marks=pytest.mark.long),
        pytest.param("incidents", marks=pytest.mark.long),
        pytest.param("transitions", marks=pytest.mark.long),
        pytest.param("notifications", marks=pytest.mark.long),
        pytest.param("leases", marks=pytest.mark.long),
    ],
)
def test_daemon_frozen_before_a_write_and_replaced_does_no_harm(
    table: str,
    topic: FilledTopic,
    reference: TableDump,
    stored_in_postgres: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    stored = stored_in_postgres
    frozen = run_daemon(topic.settings(stored.url), "frozen")
    frozen.wait_until(lambda: stored.progress() > 0.1 * topic.records, "a tenth of the topic is drained")
    with block_writers(stored.url, table) as connection:
        frozen.wait_until(lambda: is_writer_waiting(connection, table), f"a statement waits for {table}")
        frozen.send(signal.SIGSTOP)
    _replace_and_wake(frozen, topic, reference, stored, run_daemon)


@pytest.mark.long
def test_daemon_frozen_before_the_answer_to_its_commit_and_replaced_does_no_harm(
    topic: FilledTopic,
    reference: TableDump,
    postgres_server: PostgresServer,
    stored_in_postgres: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    """A commit waits for a standby that does not exist; the client is frozen before it receives the answer."""
    stored = stored_in_postgres
    name = stored.url.rpartition("/")[2]
    postgres_server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    frozen = run_daemon(topic.settings(stored.url), "frozen")
    frozen.wait_until(lambda: stored.progress() > 0.1 * topic.records, "a tenth of the topic is drained")
    committing = """SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
        WHERE a.wait_event = 'SyncRep' AND l.relation = 'window_parts'::regclass"""
    try:
        postgres_server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        postgres_server.execute("SELECT pg_reload_conf()")
        frozen.wait_until(lambda: stored.number(committing) > 0, "a batch waits for the answer to its COMMIT")
        frozen.send(signal.SIGSTOP)
    finally:
        postgres_server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        postgres_server.execute("SELECT pg_reload_conf()")
    _replace_and_wake(frozen, topic, reference, stored, run_daemon)


def _replace_and_wake(
    frozen: DaemonProcess,
    topic: FilledTopic,
    reference: TableDump,
    stored: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    other = run_daemon(topic.settings(stored.url), "other")
    other.wait_until(
        lambda: is_replaced_by(other, stored), "the other daemon has claimed all partitions", RELEASED_WITHIN_S
    )
    frozen.send(signal.SIGCONT)
    other.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert (frozen.terminate(), other.terminate()) == (0, 0)
    dump = stored.dump()
    assert duplicates_and_missing(dump, topic.expected) == ([], 0)
    assert differences(dump, reference) == {}
