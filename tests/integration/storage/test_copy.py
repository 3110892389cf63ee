"""The copy of a database: every row in both directions, and the refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from config.errors import ConfigError, SchemaMismatch
from config.time_format import DAY_US
from storage import copy as copying
from storage.copy import CopyFailed, copy_database
from storage.database import tables
from storage.database.engine import Database
from storage.database.leases import Leases
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import list_partition_days
from storage.ledger.commit import Committed
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import (
    T0,
    ClaimedStream,
    add_threshold,
    count_rows,
    dead_letter_columns,
    fetch_rows,
    part_row,
    score_columns,
    store_sample,
)
from tests.servers.postgres import PostgresServer

Report = list[tuple[str, int]]
OpenTarget = Callable[[str], Database]


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An address without tables."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'target.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = Database(server.create_database())
    request.addfinalizer(database.close)
    return database


def _fill(feed: ClaimedStream) -> None:
    """Store rows with values that the two databases represent differently."""
    db = feed.db
    scores = score_columns(0, 7_000, feed.threshold_id, outliers=[5, 6])
    scores.energies[:4] = [0.1, -0.0, 3.4e38, np.float32(1e-45)]
    keys = ["a\tb", "c\\d\n", "NULL", "\\N", None, "", "naïve 🂡"]
    keyed = type(scores)(
        **{name: getattr(scores, name) for name in ("offsets", "times_us", "energies", "threshold_ids")},
        keys=[keys[i % 7] for i in range(7_000)],
        ids=[None, "1"] * 3_500,
    )
    feed.commit(
        7_000,
        scores=keyed,
        outlier_offsets=[5, 6],
        dead=dead_letter_columns([7_000], payload=bytes(range(256))),
        end=7_001,
        parts=[replace(part_row(T0, threshold_id=feed.threshold_id), sample=bytes(range(256)))],
    )
    feed.commit(0, end=7_010, gap_reason="retention")
    store_sample(feed, T0)
    with db.write() as connection:
        thresholds = tables.thresholds
        connection.execute(sa.update(thresholds).values(lower=float("-inf"), upper=float("inf"), threshold=0.1))
        older = tables.scores.c.source_offset < 100
        connection.execute(sa.update(tables.scores).where(older).values(stored_at_us=_old_us(db)))


def _old_us(db: Database) -> sa.ColumnElement[int]:
    # On PostgreSQL the row would have to change its partition.
    return tables.scores.c.stored_at_us - (3 * DAY_US if db.dialect == "sqlite" else 0)


def _rows(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of every table in the order of the primary key, with energies as float32."""
    found = {}
    with db.read() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.leases:
                query = sa.select(table).order_by(*table.primary_key.columns)
                energy = list(table.c.keys()).index("energy") if "energy" in table.c else None
                found[table.name] = [
                    tuple(np.float32(value) if index == energy else value for index, value in enumerate(row))
                    for row in connection.execute(query)
                ]
    return found


def _copy(source: Database, target: Database) -> Report:
    report: Report = []
    copy_database(source, target, lambda table, rows: report.append((table, rows)))
    return report


@pytest.mark.postgres
def test_a_copy_holds_the_rows_of_every_table(feed: ClaimedStream, target: Database) -> None:
    _fill(feed)
    report = _copy(feed.db, target)
    assert _rows(target) == _rows(feed.db)
    assert dict(report)["scores"] == 7_000
    target.check_schema()
    if target.dialect == "postgresql" and feed.db.dialect == "sqlite":
        with target.read() as connection:
            assert len(list_partition_days(connection)) >= 4, "the day of each score has a partition"


@pytest.mark.postgres
def test_float32_values_are_stored_as_the_same_numbers(feed: ClaimedStream, target: Database) -> None:
    _fill(feed)
    _copy(feed.db, target)
    query = "SELECT count(*) FROM score_history WHERE is_outlier"
    assert fetch_rows(target, query) == fetch_rows(feed.db, query)


