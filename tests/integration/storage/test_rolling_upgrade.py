"""A database of the version before is upgraded in place, and not while a process of that version runs on it."""

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command

from config.errors import ConfigError, OlderReplicasRunning
from config.settings import Settings
from monitor.daemon.daemon import Daemon
from storage.control.settings import Replica, SettingsStore
from storage.database import views
from storage.database.engine import Database
from storage.database.migrations.upgrade import _alembic_config, upgrade
from storage.database.older_replicas import find_running_replicas
from storage.database.revisions import KNOWN_REVISIONS
from storage.database.tables import FOREVER_US
from storage.ledger.ledger import Ledger
from tests.integration.control.worker_bench import wait_until

SECOND = 1_000_000
MINUTE = 60 * SECOND


@pytest.fixture
def old(database_url: str) -> Iterator[Database]:
    """A database of schema 0003 with an unjudged part and an open incident; no process runs on it."""
    with Database(database_url) as db:
        with db.write() as conn:
            views.drop_views(conn, db.dialect)
            command.upgrade(_alembic_config(conn), "0003")
        with db.write() as conn:
            run = conn.exec_driver_sql
            run(
                "INSERT INTO streams (name, window_size_us, lead_us, sealed_until_us, created_at_us) "
                f"VALUES ('payments', {MINUTE}, {11 * MINUTE}, {30 * MINUTE}, 0)"
            )
            run(
                "INSERT INTO sources (stream_id, topic, partition, incarnation, identity, created_at_us) "
                "VALUES (1, 't', 0, 1, 'log', 0)"
            )
            run(
                "INSERT INTO positions (source_id, stream_id, active, next_offset, epoch, owner, watermark_us, "
                f"committed_at_us) VALUES (1, 1, {_true(db)}, 70, 3, 'old-pod', {31 * MINUTE}, 0)"
            )
            run(
                "INSERT INTO window_parts (stream_id, source_id, window_start_us, window_end_us, events, outliers, "
                f"late, dead) VALUES (1, 1, {29 * MINUTE}, {30 * MINUTE}, 7, 0, 0, 0)"
            )
            run(
                "INSERT INTO incidents (stream_id, kind, severity, status, window_start_us, opened_at_us, last_told_us,"
                " clean_windows, windows_fired, summary) VALUES (1, 'spike', 'warning', 'open', 0, 0, 0, 0, 1, 'many')"
            )
        yield db


def _true(db: Database) -> str:
    return "1" if db.dialect == "sqlite" else "true"


def hold_lease(db: Database, seconds: float) -> None:
    with db.write() as conn:
        until = db.now_us(conn) + round(seconds * SECOND)
        conn.exec_driver_sql(f"INSERT INTO leases VALUES ('control:payments', 'old-pod', {until})")


def move_position(db: Database, column: str, seconds: float) -> None:
    with db.write() as conn:
        conn.exec_driver_sql(f"UPDATE positions SET {column} = {db.now_us(conn) + round(seconds * SECOND)}")


def running(db: Database) -> list[str]:
    with db.read() as conn:
        return find_running_replicas(conn, db.now_us(conn))


def test_rows_of_the_version_before_are_kept(old: Database) -> None:
    upgrade(old)
    assert old.schema_revision() == KNOWN_REVISIONS[-1]
    ledger = Ledger(old)
    (source,) = ledger.active_sources(1)
    assert (source.next_offset, source.epoch, ledger.read_control(1).sealed_until_us) == (70, 3, 30 * MINUTE)
    facts = SettingsStore(old).read_facts(1, "new-pod")
    assert (facts.window_size_us, facts.lead_us, facts.rows) == (MINUTE, 11 * MINUTE, [])
    with old.read() as conn:
        assert conn.exec_driver_sql("SELECT kind, status FROM incidents").all() == [("spike", "open")]
        assert conn.exec_driver_sql("SELECT events, filtered FROM window_parts").all() == [(7, 0)]


def test_a_process_is_seen_by_its_lease_its_commits_and_its_idle_partitions(old: Database) -> None:
    assert running(old) == []
    hold_lease(old, seconds=-1)
    assert running(old) == []
    move_position(old, "committed_at_us", seconds=-5)
    assert running(old) == ["old-pod"]
    move_position(old, "committed_at_us", seconds=-60)
    assert running(old) == []
    move_position(old, "idle_until_us", seconds=3)
    assert running(old) == ["old-pod"]
    with old.write() as conn:
        conn.exec_driver_sql(f"UPDATE positions SET idle_until_us = {FOREVER_US}")
    assert running(old) == [], "a source that has ended does not show a process"
    with old.write() as conn:
        conn.exec_driver_sql("UPDATE leases SET expires_at_us = expires_at_us + 60000000")
    assert running(old) == ["old-pod"]


def test_a_process_of_a_later_version_is_seen_by_its_heartbeat(db: Database) -> None:
    Ledger(db).open_stream("payments", MINUTE, MINUTE)
    SettingsStore(db).beat({1: Replica(owner="pod", heartbeat_us=0, settings_hash="A", version="1")})
    assert running(db) == ["pod"]
    with db.write() as conn:
        conn.execute(sa.text("UPDATE replicas SET heartbeat_us = heartbeat_us - 60000000"))
    assert running(db) == []


def test_an_upgrade_waits_for_running_processes_of_the_version_before(old: Database) -> None:
    hold_lease(old, seconds=60)
    if old.dialect == "postgresql":
        with pytest.raises(OlderReplicasRunning, match=r"old-pod.*outrider run --upgrade"):
            upgrade(old)
        assert old.schema_revision() == "0003", "nothing was changed"
    upgrade(old, beside_older=True)
    assert old.schema_revision() == KNOWN_REVISIONS[-1]


def test_a_daemon_waits_for_processes_of_the_version_before_and_logs_them_once(
    old: Database, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon(Settings.model_validate({"streams": {"payments": {"source": {"type": "synthetic"}}}}))
    hold_lease(old, seconds=60)
    waiting = threading.Thread(target=daemon._upgrade_schema, args=(old,))
    waiting.start()
    if old.dialect == "postgresql":
        wait_until(lambda: "old-pod" in caplog.text)
        assert old.schema_revision() == "0003"
        with old.write() as conn:
            conn.exec_driver_sql("DELETE FROM leases")
    waiting.join(60)
    assert old.schema_revision() == KNOWN_REVISIONS[-1]
    assert caplog.text.count("old-pod") == (1 if old.dialect == "postgresql" else 0)


def test_a_daemon_does_not_upgrade_a_file_that_another_one_uses(sqlite_url: str) -> None:
    settings = {"database": {"url": sqlite_url}, "streams": {"payments": {"source": {"type": "synthetic"}}}}
    with Database(sqlite_url) as db, db.lock_for_daemon():
        with pytest.raises(ConfigError, match="in use by another Outrider daemon"):
            Daemon(Settings.model_validate(settings)).run()
        assert db.schema_revision() is None
