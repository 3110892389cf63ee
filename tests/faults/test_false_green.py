"""No surface says that a stream is well for longer than twice the stated interval after it has died."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from monitor.health.stream_health import HealthState, judge_streams
from storage.database.engine import Database
from storage.database.tables import health_reports, leases
from storage.queries.health import read_health, read_health_facts
from tests.daemon.events import BurstStream, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, file_settings, kafka_settings
from tests.daemon.stored import StoredRows
from tests.faults.surfaces import Surfaces
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

EVENTS = BurstStream(events=4_000, seconds=800, burst_every_s=10_000)
MORE = BurstStream(events=400, seconds=80, burst_every_s=10_000, seed=2)
SECOND = 1_000_000


@pytest.fixture(scope="module")
def quiet_topic(kafka_server: KafkaServer) -> str:
    """A topic of four partitions with events and no outliers beyond the usual."""
    return make_topic(kafka_server)


def make_topic(server: KafkaServer) -> str:
    name = f"green-{os.urandom(4).hex()}"
    server.create_topic(name, 4)
    produce_records(server, name, EVENTS.records(), 4)
    return name


def stream_settings(url: str, server: KafkaServer, topic: str, **alerts: str) -> dict[str, Any]:
    quiet = {"reopen_within": "0s", "silence_after": "never", "false_alarms": "1/year"}
    return kafka_settings(url, server.bootstrap, topic, client={"metadata_max_age_ms": 500}, alerts={**quiet, **alerts})


@contextmanager
def surfaces_of(url: str) -> Iterator[Surfaces]:
    surfaces = Surfaces(url)
    try:
        yield surfaces
    finally:
        surfaces.close()


def wait_until_green(daemon: DaemonProcess, surfaces: Surfaces) -> None:
    daemon.wait_until(surfaces.is_all_green, "every surface is green")


def test_a_killed_daemon_leaves_nothing_green_also_after_the_clock_is_set_back(
    kafka_server: KafkaServer, quiet_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    url = stored_in_sqlite.url
    with surfaces_of(url) as surfaces:
        daemon = run_daemon(surfaces.settings(stream_settings(url, kafka_server, quiet_topic)))
        wait_until_green(daemon, surfaces)
        daemon.kill()
        surfaces.measure_fault("daemon killed, page server alone alive")
    with Database(url) as db, db.write() as conn:  # the rows lie an hour ahead of the clock, as after it was set back
        ahead_us = db.now_us(conn) + 3_600 * SECOND
        conn.execute(sa.update(health_reports).values(reported_at_us=ahead_us))
        conn.execute(sa.update(leases).values(expires_at_us=ahead_us))
    with Database(url, read_only=True) as db:
        assert judge_streams(read_health_facts(db))[STREAM].state is HealthState.UNKNOWN
        assert read_health(db)[0].state == "not_running"


def test_a_source_that_has_ended_is_never_green(
    tmp_path: Path, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(EVENTS.records()) + b"\n")
    with surfaces_of(stored_in_sqlite.url) as surfaces:
        daemon = run_daemon(surfaces.settings(file_settings(stored_in_sqlite.url, str(path))))
        assert daemon.wait() == 0
        assert surfaces.find_green() <= {"heartbeats"}, "the last one may have been sent a second ago"
        surfaces.measure_fault("source ended")


@pytest.mark.long
def test_faults_that_pass_turn_every_surface_and_back(
    kafka_server: KafkaServer,
    quiet_topic: str,
    postgres_server: PostgresServer,
    stored_in_postgres: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    url = stored_in_postgres.url
    with surfaces_of(url) as surfaces:
        daemon = run_daemon(surfaces.settings(stream_settings(url, kafka_server, quiet_topic)))
        wait_until_green(daemon, surfaces)
        for fault in (
            freeze_daemon(daemon),
            freeze_broker(kafka_server),
            make_read_only(postgres_server, url),
            take_lease(url),
            block_control(url),
            hold_partition(kafka_server, quiet_topic, url),
        ):
            with fault as (name, keep):
                surfaces.measure_fault(name, keep=keep)
            wait_until_green(daemon, surfaces)
        assert daemon.terminate() == 0


Fault = tuple[str, Callable[[], None]]


def nothing() -> None:
    """Keep up a fault that lasts by itself."""


@contextmanager
def freeze_daemon(daemon: DaemonProcess) -> Iterator[Fault]:
    daemon.send(signal.SIGSTOP)
    try:
        yield "daemon frozen", nothing
    finally:
        daemon.send(signal.SIGCONT)


@contextmanager
def freeze_broker(server: KafkaServer) -> Iterator[Fault]:
    server.pause()
    try:
        yield "broker away", nothing
    finally:
        server.resume()


@contextmanager
def make_read_only(server: PostgresServer, url: str) -> Iterator[Fault]:
    name = url.rpartition("/")[2]
    end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    server.execute(end_sessions)
    try:
        yield "database read-only", nothing
    finally:
        server.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        server.execute(end_sessions)


@contextmanager
def take_lease(url: str) -> Iterator[Fault]:
    """Let a process hold the lease that does not run the stream."""
    with Database(url) as db:

        def keep() -> None:
            with db.write() as conn:
                conn.execute(sa.update(leases).values(holder="other:1:1:1", expires_at_us=db.now_us(conn) + 9 * SECOND))

        keep()
        yield "lease lost", keep


@contextmanager
def block_control(url: str) -> Iterator[Fault]:
    """Let every step of the control thread fail, while it renews the lease."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        connection.execute("LOCK TABLE drift_marks IN ACCESS EXCLUSIVE MODE")
        yield "control thread stuck", nothing