@pytest.mark.postgres
def test_the_daemon_continues_on_the_copy(feed: ClaimedStream, target: Database) -> None:
    feed.commit(5)
    _copy(feed.db, target)
    new = add_threshold(target, feed.stream_id, valid_from_us=T0)
    assert new == feed.threshold_id + 1, "the ids continue after the copied ones"
    claim = Ledger(target).claim_source(feed.claim.source_id, "another")
    assert claim is not None
    assert claim.next_offset == 5
    feed.db, feed.claim = target, claim
    assert isinstance(feed.commit(5), Committed)
    assert count_rows(target, "scores") == 10


@pytest.mark.postgres
def test_a_target_with_rows_is_refused_and_unchanged(feed: ClaimedStream, target: Database) -> None:
    feed.commit(5)
    _copy(feed.db, target)
    before = _rows(target)
    with pytest.raises(ConfigError, match=r"is not empty \(table \w+ has rows\)"):
        _copy(feed.db, target)
    assert _rows(target) == before


@pytest.mark.postgres
def test_an_empty_target_with_tables_is_accepted(feed: ClaimedStream, target: Database) -> None:
    feed.commit(5)
    upgrade(target)
    _copy(feed.db, target)
    assert count_rows(target, "scores") == 5


def test_one_database_is_not_copied_into_itself(upgraded_url: str) -> None:
    with (
        Database(upgraded_url, read_only=True) as source,
        Database(upgraded_url) as target,
        pytest.raises(ConfigError, match="both the source and the target"),
    ):
        _copy(source, target)


@pytest.mark.parametrize("held", ["source", "target"])
def test_a_sqlite_file_that_a_daemon_holds_is_refused(upgraded_sqlite_url: str, tmp_path: Path, held: str) -> None:
    target_url = f"sqlite:///{tmp_path / 'target.db'}"
    with (
        Database(upgraded_sqlite_url, read_only=True) as source,
        Database(target_url) as target,
        Database(upgraded_sqlite_url if held == "source" else target_url) as daemon,
        daemon.lock_for_daemon(),
        pytest.raises(ConfigError, match=r"in use by another Outrider daemon \(process \d+\): stop it"),
    ):
        _copy(source, target)


@pytest.mark.postgres
@pytest.mark.parametrize("held", ["source", "target"])
def test_a_postgresql_database_with_a_live_lease_is_refused(
    postgres_server: PostgresServer, tmp_path: Path, held: str
) -> None:
    urls = [postgres_server.create_database(), f"sqlite:///{tmp_path / 'other.db'}"]
    source_url, target_url = urls if held == "source" else reversed(urls)
    with Database(source_url) as source, Database(target_url) as target:
        upgrade(source)
        upgrade(target)
        daemon = source if held == "source" else target
        Leases(daemon).acquire("control:payments", "host:1:2", 30)
        with pytest.raises(ConfigError, match=r"in use by an Outrider daemon \(host:1:2\): stop it"):
            _copy(source, target)
        Leases(daemon).release("control:payments", "host:1:2")
        _copy(source, target)


def test_a_source_with_another_schema_is_refused(upgraded_sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "target.db"
    with Database(upgraded_sqlite_url) as source, Database(f"sqlite:///{file}") as target:
        with source.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
        with pytest.raises(SchemaMismatch, match=r"has schema 0002.*outrider db upgrade"):
            _copy(source, target)
    assert not file.exists()


@pytest.mark.postgres
def test_an_interrupted_copy_cannot_be_used(
    feed: ClaimedStream, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.commit(5)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_database(feed.db, target, interrupt)
    for use in (Database.check_schema, upgrade, lambda db: _copy(feed.db, db)):
        with pytest.raises(SchemaMismatch, match=r"target of an incomplete copy.*delete this database and copy again"):
            use(target)


def test_rows_that_another_process_adds_to_the_target_are_noticed(
    feed: ClaimedStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.commit(5)
    monkeypatch.setattr(copying, "_insert_rows", lambda *_: None)
    with Database(f"sqlite:///{tmp_path / 'target.db'}") as target, pytest.raises(CopyFailed, match="has 0 rows"):
        _copy(feed.db, target)
