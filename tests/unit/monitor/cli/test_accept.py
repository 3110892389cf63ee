"""`outrider accept` resolves an incident as normal, with and without a running daemon."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.daemon.rules import build_stream_rules
from monitor.thresholds.look_back_cache import LookBackCache
from monitor.thresholds.tick import load_scale
from storage.control.thresholds import ThresholdStore
from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import MINUTE, T0, PaymentsStream, write_config


@pytest.fixture
def url(upgraded_url: str) -> str:
    return upgraded_url


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def test_accepted_spike_is_resolved_and_its_windows_count_again(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    result = outrider("accept", 1)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Incident 1 (spike on payments) is accepted: 1 window counts as normal")
    assert fetch_rows(db, "SELECT status, accepted_at_us = resolved_at_us FROM incidents") in (
        [("resolved", 1)],
        [("resolved", True)],
    )
    store = ThresholdStore(db)
    windows = store.judged_windows(payments.stream.id, 1, T0, T0 + 10 * MINUTE)
    assert [window.fired for window in windows] == [False] * len(windows)
    assert store.tick_facts(payments.stream.id).acceptances == 1


def test_resolved_transition_names_acceptance_as_reason(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    outrider("accept", 1)
    shown = json.loads(outrider("incidents", "show", 1, "--format", "json").out)
    assert [step["transition"] for step in shown["transitions"]] == ["opened", "resolved"]
    assert shown["transitions"][1]["summary"].startswith("accepted: ")
    assert shown["transitions"][1]["notifications"] == {"log": "pending"}
    assert shown["details"]["resolved"]["reason"] == "accepted"


@pytest.mark.slow
def test_accepted_outlier_rate_opens_no_new_incident(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("accept", 1)
    for outliers in (30, 28, 31, 0):
        payments.commit_minute(outliers)
    payments.run_due()
    assert fetch_rows(db, "SELECT count(*) FROM incidents WHERE kind = 'spike'") == [(1,)]
    payments.commit_minute(55)
    payments.commit_minute()
    payments.run_due()
    assert fetch_rows(db, "SELECT status FROM incidents WHERE kind = 'spike' ORDER BY id") == [("resolved",), ("open",)]


@pytest.mark.slow
def test_running_control_plane_uses_the_accepted_windows(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    rules = build_stream_rules(payments.settings, "payments")
    store = ThresholdStore(db)
    plane = payments.control_plane()
    for outliers in (0, 0, 30, 30, 0, 0, 0):
        payments.commit_minute(outliers)
    plane.run_due()
    newest = store.newest_threshold(payments.stream.id)
    assert newest is not None
    before = newest.details["law"]["windows"]
    (number,) = [row[0] for row in fetch_rows(db, "SELECT id FROM incidents WHERE status = 'open'")]
    assert outrider("accept", number).code == 0
    for _ in range(6):
        payments.commit_minute()
    plane.run_due()
    newest = store.newest_threshold(payments.stream.id)
    assert newest is not None
    tick_us = store.tick_facts(payments.stream.id).last_tick_us
    assert tick_us is not None
    cache = LookBackCache(payments.stream.id, newest.model_id, load_scale(newest.details))
    clean = cache.refresh(store, tick_us, rules).clean
    assert newest.details["law"]["windows"] == len(clean) > before + 5


@pytest.mark.slow
def test_unknown_incident_exits_with_2_and_names_the_latest(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    result = outrider("accept", 9)
    assert (result.code, result.out) == (2, "")
    assert "there is no incident 9; the latest are 1" in result.err


@pytest.mark.slow
def test_repeated_acceptance_changes_nothing(outrider: OutriderRunner, payments: PaymentsStream, db: Database) -> None:
    outrider("accept", 1)
    queries = ("SELECT * FROM incidents", "SELECT * FROM incident_verbs", "SELECT acceptances FROM streams")
    before = [fetch_rows(db, query) for query in queries]
    result = outrider("accept", 1)
    assert (result.code, result.err) == (0, "")
    assert "is accepted already; nothing was changed" in result.out
    assert [fetch_rows(db, query) for query in queries] == before


@pytest.mark.slow
def test_resolved_incident_is_reported_with_its_end(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    for _ in range(4):
        payments.commit_minute()
    payments.run_due()
    result = outrider("accept", 1)
    assert result.code == 2
    assert "incident 1 ended at 2026-01-01T00:0" in result.err


@pytest.mark.slow
def test_incident_that_resolves_itself_cannot_be_accepted(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.commit_minute(dead=20)
    payments.commit_minute()
    payments.run_due()
    result = outrider("accept", 2)
    assert result.code == 2
    assert "of kind dead_letters and cannot be accepted" in result.err


@pytest.mark.slow
def test_accepted_calibration_uses_the_plain_percentile_and_opens_no_new_incident(
    outrider: OutriderRunner, db: Database, tmp_path: Path, url: str
) -> None:
    more = "    threshold: {percentile: 99, look_back: 40m, refresh: 5m}\n    window: {ahead: 1m}\n"
    config = write_config(tmp_path, url)
    text = config.read_text().replace("    alerts: {min_outliers: 3}\n", "    alerts: {min_outliers: 3}\n" + more)
    config.write_text(text)
    payments = PaymentsStream(db, config)
    payments.add_model(percentile=99)
    commit_heavy_tail(payments, 60)
    (incident,) = fetch_rows(db, "SELECT id, summary FROM incidents WHERE kind = 'calibration' AND status = 'open'")
    assert "above the range that the reference energies allow" in incident[1]
    shown = outrider("incidents", "show", incident[0]).out
    assert "Either about" in shown
    assert outrider("accept", incident[0]).code == 0
    commit_heavy_tail(payments, 40)
    assert fetch_rows(db, "SELECT count(*) FROM incidents WHERE kind = 'calibration'") == [(1,)]
    newest = ThresholdStore(db).newest_threshold(payments.stream.id)
    assert newest is not None
    assert newest.method == "plain"


def commit_heavy_tail(payments: PaymentsStream, minutes: int) -> None:
    """Store minutes with a heavier tail than in training, equal in every window, so that no window is a spike."""
    rng = np.random.default_rng(payments.minute)
    for _ in range(minutes):
        energies = rng.normal(0, 1, 400).astype(np.float32)
        energies[::33] = rng.uniform(4, 9, len(energies[::33])).astype(np.float32)
        payments.commit_energies(energies)
    payments.run_due()
