"""Retention deletes expired rows in chunks, and no row that is still needed."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US
from config.units import to_us
from storage import retention
from storage.database import chunks, tables
from storage.database.chunks import CHUNK_ROWS
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import ensure_score_partitions, list_partition_days
from tests.integration.storage.commits import (
    MINUTE,
    SECOND,
    T0,
    ClaimedStream,
    claim_stream,
    count_rows,
    dead_letter_columns,
    fetch_rows,
)

_DAY = timedelta(days=1)
_RETENTION = RetentionSettings(
    scores=timedelta(days=7), outliers=timedelta(days=90), windows=timedelta(days=400), dead_letters=timedelta(days=7)
)


def _now_us(db: Database) -> int:
    with db.read() as connection:
        return db.now_us(connection)


def _make_older(db: Database, table: sa.Table, column: str, days: float, **where: int) -> None:
    """Change the storing time of rows to `days` days earlier."""
    conditions = [table.c[name] == value for name, value in where.items()]
    with db.write() as connection:
        connection.execute(sa.update(table).where(*conditions).values({column: table.c[column] - int(days * DAY_US)}))


def _add_window(feed: ClaimedStream, start_us: int, judged_at_us: int) -> None:
    with feed.db.write() as connection:
        connection.execute(
            sa.insert(tables.windows).values(
                stream_id=feed.stream_id,
                window_start_us=start_us,
                window_end_us=start_us + MINUTE,
                threshold_id=feed.threshold_id,
                events=1,
                outliers=0,
                late=0,
                dead=0,
                judged_at_us=judged_at_us,
            )
        )


def _open_incident(feed: ClaimedStream, since_us: int) -> None:
    with feed.db.write() as connection:
        connection.execute(
            sa.insert(tables.incidents).values(
                stream_id=feed.stream_id,
                kind="spike",
                severity="warning",
                status="open",
                window_start_us=since_us,
                opened_at_us=since_us,
                last_told_us=since_us,
                clean_windows=0,
                windows_fired=1,
                summary="a spike",
            )
        )


def test_fresh_rows_are_not_deleted(feed: ClaimedStream) -> None:
    feed.commit(100, outlier_offsets=[5], dead=dead_letter_columns([100]), end=101)
    _add_window(feed, T0, _now_us(feed.db))
    deleted = retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db))
    assert deleted == retention.DeletedRows(scores=0, score_days=0, outliers=0, dead_letters=0, windows=0)
    assert [count_rows(feed.db, table) for table in ("scores", "outliers", "dead_letters", "windows")] == [100, 1, 1, 1]


def test_each_table_has_its_own_retention(feed: ClaimedStream) -> None:
    feed.commit(10, outlier_offsets=[1, 2], dead=dead_letter_columns([10, 11]), end=12)
    _make_older(feed.db, tables.outliers, "stored_at_us", 91, source_offset=1)
    _make_older(feed.db, tables.dead_letters, "recorded_at_us", 8, source_offset=10)
    _add_window(feed, T0, _now_us(feed.db) - 401 * DAY_US)
    _add_window(feed, T0 + MINUTE, _now_us(feed.db) - 399 * DAY_US)
    deleted = retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db))
    assert (deleted.outliers, deleted.dead_letters, deleted.windows) == (1, 1, 1)
    assert fetch_rows(feed.db, "SELECT source_offset FROM outliers") == [(2,)]
    assert fetch_rows(feed.db, "SELECT source_offset FROM dead_letters") == [(11,)]
    assert fetch_rows(feed.db, "SELECT window_start_us FROM windows") == [(T0 + MINUTE,)]


def test_age_counts_from_storing_and_not_from_the_event_time(feed: ClaimedStream) -> None:
    feed.commit(10)
    assert fetch_rows(feed.db, "SELECT min(event_time_us) FROM scores") == [(T0,)]
    assert _now_us(feed.db) - 7 * DAY_US > T0
    retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db))
    assert count_rows(feed.db, "scores") == 10


def test_windows_and_outliers_of_an_unresolved_incident_are_not_deleted(feed: ClaimedStream) -> None:
    feed.commit(200, outlier_offsets=[10, 150])
    _make_older(feed.db, tables.outliers, "stored_at_us", 1000)
    for minute in (0, 1, 2, 3):
        _add_window(feed, T0 + minute * MINUTE, _now_us(feed.db) - 1000 * DAY_US)
    _open_incident(feed, T0 + 2 * MINUTE)
    retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db))
    assert fetch_rows(feed.db, "SELECT window_start_us FROM windows ORDER BY 1") == [
        (T0 + 2 * MINUTE,),
        (T0 + 3 * MINUTE,),
    ]
    assert fetch_rows(feed.db, "SELECT event_time_us FROM outliers") == [(T0 + 150 * SECOND,)]


def test_shadow_windows_are_deleted_with_the_windows(feed: ClaimedStream) -> None:
    for minute, age in ((0, 401), (1, 399)):
        _add_window(feed, T0 + minute * MINUTE, _now_us(feed.db) - age * DAY_US)
    with feed.db.write() as connection:
        model_id = connection.scalar(sa.select(tables.models.c.id))
        for minute in (0, 1, 2):
            connection.execute(
                sa.insert(tables.shadow_windows).values(
                    model_id=model_id,
                    stream_id=feed.stream_id,
                    window_start_us=T0 + minute * MINUTE,
                    window_end_us=T0 + (minute + 1) * MINUTE,
                    events=1,
                    outliers=0,
                    payload=b"",
                )
            )
    retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db))
    left = fetch_rows(feed.db, "SELECT window_start_us FROM shadow_windows ORDER BY 1")
    assert left == [(T0 + MINUTE,), (T0 + 2 * MINUTE,)], "a shadow window that is not judged yet is not deleted"


@pytest.mark.parametrize("n_young", [0, 1, CHUNK_ROWS])
def test_sqlite_deletes_many_chunks_of_scores_but_not_the_young_ones(upgraded_sqlite_url: str, n_young: int) -> None:
    with Database(upgraded_sqlite_url) as db:
        feed = claim_stream(db)
        old = 2 * CHUNK_ROWS + 17
        feed.commit(old)
        _make_older(db, tables.scores, "stored_at_us", 8)
        if n_young:
            feed.commit(n_young)
        assert retention.delete_expired(db, _RETENTION, _now_us(db)).scores == old
        assert fetch_rows(db, "SELECT count(*), min(source_offset) FROM scores") == [
            (n_young, old if n_young else None)
        ]


def test_sqlite_file_shrinks_to_at_most_a_tenth_of_free_pages(upgraded_sqlite_url: str) -> None:
    with Database(upgraded_sqlite_url) as db:
        feed = claim_stream(db)
        feed.commit(30_000)
        _make_older(db, tables.scores, "stored_at_us", 8)
        feed.commit(3_000)
        ((before,),) = fetch_rows(db, "PRAGMA page_count")
        retention.delete_expired(db, _RETENTION, _now_us(db))
        ((after,),), ((free,),) = fetch_rows(db, "PRAGMA page_count"), fetch_rows(db, "PRAGMA freelist_count")
        assert after < before / 2
        assert free <= 0.1 * after


def test_postgresql_drops_a_daily_partition_only_when_the_whole_day_is_expired(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        today = _now_us(db) // DAY_US
        for day in range(today - 10, today):
            ensure_score_partitions(db, day)
        deleted = retention.delete_expired(db, _RETENTION, today * DAY_US + DAY_US // 2)
        assert deleted.score_days == 3
        with db.read() as connection:
            assert list_partition_days(connection) == set(range(today - 7, today + 2))


def test_drift_verdicts_have_the_retention_of_windows(feed: ClaimedStream) -> None:
    now_us = _now_us(feed.db)
    old_us = now_us - to_us(_RETENTION.windows) - 1
    with feed.db.write() as connection:
        for number, recorded_us in enumerate((old_us, old_us, now_us)):
            connection.execute(
                sa.insert(tables.drift_verdicts).values(
                    stream_id=feed.stream_id,
                    horizon="1h",
                    window_start_us=T0,
                    window_end_us=T0 + number,
                    statistic="rank",
                    feature="x",
                    drifted=False,
                    recorded_at_us=recorded_us,
                )
            )
    assert retention.delete_expired(feed.db, _RETENTION, now_us).drift_verdicts == 2
    assert count_rows(feed.db, "drift_verdicts") == 1


def test_stopped_run_deletes_nothing_more_and_the_next_run_continues(feed: ClaimedStream) -> None:
    feed.commit(10)
    _make_older(feed.db, tables.scores, "stored_at_us", 8)
    _make_older(feed.db, tables.outliers, "stored_at_us", 8)
    feed.commit(0, end=20, dead=dead_letter_columns(range(10, 20)))
    _make_older(feed.db, tables.dead_letters, "recorded_at_us", 8)
    stopped = retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db), lambda: True)
    assert (stopped.scores, stopped.dead_letters) == (0, 0)
    assert retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db)).dead_letters == 10


def test_windows_with_only_late_events_are_deleted_before_the_oldest_judged_window(feed: ClaimedStream) -> None:
    now_us = _now_us(feed.db)
    _add_window(feed, T0, now_us - 401 * DAY_US)
    _add_window(feed, T0 + 3 * MINUTE, now_us)
    for start_us in (T0 + MINUTE, T0 + 4 * MINUTE):
        _add_window(feed, start_us, now_us)
        of_start = tables.windows.c.window_start_us == start_us
        with feed.db.write() as connection:
            connection.execute(sa.update(tables.windows).where(of_start).values(judged_at_us=None))
    assert retention.delete_expired(feed.db, _RETENTION, now_us).windows == 2
    left = fetch_rows(feed.db, "SELECT window_start_us FROM windows ORDER BY 1")
    assert left == [(T0 + 3 * MINUTE,), (T0 + 4 * MINUTE,)]


def test_windows_of_late_events_and_of_shadow_models_are_deleted_in_chunks(
    feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK_ROWS", 2)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 2)
    now_us = _now_us(feed.db)
    for minute in range(6):
        _add_window(feed, T0 + minute * MINUTE, now_us)
    with feed.db.write() as connection:
        model_id = connection.scalar(sa.select(tables.models.c.id))
        late = tables.windows.c.window_start_us < T0 + 5 * MINUTE
        connection.execute(sa.update(tables.windows).where(late).values(judged_at_us=None))
        connection.execute(
            sa.insert(tables.shadow_windows),
            [
                {
                    "model_id": model_id,
                    "stream_id": feed.stream_id,
                    "window_start_us": T0 + minute * MINUTE,
                    "window_end_us": T0 + (minute + 1) * MINUTE,
                    "events": 1,
                    "outliers": 0,
                    "payload": b"",
                }
                for minute in range(6)
            ],
        )
    assert retention.delete_expired(feed.db, _RETENTION, now_us).windows == 5
    assert fetch_rows(feed.db, "SELECT window_start_us FROM shadow_windows") == [(T0 + 5 * MINUTE,)]
