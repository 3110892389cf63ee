"""A backup that is made while a daemon writes, by the commands of the documentation, and its restore."""

import os
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from config.settings import Settings
from monitor.daemon.daemon import Daemon
from storage.database.engine import Database
from tests.integration.control.worker_bench import count_rows, fetch_rows, wait_until
from tests.servers.downloads import postgres_binaries

pytestmark = pytest.mark.long

EVENTS = 12_000
COMPARED = (
    "SELECT count(*), min(energy), max(energy), min(source_offset), max(source_offset) FROM scores",
    "SELECT window_start, events, outliers, late, expected_outliers, p_value FROM window_history ORDER BY 1",
    "SELECT valid_from, threshold, n, method FROM threshold_history ORDER BY 1, 2",
    "SELECT kind, opened_at, resolved_at, severity FROM incident_history ORDER BY opened_at, kind",
)


def make_daemon(url: str) -> Daemon:
    source = {"type": "synthetic", "seed": 5, "rate": 20, "events": EVENTS, "speed": 0, "start": "2026-01-01T00:00:00Z"}
    stream = {
        "source": source,
        "model": {"warm_up": 500, "n_components": 1},
        "threshold": {"percentile": 95, "look_back": "1h"},
        "window": {"size": "10s", "grace": "2s", "ahead": "1m"},
    }
    return Daemon(Settings.model_validate({"database": {"url": url}, "device": "cpu", "streams": {"payments": stream}}))


def read_compared(db: Database) -> list[list[tuple[Any, ...]]]:
    return [fetch_rows(db, query) for query in COMPARED]


def test_a_restored_backup_continues_to_the_same_rows(database_url: str, tmp_path: Path) -> None:
    daemon = make_daemon(database_url)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        with Database(database_url) as db:
            wait_until(lambda: _has_scores(db), within_s=60)
            restored_url = back_up_and_restore(database_url, tmp_path)
            thread.join(60)
            assert not thread.is_alive()
            expected = read_compared(db)
    finally:
        daemon.stop()
    with Database(restored_url) as restored:
        stored = count_rows(restored, "scores")
        assert 0 < stored < EVENTS, "the backup was made while the daemon wrote"
        restored.check_schema()
    make_daemon(restored_url).run()
    with Database(restored_url) as restored:
        assert read_compared(restored) == expected
        assert count_rows(restored, "scores") == EVENTS


def _has_scores(db: Database) -> bool:
    try:
        return count_rows(db, "scores") > 0
    except Exception:  # noqa: BLE001 - the tables are not created yet
        return False


def back_up_and_restore(url: str, folder: Path) -> str:
    return (back_up_sqlite if url.startswith("sqlite") else back_up_postgres)(url, folder)


def back_up_sqlite(url: str, folder: Path) -> str:
    backup = folder / "outrider-backup.db"
    source, target = sqlite3.connect(url.removeprefix("sqlite:///")), sqlite3.connect(backup)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
    return f"sqlite:///{backup}"


def back_up_postgres(url: str, folder: Path) -> str:
    programs, dump = postgres_binaries(), folder / "outrider.dump"
    plain = make_url(url).set(drivername="postgresql")
    address = plain.render_as_string(hide_password=False)
    restored = plain.set(database=f"restored_{os.getpid()}").render_as_string(hide_password=False)
    subprocess.run([programs / "pg_dump", "--format=custom", f"--file={dump}", address], check=True)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE restored_{os.getpid()}")
    restore = [programs / "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={restored}", dump]
    subprocess.run(restore, check=True)
    return restored
