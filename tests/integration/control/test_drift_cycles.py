"""Drift over whole days through the real control plane: a change is told once and becomes the base."""

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import numpy as np
import pytest

from config.time_format import DAY_US, HOUR_US
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.integration.control.simulation import (
    SimulatedWriter,
    SimulationSettings,
    make_control_plane,
    run_at_random,
    run_in_turn,
)
from tests.integration.control.test_drift import OF_DRIFT, drift_of
from tests.integration.control.worker_bench import MINUTE, T0, fetch_rows, open_stream, partition
from tests.rules import make_rules

DAYS, CHANGE_DAY = 18, 12
FIRST_VERDICT_DAY = 10


def make_season(*, days: int = DAYS, changed_from: int | None = CHANGE_DAY) -> DecodedBatch:
    """Return an event every 20 minutes, with a daily sine in the first feature, and a lasting shift of the second."""
    rng = np.random.default_rng(7)
    times_us = T0 + np.arange(0, days * DAY_US, 20 * MINUTE)
    features = rng.normal(size=(len(times_us), 2)) * 0.3
    features[:, 0] += np.sin(2 * np.pi * (times_us % DAY_US) / DAY_US)
    if changed_from is not None:
        features[times_us >= T0 + changed_from * DAY_US, 1] += 1.0
    offsets = np.arange(len(times_us), dtype=np.int64)
    return DecodedBatch(
        partition=partition(0),
        begin=0,
        end=len(offsets),
        cursors=None,
        events=Events(offsets=offsets, times_us=times_us, features=features.astype(np.float32)),
        dead_letters=DeadLetters(offsets=offsets[:0], end_offsets=offsets[:0], reasons=[], details=[], payloads=[]),
    )


SEASON = SimulationSettings(
    rules=make_rules(size_us=HOUR_US, grace_us=MINUTE, ahead_us=2 * HOUR_US, max_future_us=None),
    refresh=timedelta(hours=12),
    look_back=timedelta(days=2),
    sources=[make_season()],
    per_week=1.0,
    drift_horizons=(timedelta(hours=1),),
)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path_factory.mktemp('cycles') / 'outrider.db'}") as db:
        upgrade(db)
        run_in_turn(db, SEASON, n=500)
        yield db


def test_season_is_found_and_days_are_tested_instead_of_hours(finished_run: Database) -> None:
    (row,) = fetch_rows(finished_run, "SELECT state FROM drift_marks")
    state = json.loads(str(row[0]))
    assert state["cycle_us"] == DAY_US
    assert state["waiting"] == {"1h": "not tested: the stream has a daily or weekly course, and 1d is tested instead"}
    assert fetch_rows(finished_run, "SELECT DISTINCT horizon FROM drift_verdicts") == [("1d",)]
    first_us = "SELECT (min(window_end_us) - {}) / {} FROM drift_verdicts"
    assert fetch_rows(finished_run, first_us.format(T0, DAY_US)) == [(FIRST_VERDICT_DAY,)]


def test_lasting_change_is_told_once_and_becomes_the_base(finished_run: Database) -> None:
    (incident,) = fetch_rows(finished_run, f"SELECT status, summary, opened_at_us, resolved_at_us {OF_DRIFT}")
    assert incident[0] == "resolved"
    assert str(incident[1]).startswith("over the 1d from 2026-01-13T00:00:00Z: ")
    assert "y is typically" in str(incident[1])
    assert "against the days before" in str(incident[1])
    assert incident[2:] == (T0 + (CHANGE_DAY + 1) * DAY_US, T0 + (CHANGE_DAY + 2) * DAY_US)
    told = "SELECT transition, t.summary FROM transitions t JOIN incidents i ON i.id = incident_id WHERE kind = 'drift'"
    opened, resolved = fetch_rows(finished_run, f"{told} ORDER BY t.id")
    assert (opened[0], resolved[0]) == ("opened", "resolved")
    assert str(resolved[1]).startswith("rebased: ")


def test_every_database_gives_the_same_verdicts(finished_run: Database, db: Database) -> None:
    run_in_turn(db, SEASON)
    assert drift_of(db) == drift_of(finished_run)


def test_restarts_in_the_middle_of_days_give_the_same_verdicts(finished_run: Database, sqlite_db: Database) -> None:
    run_at_random(sqlite_db, SEASON, seed=5)
    assert drift_of(sqlite_db) == drift_of(finished_run)
    assert fetch_rows(sqlite_db, "SELECT count(*) FROM drift_days") == [(DAYS,)]


def run_until(db: Database, condition: str) -> None:
    """Run until a query has a row, with a new control plane."""
    stream_id = open_stream(db, 1, SEASON.rules)
    writer, plane = SimulatedWriter(db, stream_id, SEASON, 0), make_control_plane(db, stream_id, SEASON)
    while not fetch_rows(db, condition):
        writer.commit(30)
        plane.run_due()


def test_drift_of_a_former_version_ends_at_the_next_day(sqlite_db: Database) -> None:
    """Its state has hours with an alarm and frozen differences, and no day."""
    run_until(sqlite_db, f"SELECT 1 FROM drift_marks WHERE until_us >= {T0 + 6 * DAY_US}")
    (row,) = fetch_rows(sqlite_db, "SELECT state FROM drift_marks")
    base_us = json.loads(str(row[0]))["base_from_us"]
    state = {"base_from_us": base_us, "waiting": {}, "alarms": {str(HOUR_US): {"since_us": T0, "clean": 0}}}
    state["spans"] = {str(HOUR_US): [[0, 1]]}
    statements = [
        f"UPDATE drift_marks SET state = '{json.dumps(state)}'",
        "DELETE FROM drift_days",
        "INSERT INTO incidents (stream_id, kind, severity, status, window_start_us, opened_at_us, last_told_us, "
        f"clean_windows, windows_fired, summary, details) SELECT id, 'drift', 'warning', 'open', {T0}, {T0}, {T0}, 0, "
        "1, 'it moved', '{}' FROM streams",
    ]
    with sqlite_db.write() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)
    (stream,) = fetch_rows(sqlite_db, "SELECT id FROM streams")
    plane = make_control_plane(sqlite_db, int(str(stream[0])), SEASON)
    writer = SimulatedWriter(sqlite_db, int(str(stream[0])), SEASON, 0)
    while not writer.ended:
        writer.commit(500)
        plane.run_due()
    plane.run_due()
    ended = partial(fetch_rows, sqlite_db)
    assert ended(f"SELECT status, resolved_at_us FROM incidents WHERE window_start_us = {T0}") == [
        ("resolved", T0 + 7 * DAY_US)
    ]
    assert fetch_rows(sqlite_db, f"SELECT count(*) {OF_DRIFT.removesuffix(' ORDER BY id')}") == [(2,)]
    assert fetch_rows(sqlite_db, "SELECT count(*) FROM drift_days") == [(DAYS,)], "days of stored windows are summed"
