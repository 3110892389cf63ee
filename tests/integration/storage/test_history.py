"""`History`: batches of columns in order, read without blocking writers."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from config.errors import ConfigError, OutriderError, SchemaMismatch
from config.time_format import DAY_US
from storage.database import tables
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import ensure_score_partitions
from storage.history import History
from storage.queries import score_reader, view_readers
from storage.queries.history_views import Columns
from tests.integration.storage.commits import (
    MINUTE,
    SECOND,
    T0,
    ClaimedStream,
    claim_stream,
    dead_letter_columns,
    score_columns,
)


@pytest.fixture
def history(feed: ClaimedStream, upgraded_url: str) -> Iterator[History]:
    with History(upgraded_url) as opened:
        yield opened


def _concatenate_column(batches: object, name: str) -> list[object]:
    return [value for batch in batches for value in list(batch[name])]  # type: ignore[attr-defined]


def _offsets(batches: object) -> list[object]:
    return [int(value) for value in _concatenate_column(batches, "source_offset")]  # type: ignore[call-overload]


def test_scores_are_typed_columns(feed: ClaimedStream, history: History) -> None:
    feed.commit(3, outlier_offsets=[1])
    (batch,) = history.scores("payments")
    assert list(batch) == [
        "stream",
        "topic",
        "partition",
        "source_offset",
        "incarnation",
        "event_time",
        "event_time_us",
        "stored_at",
        "key",
        "event_id",
        "energy",
        "threshold",
        "is_outlier",
        "model_version",
    ]
    assert batch["stream"] == ["payments"] * 3
    assert batch["key"] == [None] * 3
    assert _dtype_kinds(batch) == {
        "partition": "int64",
        "source_offset": "int64",
        "incarnation": "int64",
        "event_time": "datetime64[us]",
        "event_time_us": "int64",
        "stored_at": "datetime64[us]",
        "energy": "float32",
        "threshold": "float64",
        "is_outlier": "bool",
        "model_version": "int64",
    }
    assert np.array(batch["event_time"])[1] == np.datetime64("2026-01-01T00:00:01")
    assert np.array(batch["energy"]).tolist() == [1, 20, 1]
    assert np.array(batch["is_outlier"]).tolist() == [False, True, False]


def _dtype_kinds(batch: Columns) -> dict[str, str]:
    return {name: str(column.dtype) for name, column in batch.items() if isinstance(column, np.ndarray)}


def test_outliers_include_their_features(feed: ClaimedStream, history: History) -> None:
    feed.commit(30, outlier_offsets=[7, 20])
    (batch,) = history.scores("payments", outliers=True)
    assert _offsets([batch]) == [7, 20]
    assert batch["features"] == [{"amount": 0.1, "age.days": 0.1}] * 2


def test_long_history_is_read_in_chunks_without_loss_or_duplicates(
    feed: ClaimedStream, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_reader, "_CHUNK_ROWS", 7)
    feed.commit(25)
    batches = list(history.scores("payments"))
    assert [len(batch["energy"]) for batch in batches] == [7, 7, 7, 4]
    assert _offsets(batches) == list(range(25))


def test_scores_are_ordered_by_source(db: Database, upgraded_url: str) -> None:
    feeds = [claim_stream(db, partition=partition) for partition in (1, 0)]
    for feed in feeds:
        feed.commit(3)
    with History(upgraded_url) as history:
        batches = list(history.scores("payments"))
    assert _concatenate_column(batches, "partition") == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"since": "3s"}, [6, 7, 8, 9]),
        ({"since": timedelta(seconds=1)}, [8, 9]),
        ({"since": "2026-01-01T00:00:08Z"}, [8, 9]),
        ({"since": datetime(2026, 1, 1, 0, 0, 8, tzinfo=UTC)}, [8, 9]),
        ({"until": "2026-01-01T00:00:02Z"}, [0, 1]),
        ({"since": "2026-01-01T00:00:02Z", "until": "2026-01-01T00:00:04Z"}, [2, 3]),
        ({"limit": 3}, [7, 8, 9]),
        ({"limit": 2, "until": "2026-01-01T00:00:04Z"}, [2, 3]),
        ({"limit": 0}, []),
        ({"limit": 99}, list(range(10))),
    ],
)
def test_bounds_and_limit_select_the_scores(
    feed: ClaimedStream,
    history: History,
    bounds: dict[str, object],
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(score_reader, "_CHUNK_ROWS", 4)
    feed.commit(10)
    assert _offsets(history.scores("payments", **bounds)) == expected  # type: ignore[arg-type]


def test_limit_selects_the_latest_scores_of_all_sources_by_event_time(db: Database, upgraded_url: str) -> None:
    feeds = [claim_stream(db, partition=partition) for partition in (0, 1)]
    for feed in feeds:
        feed.commit(5)
    with History(upgraded_url) as history:
        (batch,) = history.scores("payments", limit=3)
    assert np.array(batch["event_time_us"]).tolist() == [T0 + 3 * SECOND, T0 + 4 * SECOND, T0 + 4 * SECOND]


def test_duration_bound_of_a_stream_without_events_selects_nothing(history: History) -> None:
    assert list(history.scores("payments", since="1h")) == []


def test_every_iteration_reads_the_database_again(feed: ClaimedStream, history: History) -> None:
    scores = history.scores("payments")
    feed.commit(2)
    assert _offsets(scores) == [0, 1]
    feed.commit(2)
    assert _offsets(scores) == [0, 1, 2, 3]


def test_commit_between_two_chunks_is_not_blocked(
    feed: ClaimedStream, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_reader, "_CHUNK_ROWS", 5)
    feed.commit(10)
    chunks = iter(history.scores("payments"))
    next(chunks)
    with feed.db.write() as connection:
        connection.execute(sa.delete(tables.scores).where(tables.scores.c.source_offset >= 8))
    assert _offsets(chunks) == [5, 6, 7]


def test_scores_of_several_daily_partitions_are_read_together(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        feed = claim_stream(db)
        feed.commit(4)
        ensure_score_partitions(db, 20_000)
        with db.write() as connection:
            connection.exec_driver_sql("UPDATE scores SET stored_day = 20000 WHERE source_offset < 2")
            connection.execute(
                sa.update(tables.scores).where(tables.scores.c.source_offset < 2).values(stored_at_us=20_000 * DAY_US)
            )
        with History(postgres_url) as history:
            assert _offsets(history.scores("payments")) == [0, 1, 2, 3]
            assert _offsets(history.scores("payments", limit=3)) == [1, 2, 3]


def test_frame_has_times_in_utc(feed: ClaimedStream, history: History) -> None:
    feed.commit(3, outlier_offsets=[0])
    frame = history.scores("payments").to_frame()
    assert frame["event_time"].iloc[2] == pd.Timestamp("2026-01-01T00:00:02Z")
    assert str(frame["energy"].dtype) == "float32"
    assert len(frame) == 3


def test_empty_frame_has_all_columns(history: History) -> None:
    frame = history.windows("payments").to_frame()
    assert frame.empty
    assert list(frame)[:4] == ["stream", "window_start", "window_end", "events"]


def test_other_views_return_the_stored_rows(feed: ClaimedStream, history: History) -> None:
    feed.commit(0, end=3, dead=dead_letter_columns([0, 1, 2]))
    feed.commit(0, end=9, gap_reason="retention")
    (dead_letters,) = history.dead_letters("payments")
    assert (dead_letters["reason"], dead_letters["payload"]) == (["not_json"] * 3, [b"{"] * 3)
    (gaps,) = history.gaps()
    assert (list(gaps["from_offset"]), gaps["reason"]) == ([3], ["retention"])
    (thresholds,) = history.thresholds("payments")
    assert (list(thresholds["threshold"]), np.isnan(np.array(thresholds["lower"])).tolist()) == ([10.0], [True])
    for query in (history.windows, history.incidents, history.notifications, history.drift, history.calibration):
        assert list(query("payments")) == []


def test_view_of_many_pages_is_read_without_loss_or_duplicates(
    feed: ClaimedStream, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_readers, "_PAGE_ROWS", 4)
    feed.commit(0, end=10, dead=dead_letter_columns(range(10)))
    assert _offsets(history.dead_letters("payments")) == list(range(10))
    assert _offsets(history.dead_letters("payments", limit=3)) == [7, 8, 9]


def test_duration_bound_of_windows_counts_back_from_the_latest_window(feed: ClaimedStream, history: History) -> None:
    with feed.db.write() as connection:
        for minute in range(5):
            connection.execute(
                sa.insert(tables.windows).values(
                    stream_id=feed.stream_id,
                    window_start_us=T0 + minute * MINUTE,
                    window_end_us=T0 + (minute + 1) * MINUTE,
                    threshold_id=None,
                    events=minute,
                    outliers=0,
                    late=0,
                    dead=0,
                )
            )
    (batch,) = history.windows("payments", since="1m")
    assert (list(batch["events"]), batch["model_version"]) == ([3, 4], [None, None])


def test_unknown_stream_is_an_error_that_names_the_known_streams(history: History) -> None:
    with pytest.raises(ConfigError, match=r"no stream 'other'.*payments"):
        history.scores("other")
    with pytest.raises(ConfigError, match=r"no stream 'other'.*payments"):
        history.windows("other")


@pytest.mark.parametrize("when", ["yesterday", "5 parsecs", ""])
def test_invalid_time_bound_is_an_error(history: History, when: str) -> None:
    with pytest.raises(ConfigError, match="neither a duration nor a time"):
        list(history.scores("payments", since=when))


def test_time_without_a_zone_is_an_error(history: History) -> None:
    with pytest.raises(ConfigError, match="no time zone"):
        list(history.scores("payments", since=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_missing_file_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.db does not exist"):
        History(f"sqlite:///{tmp_path / 'absent.db'}")
    assert list(tmp_path.iterdir()) == []


def test_database_without_outrider_tables_is_an_error(database_url: str) -> None:
    with Database(database_url) as db, db.write() as connection:
        connection.exec_driver_sql("CREATE TABLE other (x INTEGER)")
    with pytest.raises(SchemaMismatch, match="outrider db upgrade"):
        History(database_url)


def test_history_cannot_write(feed: ClaimedStream, history: History) -> None:
    with pytest.raises(OutriderError, match=r"read-?only"), history._db.read() as connection:
        connection.exec_driver_sql("DELETE FROM streams")


def test_score_with_energy_equal_to_its_threshold_is_no_outlier(feed: ClaimedStream, history: History) -> None:
    scores = score_columns(0, 1, feed.threshold_id)
    scores.energies[:] = 10
    feed.commit(1, scores=scores)
    (batch,) = history.scores("payments")
    assert np.array(batch["is_outlier"]).tolist() == [False]
