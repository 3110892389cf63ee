"""Summary of the demo: planted and found bursts and drift."""

from pathlib import Path

from monitor.cli.demo import build_demo_settings
from monitor.cli.demo_summary import (
    DetectedIncident,
    TimeSpan,
    compare_with_planted,
    format_summary,
    summarise_demo,
)
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.tables import windows
from storage.ledger.ledger import Ledger

MINUTE = 60_000_000
PLANTED = [
    (10 * MINUTE, 12 * MINUTE, "burst"),
    (40 * MINUTE, 42 * MINUTE, "burst"),
    (60 * MINUTE, 99 * MINUTE, "drift"),
]


def incident(kind: str, start: int, end: int, *features: str) -> DetectedIncident:
    return DetectedIncident(kind=kind, window=TimeSpan(start_us=start * MINUTE, end_us=end * MINUTE), features=features)


def test_bursts_and_drift_are_found_with_their_delays() -> None:
    incidents = [incident("spike", 10, 11), incident("spike", 41, 42), incident("drift", 60, 70, "x0", "x1")]
    summary = compare_with_planted(PLANTED, incidents, 1_000)
    assert (summary.bursts, summary.bursts_found, summary.delays_s, summary.false_incidents) == (2, 2, [60.0, 120.0], 0)
    assert summary.drift_found is not None
    assert (summary.drift_found.feature, summary.drift_found.delay_s) == ("x0", 600.0)
    assert any("found 1: x0 moved, reported 10 min" in line for line in format_summary(summary, "sqlite:///x.db", "s"))


def test_spike_during_drift_neither_detects_it_nor_counts_as_false() -> None:
    summary = compare_with_planted(PLANTED, [incident("spike", 65, 66)], 1_000)
    assert summary.drift_found is None
    assert summary.false_incidents == 0
    assert "planted 1 drift near the end, found 0" in format_summary(summary, "sqlite:///x.db", "s")


def test_drift_incident_in_a_burst_is_false() -> None:
    summary = compare_with_planted(PLANTED, [incident("drift", 10, 20, "x0")], 1_000)
    assert (summary.bursts_found, summary.false_incidents) == (0, 1)


def test_incident_outside_of_planted_anomalies_is_false() -> None:
    assert compare_with_planted(PLANTED, [incident("spike", 20, 21)], 1_000).false_incidents == 1


def test_summary_compares_the_stored_windows_with_the_plan_of_the_source(tmp_path: Path) -> None:
    settings = build_demo_settings("demo", f"sqlite:///{tmp_path / 'demo.db'}", 60.0, 1)
    source = settings.streams["demo"].source
    assert source.type == "synthetic"
    assert source.start is not None
    five_hours_us = source.start + 5 * 60 * MINUTE
    with Database(settings.database.url) as db:
        upgrade(db)
        stream = Ledger(db).open_stream("demo", 6 * MINUTE, 16 * MINUTE)
        with db.write() as connection:
            connection.execute(
                windows.insert().values(
                    stream_id=stream.id,
                    window_start_us=five_hours_us - 6 * MINUTE,
                    window_end_us=five_hours_us,
                    events=1_200,
                    outliers=0,
                    late=0,
                    dead=0,
                )
            )
    summary = summarise_demo(settings, "demo")
    assert (summary.events, summary.bursts, summary.bursts_found) == (1_200, 1, 0)
    assert not summary.drift_planted
