"""Ticks and commits read the threshold rows that they need, whatever the number of stored rows."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from config.time_format import DAY_US
from storage.control.drift import DriftStore
from storage.control.thresholds import ThresholdRow, ThresholdStore
from storage.database import tables
from storage.database.engine import Database
from storage.ledger.commit import Committed, Stale
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import (
    MINUTE,
    T0,
    ClaimedStream,
    add_threshold,
    claim_stream,
    count_rows,
    fetch_rows,
    score_columns,
    seal,
)
from tests.integration.storage.step_counter import StepCounter
from tests.integration.storage.threshold_rows import REFRESH_US, add_threshold_rows

_ROWS = 105_000


@pytest.fixture
def steps() -> Iterator[StepCounter]:
    """A counter of the instructions of every SQLite connection that is opened in the test."""
    with StepCounter() as counter:
        yield counter


def _fill(feed: ClaimedStream, n: int) -> int:
    """Store n threshold rows, and one window in the last of them; return the start of the newest row."""
    with feed.db.read() as connection:
        model_id = connection.scalar(sa.select(tables.models.c.id).where(tables.models.c.stream_id == feed.stream_id))
    assert model_id is not None
    newest_us = add_threshold_rows(feed.db, feed.stream_id, model_id, n, first_us=T0, recorded_at_us=T0)
    with feed.db.write() as connection:
        threshold_id = connection.scalar(sa.select(sa.func.max(tables.thresholds.c.id)))
        connection.execute(
            sa.insert(tables.windows),
            [
                {
                    "stream_id": feed.stream_id,
                    "window_start_us": newest_us + minute * MINUTE,
                    "window_end_us": newest_us + (minute + 1) * MINUTE,
                    "threshold_id": threshold_id,
                    "events": 1,
                    "outliers": 0,
                    "late": 0,
                    "dead": 0,
                    "judged_at_us": T0,
                }
                for minute in range(5)
            ],
        )
    seal(feed.db, feed.stream_id, newest_us)
    return newest_us


def _run_tick(db: Database, stream_id: int, newest_us: int) -> int:
    """Make the calls of the control plane and the worker at one tick; return the number of rows that it loads."""
    calibration, ledger = ThresholdStore(db), Ledger(db)
    newest = calibration.newest_threshold(stream_id)
    assert newest is not None
    assert newest.id is not None
    calibration.tick_facts(stream_id)
    DriftStore(db).find_model_before(stream_id, newest_us + DAY_US)
    loaded = len(ledger.read_threshold_schedule(stream_id, from_us=newest_us))
    row = ThresholdRow(
        model_id=newest.model_id,
        computed_at_us=newest_us + REFRESH_US,
        valid_from_us=newest_us + REFRESH_US,
        percentile=99.5,
        threshold=11.0,
        lower=10.0,
        upper=12.0,
        n=2000,
        method="percentile",
        details={},
    )
    assert calibration.store_tick(
        stream_id, last_tick_us=None, tick_us=newest_us + REFRESH_US, threshold=row, calibration=None
    )
    return loaded + len(ledger.read_threshold_schedule(stream_id, after_id=newest.id, from_us=newest_us))


@pytest.mark.slow
def test_a_tick_costs_the_same_with_105_000_threshold_rows_as_with_100(
    upgraded_sqlite_url: str, steps: StepCounter
) -> None:
    found = []
    with Database(upgraded_sqlite_url) as db:
        for name, n in (("few", 100), ("many", _ROWS)):
            feed = claim_stream(db, name)
            newest_us = _fill(feed, n)
            steps.calls = 0
            loaded = _run_tick(db, feed.stream_id, newest_us)
            found.append((loaded, steps.calls))
    assert found[0][0] == found[1][0] == 2, "the row that is valid at the seal, and the new one"
    assert found[1][1] <= found[0][1] + 20, "the number of instructions does not grow with the rows"


def test_the_schedule_from_a_time_begins_with_the_row_that_is_valid_then(feed: ClaimedStream) -> None:
    ledger = Ledger(feed.db)
    ids = [
        feed.threshold_id,
        *(add_threshold(feed.db, feed.stream_id, valid_from_us=T0 + i * MINUTE) for i in (1, 2, 2)),
    ]

    def read(from_us: int) -> list[int]:
        return [row.id for row in ledger.read_threshold_schedule(feed.stream_id, from_us=from_us)]

    assert read(T0) == ids
    assert read(T0 + MINUTE) == ids[1:]
    assert read(T0 + 2 * MINUTE - 1) == ids[1:]
    assert read(T0 + 9 * MINUTE) == ids[2:], "both rows that are valid from the same time"


def test_rows_at_given_times_are_the_valid_ones(feed: ClaimedStream) -> None:
    ledger = Ledger(feed.db)
    with feed.db.write() as connection:
        connection.execute(sa.update(tables.thresholds).values(valid_from_us=T0))
    later = [add_threshold(feed.db, feed.stream_id, valid_from_us=T0 + i * MINUTE) for i in (1, 2, 3)]

    def read(*times_us: int) -> list[int]:
        return [row.id for row in ledger.read_thresholds_at(feed.stream_id, times_us)]

    assert read() == []
    assert read(T0 + MINUTE, T0 + MINUTE + 1, T0 + 2 * MINUTE - 1) == [later[0]]
    assert read(T0 + 3 * MINUTE, T0 + 1) == [feed.threshold_id, later[2]]
    assert read(0) == [feed.threshold_id], "the first row is valid for all earlier times"


def test_a_commit_under_a_threshold_row_that_no_longer_exists_is_stale(feed: ClaimedStream) -> None:
    gone = add_threshold(feed.db, feed.stream_id, valid_from_us=T0)
    with feed.db.write() as connection:
        connection.execute(sa.delete(tables.thresholds).where(tables.thresholds.c.id == gone))
    assert isinstance(feed.commit(3, scores=score_columns(0, 3, gone)), Stale)
    assert count_rows(feed.db, "scores") == 0
    assert isinstance(feed.commit(3), Committed)


def test_the_use_of_a_threshold_row_is_recorded_once_a_minute(feed: ClaimedStream) -> None:
    def read_used() -> int:
        ((used_at_us,),) = fetch_rows(feed.db, "SELECT used_at_us FROM thresholds")
        return int(used_at_us)

    ledger = Ledger(feed.db)
    assert isinstance(ledger.commit(feed.build_commit(3)), Committed)
    first_us = read_used()
    ((stored_at_us,),) = fetch_rows(feed.db, "SELECT max(stored_at_us) FROM scores")
    assert first_us == stored_at_us
    assert isinstance(
        ledger.commit(feed.build_commit(3, begin=3, end=6, scores=score_columns(3, 3, feed.threshold_id))), Committed
    )
    assert read_used() == first_us
