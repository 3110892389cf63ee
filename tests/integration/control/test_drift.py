"""Drift through the real control plane: found, explained, resolved, and independent of order and restarts."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

import pytest

from monitor.incidents.lifecycle import Finding, Interval, Kind, Severity
from monitor.incidents.rows import update_incident
from monitor.models.feature_histograms import load_feature_histograms
from storage.control.drift import rebase_drift
from storage.control.incidents import change_incidents
from storage.control.records import Incident
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.migrations.upgrade import upgrade
from storage.queries.drift_cells import list_horizons, read_drift_cells
from tests.integration.control.simulation import (
    Rows,
    SimulatedWriter,
    SimulationSettings,
    make_control_plane,
    make_records,
    read_decisions,
    run_at_random,
    run_in_turn,
)
from tests.integration.control.worker_bench import MINUTE, T0, add_model, fetch_rows, open_stream
from tests.rules import make_rules

SPAN_S = 40 * 3600
HALF_HOURS = SimulationSettings(
    rules=make_rules(size_us=30 * MINUTE, grace_us=MINUTE, ahead_us=60 * MINUTE, max_future_us=None, sample_size=64),
    refresh=timedelta(hours=2),
    look_back=timedelta(hours=6),
    sources=[
        make_records(21, n=1_500, span_s=SPAN_S, moved=(0.7, 0.85)),
        make_records(22, n=500, span_s=SPAN_S, number=1, moved=(0.7, 0.85)),
    ],
    per_week=1.0,
    drift_horizons=(timedelta(minutes=30), timedelta(hours=2)),
)
OF_DRIFT = "FROM incidents WHERE kind = 'drift' ORDER BY id"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path_factory.mktemp('drift') / 'outrider.db'}") as db:
        upgrade(db)
        run_in_turn(db, HALF_HOURS, n=300)
        yield db


def drift_of(db: Database) -> dict[str, Rows]:
    decisions = read_decisions(db)
    return {
        name: decisions[name]
        for name in (
            "drift_verdicts",
            "drift_cells",
            "feature_summaries",
            "drift_bases",
            "drift_days",
            "drift_marks",
            "calibrations",
        )
    } | {name: [row for row in decisions[name] if "drift" in row] for name in ("incidents", "transitions")}


def test_a_planted_drift_is_found_explained_and_resolved(finished_run: Database) -> None:
    (incident,) = fetch_rows(finished_run, f"SELECT status, summary, details {OF_DRIFT}")
    assert incident[0] == "resolved"
    assert str(incident[1]).startswith("over the 30m from 2026-01-02T04:")
    assert "x is typically" in str(incident[1])
    opened = json.loads(str(incident[2]))["opened"]
    # The pooled threshold has learned the rate of this stream: the first windows of the move are a spike as well.
    assert opened["advice"] == "spike: keep the threshold"
    first = opened["horizons"][0]["drifted"][0]
    assert (first["statistic"], first["feature"]) == ("rank", "x")
    assert first["before"] == pytest.approx(0.5, abs=0.05)
    assert first["after_value"] - first["before_value"] == pytest.approx(1.5, abs=0.5)
    # The samples hold all events of these windows: the values are those of the events.
    histogram = opened["horizons"][0]["histograms"]["x"]
    assert sum(histogram["before"]) == pytest.approx(1, abs=1e-2)
    assert sum(histogram["after"]) == pytest.approx(1, abs=1e-2)
    transitions = fetch_rows(
        finished_run,
        "SELECT transition, at_us FROM transitions t JOIN incidents i ON i.id = incident_id "
        "WHERE i.kind = 'drift' ORDER BY t.id",
    )
    assert [transitions[0][0], transitions[-1][0]] == ["opened", "resolved"]
    assert int(str(transitions[-1][1])) >= T0 + 34 * 60 * MINUTE


def test_every_statistic_of_a_verdict_and_the_distributions_are_stored(finished_run: Database) -> None:
    with finished_run.read() as conn:
        lengths = list_horizons(conn, 1)
        cells = read_drift_cells(conn, 1, horizon_us=30 * MINUTE, from_us=0, until_us=T0 + 60 * 60 * MINUTE)
    assert lengths[0] == 30 * MINUTE
    verdicts = fetch_rows(
        finished_run, "SELECT window_end_us, statistic, feature, z, drifted FROM drift_verdicts WHERE horizon = '30m'"
    )
    by_end = {each.window_end_us: each for each in cells}
    assert {row[0] for row in verdicts} == set(by_end)
    for end_us, statistic, feature, z, _ in verdicts:
        own = by_end[int(str(end_us))]
        assert len(own.z) == len(own.names) == len(set(own.names))
        assert own.z[own.names.index((str(statistic), str(feature)))] == pytest.approx(float(str(z)), rel=1e-3)
    kinds = fetch_rows(finished_run, "SELECT kind, horizon_us FROM feature_summaries ORDER BY kind, horizon_us")
    assert kinds[0] == ("base", 30 * MINUTE)
    assert kinds[-1] == ("training", 0)
    found = load_feature_histograms(
        finished_run, 1, from_us=cells[-1].window_start_us, until_us=cells[-1].window_end_us, horizon_us=30 * MINUTE
    )
    assert [each.feature for each in found] == ["x", "y"]
    assert all(each.training and each.before and each.after for each in found)


def test_no_verdict_before_a_baseline_of_a_day_and_thirty_horizons(finished_run: Database) -> None:
    bases = fetch_rows(finished_run, "SELECT horizon_us / 60000000, until_us FROM drift_bases")
    assert bases == [(30, T0 + 24 * 60 * MINUTE)]  # horizons of 2 h would need 60 hours
    (state,) = fetch_rows(finished_run, "SELECT state FROM drift_marks")
    assert json.loads(str(state[0]))["waiting"] == {"2h": "the base has 20 of the 30 horizons that a verdict needs"}
    assert fetch_rows(finished_run, "SELECT min(window_start_us) FROM drift_verdicts") == [(T0 + 24 * 60 * MINUTE,)]


def test_every_database_gives_the_same_verdicts(finished_run: Database, db: Database) -> None:
    run_in_turn(db, HALF_HOURS)
    assert drift_of(db) == drift_of(finished_run)
    assert len(drift_of(finished_run)["drift_verdicts"]) > 50


@pytest.mark.parametrize("seed", [3, 4])
def test_any_order_of_steps_and_restarts_gives_the_same_verdicts(
    finished_run: Database, sqlite_db: Database, seed: int
) -> None:
    run_at_random(sqlite_db, HALF_HOURS, seed=seed)
    assert drift_of(sqlite_db) == drift_of(finished_run)


def test_windows_of_an_open_drift_stay_in_the_look_back(finished_run: Database) -> None:
    """Only windows with an outlier alarm are left out; drift marks no window."""
    spans = "SELECT window_start_us, resolved_at_us FROM incidents WHERE kind = 'drift'"
    (begin, end) = fetch_rows(finished_run, spans)[0]
    inside = f"FROM windows WHERE window_start_us >= {begin} AND window_end_us <= {end}"
    assert fetch_rows(finished_run, f"SELECT count(*) > 5 {inside} AND details IS NULL") == [(1,)]


def run_half(db: Database) -> tuple[int, list[SimulatedWriter]]:
    """Run until the drift incident is open."""
    stream_id = open_stream(db, 2, HALF_HOURS.rules)
    writers = [SimulatedWriter(db, stream_id, HALF_HOURS, number) for number in range(2)]
    plane = make_control_plane(db, stream_id, HALF_HOURS)
    while not fetch_rows(db, f"SELECT id {OF_DRIFT}"):
        for writer in writers:
            writer.commit(100)
        plane.run_due()
    return stream_id, writers


def test_another_model_gets_a_new_baseline_and_ends_the_drift(sqlite_db: Database) -> None:
    stream_id, writers = run_half(sqlite_db)
    add_model(sqlite_db, stream_id, seed=1)
    finish(sqlite_db, stream_id, writers)
    assert fetch_rows(sqlite_db, f"SELECT status {OF_DRIFT}") == [("resolved",)]
    ended = fetch_rows(
        sqlite_db, "SELECT summary FROM transitions WHERE transition = 'resolved' AND summary LIKE 'renewed%'"
    )
    assert len(ended) == 1
    assert fetch_rows(sqlite_db, "SELECT count(DISTINCT from_us) FROM drift_bases") == [
        (1,)
    ]  # too few hours for a second baseline


def test_an_accepted_drift_is_the_new_baseline(sqlite_db: Database) -> None:
    stream_id, writers = run_half(sqlite_db)
    (mark,) = fetch_rows(sqlite_db, "SELECT until_us FROM drift_marks")
    with sqlite_db.write() as conn:
        lock_stream(conn, stream_id)
        rebase_drift(conn, stream_id, int(str(mark[0])))
    finish(sqlite_db, stream_id, writers)
    assert fetch_rows(sqlite_db, f"SELECT status {OF_DRIFT}") == [("resolved",)]


def finish(db: Database, stream_id: int, writers: list[SimulatedWriter]) -> None:
    plane = make_control_plane(db, stream_id, HALF_HOURS)
    while not all(writer.ended for writer in writers):
        for writer in writers:
            writer.commit(500)
        plane.run_due()
    plane.run_due()


def store_drift_steps(db: Database, stream_id: int, repeat_minutes: int, *steps: tuple[bool, int, int]) -> None:
    """Store drift steps, each as (drifted, length of the horizon in minutes, minute at which it ends)."""
    rules = make_rules(
        size_us=MINUTE,
        resolve_after=2,
        repeat_interval_us=repeat_minutes * MINUTE,
        reopen_within_us=0,
        channels=lambda _kind, _severity: (),
        max_age_us=2**62,
    )

    def step(drifted: bool, minutes: int, until: int, known: Sequence[Incident]) -> list[Incident]:
        finding = (
            Finding(kind=Kind.DRIFT, severity=Severity.WARNING, summary="it moved", details={}) if drifted else None
        )
        at = Interval(start_us=T0 + (until - minutes) * MINUTE, end_us=T0 + until * MINUTE)
        return update_incident(Kind.DRIFT, finding, known, at, rules, now_us=T0 + until * MINUTE)

    for each in steps:
        change_incidents(db, stream_id, "payments", partial(step, *each))


def test_a_drift_of_an_hour_is_notified_after_a_resolved_one_of_the_same_start(db: Database, stream_id: int) -> None:
    """Both have the same start, so that kind and window start alone do not distinguish the incidents."""
    store_drift_steps(db, stream_id, 240, (True, 10, 10), (False, 10, 20), (False, 10, 30), (True, 60, 60))
    assert fetch_rows(db, f"SELECT status, window_start_us {OF_DRIFT}") == [("resolved", T0), ("open", T0)]
    assert fetch_rows(db, "SELECT count(*) FROM notifications") == [(3,)]


def test_repeats_for_ten_minutes_and_for_an_hour_are_two_notifications(db: Database, stream_id: int) -> None:
    store_drift_steps(db, stream_id, 30, (True, 10, 10), (True, 10, 70), (True, 60, 120))
    repeated = "SELECT window_start_us, at_us FROM transitions WHERE transition = 'repeated' ORDER BY id"
    assert fetch_rows(db, repeated) == [
        (T0 + 60 * MINUTE, T0 + 70 * MINUTE),
        (T0 + 120 * MINUTE, T0 + 120 * MINUTE),
    ]
    assert fetch_rows(db, "SELECT count(*) FROM notifications") == [(3,)]
