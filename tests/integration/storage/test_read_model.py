"""Reads of the read model: roll-ups, drift cells, similar incidents, models and the ledger."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US, MINUTE_US
from storage.control.drift_cells import encode_cells
from storage.control.rollups import COARSE_US, FINE_US
from storage.database import tables
from storage.database.engine import Database
from storage.queries.drift_cells import list_horizons, read_drift_cells
from storage.queries.model_facts import read_ledger, read_models
from storage.queries.rollups import BarSums, Rollup, read_bars, read_incident_marks, read_rollups
from storage.queries.similar_incidents import read_similar_incidents
from storage.retention import delete_expired
from tests.integration.storage.commits import MINUTE, T0, ClaimedStream, fetch_rows


def _insert(db: Database, table: sa.Table, **values: Any) -> None:
    with db.write() as conn:
        conn.execute(table.insert().values(**values))


def _add_rollup(feed: ClaimedStream, resolution_us: int, start_us: int, **values: Any) -> None:
    counts = dict.fromkeys(("windows", "fired", "events", "outliers", "late", "dead", "filtered", "most_outliers"), 0)
    row = {"end_us": start_us + resolution_us, "recorded_at_us": T0} | counts | values
    _insert(
        feed.db, tables.window_rollups, stream_id=feed.stream_id, resolution_us=resolution_us, start_us=start_us, **row
    )


def _add_window(feed: ClaimedStream, start_us: int, **values: Any) -> None:
    counts = {"events": 10, "outliers": 1, "late": 0, "dead": 0, "filtered": 0, "judged_at_us": T0}
    _insert(
        feed.db,
        tables.windows,
        stream_id=feed.stream_id,
        window_start_us=start_us,
        window_end_us=start_us + MINUTE,
        **(counts | values),
    )


def _set_rolled_up(feed: ClaimedStream, until_us: int) -> None:
    with feed.db.write() as conn:
        conn.execute(tables.streams.update().values(rolled_up_us=until_us))


def _spans(rows: Sequence[Rollup | BarSums]) -> list[tuple[int, int, int]]:
    return [((row.start_us - T0) // MINUTE, (row.end_us - row.start_us) // MINUTE, row.events) for row in rows]


def test_end_of_a_coarse_range_is_read_in_finer_steps(feed: ClaimedStream) -> None:
    _add_rollup(feed, COARSE_US, T0, events=1)
    _add_rollup(feed, FINE_US, T0, events=2)
    _add_rollup(feed, FINE_US, T0 + COARSE_US, events=3)
    _add_window(feed, T0 + COARSE_US, events=4)
    _add_window(feed, T0 + COARSE_US + FINE_US, events=5)
    _set_rolled_up(feed, T0 + COARSE_US + FINE_US)
    with feed.db.read() as conn:
        coarse = read_rollups(conn, feed.stream_id, resolution_us=COARSE_US, from_us=T0, until_us=T0 + DAY_US)
        fine = read_rollups(conn, feed.stream_id, resolution_us=FINE_US, from_us=T0, until_us=T0 + DAY_US)
    assert _spans(coarse) == [(0, 360, 1), (360, 15, 3), (375, 1, 5)]
    assert _spans(fine) == [(0, 15, 2), (360, 15, 3), (375, 1, 5)]


def test_stream_without_roll_ups_is_read_as_windows(feed: ClaimedStream) -> None:
    _add_window(feed, T0, outliers=3, p_value=0.25, fires_at=7, details="{}", threshold_id=feed.threshold_id)
    with feed.db.read() as conn:
        (row,) = read_rollups(conn, feed.stream_id, resolution_us=COARSE_US, from_us=T0, until_us=T0 + DAY_US)
    assert (row.windows, row.fired, row.outliers, row.most_outliers) == (1, 1, 3, 3)
    assert (row.p_value, row.fires_at, row.model_version) == (0.25, 7, 1)


def test_bars_of_several_streams_join_roll_ups_and_windows(feed: ClaimedStream) -> None:
    _add_rollup(feed, FINE_US, T0, events=2)
    _add_window(feed, T0, events=9)
    _add_window(feed, T0 + FINE_US, expected=1.5, p_value=0.5)
    _add_window(feed, T0 + FINE_US + MINUTE, expected=2.5, p_value=0.125, outliers=6)
    _set_rolled_up(feed, T0 + FINE_US)
    with feed.db.read() as conn:
        bars = read_bars(conn, [feed.stream_id, 99], from_us=T0, until_us=T0 + DAY_US)
    assert bars[99] == []
    assert _spans(bars[feed.stream_id]) == [(0, 15, 2), (15, 2, 20)]
    unfinished = bars[feed.stream_id][1]
    assert (unfinished.windows, unfinished.outliers, unfinished.expected) == (2, 7, 4.0)


def _add_incident(feed: ClaimedStream, opened_us: int, **values: Any) -> int:
    row: dict[str, Any] = {
        "stream_id": feed.stream_id,
        "kind": "spike",
        "severity": "warning",
        "status": "resolved",
        "window_start_us": opened_us - MINUTE,
        "opened_at_us": opened_us,
        "last_told_us": opened_us,
        "clean_windows": 0,
        "windows_fired": 1,
        "summary": "a spike",
        "resolved_at_us": opened_us + MINUTE,
    } | values
    row["contributions"] = json.dumps(row["contributions"]) if "contributions" in row else None
    with feed.db.write() as conn:
        return int(conn.execute(tables.incidents.insert().values(**row).returning(tables.incidents.c.id)).scalar_one())


def test_similar_incidents_are_of_the_same_kind_and_earlier_best_first(feed: ClaimedStream) -> None:
    like = _add_incident(feed, T0, contributions={"amount": 0.9, "hour": 0.1}, verdict="false_alarm")
    less = _add_incident(feed, T0 + 1, contributions={"amount": 0.5, "hour": 0.5})
    _add_incident(feed, T0 + 2, contributions={"hour": 1.0})
    _add_incident(feed, T0 + 3, kind="drift", contributions={"amount": 1.0})
    _add_incident(feed, T0 + 4)
    own = _add_incident(feed, T0 + 5, contributions={"amount": 1.0})
    _add_incident(feed, T0 + 6, contributions={"amount": 1.0})
    with feed.db.read() as conn:
        found = read_similar_incidents(conn, own)
    assert [(each.id, each.verdict, each.similarity) for each in found] == [
        (like, "false_alarm", 0.9939),
        (less, None, 0.7071),
    ]


def test_incident_spans_are_those_that_were_open_in_the_time(feed: ClaimedStream) -> None:
    _add_incident(feed, T0 - DAY_US)
    within = _add_incident(feed, T0 - MINUTE, resolved_at_us=T0 + MINUTE)
    still_open = _add_incident(feed, T0 + 2 * MINUTE, status="open", resolved_at_us=None)
    _add_incident(feed, T0 + DAY_US)
    with feed.db.read() as conn:
        spans = read_incident_marks(conn, [feed.stream_id], from_us=T0, until_us=T0 + DAY_US)
    assert [(span.id, span.end_us) for span in spans] == [(within, T0 + MINUTE), (still_open, None)]


def test_drift_cells_return_every_statistic_with_its_name(feed: ClaimedStream) -> None:
    model_id = fetch_rows(feed.db, "SELECT min(id) FROM models")[0][0]
    names = [["rank", "amount"], ["energy_rank", ""]]
    _insert(feed.db, tables.drift_cell_names, model_id=model_id, statistics=2, names=json.dumps(names))
    for horizon_us in (10 * MINUTE_US, DAY_US):
        _insert(
            feed.db,
            tables.drift_cells,
            stream_id=feed.stream_id,
            horizon_us=horizon_us,
            window_start_us=T0,
            window_end_us=T0 + horizon_us,
            model_id=model_id,
            statistics=2,
            limit=4.0,
            payload=encode_cells(np.array([1.5, -9e9]), np.ones(2), np.full(2, 0.5), np.full(2, 0.625)),
            recorded_at_us=T0,
        )
    with feed.db.read() as conn:
        assert list_horizons(conn, feed.stream_id) == [10 * MINUTE_US, DAY_US]
        (cells,) = read_drift_cells(conn, feed.stream_id, horizon_us=DAY_US, from_us=T0, until_us=T0 + DAY_US)
    assert cells.names == [("rank", "amount"), ("energy_rank", "")]
    assert cells.z.tolist() == [1.5, -65504.0]
    assert (cells.before.tolist(), cells.after.tolist()) == ([0.5, 0.5], [0.625, 0.625])


def test_models_have_the_agreement_of_their_shadow_run(feed: ClaimedStream) -> None:
    (model_id,) = fetch_rows(feed.db, "SELECT min(id) FROM models")[0]
    shadow = {"model_id": model_id, "stream_id": feed.stream_id, "percentile": 99.0, "threshold": 3.0, "ended": False}
    _insert(feed.db, tables.shadows, since_us=T0, verdict='{"holds": null}', **shadow)
    for at, both in enumerate((2, None, 1)):
        _add_window(feed, T0 + at * MINUTE, outliers=3)
        _insert(
            feed.db,
            tables.shadow_windows,
            model_id=model_id,
            stream_id=feed.stream_id,
            window_start_us=T0 + at * MINUTE,
            window_end_us=T0 + (at + 1) * MINUTE,
            events=10,
            outliers=4,
            payload=b"",
            outliers_of_both=both,
        )
    with feed.db.read() as conn:
        (model,) = read_models(conn, feed.stream_id)
    agreement = model.agreement
    assert agreement is not None
    assert (agreement.windows, agreement.events, agreement.span_us) == (2, 20, 2 * MINUTE)
    assert (agreement.both, agreement.active_only, agreement.shadow_only, agreement.neither) == (3, 3, 5, 9)
    assert (agreement.active_per_day, agreement.shadow_per_day) == (6 * 720, 8 * 720)
    columns = "shared_events, flagged_by_both, flagged_by_active, flagged_by_shadow, flagged_by_none"
    assert fetch_rows(feed.db, f"SELECT {columns} FROM model_history") == [(20, 3, 3, 5, 9)]


@pytest.mark.parametrize("ticks", [0, 2])
def test_ledger_counts_verdicts_and_takes_the_precision_of_the_last_tick(feed: ClaimedStream, ticks: int) -> None:
    _add_incident(feed, T0 + 1, verdict="confirmed")
    _add_incident(feed, T0 + 2, verdict="false_alarm")
    _add_incident(feed, T0 + 3)
    _add_incident(feed, T0 + 4, kind="gap")
    _add_incident(feed, T0 - 1, verdict="confirmed")
    for at in range(1, ticks + 1):
        _insert(
            feed.db,
            tables.calibrations,
            stream_id=feed.stream_id,
            at_us=T0 + at * MINUTE,
            promised_per_week=1.0,
            state="learned",
            precision=at / 4,
            precision_lower=0.0125,
            precision_upper=0.9875,
        )
    with feed.db.read() as conn:
        (entry,) = read_ledger(conn, [feed.stream_id], kinds=["spike"], from_us=T0, until_us=T0 + DAY_US)
    assert (entry.true_alarms, entry.false_alarms, entry.without_verdict) == (1, 1, 1)
    if ticks:
        assert (entry.from_us, entry.until_us) == (T0 + MINUTE, T0 + 2 * MINUTE)
        assert (entry.promised_per_week, entry.precision, entry.precision_upper) == (1.0, 0.5, 0.9875)
    else:
        assert (entry.promised_per_week, entry.precision) == (None, None)


def test_expired_roll_ups_and_drift_cells_are_deleted_by_their_time_of_storing(feed: ClaimedStream) -> None:
    with feed.db.read() as conn:
        now_us = feed.db.now_us(conn)
    model_id = fetch_rows(feed.db, "SELECT min(id) FROM models")[0][0]
    for age_days, at in ((401, 0), (399, 1), (10, 2)):
        for resolution_us in (FINE_US, COARSE_US):
            start_us = T0 + at * COARSE_US
            _add_rollup(feed, resolution_us, start_us, recorded_at_us=now_us - age_days * DAY_US)
        _insert(
            feed.db,
            tables.drift_cells,
            stream_id=feed.stream_id,
            horizon_us=DAY_US,
            window_start_us=T0 + at * DAY_US,
            window_end_us=T0 + (at + 1) * DAY_US,
            model_id=model_id,
            statistics=1,
            limit=4.0,
            payload=b"",
            recorded_at_us=now_us - age_days * DAY_US,
        )
    deleted = delete_expired(feed.db, RetentionSettings(), now_us)
    assert (deleted.rollups, deleted.drift_cells) == (2, 2)
    assert fetch_rows(feed.db, "SELECT count(*) FROM window_rollups") == [(4,)]
    assert fetch_rows(feed.db, "SELECT window_start_us FROM drift_cells") == [(T0 + 2 * DAY_US,)]