@contextmanager
def hold_partition(server: KafkaServer, topic: str, url: str) -> Iterator[Fault]:
    """Let the records of one partition wait, and produce none for the others."""
    from tests.servers.records import produce

    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        connection.execute(
            "SELECT 1 FROM positions p JOIN sources s ON s.id = p.source_id WHERE s.partition = 2 FOR UPDATE OF p"
        )
        produce(server, topic, MORE.records()[:20], partition=2)
        yield "one partition stuck", nothing


@pytest.mark.long
def test_a_topic_without_new_events_is_not_green(
    kafka_server: KafkaServer, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    from tests.servers.records import delete_records, open_producer

    url, topic, stop = stored_in_sqlite.url, make_topic(kafka_server), threading.Event()
    later = BurstStream(events=20_000, seconds=4_000, burst_every_s=10_000, seed=3).records()[4_000:]

    def produce_slowly() -> None:
        with open_producer(kafka_server) as writer:
            for i, record in enumerate(later):
                writer.send(topic, record, partition=i % 4)
                if stop.wait(0.2):
                    return

    producer = threading.Thread(target=produce_slowly)
    with surfaces_of(url) as surfaces:
        daemon = run_daemon(surfaces.settings(stream_settings(url, kafka_server, topic, silence_after="15s")))
        producer.start()
        try:
            wait_until_green(daemon, surfaces)
        finally:
            stop.set()
            producer.join()
        for partition in range(4):
            delete_records(kafka_server, topic, -1, partition=partition)
        # The process is ready: /readyz says nothing about the events.
        surfaces.measure_fault("topic emptied", ignored=frozenset({"/readyz"}))
        assert judge_state(url) == ("unknown", "silence")
        assert daemon.terminate() == 0


def judge_state(url: str) -> tuple[str, str]:
    with Database(url, read_only=True) as db:
        health = judge_streams(read_health_facts(db))[STREAM]
        return health.state.value, health.problems[0].state


@pytest.mark.long
def test_a_full_disk_is_not_green(
    kafka_server: KafkaServer, quiet_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    url = stored_in_sqlite.url
    with surfaces_of(url) as surfaces:
        daemon = run_daemon(surfaces.settings(stream_settings(url, kafka_server, quiet_topic)))
        wait_until_green(daemon, surfaces)
        # No file of the process can grow or be written beyond its first page, as on a full disk.
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        surfaces.measure_fault("disk full")
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until_green(daemon, surfaces)
        assert daemon.terminate() == 0
