"""Roll-ups on both databases: gaps, the database of an older version, and windows that change later."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from config.time_format import HOUR_US
from monitor.control_plane.rollup_step import RollupStep
from monitor.statistics.part import Scale, summarise
from monitor.statistics.part_codec import encode_part
from monitor.statistics.rollup import ScoredBy
from storage.control.rollups import COARSE_US, FINE_US, RollupStore, WindowChange, add_to_rollups
from storage.database import tables
from storage.database.locks import lock_stream
from tests.integration.storage.commits import MINUTE, T0, ClaimedStream, fetch_rows

SCALE = Scale(median=3.0, iqr=2.0)
ROWS = (
    "SELECT resolution_us, start_us, end_us, windows, events, outliers, late, dead, expected, p_value, energy_p50, "
    "energy_max, model_version FROM window_rollups ORDER BY resolution_us, start_us"
)


def _add_windows(feed: ClaimedStream, minutes: list[int]) -> None:
    rng = np.random.default_rng(3)
    with feed.db.write() as conn:
        for minute in minutes:
            energies = rng.gamma(4, 2, 20).astype(np.float32)
            part = summarise(energies, energies > 12, SCALE)
            conn.execute(
                tables.windows.insert().values(
                    stream_id=feed.stream_id,
                    window_start_us=T0 + minute * MINUTE,
                    window_end_us=T0 + (minute + 1) * MINUTE,
                    threshold_id=feed.threshold_id,
                    events=20,
                    outliers=part.outliers,
                    late=0,
                    dead=0,
                    filtered=0,
                    expected=0.1,
                    p_value=float(rng.random()),
                    payload=encode_part(part),
                    judged_at_us=T0,
                )
            )


def _roll_up(feed: ClaimedStream, sealed_minute: int) -> int:
    """Seal the stream up to a minute and store all due roll-ups; return the number of steps."""
    sealed_us = T0 + sealed_minute * MINUTE
    with feed.db.write() as conn:
        conn.execute(tables.streams.update().values(sealed_until_us=sealed_us))
    step = RollupStep(
        feed.stream_id,
        store=RollupStore(feed.db),
        scored_by=lambda _: ScoredBy(model_id=1, version=1, scale=SCALE),
    )
    steps = 0
    while step.run_due(sealed_us, changed=False):
        steps += 1
    return steps


def _starts(feed: ClaimedStream, resolution_us: int) -> list[int]:
    rows = fetch_rows(
        feed.db, f"SELECT start_us FROM window_rollups WHERE resolution_us = {resolution_us} ORDER BY start_us"
    )
    return [(int(row[0]) - T0) // MINUTE for row in rows]


def test_gap_has_no_roll_up_and_ends_the_six_hours_that_it_passes(feed: ClaimedStream) -> None:
    _add_windows(feed, [0, 1, 14, 15, 50, 12 * 60 + 3, 12 * 60 + 20])
    assert _roll_up(feed, 12 * 60 + 18) == 4
    assert _starts(feed, FINE_US) == [0, 15, 45, 12 * 60]
    assert _starts(feed, COARSE_US) == [0]
    assert fetch_rows(
        feed.db, "SELECT windows, events, end_us FROM window_rollups WHERE resolution_us > 1000000000"
    ) == [(5, 100, T0 + 51 * MINUTE)]
    assert _roll_up(feed, 18 * 60) == 1
    _add_windows(feed, [18 * 60 + 2])
    assert _roll_up(feed, 18 * 60 + 15) == 1
    assert _starts(feed, COARSE_US) == [0, 12 * 60]


def test_database_of_an_older_version_is_filled_with_the_rows_of_a_running_one(feed: ClaimedStream) -> None:
    _add_windows(feed, list(range(0, 7 * 60, 3)))
    for sealed_minute in range(0, 7 * 60 + 1, 10):
        _roll_up(feed, sealed_minute)
    expected = fetch_rows(feed.db, ROWS)
    assert len(expected) == 28 + 1
    with feed.db.write() as conn:
        conn.execute(tables.window_rollups.delete())
        conn.execute(tables.streams.update().values(rolled_up_us=None))
    assert _roll_up(feed, 7 * 60) == 28
    assert fetch_rows(feed.db, ROWS) == expected


@pytest.mark.parametrize("minute", [3, 200])
def test_later_change_of_a_window_changes_its_roll_ups(feed: ClaimedStream, minute: int) -> None:
    _add_windows(feed, [3, 4, 6 * 60 + 1])
    _roll_up(feed, 6 * 60 + 15)
    change = WindowChange(
        start_us=T0 + minute * MINUTE, end_us=T0 + (minute + 1) * MINUTE, windows=0, late=2, dead=1, filtered=0
    )
    with feed.db.write() as conn:
        lock_stream(conn, feed.stream_id)
        add_to_rollups(feed.db, conn, feed.stream_id, change)
    by_start = {(row[0], (int(row[1]) - T0) // MINUTE): row[6:8] for row in fetch_rows(feed.db, ROWS)}
    assert by_start[COARSE_US, 0] == (2, 1)
    assert by_start[FINE_US, minute // 15 * 15] == (2, 1)
    assert (COARSE_US, 6 * 60) not in by_start


def test_change_of_a_window_without_roll_up_changes_nothing(feed: ClaimedStream) -> None:
    _add_windows(feed, [3])
    _roll_up(feed, 15)
    change: dict[str, Any] = {"windows": 0, "late": 2, "dead": 0, "filtered": 0}
    with feed.db.write() as conn:
        lock_stream(conn, feed.stream_id)
        for start_us in (T0 + 15 * MINUTE, T0 + HOUR_US):
            add_to_rollups(
                feed.db, conn, feed.stream_id, WindowChange(start_us=start_us, end_us=start_us + MINUTE, **change)
            )
    assert fetch_rows(feed.db, "SELECT sum(late), count(*) FROM window_rollups") == [(0, 1)]


def test_second_holder_of_the_lease_stores_nothing_twice(feed: ClaimedStream) -> None:
    _add_windows(feed, [3])
    with feed.db.write() as conn:
        conn.execute(sa.update(tables.streams).values(sealed_until_us=T0 + 15 * MINUTE))
    store = RollupStore(feed.db)
    assert store.store_rollups(feed.stream_id, None, T0 + 15 * MINUTE, [])
    assert not store.store_rollups(feed.stream_id, None, T0 + 15 * MINUTE, [])
