"""A process is killed, or loses its connection, during a commit."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from config.errors import StorageUnavailable
from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from storage.database.migrations.upgrade import upgrade
from storage.ledger.commit import Committed, Fenced
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import ClaimedStream, claim_stream, count_rows, dead_letter_columns, part_row

_TABLES = ("scores", "outliers", "dead_letters", "window_parts")
_ROOT = Path(__file__).parents[3]

# Commits ten events and kills itself before the n-th statement, or just before or after COMMIT.
_CHILD = """
import os, signal, sys
import sqlalchemy as sa
from storage.database.engine import Database
from tests.integration.storage.commits import T0, claim_stream, dead_letter_columns, part_row

url, when = sys.argv[1], sys.argv[2]
db = Database(url)
feed = claim_stream(db)
dead, parts = dead_letter_columns([10]), [part_row(T0, events=10)]
commit = feed.build_commit(10, outlier_offsets=[1], dead=dead, end=11, parts=parts)
engine = db._writer
seen = 0

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at_statement(*_):
    global seen
    seen += 1
    if seen == int(when):
        die()

if when == "before-commit":
    sa.event.listen(engine, "commit", die)
elif when == "after-commit":
    sa.event.listen(engine.pool, "checkin", die)
else:
    sa.event.listen(engine, "before_cursor_execute", die_at_statement)
feed.send(commit)
raise SystemExit("the process was not killed")
"""


def _run_killed_child(url: str, when: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, url, when], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert child.returncode == -9, child.stderr


@pytest.mark.fault
@pytest.mark.parametrize("when", ["2", "3", "before-commit"])
def test_process_killed_inside_the_transaction_stores_nothing(db: Database, upgraded_url: str, when: str) -> None:
    _run_killed_child(upgraded_url, when)
    assert {table: count_rows(db, table) for table in _TABLES} == dict.fromkeys(_TABLES, 0)
    feed = claim_stream(db)
    assert feed.claim.next_offset == 0
    assert isinstance(feed.commit(11), Committed)
    assert count_rows(db, "scores") == 11


@pytest.mark.fault
def test_process_killed_after_the_transaction_has_stored_everything_once(db: Database, upgraded_url: str) -> None:
    _run_killed_child(upgraded_url, "after-commit")
    assert [count_rows(db, table) for table in _TABLES] == [10, 1, 1, 1]
    feed = claim_stream(db)
    assert feed.claim.next_offset == 11


def test_transaction_that_raises_stores_nothing(feed: ClaimedStream) -> None:
    with pytest.raises(ZeroDivisionError), feed.db.write() as connection:
        connection.exec_driver_sql("UPDATE positions SET next_offset = 99")
        _ = 1 / 0
    assert feed.position().next_offset == 0


def _break_connection_at_commit(db: Database, url: str, *, after_commit: bool) -> None:
    """Lose the answer of the next COMMIT, or the connection before COMMIT reaches the server."""

    def lose(connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        if after_commit:
            driver.commit()
            driver.close()
            return
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (driver.info.backend_pid,))

    sa.event.listen(db._writer, "commit", lose, once=True)


@pytest.mark.fault
@pytest.mark.parametrize("after_commit", [False, True])
def test_commit_of_unknown_outcome_is_stored_exactly_once_after_a_new_claim(
    postgres_url: str, after_commit: bool
) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        feed = claim_stream(db)
        commit = feed.build_commit(10, outlier_offsets=[1], dead=dead_letter_columns([0]), parts=[part_row(0)])
        _break_connection_at_commit(db, postgres_url, after_commit=after_commit)
        with pytest.raises(CommitUnknown, match="outcome"):
            feed.send(commit)
        if after_commit:
            assert feed.send(commit) == Fenced()
        feed.claim = feed.reclaim("me")
        while feed.claim.next_offset < 10:
            assert isinstance(feed.commit(10), Committed)
        assert count_rows(db, "scores") == 10


@pytest.mark.fault
def test_lost_connection_before_commit_is_unavailable_and_the_next_commit_works(
    postgres_url: str,
) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        feed = claim_stream(db)
        with (
            pytest.raises(StorageUnavailable, match=r"PostgreSQL .* at 127\.0\.0\.1") as caught,
            db.write() as connection,
        ):
            pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (pid,))
            connection.exec_driver_sql("UPDATE positions SET next_offset = 99")
        assert not isinstance(caught.value, CommitUnknown)
        assert isinstance(Ledger(db).commit(feed.build_commit(10)), Committed)
