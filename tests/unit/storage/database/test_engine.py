"""Opening a database: URLs, addresses, the daemon lock and the translation of errors."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from config.errors import ConfigError, StorageUnavailable
from storage.database.engine import Database
from storage.database.errors import CommitUnknown, StorageDamaged, StorageFull, translate_errors
from storage.database.migrations.upgrade import upgrade

_ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgres://u:secret@db.example:6432/outrider", "PostgreSQL outrider at db.example:6432"),
        ("postgresql://u:secret@db.example/outrider", "PostgreSQL outrider at db.example:5432"),
        ("postgresql+psycopg://u:secret@/outrider?host=/run/pg", "PostgreSQL outrider at /run/pg"),
    ],
)
def test_address_of_a_postgresql_database_has_no_password(url: str, address: str) -> None:
    with Database(url) as db:
        assert db.dialect == "postgresql"
        assert db.address == address


def test_sqlite_file_may_have_any_name(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/a b#é.db") as db:
        assert db.dialect == "sqlite"
        with db.write() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x)")
    assert (tmp_path / "a b#é.db").exists()


def _modes(folder: Path) -> dict[str, str]:
    return {each.name: oct(each.stat().st_mode & 0o777) for each in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("first", ["write", "read"])
def test_new_sqlite_files_are_accessible_to_their_owner_only(tmp_path: Path, umask: int, first: str) -> None:
    before = os.umask(umask)
    try:
        with Database(f"sqlite:///{tmp_path}/outrider.db") as db:
            if first == "read":
                db.now_us()
            upgrade(db)
            with db.lock_for_daemon():
                modes = _modes(tmp_path)
    finally:
        os.umask(before)
    names = ("outrider.db", "outrider.db-wal", "outrider.db-shm", "outrider.db.daemon-lock")
    assert modes == dict.fromkeys(names, "0o600")


def test_existing_sqlite_file_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "outrider.db"
    file.touch()
    file.chmod(0o640)
    with Database(f"sqlite:///{file}") as db:
        upgrade(db)
        assert set(_modes(tmp_path).values()) == {"0o640"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://localhost/x", "unknown scheme 'mysql'"),
        ("postgresql+asyncpg://localhost/x", "unknown scheme"),
        ("outrider.db", "not a URL"),
        ("sqlite://", "no SQLite file"),
        ("sqlite:///:memory:", "no SQLite file"),
        ("sqlite:////no/such/folder/x.db", "folder"),
        ("sqlite:////tmp", "is a folder"),
    ],
)
def test_invalid_url_is_a_one_line_error(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Database(url)
    assert "\n" not in str(caught.value)


def test_error_for_an_invalid_url_hides_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        Database("postgres:/u:secret@host/db")
    assert "secret" not in str(caught.value)


def test_second_daemon_on_a_file_is_an_error_that_names_the_first(sqlite_url: str) -> None:
    error = pytest.raises(ConfigError, match=f"process {os.getpid()}")
    with (
        Database(sqlite_url) as db,
        Database(sqlite_url) as other,
        db.lock_for_daemon(),
        error,
        other.lock_for_daemon(),
    ):
        pass


def test_daemon_lock_is_released_when_the_daemon_ends(sqlite_url: str) -> None:
    with Database(sqlite_url) as db:
        with db.lock_for_daemon():
            pass
        with db.lock_for_daemon():
            pass


@pytest.mark.slow
@pytest.mark.fault
def test_daemon_lock_is_released_when_the_daemon_is_killed(sqlite_url: str) -> None:
    program = (
        "import sys, time\nfrom storage.database.engine import Database\n"
        "with Database(sys.argv[1]).lock_for_daemon():\n    print('held', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, sqlite_url], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "held\n"
        with Database(sqlite_url) as db:
            with pytest.raises(ConfigError, match=f"process {daemon.pid}"), db.lock_for_daemon():
                pass
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(20)
            with db.lock_for_daemon():
                pass


def test_two_names_of_one_file_share_one_lock(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    db, other = Database(f"sqlite:///{tmp_path}/real.db"), Database(f"sqlite:///{tmp_path}/link.db")
    with db.lock_for_daemon(), pytest.raises(ConfigError), other.lock_for_daemon():
        pass


def test_file_locked_by_another_process_is_unavailable(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.dialects.SQLITE_BUSY_TIMEOUT_S", 0.05)
    with Database(sqlite_url) as db:
        with db.write() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x)")
        other = sqlite3.connect(str(db.file), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StorageUnavailable, match=r"outrider\.db is locked"), db.write():
                pass
        finally:
            other.close()
        with db.write() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")


def test_full_disk_is_an_error_with_advice_and_stores_nothing(sqlite_url: str) -> None:
    with Database(sqlite_url) as db:
        with db.write() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x)")
        with pytest.raises(StorageFull, match=r"outrider\.db.*full.*free space"), db.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(1000000))")
        with db.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one() == 0


def test_read_transaction_cannot_write(sqlite_url: str) -> None:
    with Database(sqlite_url) as db:
        upgrade(db)
        with pytest.raises(StorageFull, match="readonly"), db.read() as connection:
            connection.exec_driver_sql("DELETE FROM streams")


def test_error_for_a_file_that_is_not_a_database_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("a text that is longer than the header of a database file" * 20)
    db = Database(f"sqlite:///{tmp_path}/notes.db")
    with pytest.raises(StorageDamaged, match=r"notes\.db.*not a database"):
        db.check_schema()


def test_wrong_statement_is_not_reported_as_unavailable(sqlite_url: str) -> None:
    with Database(sqlite_url) as db, pytest.raises(sa.exc.OperationalError), db.read() as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")


def test_unreachable_server_is_unavailable_at_the_first_transaction() -> None:
    with Database("postgresql://u:secret@127.0.0.1:1/x") as db:
        with pytest.raises(StorageUnavailable, match=r"PostgreSQL x at 127\.0\.0\.1:1") as caught, db.read():
            pass
        assert "secret" not in str(caught.value)


def test_disk_error_during_commit_leaves_the_outcome_unknown() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(CommitUnknown), translate_errors("a", Path("a.db"), committing=True):
        raise error
    with pytest.raises(StorageUnavailable) as caught, translate_errors("a", Path("a.db")):
        raise error
    assert not isinstance(caught.value, CommitUnknown)


def test_clock_of_the_database_is_the_current_time(sqlite_url: str) -> None:
    with Database(sqlite_url) as db, db.read() as connection:
        before = connection.exec_driver_sql("SELECT CAST(strftime('%s', 'now') AS INTEGER)").scalar_one()
        now_us = db.now_us(connection)
    assert before <= now_us / 1_000_000 <= before + 60


def test_maintenance_of_a_sqlite_file_works_on_an_open_database(sqlite_url: str) -> None:
    with Database(sqlite_url) as db:
        upgrade(db)
        db.checkpoint_wal()
        db.vacuum_pages(10)
        db.check_schema()


def test_full_disk_of_postgresql_is_unavailable_with_advice() -> None:
    full = psycopg.errors.DiskFull('could not extend file "base/1/2": No space left on device')
    with pytest.raises(StorageUnavailable) as caught, translate_errors("PostgreSQL o at h:5432", None):
        raise full
    assert str(caught.value) == (
        'PostgreSQL o at h:5432 is not available: its disk is full (could not extend file "base/1/2": No space left on '
        "device): free space there, or shorten `retention`"
    )
